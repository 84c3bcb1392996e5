"""What is trained for a comparison, and for how many steps, so that it is fair."""

import itertools
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from mrdiff_jax import cli, methods, parallel
from mrdiff_jax.config import resolve
from mrdiff_jax.data.datasets import open_dataset
from mrdiff_jax.errors import UserError
from mrdiff_jax.log import logger
from mrdiff_jax.storage import json_files
from mrdiff_jax.training import speed

Rows = Mapping[str, Mapping[str, Any]]  # of the table: by name, the fields of the configuration that make a row what it is
PLAN_FILE = "plan.json"
ROUNDS = 3  # of measuring a row's speed


class Rule(NamedTuple):
    """What is equal between the rows.

    Attributes:
      name: 'time', 'steps' or 'recipe'.
      minutes: of training, by 'time'.
      share: of the published training, by 'recipe'.
    """

    name: str
    minutes: float | None = None
    share: float | None = None


@dataclass(frozen=True)
class Plan:
    """What is to be trained.

    Attributes:
      command: the rows, the rule and the settings, which must be the same when the plan goes on; seeds may be added.
      steps: optimiser steps, by row.
      seconds: of a step, by row, where the rule measured it.
    """

    command: dict[str, Any]
    steps: dict[str, int]
    seconds: dict[str, float]


def chosen(config: ConfigDict, fields: Mapping[str, Any]) -> ConfigDict:
    """The configuration of a row."""
    config = config.copy_and_resolve_references()
    config.update_from_flattened_dict(fields)
    return config


def make(
    config: ConfigDict, rows: Rows, rule: Rule, settings: Sequence[str], output: Path, environment: Mapping[str, str]
) -> Plan:
    """The plan in the output folder, which must be of the same; or a new one.

    Args:
      config: the configuration that all rows share.
      rows: what each changes of it.
      rule: gives the steps.
      settings: the flags that made the configuration.
      output: a folder that is there.
      environment: of the processes that measure speed.

    Raises:
      UserError: the plan that is there is another; the message says what differs.
    """
    path, command = output / PLAN_FILE, {"rule": rule.name, "minutes": rule.minutes, "share": rule.share}
    command |= {"settings": list(settings), "rows": dict(rows)}
    if path.exists():
        plan = Plan(**json_files.read(path, f"remove {output}, or name another --output"))
        if plan.command != command:
            differ = next(name for name in command if plan.command.get(name) != command[name])
            raise UserError(
                f"{path}: is a plan with {differ} {_words(plan.command.get(differ))}, not {_words(command[differ])};"
                " name another --output"
            )
        return plan
    configs = {name: chosen(config, fields) for name, fields in rows.items()}
    seconds = measure(configs, environment) if rule.name == "time" else {}
    slices = len(open_dataset(resolve(config).data).split("train")) if rule.name == "recipe" else 0
    plan = Plan(command, {name: _steps(of_row, rule, seconds.get(name), slices) for name, of_row in configs.items()}, seconds)
    json_files.write(path, asdict(plan))
    return plan


def _words(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | dict) else str(value)


def _steps(config: ConfigDict, rule: Rule, seconds: float | None, slices: int) -> int:
    """Optimiser steps of a row by the rule."""
    if rule.name == "steps":
        return config.train.steps
    if rule.name == "time":
        return max(1, round(60 * rule.minutes / seconds))
    return max(1, round(rule.share * published_steps(config.method.name, slices, config.data.batch_size)))


def published_steps(method: str, slices: int, batch_size: int) -> float:
    """Optimiser steps that show a method as many slices as its publication did, of a set with that many to train on."""
    length = methods.settings(method).published
    return length.count * (slices if length.unit == "epochs" else 8) / batch_size


def measure(configs: Mapping[str, ConfigDict], environment: Mapping[str, str]) -> dict[str, float]:
    """Seconds of a training step of each row: the median of rounds that alternate, each in a process of its own."""
    found: dict[str, list[float]] = {name: [] for name in configs}
    for turn, name in itertools.product(range(ROUNDS), configs):
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            found[name].append(process.submit(seconds_of_a_step, configs[name], environment).result())
        logger.info("round %d of %d: %s takes %.3f s a step", turn + 1, ROUNDS, name, found[name][-1])
    return {name: float(np.median(times)) for name, times in found.items()}


def seconds_of_a_step(config: ConfigDict, environment: Mapping[str, str] = MappingProxyType({})) -> float:
    """Seconds of a training step; to be called first thing in a process, whose environment says which devices there are."""
    os.environ.update(environment)
    cli.keep_programs()
    parallel.initialize(config.data.batch_size)
    return speed.seconds_of_a_step(resolve(config))
