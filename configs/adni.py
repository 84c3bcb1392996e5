"""MRDiff on ADNI as in the paper: {T2w, PDw} -> T1w (MP-RAGE) at 256 x 256, 350k steps.

    mrdiff train --config=configs/adni.py --workdir=runs/adni --config.data.root=ADNI_BIDS

Expects the scans in BIDS layout on the grid of the T2w, with sidecars: sub-*/ses-*/anat/*_{T1w,T2w,PDw}.nii.gz. The paper
reports 20.78 dB PSNR, 0.7715 SSIM, 0.8804 FSIM and 0.1727 GMSD; its scaling and masks are not stated. 301 million
parameters: 10 to 20 hours on an H200, by the measured step.
"""

from mrdiff_jax import config as defaults


def get_config(preset: str | None = None):
    """The paper's ADNI experiment, with the ':paper' (default) or the ':authors' preset."""
    config = defaults.default(preset)
    config.data.update(name="bids", sources="T2w,PDw", target="T1w", image_size=256, test_fraction=0.2, validation_fraction=0.1)
    config.train.update(steps=350_000)
    return config.lock()
