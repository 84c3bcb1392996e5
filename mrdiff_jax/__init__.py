"""MRDiff in JAX: multi-contrast MR image synthesis with physics-regularised diffusion."""

__version__ = "0.1.0"
