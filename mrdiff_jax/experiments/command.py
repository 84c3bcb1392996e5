"""What the tools share that train several rows of a table: their flags, and the way from rows to a comparison."""

import os
import sys
from collections.abc import Sequence

import jax
from absl import flags
from ml_collections import ConfigDict, config_flags

from mrdiff_jax import cli, methods
from mrdiff_jax.config import resolve
from mrdiff_jax.errors import UserError
from mrdiff_jax.experiments import plan, runs
from mrdiff_jax.experiments.plan import Rows, Rule
from mrdiff_jax.experiments.runs import Entry
from mrdiff_jax.fields import split_names
from mrdiff_jax.storage.paths import check_writable, local_path

_CONFIG = config_flags.DEFINE_config_file("config", None, "Settings of all runs.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder for the runs and the comparison.")
_SEEDS = flags.DEFINE_string("seeds", "0", "Seeds of each row, comma-separated.")
_RULE = flags.DEFINE_enum(
    "rule", "time", ["time", "steps", "recipe"], "Equal --minutes, equal config.train.steps, or a --share of each recipe."
)
_MINUTES = flags.DEFINE_float("minutes", None, "Of training, for each run, by the rule 'time'.", lower_bound=0)
_SHARE = flags.DEFINE_float("share", None, "Of the published training, by the rule 'recipe'.", lower_bound=0)
_PARALLEL = flags.DEFINE_integer("parallel", 1, "Runs at a time, each on a GPU of its own.", lower_bound=1)
flags.mark_flags_as_required(["config", "output"])


def config() -> ConfigDict:
    """The configuration that all rows share. Raises UserError where there is no such file."""
    return cli.config_of(_CONFIG)


def main(rows: Rows) -> None:
    """Plans, trains, and compares the rows of a table; the others are tested against the first.

    Raises:
      UserError: a flag is wrong, or a row cannot be trained; nothing has been run then.
    """
    jax.config.update("jax_platforms", "cpu")  # of this process: the devices are the runs'
    shared, output = config(), local_path(_OUTPUT.value, "--output")
    seeds, settings = distinct("seeds", _SEEDS.value), _settings(sys.argv[1:], rows)
    _check(shared, rows, seeds)
    check_writable(output)
    output.mkdir(parents=True, exist_ok=True)
    rule, at_a_time = Rule(_RULE.value, _MINUTES.value, _SHARE.value), _PARALLEL.value
    planned = plan.make(shared, rows, rule, settings, output, runs.visible(0 if at_a_time > 1 else None))
    entries = [
        Entry(name, int(seed), planned.steps[name], output / f"{name}-{seed}") for seed in seeds for name in rows
    ]  # every row once before any a second time
    failed = runs.run(entries, planned.seconds, settings, rows, at_a_time)
    runs.conclude(entries, failed, output)


def distinct(flag: str, text: str) -> list[str]:
    """The words of a flag's value, comma-separated. Raises UserError where there is none, or one is there twice."""
    names = list(split_names(text))
    if not names or len(set(names)) < len(names):
        raise UserError(f"--{flag}={text}: give one or more, each once")
    return names


def _settings(arguments: Sequence[str], rows: Rows) -> list[str]:
    """The arguments that set the configuration, for `mrdiff train`."""
    words = cli.config_words(arguments)
    taken = {"train.seed", "train.max_minutes"}.union(*rows.values()) | ({"train.steps"} if _RULE.value != "steps" else set())
    for word in words:
        if word.lstrip("-").partition("=")[0].removeprefix("config.") in taken:
            raise UserError(f"{word}: the rows, --seeds and --rule say that; leave it out")
    return words


def _check(shared: ConfigDict, rows: Rows, seeds: Sequence[str]) -> None:
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
    for fields in rows.values():
        own = resolve(plan.chosen(shared, fields))
        methods.create(own)
        if _RULE.value == "recipe" and not hasattr(own.own, "published"):
            raise UserError(
                f"--rule=recipe: the length of the training of {own.method.name} is not known; write it into its settings, as"
                " `published`"
            )
