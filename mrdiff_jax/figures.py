"""Pictures of results, drawn with matplotlib."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

ERROR_RANGE = 0.25  # absolute errors are drawn on one scale, up to this share of the data range


def sample_panel(rows: Sequence[Mapping[str, np.ndarray]], titles: Sequence[str], path: Path) -> np.ndarray:
    """Draws one row of images an example and saves it as PNG.

    Args:
      rows: named images (H, W), the same names in every row; 'absolute error' is drawn as heat on a fixed scale, names that end
        in 'features' each on their own scale, all others on [0, 1].
      titles: one a row, written at its left.
      path: of the PNG.

    Returns:
      The picture, (height, width, 3) uint8.
    """
    names = list(rows[0])
    figure = Figure(figsize=(1.7 * len(names) + 0.3, 1.7 * len(rows) + 0.3), dpi=110, layout="compressed")
    axes = figure.subplots(len(rows), len(names), squeeze=False)
    for r, (row, title) in enumerate(zip(rows, titles, strict=True)):
        for c, name in enumerate(names):
            ax = axes[r, c]
            ax.imshow(row[name], **_look(name))
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
            if r == 0:
                ax.set_title(name, fontsize=9)
        axes[r, 0].set_ylabel(title, fontsize=7)
    canvas = FigureCanvasAgg(figure)
    canvas.print_png(path)
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _look(name: str) -> dict:
    if name == "absolute error":
        return dict(cmap="inferno", vmin=0, vmax=ERROR_RANGE)
    if name.endswith("features"):
        return dict(cmap="viridis")
    return dict(cmap="gray", vmin=0, vmax=1)
