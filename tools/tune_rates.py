"""Searches the learning rate of each method: trains with multiples of its recipe's rate, and scores the validation subjects.

    python tools/tune_rates.py --config=configs/demo.py --output=rates.csv --minutes=2 --factors=0.3,1,3

Takes any configuration and any of its fields, as `mrdiff train` does. Each training gets as many steps as fit into --minutes
at the method's speed, which is measured before its first; so a busy machine takes longer, and finds the same. The test subjects
are not looked at. The CSV has a row for each training, written as it ends, with the mean scores of the validation subjects
(`config.evaluate.slices` of their slices; empty where the training diverged); the same command again does what is missing, of
other methods and factors, too.
"""

import csv
import io
import itertools
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

from absl import flags
from ml_collections import ConfigDict, config_flags

from mrdiff_jax import cli, methods, parallel
from mrdiff_jax.config import resolve
from mrdiff_jax.data.datasets import open_dataset
from mrdiff_jax.errors import UserError
from mrdiff_jax.experiments import plan
from mrdiff_jax.fields import split_names
from mrdiff_jax.log import logger
from mrdiff_jax.metrics.conventions import METRICS
from mrdiff_jax.storage.files import write_text
from mrdiff_jax.storage.paths import check_writable, local_path
from mrdiff_jax.training.loop import Diverged, Run

_CONFIG = config_flags.DEFINE_config_file("config", None, "Settings of all trainings.")
_OUTPUT = flags.DEFINE_string("output", None, "CSV file to write, or to go on with.")
_METHODS = flags.DEFINE_string("methods", ",".join(methods.NAMES), "Methods, comma-separated.")
_FACTORS = flags.DEFINE_string("factors", "0.3,1,3", "Of the recipe's learning rate, comma-separated.")
_MINUTES = flags.DEFINE_float("minutes", None, "Of each training.", lower_bound=0)
flags.mark_flags_as_required(["config", "output", "minutes"])

COLUMNS = ("method", "learning_rate", "steps", *METRICS, "flags")
Row = dict[str, str]
Result = TypeVar("Result")


def main() -> None:
    """Trains what the CSV lacks."""
    config, output = cli.config_of(_CONFIG), local_path(_OUTPUT.value, "--output")
    names, factors = [methods.require(name) for name in split_names(_METHODS.value)], _factors(_FACTORS.value)
    if not names:
        raise UserError(f"--methods={_METHODS.value}: give one or more")
    check_writable(output.parent)
    settings = " ".join([*cli.config_words(sys.argv[1:]), f"--minutes={_MINUTES.value:g}"])
    rows = _known(output, settings)
    steps = {row["method"]: int(row["steps"]) for row in rows}
    for name, factor in itertools.product(names, factors):
        chosen = config.copy_and_resolve_references()
        chosen.method.name = name
        rate = float(f"{factor * resolve(chosen).optimizer.learning_rate:.3g}")
        if any(row["method"] == name and float(row["learning_rate"]) == rate for row in rows):
            continue
        if name not in steps:
            steps[name] = max(1, round(60 * _MINUTES.value / alone(seconds_of_a_step, chosen)))
        chosen.optimizer.learning_rate = rate
        chosen.train.update(steps=steps[name], max_minutes=0)
        scores = alone(validated, chosen)
        rows.append({"method": name, "learning_rate": f"{rate:g}", "steps": str(steps[name])} | scores | {"flags": settings})
        write_text(output, table(rows))
        logger.info("%s, rate %g, %d steps: %s", name, rate, steps[name], scores or "diverged")


def _known(output: Path, settings: str) -> list[Row]:
    """The rows of a search that goes on. Raises UserError for one with other settings."""
    rows = list(csv.DictReader(output.read_text(encoding="utf-8").splitlines())) if output.exists() else []
    for row in rows:
        if row.get("flags") != settings:
            raise UserError(f"{output}: has rows of other --config or --minutes flags; give the same, or name another --output")
    return rows


def _factors(text: str) -> list[float]:
    try:
        factors = [float(word) for word in split_names(text)]
    except ValueError:
        factors = []
    if not factors or min(factors) <= 0:
        raise UserError(f"--factors={text}: give numbers above 0, comma-separated")
    return factors


def alone(task: Callable[[ConfigDict], Result], config: ConfigDict) -> Result:
    """A task in a process of its own, whose memory and compiled programs go with it."""
    with ProcessPoolExecutor(1, get_context("spawn"), initializer=cli.keep_programs) as process:
        return process.submit(task, config).result()


def seconds_of_a_step(config: ConfigDict) -> float:
    """The speed, of a training that can be validated. Raises UserError where no subject is left for that."""
    if not len(open_dataset(resolve(config).data).split("validation")):
        raise UserError("no subject is left for validation; raise --config.data.validation_fraction, or name some in splits")
    return plan.seconds_of_a_step(config)


def validated(config: ConfigDict) -> Row:
    """Mean scores of the validation subjects after training; empty if it diverged."""
    config = resolve(config)
    parallel.initialize(config.data.batch_size)
    with tempfile.TemporaryDirectory() as folder:
        run = Run(config, Path(folder))
        try:
            state, _ = run.train()
        except Diverged:
            return {}
        evaluation = run.evaluator(state.evaluated(), "validation", config.evaluate.slices)
        means = evaluation.scores.means(METRICS, config.evaluate.convention)
        return {name: f"{value:.5g}" for name, value in means.items()}


def table(rows: Sequence[Row]) -> str:
    """The rows as CSV."""
    file = io.StringIO()
    writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


if __name__ == "__main__":
    cli.run(main, __doc__)
