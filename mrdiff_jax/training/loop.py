"""The training loop: any method, any data set; stopped and started again, it goes on where it was."""

import json
import time
from contextlib import AbstractContextManager, closing, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import grain
import jax
import numpy as np
from clu import parameter_overview
from ml_collections import ConfigDict

from mrdiff_jax import methods, parallel
from mrdiff_jax.config import default, validate
from mrdiff_jax.data.batches import train_iterator
from mrdiff_jax.data.datasets import Dataset, open_dataset
from mrdiff_jax.data.training_data import describe_training
from mrdiff_jax.errors import UserError
from mrdiff_jax.evaluation import evaluator, results
from mrdiff_jax.methods import Params
from mrdiff_jax.metrics.conventions import METRICS
from mrdiff_jax.storage import json_files, lock
from mrdiff_jax.storage.checkpoints import Checkpoints
from mrdiff_jax.storage.files import write_text
from mrdiff_jax.storage.paths import check_workdir, check_writable
from mrdiff_jax.training.meter import Meter
from mrdiff_jax.training.step import StepFn, TrainState, create_train_state, make_optimizer, make_train_step
from mrdiff_jax.training.writer import Writer, duration, logger

_IDENTITY, _TRAINING_DATA = "run.json", "training_data.json"
_TRAINING, _EVALUATING = ".training.lock", ".evaluating.lock"


class Diverged(RuntimeError):
    """The loss or its gradient is no longer finite."""


def train_and_evaluate(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Trains to `config.train.steps`, from the newest checkpoint if there is one, then evaluates on the test subjects.

    Leaves in the workdir: config.json, training_data.json, checkpoints/, log.jsonl and TensorBoard events, panels/ of the
    evaluations in training, and what `evaluate.write` writes.

    Returns:
      The content of metrics.json.

    Raises:
      UserError: a field, the data or the workdir does not fit.
      Diverged: a loss became infinite or NaN; the newest checkpoint is from before.
    """
    check_workdir(workdir)
    run = Run(config, workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    with _alone(workdir, _TRAINING, "trains"):
        params, step = run.train()
        with _alone(workdir, _EVALUATING, "evaluates", wait=True):
            return run.finish(params, step)


def evaluate_only(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Evaluates the newest checkpoint on the test subjects; result and errors as for training."""
    from mrdiff_jax.evaluation import studies  # not above: what they need takes a second to load, and training does not need it
    from mrdiff_jax.evaluation.studies.context import Context

    if not workdir.is_dir():
        raise UserError(f"{workdir}: no such folder; train first, with --mode=train")
    check_writable(workdir)
    run = Run(config, workdir)
    names = studies.chosen(config, run.dataset, run.method)
    with _alone(workdir, _EVALUATING, "evaluates"):
        _describe_data(workdir, run)
        state = run.checkpoints.restore_state(run.initial)
        params = parallel.replicate(state.ema_params)
        summary = run.finish(params, int(state.step))
        rows = list(studies.run(names, Context(config, run.dataset, run.method, run.evaluator, params)))
        if jax.process_index() == 0:
            results.write_studies(rows, config.evaluate.convention, workdir)
    return summary


class Run:
    """One run: its data, its method and its folder."""

    def __init__(self, config: ConfigDict, workdir: Path):
        validate(config)
        self.started = time.monotonic()
        self.config, self.workdir = config, workdir
        self.method = method = methods.create(config)
        self.dataset = open_dataset(config.data)
        _check_same_run(workdir, config, self.dataset)
        self.evaluator = evaluator.Evaluator(method, self.dataset, config.evaluate)
        self.checkpoints = Checkpoints(workdir, config.train.keep_checkpoints)
        init_key, self._step_key = jax.random.split(jax.random.key(config.train.seed))
        self._optimizer = make_optimizer(config.optimizer)
        self.initial = create_train_state(method, self._optimizer, init_key, _example(self.dataset))

    @cached_property
    def iterator(self) -> grain.DatasetIterator:
        """The batches to train on.

        Raises:
          UserError: they do not divide over the devices.
        """
        config = self.config
        try:
            batch_size = parallel.local_batch_size(config.data.batch_size)
        except ValueError as error:
            raise UserError(f"--config.data.batch_size={config.data.batch_size}: {error}") from error
        return train_iterator(
            self.dataset,
            batch_size,
            config.train.seed,
            mirror=config.data.mirror and self.dataset.preparation.plane != "sagittal",
            intensity=config.data.intensity,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )

    @cached_property
    def train_step(self) -> StepFn:
        """The step on all devices."""
        of_average = self.config.optimizer
        step = make_train_step(self.method, self._optimizer, of_average.ema_decay, self._step_key, of_average.ema_warmup)
        return parallel.pmap(step, donate=(0,))

    def train(self) -> tuple[Params, int]:
        """The loop; returns the averaged parameters, replicated, and the steps taken."""
        iterator = self.iterator  # which may be refused: before the workdir is claimed
        _claim(self.workdir, self)
        every, steps = self.config.train, self.config.train.steps
        state, first = self._start()
        deadline = float("inf")
        meter = Meter(first)
        with closing(self.checkpoints), closing(Writer(self.workdir, active=jax.process_index() == 0)) as writer:
            step = first
            while step < steps and time.monotonic() < deadline:
                rate = np.full(jax.local_device_count(), self.rate(step, deadline), np.float32)
                state, metrics = self.train_step(state, parallel.shard(next(iterator)), rate)
                step += 1
                meter.add(metrics)
                if step == first + 1:
                    jax.block_until_ready(metrics)
                    logger.info("first step after %s", duration(time.monotonic() - self.started))
                    deadline = self._deadline(state)
                    meter.restart()
                if step % every.log_every == 0 or step == steps:
                    self._report(writer, step, meter, deadline)
                if step % every.checkpoint_every == 0:
                    self._save(state, step, meter)
                    meter.restart()
                if step % every.evaluate_every == 0 and step < steps and time.monotonic() < deadline:
                    self._validate(writer, state, step)
                    meter.restart()
            self._save(state, step, meter)
        return state.ema_params, step

    def finish(self, params: Params, step: int) -> dict[str, Any]:
        """Evaluates on the test subjects, writes the results and prints them."""
        logger.info("evaluating %d slices of the test subjects", len(self.dataset.split("test")))
        evaluation = self.evaluator(params, "test")
        config = self.config
        about = {
            "step": step,
            "method": config.method.name,
            "sources": list(self.dataset.sources),
            "target": self.dataset.target,
            "copied": self.dataset.sources[self.evaluator.references.better_source],
            "linear_weights": self.evaluator.references.weights.tolist(),
            "sample": config.sample.to_dict(),
            "seed": config.evaluate.seed,
            "dataset": self.dataset.fingerprint,
        }
        scores = {"synthesis": evaluation.scores, **self.evaluator.reference_scores}
        summary = evaluator.summarise(scores, config.evaluate.convention, about)
        if jax.process_index() == 0:
            evaluator.write(evaluation, scores, summary, self.workdir)
        print(evaluator.table(summary, self.dataset.sources))
        print(f"metrics.json, metrics.csv, samples.png, checkpoints and event files are in {self.workdir}")
        return summary

    def _start(self) -> tuple[TrainState, int]:
        """The replicated state to go on from, and its step."""
        state = self.initial
        logger.info(
            "%s: %d slices to train on, %.1f M parameters, %d device(s)",
            self.config.method.name,
            len(self.dataset.split("train")),
            parameter_overview.count_parameters(state.params) / 1e6,
            jax.device_count(),
        )
        logger.info("subjects of each split: %s", self.workdir / "splits.csv")
        if self.checkpoints.latest() is not None:
            state = self.checkpoints.restore(state, self.iterator)
            logger.info("going on from step %d", state.step)
        return parallel.replicate(state), int(state.step)

    def _deadline(self, state: TrainState) -> float:
        """When training must stop for the whole run to end in `max_minutes`."""
        minutes = self.config.train.max_minutes
        if not minutes:
            return float("inf")
        evaluation = self.evaluator.seconds(state.ema_params, "test")
        logger.info("time limit %s, of which the evaluation needs %s", duration(60 * minutes), duration(evaluation))
        deadline = self.started + 60 * minutes - 1.1 * evaluation - 20
        if deadline < time.monotonic():
            logger.warning("no time is left to train: the evaluation follows; raise --config.train.max_minutes")
        return deadline

    def rate(self, step: int, deadline: float) -> float:
        """Share of the learning rate at a step: 1, or the share of the training that is left by steps or by the clock."""
        if self.config.optimizer.schedule == "constant":
            return 1.0
        by_clock = (deadline - time.monotonic()) / (deadline - self.started) if self.started < deadline < np.inf else 1.0
        return max(min(1 - step / self.config.train.steps, by_clock), 0.0)

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

    def _report(self, writer: Writer, step: int, meter: Meter, deadline: float) -> None:
        """Writes the means since the last report, and prints them with the time left."""
        self._check(meter)
        speed, means = meter.speed(), meter.means()
        meter.clear()
        writer.scalars(step, {f"train/{name}": value for name, value in means.items()} | {"train/steps_per_second": speed})
        left = min((self.config.train.steps - step) / max(speed, 1e-9), max(deadline - time.monotonic(), 0))
        pace = f"{speed:.2f} steps/s  {duration(left)} left" if speed else ""
        losses = "  ".join(f"{name} {value:.3g}" for name, value in means.items() if name.startswith("L_"))
        logger.info("step %d/%d  %s  %s", step, self.config.train.steps, losses, pace)

    def _validate(self, writer: Writer, state: TrainState, step: int) -> None:
        if not len(self.dataset.split("validation")):
            logger.info("step %d  no validation: no subject is left for it", step)
            return
        evaluation = self.evaluator(state.ema_params, "validation", self.config.evaluate.slices)
        scores = evaluation.scores.means(METRICS, self.config.evaluate.convention)
        writer.scalars(step, {f"validation/{name}": value for name, value in scores.items()})
        logger.info("step %d  validation  %s", step, "  ".join(f"{n} {v:.4g}" for n, v in scores.items()))
        (self.workdir / "panels").mkdir(exist_ok=True)
        picture = evaluator.draw(evaluation, self.workdir / "panels" / f"step_{step:07d}.png")
        if picture is not None:
            writer.image(step, "validation", picture)


def _example(dataset: Dataset) -> dict[str, np.ndarray]:
    """A batch of one, for its shapes."""
    return next(train_iterator(dataset, 1, 0))


def _identity(config: ConfigDict, dataset: Dataset) -> dict[str, Any]:
    """What makes a run itself, by flag; the rest may change when it goes on."""
    values = json.loads(config.to_json())
    sections = ("method", "data", "model", "diffusion", "loss", "optimizer")
    identity = {f"--config.{section}.{field}": value for section in sections for field, value in values[section].items()}
    for field in ("root", "cache"):  # where the data lie does not matter: their fingerprint tells which they are
        del identity[f"--config.data.{field}"]
    settings = {"--config.train.seed": values["train"]["seed"], "the data set": dataset.fingerprint}
    return identity | settings | parallel.numerics()


def _check_same_run(workdir: Path, config: ConfigDict, dataset: Dataset) -> None:
    """Checks that a run in the workdir is this one.

    Raises:
      UserError: it has other settings or other data; the message names the first difference.
    """
    path = workdir / _IDENTITY
    if not path.exists():
        return
    written = json_files.read(path, "remove it, if your settings are those of config.json beside it, and call again")
    old = _identity(default(None), dataset) | written  # fields that are newer than the run: as by default
    for name, now in json.loads(json.dumps(_identity(config, dataset))).items():
        if json.loads(json.dumps(old[name])) != now:
            raise UserError(
                f"{workdir}: holds a run with {name}={old[name]}, now {now}; choose another --workdir or the same settings"
            )


def _claim(workdir: Path, run: Run) -> None:
    """Makes the workdir the home of this run: its settings, what identifies it, and the subjects of each split."""
    if jax.process_index():
        return
    _check_same_run(workdir, run.config, run.dataset)  # again: until the lock was held, another process may have claimed it
    _describe_data(workdir, run)
    json_files.write(workdir / "config.json", json.loads(run.config.to_json()))
    write_text(workdir / "splits.csv", run.dataset.splits_file.read_text(encoding="utf-8"))
    json_files.write(workdir / _IDENTITY, _identity(run.config, run.dataset))


def _describe_data(workdir: Path, run: Run) -> None:
    """Leaves in the workdir what synthesis must know of the training data, which need not be at hand then."""
    if jax.process_index() == 0 and not (workdir / _TRAINING_DATA).exists():
        json_files.write(workdir / _TRAINING_DATA, describe_training(run.dataset, run.method.inverted).to_json())


def _alone(workdir: Path, name: str, what: str, wait: bool = False) -> AbstractContextManager[None]:
    """Holds a lock of the workdir, where this process is the one that writes to it."""
    return nullcontext() if jax.process_index() else lock.hold(workdir / name, what, wait)
