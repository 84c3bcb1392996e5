"""MRDiff in JAX: multi-contrast MR image synthesis with physics-regularised diffusion."""

import importlib
import sys
from typing import Any

__version__ = "0.1.0"
__all__ = ["Synthesizer"]


def _without_traceback(kind: type, error: BaseException, trace: Any) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


if sys.argv[:1] == ["-m"]:  # a command of this package is about to be imported, which takes seconds
    sys.excepthook = _without_traceback


def __getattr__(name: str) -> Any:
    """Imports what the package offers when it is first used: importing JAX takes seconds."""
    if name == "Synthesizer":
        return importlib.import_module(f"{__name__}.synthesis.synthesizer").Synthesizer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
