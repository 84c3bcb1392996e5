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
# # A tour of MRDiff
#
# The paper's ideas in running code, on a simulated head and with the small model that ships. A minute on a
# CPU.
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
import io

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Image, display
from PIL import Image as Pixels

import mrdiff_jax
from mrdiff_jax import diffusion, physics
from mrdiff_jax.data import phantom
from mrdiff_jax.preparation.intensity import percentile_scale
from mrdiff_jax.preparation.slicing import slice_image
from mrdiff_jax.synthesis import demonstration
from mrdiff_jax.wavelets import dwt2, idwt2


def show(images, titles, cmap="gray", width=2.0, **look):
    """Images side by side."""
    figure, axes = plt.subplots(1, len(images), figsize=(width * len(images), width + 0.3), squeeze=False)
    for ax, image, title in zip(axes[0], images, titles, strict=True):
        ax.imshow(image, cmap=cmap, **look)
        ax.set_title(title, fontsize=9)
        ax.axis("off")
    figure.tight_layout()
    plt.show()


# %% [markdown]
# ## The phantom
#
# A head made on the spot: tissue maps of a real template, deformed, with T1, T2 and proton density from the
# literature. Unlike a scan, it comes with the truth: the maps of T1, T2 and S0 that made its images.

# %%
model = mrdiff_jax.Synthesizer.load(demonstration.MODEL, maps=True)
data = model.trained.config.data
size = {"image_size": data.image_size, "slice_count": data.subject_slices}
exam = phantom.simulate_exam(data.seed, demonstration.SUBJECT, contrasts=("T2w", "PDw", "T1w"), **size)
z = 14
maps = slice_image(np.moveaxis(exam.maps[:, :, z], -1, 0))
scans = slice_image(exam.volumes[..., z])
shown = [maps[0], np.minimum(maps[1], 300), maps[2], *scans]
show(shown, ["T1 (ms)", "T2 (ms), to 300", "S0", *exam.contrasts], width=1.9)

# %% [markdown]
# ## The signal equation
#
# A spin echo of repetition time TR and echo time TE shows S0 (1 - exp(-TR / T1)) exp(-TE / T2) (paper, Eq.
# 6). Change the times, and the same tissue gives another contrast. That is all that sets T1w, T2w and PDw
# apart, and it is what MRDiff's decoder is held to.

# %%
t1, t2, s0 = (jnp.asarray(values) for values in maps)
times = {"T1-weighted": (450, 10), "in between": (1500, 40), "PD-weighted": (4000, 10), "T2-weighted": (4000, 100)}
show(
    [physics.spin_echo(t1, t2, s0, tr, te) for tr, te in times.values()],
    [f"{name}\nTR {tr}, TE {te} ms" for name, (tr, te) in times.items()],
)

# %% [markdown]
# ## The Haar transform
#
# MRDiff's network works on wavelet bands: half the side, four times the channels, nothing lost (paper, Sec.
# 2.2).

# %%
image = jnp.asarray(scans[0] / scans[0].max())[None, ..., None]
bands = dwt2(image)
show([bands[0, ..., k] for k in range(4)], ["low-pass", "horizontal", "vertical", "diagonal"])
print("largest error of the way back:", float(jnp.abs(idwt2(bands) - image).max()))

# %% [markdown]
# ## From noise to an image
#
# The forward process buries the target in noise; the network estimates it from what is left and from the
# sources. Synthesis walks back: at each step it takes the estimate, and noise of the next, lower level. Here
# every step is written out (DDIM with eta = 1, which `Synthesizer` does in one compiled loop).

# %%
scaled = [(volume - low) / span for volume, (low, span) in ((v, percentile_scale(v, (0.5, 99.5))) for v in exam.volumes)]
t2w, pdw, t1w = np.clip([slice_image(volume[..., z]) for volume in scaled], 0, 1)
batch = {"sources": jnp.stack([t2w, pdw], -1)[None]}
variables = jax.tree.map(jnp.asarray, model.trained.variables)
denoise = jax.jit(lambda x_t, t: model.method.denoise(variables, batch, x_t, t))

chain = diffusion.respace(model.method.schedule, 25)
reverse = diffusion.posterior(chain)
keys = jax.random.split(jax.random.key(0), 26)
x_t, frames = jax.random.normal(keys[-1], (1, *t1w.shape)), []
for step in reversed(range(25)):
    x0_hat = jnp.clip(denoise(x_t, jnp.full(1, chain.timesteps[step])), -1, 1)
    frames.append(np.concatenate([x_t[0], x0_hat[0]], axis=1))
    noise = jax.random.normal(keys[step], x_t.shape) * (step > 0)
    x_t = reverse.x_0_weight[step] * x0_hat + reverse.x_t_weight[step] * x_t + np.sqrt(reverse.variance[step]) * noise
synthesis = (np.asarray(x_t[0]) + 1) / 2

# %% [markdown]
# Left the image on its way, right the network's estimate of where it goes. That hardly moves: the sources say
# most of it at once.

# %%
pictures = [Pixels.fromarray(np.uint8(255 * np.clip((frame + 1) / 2, 0, 1))).quantize(16) for frame in frames]
pictures = [picture.resize((192, 96)) for picture in pictures]
animation = io.BytesIO()
pictures[0].save(animation, format="GIF", save_all=True, append_images=pictures[1:], duration=120, loop=0)
display(Image(data=animation.getvalue(), format="gif"))
error = np.abs(synthesis - t1w)
show([t2w, pdw, t1w, synthesis, error], ["T2w", "PDw", "T1w, true", "T1w, synthetic", "error"], vmin=0, vmax=1)

# %% [markdown]
# ## The physics inside
#
# In training, a decoder D must make the sources again from maps h_t = {T1, T2, S0} and the signal equation.
# The paper's D also sees the encoder's features and can pass the equation by. This model's does not, and makes
# each source from the signal of that source alone (`mrdiff.decoder_per_source`): what it makes of another echo
# time has to come of the equation. Above, what it makes; below, what the phantom would show; the training had
# echo times of about 10 and 100 ms.

# %%
explain = jax.jit(model.method.reconstruct)
echo_times = (10, 30, 60, 100, 150)
(tr, *_), key = exam.times[0], jax.random.split(jax.random.key(2), 1)
told = [{"tr": jnp.full((1, 2), tr), "te": jnp.full((1, 2), te), "ti": jnp.zeros((1, 2))} for te in echo_times]
show([explain(variables, batch | times, key)[0, ..., 0] for times in told], [f"D, TE {te} ms" for te in echo_times])
show([physics.spin_echo(t1, t2, s0, tr, te) for te in echo_times], [f"true, TE {te} ms" for te in echo_times])

# %% [markdown]
# The maps themselves have no units. These are the channel means; nothing makes them quantitative.

# %%
features = model.maps(batch["sources"], *exam.times[:2, :2].T, rng=jax.random.key(2))
show([image[0] for image in features.values()], list(features))

# %% [markdown]
# ## How sure is it?
#
# Several syntheses of the same slice start from different noise. Where they differ, they should err. Compare
# the two numbers: a model that is far surer than it is right says so here.

# %%
sources = np.stack([t2w, pdw], -1)[None]
tr, te = exam.times[:2, 0], exam.times[:2, 1]
mean, deviation = model(sources, tr, te, rng=jax.random.key(1), samples=16, steps=10)
error = np.abs(mean[0] - t1w)
show([mean[0], error / error.max(), deviation[0] / deviation.max()], ["mean of 16", "its error", "their deviation"])
print(f"root mean square: error {np.sqrt(np.mean(error**2)):.4f}, deviation {np.sqrt(np.mean(deviation**2)):.4f}")
