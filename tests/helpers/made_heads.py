"""Heads without bilateral symmetry, as two contrasts on any grid, whose true place is known."""

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from mrdiff_jax.preparation.registration import Grid

SIDE, MM = 56, 2.0  # of the anatomy, which fills a ball of it
_RNG = np.random.default_rng(0)
_TEXTURE = sum(gaussian_filter(_RNG.normal(size=(SIDE,) * 3), sigma) * sigma**1.5 for sigma in (1.5, 3, 6))
_RADIUS = np.linalg.norm((np.indices((SIDE,) * 3) - (SIDE - 1) / 2) / np.reshape([18, 23, 20], (3, 1, 1, 1)), axis=0)


def grid(shape=(SIDE, SIDE, SIDE), spacing=(MM, MM, MM), shift=(0, 0, 0)):
    """A grid around the anatomy's middle, which lies at `shift` mm."""
    affine = np.diag([*map(float, spacing), 1.0])
    affine[:3, 3] = np.array(shift) - (np.array(shape) - 1) / 2 * spacing
    return Grid(tuple(shape), affine)


def head(contrast, on=None, move=None, seed=0, noise=0.01):
    """(X, Y, Z) float32: the anatomy in a contrast on a grid, after a rigid world move (4, 4) of it."""
    on = on or grid()
    world = np.linalg.inv(np.eye(4) if move is None else move) @ on.affine
    points = np.tensordot(world[:3, :3], np.indices(on.shape), 1) + world[:3, 3].reshape(3, 1, 1, 1)
    voxels = points / MM + (SIDE - 1) / 2
    texture, radius = (map_coordinates(a, voxels, order=1, mode="nearest") for a in (_TEXTURE, _RADIUS))
    inside = np.clip((1 - radius) * 10, 0, 1)
    tissue = 1 / (1 + np.exp(-6 * texture / _TEXTURE.std()))
    signal = {"T1w": 0.35 + 0.5 * tissue, "T2w": 1 - 0.8 * tissue**2, "FLAIR": 0.9 - 0.5 * tissue}
    rim = np.exp(-(((radius - 0.93) / 0.04) ** 2))
    values = inside * signal[contrast] + (0.6 * rim if contrast == "T1w" else 0.1 * rim)
    noisy = values + noise * np.random.default_rng(seed).normal(size=on.shape)
    return (1000 * np.abs(noisy)).astype(np.float32)


def rigid(degrees, axis, shift):
    """A world move (4, 4): a turn about an axis through the anatomy's middle, then a shift in mm."""
    x, y, z = np.array(axis) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.radians(degrees)
    move = np.eye(4)
    move[:3, :3] += np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    move[:3, 3] = shift
    return move


def displacement(a, b, radius=40.0):
    """Mean distance (mm) between where two transforms (4, 4) take the points of a ball."""
    points = np.random.default_rng(0).uniform(-radius, radius, (1000, 3))
    points = points[np.linalg.norm(points, axis=1) < radius]
    return np.linalg.norm(points @ (a - b)[:3, :3].T + (a - b)[:3, 3], axis=1).mean()
