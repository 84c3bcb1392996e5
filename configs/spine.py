"""MRDiff on spine scans as in the paper: {T1w, T2w} -> fat-saturated T2w at 256 x 256, 300k steps.

    mrdiff train --config=configs/spine.py --workdir=runs/spine --config.data.root=SPINE_BIDS

Expects the scans in BIDS layout on one grid: sub-*/anat/*_{T1w,T2w,T2wFS}.nii.gz; where there are no sidecars, TR and TE are
those of the paper. The paper trains on one group of subjects and tests on another: name the second with
--config.data.test_subjects. It reports 28.54 dB PSNR, 0.8228 SSIM, 0.8893 FSIM and 0.0913 GMSD; its scaling and masks are not
stated. 301 million parameters: 10 to 20 hours on an H200, by the measured step.
"""

from mrdiff_jax import config as defaults


def get_config(preset: str | None = None):
    """The paper's spine experiment, with the ':paper' (default) or the ':authors' preset."""
    config = defaults.default(preset)
    config.data.update(name="bids", sources="T1w,T2w", target="T2wFS", image_size=256, plane="sagittal")
    config.data.update(tr="T1w=450,T2w=3760,T2wFS=4580", te="T1w=9.8,T2w=100,T2wFS=113")
    config.train.update(steps=300_000)
    return config.lock()
