"""MRDiff, "Physics-driven Signal Regularization in Diffusion Models for Multi-contrast MR Image Synthesis" (Shin et al.)."""

from mrdiff_jax.methods.mrdiff.method import MRDiff as create
from mrdiff_jax.methods.mrdiff.settings import Settings

__all__ = ["Settings", "create"]
