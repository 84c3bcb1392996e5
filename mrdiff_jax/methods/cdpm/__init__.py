"""cDPM, "Generating Realistic Brain MRIs via a Conditional Diffusion Probabilistic Model" (Peng et al., MICCAI 2023).

It draws the slices of a volume that are missing, given others. Here the frames are contrasts: the K sources are observed, the
target is latent. MRDiff's comparison does not say how it adapted it; this is the adaptation that changes least.

    L = mean over all frames of  latent |noise - eps(x_t, y, t)|^2

Its network and masks are those of flexible video diffusion (Harvey et al., NeurIPS 2022), on which its authors built. Choices,
where publications differ or are silent:
- Contrast k has index k, the target K: a relative position then says which source a source is, seen from the target.
- Attention across frames normalises each frame by itself, as all other blocks do. The published one normalises the frames
  of a pixel together, through which a frame in no mask would reach the others, past the attention's mask.
- The learning rate is 1e-4, that of the video model, with its average of decay 0.9999; the port to MONAI has 2.5e-5. The port's
  one head, normalisation and activation after every convolution, and sampling from zeros, are accidents that are not repeated.
- The size is that of `config.model`, as of mrdiff, cm and regression, on pixels or on wavelet bands as that says (the transform
  is orthonormal: noise is the same on both sides of it); the published one has base_channels 128, two blocks a level, and works
  on pixels. Where attention stands, and its heads, are fields of its own: `config.model.attention_levels` and `head_channels`
  do not count.
- 50 steps of DDIM, eta = 1, by default, as the comparison has it. The published 1000 ancestral steps with the larger variance
  are `--config.sample.sampler=ddpm --config.sample.steps=1000`, at 20 times the cost.
"""

from mrdiff_jax.methods.cdpm.method import CDPM as create
from mrdiff_jax.methods.cdpm.method import Settings

__all__ = ["Settings", "create"]
