"""Trained runs for the tests, made without training: random weights that answer to their input."""

import json

import grain
import jax
import numpy as np
from conftest import TINY, make_batch

from mrdiff_jax import methods
from mrdiff_jax.config import default, resolve
from mrdiff_jax.data.training_data import TrainingData
from mrdiff_jax.preparation.options import Options
from mrdiff_jax.scans.sequence_times import SequenceTimes
from mrdiff_jax.storage.checkpoints import Checkpoints
from mrdiff_jax.training.step import create_train_state

TINY_METHODS = {  # what makes each method small, for images of 32 x 32
    name: {"data.image_size": 32} | own
    for name, own in {
        "mrdiff": {},
        "regression": {},
        "pix2pix": {"pix2pix.base_channels": 8, "pix2pix.discriminator_channels": 8},
        "hinet": {"hinet.base_channels": 4, "hinet.discriminator_channels": 4},
        "resvit": {
            **{"resvit.base_channels": 4, "resvit.discriminator_channels": 4, "resvit.blocks": 2},
            **{"resvit.vit_layers": 1, "resvit.vit_width": 16, "resvit.vit_heads": 2},
        },
        "blochgan": {
            **{"blochgan.base_channels": 4, "blochgan.discriminator_channels": 4, "blochgan.map_channels": 4},
            **{f"blochgan.{part}_blocks": 1 for part in ("encoder", "generator", "decoder")},
        },
        "cm": {"cm.last_levels": 2, "sample.steps": 1},
        "cdpm": {"cdpm.attention_levels": (0,), "cdpm.heads": 2, "sample.steps": 10},
        "m2dn": {"m2dn.widths": (8,), "m2dn.norm_groups": 4},
    }.items()
}


def tiny(**changes):
    """Configuration of a tiny network for T2w and PDw to T1w."""
    config = default("paper")
    config.update_from_flattened_dict(TINY | changes)
    return config


def write_run(workdir, config, seed=0, step=7, pixel_mm=(2.0, 2.0)):
    """A workdir as training leaves it, as far as synthesis reads it."""
    names = config.data.sources.split(",")
    batch = make_batch(1, config.data.image_size, len(names))
    config = resolve(config)
    state = create_train_state(methods.create(config), config.optimizer, jax.random.key(seed), batch)
    rng = np.random.default_rng(seed)

    def disturbed(tree):
        return jax.tree.map(lambda leaf: leaf + 0.1 * rng.standard_normal(np.shape(leaf), np.float32), tree)

    params, average = disturbed(state.variables.params), disturbed(state.average)
    state = state.replace(step=np.int32(step), variables=state.variables.replace(params=params), average=average)
    workdir.mkdir(parents=True)
    (workdir / "config.json").write_text(json.dumps(config.to_dict()))
    size = config.data.image_size
    options = Options((*names, config.data.target), names[0], bias_correction=False, mask="none", image_size=size)
    times = dict.fromkeys(names, SequenceTimes(4000.0, 100.0, 0.0))
    data = TrainingData(times, config.data.target, 10.0, 200.0, pixel_mm, options)
    (workdir / "training_data.json").write_text(json.dumps(data.to_json()))
    checkpoints = Checkpoints(workdir, keep=1)
    checkpoints.save(step, state, iter(grain.MapDataset.range(1).to_iter_dataset()))
    checkpoints.close()
    return workdir
