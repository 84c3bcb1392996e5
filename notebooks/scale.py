# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # GPUs, TPUs and several hosts
#
# Training is data-parallel: a replica a device, the batch split over all of them, gradients averaged. Nothing
# in the configuration changes with their number, and neither do the results beyond rounding. Here two CPU
# devices stand for two chips; on a Colab TPU or a machine with several GPUs the same cells use what is there.
# A minute on a CPU.
#
# Run it in the folder `notebooks` of a clone of the repository; on Colab, where there is none, fill in
# `REPOSITORY`. The first cell installs the package where it is missing, for a CPU; `pip install '..[cuda]'` or
# `'..[tpu]'` before
# it is for a GPU or a TPU. It has been run on CPUs alone.

# %%
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = ""  # on Colab: what you would give to `git clone`

if REPOSITORY and not Path("../setup.cfg").exists():
    # not into mrdiff_jax, which Python would take for the package
    subprocess.run(["git", "clone", "--depth=1", REPOSITORY, "clone"], check=True)
    os.chdir("clone/notebooks")
if importlib.util.find_spec("mrdiff_jax") is None:
    if not Path("../setup.cfg").exists():
        raise SystemExit("run this in the folder notebooks of a clone, or fill in REPOSITORY")
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", ".."], check=True)

# %%
import time

import jax
import numpy as np

from mrdiff_jax import config, methods, parallel
from mrdiff_jax.data.batches import train_iterator
from mrdiff_jax.data.datasets import open_dataset
from mrdiff_jax.training.step import create_train_state, make_train_step

parallel.initialize(batch_size=8)
print(jax.device_count(), "devices:", jax.devices()[0].device_kind)

# %% [markdown]
# ## The step, by hand
#
# What `mrdiff train` does, in a few lines: a method behind the contract, a state that is copied to every
# device, batches that are split over them, one compiled step.

# %%
demo = config.small()
demo.data.update(name="phantom", sources="T2w,PDw", target="T1w", image_size=32, batch_size=8, subjects=6, subject_slices=8)
demo.method.name = "regression"  # any method; this one compiles in seconds
settings = config.resolve(demo)
dataset, method = open_dataset(settings.data), methods.create(settings)
batches = train_iterator(dataset, parallel.local_batch_size(settings.data.batch_size), seed=0)
batch = next(batches)
print({name: array.shape for name, array in batch.items()})


# %%
def trained(devices, steps=5):
    """The losses of a few steps on that many devices, and the seconds of the last ones."""
    state = create_train_state(method, settings.optimizer, jax.random.key(0), batch)
    state = parallel.replicate(state, devices)
    step = parallel.pmap(make_train_step(method, settings.optimizer, jax.random.key(1)), devices)
    losses = []
    for number in range(steps):
        if number == 1:  # the first one compiles
            start = time.perf_counter()
        state, metrics = step(state, parallel.shard(batch, len(devices)), np.zeros(len(devices), np.float32))
        losses.append(float(metrics["generator/loss"][0]))
    return losses, (time.perf_counter() - start) / (steps - 1)


for count in sorted({1, jax.local_device_count()}):
    losses, seconds = trained(jax.local_devices()[:count])
    print(f"{count} device(s): {seconds:.3f} s a step, loss", " ".join(f"{loss:.6f}" for loss in losses))

# %% [markdown]
# The losses agree: every example draws its noise from a key of its own, wherever it stands.
#
# ## What to change when it grows
#
# | you have | change |
# |---|---|
# | more devices | `config.data.batch_size`, a multiple of their number; a device wants four slices or more |
# | little memory | `config.model.dtype=bfloat16`, then `config.optimizer.accumulate=2`, then `config.model.remat=True` |
# | a slow disk | prepare once, keep the set on the machine; `tools/benchmark.py --parts=reading` measures it |
# | several hosts | the same command on each, with three variables that say who is who |
#
# ```bash
# JAX_COORDINATOR_ADDRESS=host0:1234 JAX_NUM_PROCESSES=4 JAX_PROCESS_ID=0 \
#     mrdiff train --config=../configs/bids.py --workdir=/shared/runs/flair --config.data.root=/shared/scans \
#     --config.data.sources=T1w,T2w --config.data.target=FLAIR --config.data.batch_size=64
# ```
#
# On a TPU slice or under Slurm `JAX_COORDINATOR_ADDRESS` alone is enough (not tried). Every host reads its own
# share of the slices; the first one writes checkpoints and scores, into a folder that all can reach.
