"""The methods, by name; each is a file or a folder of this package, and knows nothing of the others."""

import importlib
from typing import Any

from mrdiff_jax.errors import UserError
from mrdiff_jax.fields import did_you_mean
from mrdiff_jax.methods.contract import Method

NAMES = ("mrdiff", "regression", "pix2pix", "hinet", "resvit", "blochgan", "cm", "cdpm", "m2dn")


def require(name: str) -> str:
    """The name. Raises UserError, with the nearest, where no method has it."""
    if name not in NAMES:
        meant = did_you_mean(name, NAMES)
        raise UserError(f"--config.method.name={name}: no such method; choose one of {', '.join(NAMES)}{meant}")
    return name


def settings(name: str) -> type:
    """The section of the configuration that belongs to a method."""
    return importlib.import_module(f"{__name__}.{name}").Settings


def create(config: Any) -> Method:
    """Builds the method of a `config.Config`. Raises UserError where its settings do not fit each other or the data."""
    return importlib.import_module(f"{__name__}.{config.method.name}").create(config)
