"""An exam in memory: the aligned scans of one session, read or simulated."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Exam:
    """One subject's aligned scans of one session.

    volumes (C, X, Y, Z) in scanner units, in the order of `contrasts`; spacing: the voxel size in mm;
    times (C, 3): TR, TE, TI in ms; maps (X, Y, Z, 3): true T1 (ms), T2 (ms) and S0, where known; lesions (X, Y, Z): the share
    of lesion in each voxel, where known; padding: what was taken for air, a line for each scan where something was.
    """

    name: str
    contrasts: tuple[str, ...]
    volumes: np.ndarray
    spacing: tuple[float, float, float]
    times: np.ndarray
    maps: np.ndarray | None = None
    lesions: np.ndarray | None = None
    padding: tuple[str, ...] = ()
