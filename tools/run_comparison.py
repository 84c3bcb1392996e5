"""Trains methods on one data set under one rule of fairness, scores them, and compares them.

    python tools/run_comparison.py --config=configs/demo.py --output=runs/table1 --rule=time --minutes=8 --seeds=0,1

Takes any configuration and any of its fields, as `mrdiff train` does; a method's own fields count for that method alone
(`--config.hinet.optimizer.learning_rate=1e-3`). The rule says how many optimiser steps each method gets:

    time     as many as it takes in --minutes of training on this machine. The speed of each method is measured once, in
             rounds that alternate between the methods, so that a busy hour costs all of them alike; compiling and
             evaluating do not count
    steps    config.train.steps, the same for all
    recipe   a --share of its published training, by slices seen

The first of --methods is the one that the others are tested against. Each run is a call of `mrdiff train`, in sequence, or
--parallel=N at a time on the first N GPUs. The output folder holds plan.json with the steps of each method, a workdir and a log
for each method and seed, runs.csv, and comparison/ as `mrdiff compare` writes it. The same command again goes on where a
killed one was; a run that failed is tried again, and the others are compared without it.
"""

import signal
import sys

from absl import flags

from mrdiff_jax import cli, methods
from mrdiff_jax.experiments import command

_METHODS = flags.DEFINE_string("methods", ",".join(methods.NAMES), "Methods, comma-separated.")
flags.adopt_module_key_flags(command)


def main() -> None:
    """A row for each method."""
    names = [methods.require(name) for name in command.distinct("methods", _METHODS.value)]
    command.main({name: {"method.name": name} for name in names})


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    cli.run(main, __doc__)
