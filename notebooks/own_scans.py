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
# # Your BIDS folder, from scans to a synthetic scan
#
# The commands that a study needs, on folders that this notebook makes: a few simulated heads, as BIDS keeps
# them. With scans of your own, put the paths of your folders in `SCANS` and `NEW`, leave out the section that
# writes them and the last picture's truth, and train for longer. Four minutes on a CPU.
#
# Run it in the folder `notebooks` of a clone of the repository; on Colab, where there is none, fill in
# `REPOSITORY`. The first cell installs the package where it is missing.

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
import json
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np

from mrdiff_jax.data import phantom

WORK = Path(tempfile.mkdtemp())
SCANS, NEW, SET, RUN = (WORK / name for name in ("scans", "new", "set", "run"))


def mrdiff(command):
    """`mrdiff` and its flags, as in a terminal; the end of what it prints."""
    ended = subprocess.run([sys.executable, "-m", "mrdiff_jax", *command.split()], text=True, capture_output=True)
    said = (ended.stderr if ended.returncode else ended.stdout).replace(str(WORK), "WORK")
    print("\n".join(said.splitlines()[-12:]))
    ended.check_returncode()


# %% [markdown]
# ## Folders as BIDS has them
#
# `sub-*/anat/sub-*_CONTRAST.nii.gz`, with a JSON sidecar that has TR and TE in seconds. The patients of the
# first folder have all three contrasts; the one of the second has no T1w, and will get one.


# %%
def write_exam(root, index, contrasts):
    """A simulated exam."""
    exam = phantom.simulate_exam(0, index, image_size=64, slice_count=24, contrasts=contrasts)
    folder = root / exam.name / "anat"
    folder.mkdir(parents=True)
    for contrast, volume, (tr, te, _) in zip(contrasts, exam.volumes, exam.times, strict=True):
        path = folder / f"{exam.name}_{contrast}.nii.gz"
        nib.save(nib.Nifti1Image(volume, np.diag([*exam.spacing, 1.0])), path)
        sidecar = {"RepetitionTime": float(tr) / 1000, "EchoTime": float(te) / 1000}
        path.with_name(f"{exam.name}_{contrast}.json").write_text(json.dumps(sidecar))


for index in range(7):
    write_exam(SCANS, index, ("T2w", "PDw", "T1w"))
write_exam(NEW, 7, ("T2w", "PDw"))
print(*sorted(path.relative_to(WORK) for path in WORK.rglob("*.gz"))[-5:], sep="\n")

# %% [markdown]
# ## Prepare
#
# Registration, checks, bias fields, slices. What cannot be used is named, and costs no other exam;
# `index.html` in the set shows what was made of every scan.

# %%
mrdiff(f"prepare --input={SCANS} --output={SET} --contrasts=T2w,PDw,T1w --reference=T2w --image-size=64")

# %% [markdown]
# ## Train
#
# 300 steps, so that the notebook ends soon: expect a blurred image. `--config.train.max_minutes=60` in place of
# them is a sensible first try. `report.html` in the run's folder shows what came of it. The linear fit of the
# sources stands beside the scores: 300 steps do not reach it, and a training that is worth its time does.

# %%
mrdiff(
    f"train --config=../configs/bids.py --workdir={RUN} --config.data.name=prepared --config.data.root={SET} "
    "--config.data.image_size=64 --config.data.sources=T2w,PDw --config.data.target=T1w "
    "--config.train.steps=300 --config.mrdiff.draws=2 --config.data.batch_size=4"
)

# %% [markdown]
# ## Synthesise
#
# Every exam of the folder that lacks a T1w gets one, as a BIDS derivative on the grid of its first source,
# with a sidecar that says how it was made. Several samples add a map of their deviation.

# %%
DERIVATIVES = WORK / "derivatives"
mrdiff(f"synthesize --workdir={RUN} --bids={NEW} --output={DERIVATIVES} --samples=4")

# %%
made = next(DERIVATIVES.rglob("*desc-synthetic_T1w.nii.gz"))
synthetic = nib.load(made).get_fdata()
truth = phantom.simulate_exam(0, 7, image_size=64, slice_count=24, contrasts=("T1w",)).volumes[0]
figure, axes = plt.subplots(2, 4, figsize=(8, 4.2))
for column, z in enumerate((4, 9, 14, 19)):
    for row, (volume, name) in enumerate(((synthetic, "synthetic"), (truth, "true"))):
        axes[row, column].imshow(np.flip(volume[..., z].T), cmap="gray")
        axes[row, column].set_title(f"{name}, slice {z}", fontsize=9)
        axes[row, column].axis("off")
figure.tight_layout()
plt.show()
print(made.name, json.loads(made.with_name(made.name.replace(".nii.gz", ".json")).read_text())["Description"])
