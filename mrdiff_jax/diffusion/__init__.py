"""The diffusion process: noise schedules, the forward process, and reverse samplers."""

from mrdiff_jax.diffusion.process import Posterior, posterior, q_sample, x_0_of_noise
from mrdiff_jax.diffusion.samplers import Denoiser, chain_of, ddim, ddpm, dpm_solver, sample, start
from mrdiff_jax.diffusion.schedules import SCHEDULES, Schedule, Spacing, cosine_schedule, linear_schedule, respace

__all__ = [
    "SCHEDULES",
    "Denoiser",
    "Posterior",
    "Schedule",
    "Spacing",
    "chain_of",
    "cosine_schedule",
    "ddim",
    "ddpm",
    "dpm_solver",
    "linear_schedule",
    "posterior",
    "q_sample",
    "respace",
    "sample",
    "start",
    "x_0_of_noise",
]
