"""Slices to batches. The kinds of data sets, by name: each a module of this package, but 'prepared', a set that is written."""

from mrdiff_jax.errors import UserError
from mrdiff_jax.fields import did_you_mean

NAMES = ("phantom", "bids", "prepared")


def require(name: str) -> str:
    """The name. Raises UserError, with the nearest, where no data set has it."""
    if name not in NAMES:
        raise UserError(f"--config.data.name={name}: choose one of {', '.join(NAMES)}{did_you_mean(name, NAMES)}")
    return name
