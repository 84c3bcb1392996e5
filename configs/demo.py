"""MRDiff on the phantom, 64 x 64, {T2w, PDw} -> T1w: trains, samples and evaluates on two CPU cores in minutes.

python -m mrdiff_jax.main --config=configs/demo.py --workdir=runs/demo
"""

from mrdiff_jax import config as defaults


def get_config(preset: str | None = None):
    """The demo, with the ':paper' (default) or the ':authors' preset."""
    config = defaults.default(preset)
    config.data.update(name="phantom", sources="T2w,PDw", target="T1w", image_size=64, batch_size=4)
    config.model.update(base_channels=16, channel_mult=(1, 2, 4), attention_levels=(2,), head_channels=32)
    config.model.norm_groups = 4  # a few channels each: brightness gets lost in groups of one
    quick = dict(learning_rate=3e-3, hold=0.0, ema_decay=0.99, clip_norm=1.0)
    config.mrdiff.update(map_channels=16, loss_draws="first")
    config.mrdiff.optimizer.update(quick)
    config.regression.optimizer.update(quick)
    config.pix2pix.update(base_channels=16, discriminator_channels=16)
    config.hinet.update(base_channels=8, discriminator_channels=8)
    config.resvit.update(base_channels=8, discriminator_channels=8, vit_layers=2, vit_width=64, vit_heads=4)
    config.blochgan.update(base_channels=8, discriminator_channels=8, map_channels=8)
    for name in ("cm", "cdpm", "m2dn"):
        config[name].optimizer.update(learning_rate=1e-3, hold=0.0, ema_decay=0.99, clip_norm=1.0)
    config.train.update(steps=1500, log_every=50, evaluate_every=1000, checkpoint_every=500)
    config.evaluate.update(batch_size=32, slices=32, panels=4)
    return config.lock()
