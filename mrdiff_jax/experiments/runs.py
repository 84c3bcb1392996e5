"""The runs of a plan: started, watched, and what came of them."""

import csv
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mrdiff_jax.errors import UserError
from mrdiff_jax.evaluation import results
from mrdiff_jax.fields import split_names
from mrdiff_jax.log import duration, logger
from mrdiff_jax.storage import json_files
from mrdiff_jax.storage.files import write_text
from mrdiff_jax.synthesis import model_files
from mrdiff_jax.workdir import LOG


@dataclass(frozen=True)
class Entry:
    """One run of a plan: a row with a seed."""

    row: str
    seed: int
    steps: int
    workdir: Path

    @property
    def log(self) -> Path:
        """What the run prints."""
        return self.workdir.with_name(f"{self.workdir.name}.log")

    def ended(self) -> bool:
        """Whether it has been trained to its last step and scored."""
        try:
            return json_files.read(self.workdir / results.SUMMARY, "").get("trained") == self.steps
        except UserError:
            return False

    def share(self) -> float:
        """Of its steps, those that its log has."""
        if self.ended():
            return 1.0
        try:
            lines = (self.workdir / LOG).read_text(encoding="utf-8").splitlines()
            return json.loads(lines[-1])["step"] / self.steps
        except (OSError, IndexError, ValueError):
            return 0.0


def run(
    entries: Sequence[Entry],
    seconds: Mapping[str, float],
    settings: Sequence[str],
    rows: Mapping[str, Mapping[str, Any]],
    at_a_time: int,
) -> list[Entry]:
    """Trains what has not ended, that many at a time; returns the entries that have not ended then."""
    waiting, devices = [entry for entry in entries if not entry.ended()], list(range(at_a_time))
    running: dict[Entry, tuple[subprocess.Popen, int]] = {}
    clock, said = Clock(waiting, seconds), time.monotonic()
    try:
        while waiting or running:
            while waiting and devices:
                entry, device = waiting.pop(0), devices.pop(0)
                running[entry] = start(entry, [*settings, *flags(rows[entry.row])], device if at_a_time > 1 else None), device
                logger.info("%s, seed %d: to step %d; it prints into %s", entry.row, entry.seed, entry.steps, entry.log)
            time.sleep(0.5)
            for entry, (process, device) in list(running.items()):
                if process.poll() is not None:
                    del running[entry]
                    devices.append(device)
                    result = f"failed, see {entry.log}" if process.returncode else "ended"
                    logger.info("%s, seed %d: %s; %s", entry.row, entry.seed, result, clock)
                    said = time.monotonic()
            if time.monotonic() > said + 30:
                logger.info("%s", clock)
                said = time.monotonic()
    finally:
        for process, _ in running.values():
            process.terminate()
    # what a killed plan left training may have ended, though the process that was started here was refused
    return [entry for entry in entries if not entry.ended()]


class Clock:
    """How much of a plan is done, and when it will be; as text for the log."""

    def __init__(self, entries: Sequence[Entry], seconds: Mapping[str, float]):
        """Of runs to come or to go on with; of two whose steps were not measured, each counts alike."""
        self.began = time.monotonic()
        self.work = {entry: entry.steps * seconds[entry.row] if seconds else 1.0 for entry in entries}
        self.before = {entry: entry.share() for entry in entries}

    def __str__(self) -> str:
        shares = {entry: entry.share() for entry in self.work}
        done = sum(work * (shares[entry] - self.before[entry]) for entry, work in self.work.items())
        left = sum(work * (1 - shares[entry]) for entry, work in self.work.items())
        time_left = f", {duration((time.monotonic() - self.began) * left / done)} left" if done > 0 else ""
        return f"{sum(entry.ended() for entry in shares)} of {len(shares)} runs ended{time_left}"


def flags(fields: Mapping[str, Any]) -> list[str]:
    """The arguments that set fields of the configuration."""
    return [f"--config.{field}={value}" for field, value in fields.items()]


def start(entry: Entry, settings: Sequence[str], device: int | None) -> subprocess.Popen:
    """Starts a run, on one of the GPUs that this process may use, or, without a device, on all."""
    own = flags({"train.seed": entry.seed, "train.steps": entry.steps, "train.max_minutes": 0})
    command = [sys.executable, "-m", "mrdiff_jax.main", *settings, *own, f"--workdir={entry.workdir}"]
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


def conclude(entries: Sequence[Entry], failed: Sequence[Entry], output: Path) -> None:
    """Writes runs.csv of what ended, compares the rows with the first, and ends the process where something failed."""
    ended = [entry for entry in entries if entry not in failed]
    of_rows = {name: [one for one in ended if one.row == name] for name in dict.fromkeys(entry.row for entry in entries)}
    rows = {name: of_row for name, of_row in of_rows.items() if of_row}
    write_text(output / "runs.csv", table(ended))
    if entries[0].row not in rows:
        logger.warning("no comparison: %s failed, against which the others are tested", entries[0].row)
    elif code := compare(rows, output / "comparison"):
        sys.exit(code)
    if failed:
        logs = ", ".join(str(entry.log) for entry in failed)
        sys.exit(f"error: {len(failed)} of {len(entries)} runs failed; see {logs}; the same command tries them again")


def compare(rows: Mapping[str, Sequence[Entry]], output: Path) -> int:
    """Compares the seeds of each row with those of the first, into a folder; returns the exit status."""
    workdirs = [",".join(str(entry.workdir) for entry in of_row) for of_row in rows.values()]
    command = ["-m", "mrdiff_jax.compare", *workdirs, f"--names={','.join(rows)}", f"--output={output}"]
    return subprocess.run([sys.executable, *command]).returncode


def table(entries: Sequence[Entry]) -> str:
    """The runs that ended as CSV: their steps, the parameters that synthesis reads, and their mean scores."""
    lines = []
    for entry in entries:
        scores = results.read(entry.workdir).summary.synthesis
        parameters = sum(np.size(leaf) for leaf in jax.tree.leaves(model_files.load(entry.workdir).variables.params))
        lines.append({"row": entry.row, "seed": entry.seed, "steps": entry.steps, "parameters": parameters} | scores)
    file = io.StringIO()
    writer = csv.DictWriter(file, list(lines[0]) if lines else ["row"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return file.getvalue()
