"""A trained run scored on its held-out subjects: the end of training, and all of `--mode=eval`."""

from functools import partial
from pathlib import Path

import jax
from ml_collections import ConfigDict

from mrdiff_jax import methods, parallel, workdir
from mrdiff_jax.config import Config, resolve
from mrdiff_jax.data.datasets import Dataset, open_dataset
from mrdiff_jax.errors import UserError
from mrdiff_jax.evaluation import results, run_page, studies
from mrdiff_jax.evaluation.evaluator import Evaluator, summarise, table, write
from mrdiff_jax.evaluation.results import Summary
from mrdiff_jax.evaluation.studies.context import Context
from mrdiff_jax.log import logger
from mrdiff_jax.methods.contract import Variables
from mrdiff_jax.methods.reading import restore_evaluated, synthesis_part
from mrdiff_jax.storage.checkpoints import Checkpoints, restore_part
from mrdiff_jax.storage.paths import check_writable


def evaluate_only(config: ConfigDict, folder: Path) -> Summary:
    """Evaluates the newest checkpoint, or the best by `train.best_by`, on the subjects of `evaluate.split`.

    Only what synthesis and studies read is loaded.

    Returns:
      What metrics.json then says.

    Raises:
      UserError: a field, the data or the workdir does not fit.
    """
    config = resolve(config)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; train first, with --mode=train")
    check_writable(folder)
    method, dataset = methods.create(config), open_dataset(config.data)
    workdir.check_same_run(folder, config, dataset)
    evaluator = Evaluator(method, dataset, config.evaluate)
    names = studies.chosen(config, dataset, method)
    with workdir.evaluating(folder):
        workdir.describe(folder, dataset, method)
        choose = partial(synthesis_part, method, config, maps=True)
        step, read = restore_evaluated(partial(restore_part, folder), choose)
        variables = parallel.replicate(read)
        trained = Checkpoints(folder, config.train.keep_checkpoints).latest()
        summary = finish(config, folder, dataset, evaluator, variables, step, trained)
        context, rows = Context(config, dataset, method, evaluator, variables), []
        for name in names:  # what one study found is kept whatever becomes of the next
            rows += studies.run(name, context)
            if jax.process_index() == 0:
                results.write_studies(rows, config.evaluate.convention, folder)
    return summary


def finish(
    config: Config, folder: Path, dataset: Dataset, evaluator: Evaluator, variables: Variables, step: int, trained: int | None
) -> Summary:
    """Evaluates replicated variables on the subjects of the split, writes and prints the results; returns their summary.

    They are of that step of a training that took as many as are `trained`.
    """
    split = evaluator.split
    logger.info("evaluating %d slices of the %s subjects", len(dataset.split(split)), split)
    evaluation = evaluator(variables, split)
    about = {
        "step": step,
        "trained": trained,
        "method": config.method.name,
        "sources": tuple(dataset.sources),
        "target": dataset.target,
        "copied": dataset.sources[evaluator.references.better_source],
        "linear_weights": tuple(evaluator.references.weights.tolist()),
        "sample": {name: getattr(config.sample, name) for name in evaluator.method.sampling} if config.sample else None,
        "segmenter": config.evaluate.segmenter.strip() or None,
        "split": split,
        "seed": config.evaluate.seed,
        "dataset": dataset.fingerprint,
    }
    scores = {"synthesis": evaluation.scores, **evaluator.reference_scores}
    summary = summarise(scores, config.evaluate.convention, about)
    print(table(summary))
    if jax.process_index() == 0:
        written = write(evaluation, scores, summary, folder)
        written += [run_page.NAME] if run_page.write(folder) else []
        print(f"{', '.join(written)}, checkpoints and event files are in {folder}")
    return summary
