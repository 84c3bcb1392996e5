"""MRDiff on the phantom, 64 x 64, {T2w, PDw} -> T1w: trains, samples and evaluates on two CPU cores in minutes.

mrdiff train --config=configs/demo.py --workdir=runs/demo
"""

from mrdiff_jax import config as defaults


def get_config(preset: str | None = None):
    """The demo, with the ':paper' (default) or the ':authors' preset."""
    config = defaults.small(preset)
    config.data.update(name="phantom", sources="T2w,PDw", target="T1w", image_size=64, batch_size=4)
    config.mrdiff.sample.steps = 5  # of the model that ships, 0.04 dB less than 50
    config.train.update(steps=1500, log_every=50, evaluate_every=1000, checkpoint_every=500)
    config.evaluate.update(batch_size=32, slices=32, panels=4)
    return config.lock()
