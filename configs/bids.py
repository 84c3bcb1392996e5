"""MRDiff on a folder of scans in BIDS layout whose contrasts share a grid, sized for a small data set on a CPU or one GPU.

    mrdiff train --config=configs/bids.py --workdir=runs/mine --config.data.root=SCANS \
        --config.data.sources=T1w,T2w --config.data.target=FLAIR --config.train.max_minutes=60

Where the scans to be synthesised come from other scanners than those trained on, add --config.data.intensity=0.3
(docs/results-more.md: it seemed to help there, and costs much where they do not).

Scans without a JSON sidecar take their times from --config.data.tr, te and ti ('T1w=500,T2w=4000', milliseconds). For the
paper's network start from configs/adni.py, with a root, sources and target of your own.
"""

from mrdiff_jax import config as defaults


def get_config(preset: str | None = None):
    """A small network at 128 x 128, with the ':paper' (default) or the ':authors' preset."""
    config = defaults.small(preset)
    config.data.update(name="bids", image_size=128, batch_size=4, mirror=True)
    config.mrdiff.schedule = "linear"  # noisier for longer than the cosine: short runs then lean on the sources
    config.train.update(steps=20_000, log_every=20, evaluate_every=1_000, checkpoint_every=500, best_by="psnr")
    config.evaluate.update(slices=64)
    return config.lock()
