"""The scans of an exam on the grid of one of them, corrected: the one way to it, of training and of synthesis."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mrdiff_jax.preparation import registration
from mrdiff_jax.preparation.options import Options
from mrdiff_jax.preparation.placement import correct, place
from mrdiff_jax.preparation.records import REFERENCE, Placement
from mrdiff_jax.preparation.registration import Grid
from mrdiff_jax.scans.volumes import Volume


@dataclass(frozen=True)
class OneGrid:
    """Scans on one grid, by contrast.

    Attributes:
      volumes: (X, Y, Z) float32, in scanner units, corrected as the options ask.
      placements: how each came there.
      corrections: what was done about its bias field, in words.
      mask: (X, Y, Z) bool, the head or body.
      grid: of all.
    """

    volumes: dict[str, np.ndarray]
    placements: dict[str, Placement]
    corrections: dict[str, str]
    mask: np.ndarray
    grid: Grid


def on_one_grid(scans: Mapping[str, Volume], reference: Volume, options: Options) -> OneGrid:
    """Lays scans on the grid of the reference, which is one of them, and corrects them.

    Raises:
      UserError: as `placement.place`.
    """
    placed = {
        contrast: (scan.data, Placement(REFERENCE)) if scan is reference else place(reference, scan, options)
        for contrast, scan in scans.items()
    }
    grid = registration.grid_of(reference)
    volumes, mask, corrections = correct({contrast: data for contrast, (data, _) in placed.items()}, grid, options)
    return OneGrid(volumes, {contrast: placement for contrast, (_, placement) in placed.items()}, corrections, mask, grid)
