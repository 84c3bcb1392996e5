"""Trains and evaluates a method on a data set.

mrdiff train --config=configs/demo.py --workdir=runs/demo
mrdiff train --config=configs/bids.py --workdir=runs/mine --config.data.root=SCANS --config.method.name=pix2pix
mrdiff train --workdir=runs/demo --config.train.steps=3000

A run that is in the --workdir already goes on; without --config it has the settings that it had, but for what flags change.
The configurations are in configs/ of a clone of the repository; --config.SECTION.FIELD=VALUE changes any field of them.
mrdiff_jax/config.py has the sections that all methods share, and mrdiff_jax/methods each method's own.
"""

import gc
import sys

from absl import flags
from ml_collections import config_flags

from mrdiff_jax import cli
from mrdiff_jax.storage.paths import local_path

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Settings, as configs/demo.py or configs/demo.py:authors; left out, those of the run in --workdir."
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; a run that is there already goes on.")
_MODE = flags.DEFINE_enum("mode", "train", ["train", "eval"], "'train' ends with the evaluation; 'eval' does only that.")
flags.mark_flags_as_required(["config", "workdir"])


def main() -> None:
    """Runs what the flags ask for."""
    config, workdir = cli.config_of(_CONFIG), local_path(_WORKDIR.value, "--workdir")

    from mrdiff_jax import parallel
    from mrdiff_jax.config import resolve, warn_of_ignored
    from mrdiff_jax.evaluation.run import evaluate_only
    from mrdiff_jax.training.loop import Diverged, train_and_evaluate

    resolved = resolve(config)  # a wrong field is named before anything runs
    warn_of_ignored(resolved, config_flags.get_override_values(flags.FLAGS["config"]))
    parallel.initialize(resolved.data.batch_size)
    gc.set_threshold(1_000_000)  # what tracing makes stays; searching it for garbage costs about a second
    run = {"train": train_and_evaluate, "eval": evaluate_only}[_MODE.value]
    try:
        run(config, workdir)
    except Diverged as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        again = {"train": "goes on from the newest checkpoint", "eval": "starts the evaluation anew"}[_MODE.value]
        cli.leave(f"interrupted; the same command {again}")


if __name__ == "__main__":
    cli.run(main, __doc__, settings_of_run=True)
