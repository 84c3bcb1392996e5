"""Trains methods on one data set under one rule of fairness, scores them, and compares them.

    python tools/run_comparison.py --config=configs/demo.py --output=runs/table1 --rule=time --minutes=8 --seeds=0,1

Takes any configuration and any of its fields, as `mrdiff_jax.main` does; a method's own fields count for that method alone
(`--config.hinet.optimizer.learning_rate=1e-3`). The rule says how many optimiser steps each method gets:

    time     as many as it takes in --minutes of training on this machine. The speed of each method is measured once, in
             rounds that alternate between the methods, so that a busy hour costs all of them alike; compiling and
             evaluating do not count
    steps    config.train.steps, the same for all
    recipe   a --share of its published training, by slices seen (PUBLISHED below)

The first of --methods is the one that the others are tested against. Each run is a call of `mrdiff_jax.main`, in sequence, or
--parallel=N at a time on the first N GPUs. The output folder holds plan.json with the steps of each method, a workdir and a log
for each method and seed, runs.csv, and comparison/ as `mrdiff_jax.compare` writes it. The same command again goes on where a
killed one was; a run that failed is tried again, and the others are compared without it.
"""

import csv
import io
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict, config_flags

from mrdiff_jax import cli, methods, parallel
from mrdiff_jax.config import resolve
from mrdiff_jax.data.datasets import open_dataset
from mrdiff_jax.errors import UserError
from mrdiff_jax.evaluation import results
from mrdiff_jax.fields import split_names
from mrdiff_jax.log import duration, logger
from mrdiff_jax.storage import json_files
from mrdiff_jax.storage.files import write_text
from mrdiff_jax.storage.paths import check_writable, local_path
from mrdiff_jax.synthesis import model_files
from mrdiff_jax.training import speed

_CONFIG = config_flags.DEFINE_config_file("config", None, "Settings of all runs.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder for the runs and the comparison.")
_METHODS = flags.DEFINE_string("methods", ",".join(methods.NAMES), "Methods, comma-separated.")
_SEEDS = flags.DEFINE_string("seeds", "0", "Seeds of each method, comma-separated.")
_RULE = flags.DEFINE_enum("rule", "time", ["time", "steps", "recipe"], "What is equal: see above.")
_MINUTES = flags.DEFINE_float("minutes", None, "Of training, for each run, by the rule 'time'.", lower_bound=0)
_SHARE = flags.DEFINE_float("share", None, "Of the published training, by the rule 'recipe'.", lower_bound=0)
_PARALLEL = flags.DEFINE_integer("parallel", 1, "Runs at a time, each on a GPU of its own.", lower_bound=1)
flags.mark_flags_as_required(["config", "output"])

ROUNDS = 3  # of measuring a method's speed
EPOCHS, STEPS_OF_8 = "epochs", "steps of 8 slices"
PUBLISHED = {  # lengths of training
    "mrdiff": (350_000, STEPS_OF_8),
    "regression": (350_000, STEPS_OF_8),  # MRDiff's, whose network it has
    "pix2pix": (200, EPOCHS),
    "hinet": (400, EPOCHS),
    "resvit": (150, EPOCHS),
    "blochgan": (200, EPOCHS),  # not published: that of pix2pix, whose recipe it has
    "cm": (350_000, STEPS_OF_8),  # these three not published for such data: MRDiff's
    "cdpm": (350_000, STEPS_OF_8),
    "m2dn": (350_000, STEPS_OF_8),
}


@dataclass(frozen=True)
class Plan:
    """What is to be trained.

    Attributes:
      command: the flags that decide it, and must be the same when the plan goes on; seeds may be added.
      steps: optimiser steps, by method.
      seconds: of a step, by method, where the rule measured it.
    """

    command: dict[str, str]
    steps: dict[str, int]
    seconds: dict[str, float]


@dataclass(frozen=True)
class Entry:
    """One run of the plan."""

    method: str
    seed: int
    steps: int
    workdir: Path

    @property
    def log(self) -> Path:
        """What the run prints."""
        return self.workdir.with_suffix(".log")

    def ended(self) -> bool:
        """Whether it has been trained to its last step and scored."""
        try:
            return json_files.read(self.workdir / "metrics.json", "")["step"] == self.steps
        except UserError:
            return False

    def share(self) -> float:
        """Of its steps, those that its log has."""
        if self.ended():
            return 1.0
        try:
            lines = (self.workdir / "log.jsonl").read_text(encoding="utf-8").splitlines()
            return json.loads(lines[-1])["step"] / self.steps
        except (OSError, IndexError, ValueError):
            return 0.0


def main() -> None:
    """Plans, trains, and compares."""
    jax.config.update("jax_platforms", "cpu")  # of this process: the devices are the runs'
    config, output = cli.config_of(_CONFIG), local_path(_OUTPUT.value, "--output")
    names = [methods.require(name) for name in _distinct("methods", _METHODS.value)]
    seeds = _distinct("seeds", _SEEDS.value)
    settings = _settings(sys.argv[1:])
    _check(config, names, seeds)
    check_writable(output)
    output.mkdir(parents=True, exist_ok=True)
    plan = _plan(config, names, settings, output)
    entries = [
        Entry(name, int(seed), plan.steps[name], output / f"{name}-{seed}") for seed in seeds for name in names
    ]  # every method once before any a second time
    failed = run(entries, plan.seconds, settings, _PARALLEL.value)
    ended = {name: [entry for entry in entries if entry.method == name and entry not in failed] for name in names}
    ended = {name: of_method for name, of_method in ended.items() if of_method}
    write_text(output / "runs.csv", table(list(itertools.chain(*ended.values()))))
    if ended:
        rows = [",".join(str(entry.workdir) for entry in of_method) for of_method in ended.values()]
        compare = ["-m", "mrdiff_jax.compare", *rows, f"--names={','.join(ended)}", f"--output={output / 'comparison'}"]
        if code := subprocess.run([sys.executable, *compare]).returncode:
            sys.exit(code)
    if failed:
        logs = ", ".join(str(entry.log) for entry in failed)
        sys.exit(f"error: {len(failed)} of {len(entries)} runs failed; see {logs}; the same command tries them again")


def _distinct(flag: str, text: str) -> list[str]:
    names = list(split_names(text))
    if not names or len(set(names)) < len(names):
        raise UserError(f"--{flag}={text}: give one or more, each once")
    return names


def _settings(arguments: Sequence[str]) -> list[str]:
    """The arguments that set the configuration, for `mrdiff_jax.main`."""
    words = [word for word in arguments if re.match(r"--?config\b", word)]
    for word in words:
        if "=" not in word:
            raise UserError(f"{word}: write it with its value, as {word}=VALUE")
        for field in ("method.name", "train.seed", "train.max_minutes"):
            if word.lstrip("-").startswith(f"config.{field}="):
                raise UserError(f"{word}: --methods, --seeds and --rule say that for all runs; leave it out")
    return words


def _check(config: ConfigDict, names: Sequence[str], seeds: Sequence[str]) -> None:
    """Checks what can be known before the first run."""
    for seed in seeds:
        if not seed.isdecimal():
            raise UserError(f"--seeds={_SEEDS.value}: give whole numbers from 0 on")
    needed = {"time": _MINUTES, "recipe": _SHARE}
    for rule, flag in needed.items():
        if rule == _RULE.value and not flag.value:
            raise UserError(f"--{flag.name}: the rule '{rule}' needs it, above 0")
        if rule != _RULE.value and flag.value is not None:
            raise UserError(f"--{flag.name}={flag.value}: is for the rule '{rule}', not '{_RULE.value}'")
    gpus = split_names(os.environ.get("CUDA_VISIBLE_DEVICES", ""))
    if gpus and _PARALLEL.value > len(gpus):
        raise UserError(f"--parallel={_PARALLEL.value}: CUDA_VISIBLE_DEVICES={','.join(gpus)} names fewer GPUs")
    for name in names:
        methods.create(resolve(_of(config, name)))
        if _RULE.value == "recipe" and name not in PUBLISHED:
            raise UserError(
                f"--rule=recipe: the length of the training of {name} is not known; write it into PUBLISHED in {__file__}"
            )


def _of(config: ConfigDict, name: str) -> ConfigDict:
    """The configuration with a method chosen."""
    chosen = config.copy_and_resolve_references()
    chosen.method.name = name
    return chosen


def _plan(config: ConfigDict, names: Sequence[str], settings: Sequence[str], output: Path) -> Plan:
    """The plan in the output folder, which must be of these flags; or a new one."""
    path, known = output / "plan.json", {name: str(flags.FLAGS[name].value) for name in ("rule", "minutes", "share")}
    command = known | {"methods": ",".join(names), "settings": " ".join(settings)}
    if path.exists():
        plan = Plan(**json_files.read(path, f"remove {output}, or name another --output"))
        if plan.command != command:
            differ = next(name for name in command if plan.command.get(name) != command[name])
            raise UserError(
                f"{path}: is a plan with {differ} {plan.command.get(differ)}, not {command[differ]}; name another --output"
            )
        return plan
    seconds = measure(config, names) if _RULE.value == "time" else {}
    slices = len(open_dataset(resolve(config).data).split("train")) if _RULE.value == "recipe" else 0
    plan = Plan(command, {name: _steps(config, name, seconds, slices) for name in names}, seconds)
    json_files.write(path, asdict(plan))
    return plan


def _steps(config: ConfigDict, name: str, seconds: dict[str, float], slices: int) -> int:
    """Optimiser steps of a method by the rule."""
    if _RULE.value == "steps":
        return config.train.steps
    if _RULE.value == "time":
        return max(1, round(60 * _MINUTES.value / seconds[name]))
    return max(1, round(_SHARE.value * published_steps(name, slices, config.data.batch_size)))


def published_steps(name: str, slices: int, batch_size: int) -> float:
    """Optimiser steps that show a method as many slices as its publication did, of a set with that many to train on."""
    length, unit = PUBLISHED[name]
    return length * (slices if unit == EPOCHS else 8) / batch_size


def measure(config: ConfigDict, names: Sequence[str]) -> dict[str, float]:
    """Seconds of a training step of each method: the median of rounds that alternate, each in a process of its own."""
    found: dict[str, list[float]] = {name: [] for name in names}
    environment = visible(0 if _PARALLEL.value > 1 else None)
    for turn, name in itertools.product(range(ROUNDS), names):
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            found[name].append(process.submit(seconds_of_a_step, _of(config, name), environment).result())
        logger.info("round %d of %d: %s takes %.3f s a step", turn + 1, ROUNDS, name, found[name][-1])
    return {name: float(np.median(times)) for name, times in found.items()}


def seconds_of_a_step(config: ConfigDict, environment: dict[str, str]) -> float:
    """Seconds of a training step; to be called first thing in a process, whose environment says which devices there are."""
    os.environ.update(environment)
    cli.keep_programs()
    parallel.initialize(config.data.batch_size)
    return speed.seconds_of_a_step(resolve(config))


def run(entries: Sequence[Entry], seconds: dict[str, float], settings: Sequence[str], at_a_time: int) -> list[Entry]:
    """Trains what has not ended, that many at a time; returns the entries that failed."""
    waiting, devices = [entry for entry in entries if not entry.ended()], list(range(at_a_time))
    running: dict[Entry, tuple[subprocess.Popen, int]] = {}
    failed, clock, said = [], Clock(waiting, seconds), time.monotonic()
    try:
        while waiting or running:
            while waiting and devices:
                entry, device = waiting.pop(0), devices.pop(0)
                running[entry] = start(entry, settings, device if at_a_time > 1 else None), device
                logger.info("%s, seed %d: to step %d; it prints into %s", entry.method, entry.seed, entry.steps, entry.log)
            time.sleep(0.5)
            for entry, (process, device) in list(running.items()):
                if process.poll() is not None:
                    del running[entry]
                    devices.append(device)
                    failed += [entry] if process.returncode else []
                    result = f"failed, see {entry.log}" if process.returncode else "ended"
                    logger.info("%s, seed %d: %s; %s", entry.method, entry.seed, result, clock)
                    said = time.monotonic()
            if time.monotonic() > said + 30:
                logger.info("%s", clock)
                said = time.monotonic()
    finally:
        for process, _ in running.values():
            process.terminate()
    return failed


class Clock:
    """How much of a plan is done, and when it will be; as text for the log."""

    def __init__(self, entries: Sequence[Entry], seconds: dict[str, float]):
        """Of runs to come or to go on with; of two whose steps were not measured, each counts alike."""
        self.began = time.monotonic()
        self.work = {entry: entry.steps * seconds[entry.method] if seconds else 1.0 for entry in entries}
        self.before = {entry: entry.share() for entry in entries}

    def __str__(self) -> str:
        shares = {entry: entry.share() for entry in self.work}
        done = sum(work * (shares[entry] - self.before[entry]) for entry, work in self.work.items())
        left = sum(work * (1 - shares[entry]) for entry, work in self.work.items())
        time_left = f", {duration((time.monotonic() - self.began) * left / done)} left" if done > 0 else ""
        return f"{sum(share == 1 for share in shares.values())} of {len(shares)} runs ended{time_left}"


def start(entry: Entry, settings: Sequence[str], device: int | None) -> subprocess.Popen:
    """Starts a run, on one of the GPUs that this process may use, or, without a device, on all."""
    chosen = {"method.name": entry.method, "train.seed": entry.seed, "train.steps": entry.steps, "train.max_minutes": 0}
    fields = [f"--config.{field}={value}" for field, value in chosen.items()]
    command = [sys.executable, "-m", "mrdiff_jax.main", *settings, *fields, f"--workdir={entry.workdir}"]
    with entry.log.open("a", encoding="utf-8") as log:
        log.write(" ".join(command) + "\n")
        log.flush()
        streams = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": subprocess.STDOUT}
        return subprocess.Popen(command, env=os.environ | visible(device), **streams)


def visible(device: int | None) -> dict[str, str]:
    """The environment of a process that is to see one of the GPUs of this one; without a device, all."""
    if device is None:
        return {}
    gpus = split_names(os.environ.get("CUDA_VISIBLE_DEVICES", "")) or tuple(map(str, range(device + 1)))
    return {"CUDA_VISIBLE_DEVICES": gpus[device]}


def table(entries: Sequence[Entry]) -> str:
    """The runs that ended as CSV: their steps, the parameters that synthesis reads, and their mean scores."""
    rows = []
    for entry in entries:
        scores = results.read(entry.workdir).summary.synthesis
        parameters = sum(np.size(leaf) for leaf in jax.tree.leaves(model_files.load(entry.workdir).variables.params))
        rows.append({"method": entry.method, "seed": entry.seed, "steps": entry.steps, "parameters": parameters} | scores)
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]) if rows else ["method"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    cli.run(main, __doc__)
