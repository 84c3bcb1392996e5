"""The training loop: any method, any data set; stopped and started again, it goes on where it was."""

import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import grain
import jax
import numpy as np
from clu import parameter_overview
from ml_collections import ConfigDict

from mrdiff_jax import methods, parallel, workdir
from mrdiff_jax.config import Config, resolve
from mrdiff_jax.data.batches import train_iterator
from mrdiff_jax.data.datasets import Dataset, open_dataset
from mrdiff_jax.errors import UserError
from mrdiff_jax.evaluation import evaluator, run_page
from mrdiff_jax.evaluation.evaluator import Evaluator
from mrdiff_jax.evaluation.results import Summary
from mrdiff_jax.evaluation.run import finish
from mrdiff_jax.log import duration, logger
from mrdiff_jax.methods.contract import Variables
from mrdiff_jax.methods.reading import restore_evaluated
from mrdiff_jax.methods.transfer import continued
from mrdiff_jax.metrics.conventions import HIGHER_IS_BETTER, METRICS
from mrdiff_jax.storage.checkpoints import Checkpoints, restore_part
from mrdiff_jax.storage.paths import check_workdir, local_path
from mrdiff_jax.streams import named
from mrdiff_jax.training.meter import Meter
from mrdiff_jax.training.step import TrainState, create_train_state, make_train_step
from mrdiff_jax.training.time_limit import TimeLimit
from mrdiff_jax.training.writer import Writer


class Diverged(RuntimeError):
    """The loss or its gradient is no longer finite."""


def train_and_evaluate(config: ConfigDict, folder: Path) -> Summary:
    """Trains to `config.train.steps`, from the newest checkpoint if there is one, then evaluates on the test subjects.

    Leaves in the workdir: config.json, training_data.json, checkpoints/, log.jsonl and TensorBoard events, panels/ of the
    evaluations in training, and what `evaluator.write` writes.

    Returns:
      What metrics.json then says.

    Raises:
      UserError: a field, the data or the workdir does not fit.
      Diverged: a loss became infinite or NaN; the newest checkpoint is from before.
    """
    config = resolve(config)
    check_workdir(folder)
    run = Run(config, folder)
    folder.mkdir(parents=True, exist_ok=True)
    with workdir.training(folder):
        state, trained = run.train()
        variables, step = run.chosen(state, trained)
        with workdir.evaluating(folder, wait=True):
            return finish(config, folder, run.dataset, run.evaluator, variables, step, trained)


class Run:
    """One training: its data, its method and its folder."""

    def __init__(self, config: Config, folder: Path):
        self.limit, self._validation = TimeLimit(config.train.max_minutes), 0.0
        self.config, self.workdir = config, folder
        self.method = methods.create(config)
        self.dataset = open_dataset(config.data)
        workdir.check_same_run(folder, config, self.dataset)
        self.best_by = config.train.best_by if len(self.dataset.split("validation")) else ""
        if self.best_by != config.train.best_by:
            logger.warning("no subject is left for validation: the last weights count, not the best")
        if self.best_by and config.train.evaluate_every >= config.train.steps:
            logger.warning("--config.train.evaluate_every is no less than the steps: no weights but the last are validated")
        self.iterator = _iterator(config, self.dataset)
        self.evaluator = Evaluator(self.method, self.dataset, config.evaluate)
        self.checkpoints = Checkpoints(folder, config.train.keep_checkpoints)
        self._key, recipe, self._begun_with = jax.random.key(config.train.seed), config.optimizer, self._origin()
        step = make_train_step(self.method, recipe, named(self._key, "steps"))
        self.train_step = parallel.pmap(step, donate=(0,), once=True, lean=self.method.lean)

    def initial(self) -> TrainState:
        """The state before training, made anew: kept, it would take memory while the training runs."""
        example = _example(self.dataset)
        key = named(self._key, "weights")
        return create_train_state(self.method, self.config.optimizer, key, example, self._begun_with)

    def _origin(self) -> Callable[[Variables], Variables]:
        """What puts weights of elsewhere in the place of fresh ones; nothing does where a checkpoint is there to go on from."""
        if self.checkpoints.latest() is not None:
            return lambda fresh: fresh
        if self.config.train.init:
            return partial(continued, workdir=_workdir_of(self.config.train.init))
        return self.method.begin

    def train(self) -> tuple[TrainState, int]:
        """The loop; returns the replicated state, and the steps taken."""
        every, steps = self.config.train, self.config.train.steps
        state, first = self._start()
        meter = Meter(first)
        if first < steps:
            logger.info("compiling the training step, unless it is kept from an earlier run")
        with closing(self.checkpoints), closing(Writer(self.workdir, active=jax.process_index() == 0)) as writer:
            step, scored = first, self.checkpoints.has_score(first)
            if self.best_by and not scored and 0 < first < steps and first % every.evaluate_every == 0:
                self._validate(writer, state, first)  # before which the run was killed
            while step < steps and not self._time_is_up(meter):
                progress = np.full(jax.local_device_count(), self.progress(step), np.float32)
                state, metrics = self.train_step(state, parallel.shard(next(self.iterator)), progress)
                step, scored = step + 1, False
                meter.add(metrics)
                if step == first + 1:
                    jax.block_until_ready(metrics)
                    logger.info("first step after %s", duration(time.monotonic() - self.limit.started))
                    self._begin(state)
                    meter.restart()
                if step % every.log_every == 0:
                    self._report(writer, step, meter)
                validates = step % every.evaluate_every == 0 and step < steps
                if step % every.checkpoint_every == 0 or (validates and self.best_by):
                    self._save(state, step, meter)
                    meter.restart()
                if validates and parallel.said_by_first(self.limit.left() > self._validation):
                    self._validate(writer, state, step)
                    meter.restart()
                    scored = True
            if meter.pending:
                self._report(writer, step, meter)
            self._save(state, step, meter)
            if self.best_by and not scored:
                self._validate(writer, state, step)
        return state, step

    def chosen(self, state: TrainState, trained: int) -> tuple[Variables, int]:
        """The replicated variables to evaluate, and their step: the last ones, or by `train.best_by` the best ones."""
        if not self.best_by:
            return state.evaluated(), trained
        step, variables = restore_evaluated(partial(restore_part, self.workdir), lambda shapes: shapes)
        logger.info("evaluating the weights of step %d, whose validation has the best %s", step, self.best_by)
        return parallel.replicate(variables), step

    def progress(self, step: int) -> float:
        """Share of the training that is done, by steps or by the clock, whichever is further."""
        return min(max(step / self.config.train.steps, self.limit.share()), 1.0)

    def _time_is_up(self, meter: Meter) -> bool:
        """Whether the clock ends the training; several hosts, whose clocks differ, learn it from a step that all have done."""
        return meter.progress() >= 1 if jax.process_count() > 1 else self.limit.left() <= 0

    def _start(self) -> tuple[TrainState, int]:
        """Claims the folder, and returns the replicated state to begin with or to go on from, and its step."""
        state = self.initial()
        workdir.claim(self.workdir, self.config, self.dataset, self.method)
        logger.info(
            "%s: %d slices to train on, %.1f M parameters, %d device(s)",
            self.config.method.name,
            len(self.dataset.split("train")),
            parameter_overview.count_parameters(state.variables.params) / 1e6,
            jax.device_count(),
        )
        logger.info("subjects of each split: %s", self.workdir / workdir.SPLITS)
        if self.checkpoints.latest() is not None:
            state = self.checkpoints.restore(state, self.iterator)
            logger.info("going on from step %d", state.step)
        return parallel.replicate(state), int(state.step)

    def _begin(self, state: TrainState) -> None:
        """Lets the time of the training count, and finds out how long a validation takes."""
        if not self.limit:
            return
        evaluation = self.evaluator.seconds(state.evaluated())
        slices = self.config.evaluate.slices or len(self.dataset.split("validation"))
        self._validation = evaluation * slices / len(self.dataset.split(self.evaluator.split))
        self.limit.begin(evaluation + (self._validation if self.best_by else 0))

    def _save(self, state: TrainState, step: int, meter: Meter) -> None:
        """Saves a checkpoint, unless the run has diverged."""
        self._check(meter)
        self.checkpoints.save(step, parallel.unreplicate(state), self.iterator)

    def _check(self, meter: Meter) -> None:
        for step, metrics in meter.read():
            wrong = [name for name, value in metrics.items() if not np.isfinite(value)]
            if wrong:
                raise Diverged(
                    f"step {step}: {', '.join(wrong)} not finite; the newest checkpoint is of step"
                    f" {self.checkpoints.latest()}; try a lower --config.optimizer.learning_rate or"
                    " --config.optimizer.clip_norm=1"
                )

    def _report(self, writer: Writer, step: int, meter: Meter) -> None:
        """Writes the means since the last report, and prints them with the time left."""
        self._check(meter)
        speed, means = meter.speed(), meter.means()
        meter.clear()
        writer.scalars(step, {f"train/{name}": value for name, value in means.items()} | {"train/steps_per_second": speed})
        left = min((self.config.train.steps - step) / max(speed, 1e-9), self.limit.left())
        pace = f"{speed:.2f} steps/s  {duration(left)} left" if speed else ""
        losses = "  ".join(f"{name} {value:.3g}" for name, value in means.items() if name.startswith("L_"))
        logger.info("step %d/%d  %s  %s", step, self.config.train.steps, losses, pace)

    def _judged(self) -> dict[str, Any]:
        """What a score of a validation is of: only scores that agree in this tell which weights are better."""
        sample = {name: getattr(self.config.sample, name) for name in self.method.sampling} if self.config.sample else {}
        rule = {name: getattr(self.config.evaluate, name) for name in ("convention", "slices", "seed")}
        return {"score": self.best_by, **rule, **sample}

    def _validate(self, writer: Writer, state: TrainState, step: int) -> None:
        if not len(self.dataset.split("validation")):
            logger.info("step %d  no validation: no subject is left for it", step)
            return
        evaluation = self.evaluator(state.evaluated(), "validation", self.config.evaluate.slices)
        scores = evaluation.scores.means(METRICS, self.config.evaluate.convention)
        if self.best_by:
            self.checkpoints.note(step, scores[self.best_by], self._judged(), HIGHER_IS_BETTER[self.best_by])
        writer.scalars(step, {f"validation/{name}": value for name, value in scores.items()})
        logger.info("step %d  validation  %s", step, "  ".join(f"{n} {v:.4g}" for n, v in scores.items()))
        if jax.process_index():
            return
        panels = self.workdir / workdir.PANELS
        panels.mkdir(exist_ok=True)
        picture = evaluator.draw(evaluation, panels / f"step_{step:07d}.png")
        if picture is not None:
            writer.image(step, "validation", picture)
        run_page.write(self.workdir)


def _workdir_of(init: str) -> Path:
    """The run that `train.init` names. Raises UserError where it is none."""
    workdir = local_path(init, "--config.train.init")
    if Checkpoints(workdir, keep=1).latest() is None:
        raise UserError(f"--config.train.init={init}: no run with a checkpoint there; give the workdir of a trained run")
    return workdir


def _iterator(config: Config, dataset: Dataset) -> grain.DatasetIterator:
    """The batches to train on. Raises UserError where they cannot be spread over the devices."""
    try:
        batch_size = parallel.local_batch_size(config.data.batch_size)
    except ValueError as error:
        raise UserError(f"--config.data.batch_size={config.data.batch_size}: {error}") from error
    return train_iterator(
        dataset,
        batch_size,
        config.train.seed,
        mirror=config.data.mirror and dataset.preparation.plane != "sagittal",
        intensity=config.data.intensity,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )


def _example(dataset: Dataset) -> dict[str, np.ndarray]:
    """A batch of one, for its shapes."""
    return next(train_iterator(dataset, 1, 0))
