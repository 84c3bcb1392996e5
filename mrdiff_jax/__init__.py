"""MRDiff in JAX: multi-contrast MR image synthesis with physics-regularised diffusion."""

import importlib
from typing import Any

__version__ = "0.1.0"
__all__ = ["Synthesizer"]


def __getattr__(name: str) -> Any:
    """Imports what the package offers when it is first used: importing JAX takes seconds."""
    if name == "Synthesizer":
        return importlib.import_module(f"{__name__}.synthesis.synthesizer").Synthesizer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
