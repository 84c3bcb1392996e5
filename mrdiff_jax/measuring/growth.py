"""How the cost of a network's programs grows as one thing grows, and a picture of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mrdiff_jax.measuring.reports import Results, measurements
from mrdiff_jax.measuring.timing import Record
from mrdiff_jax.plotting import Axes, Figure

AXES = {  # what grows, and its values; all else is as in configs/bids.py, with a batch of 1
    "side": (64, 128, 256, 512),
    "batch": (1, 2, 4, 8, 16),
    "draws": (1, 2, 3, 5),
    "sources": (1, 2, 3, 4),
    "devices": (1, 2, 4, 8),
}
PROPORTION = {"side": 2, "batch": 1, "draws": 1, "sources": 1}  # powers with which the work grows, if all of it did
PROGRAMS = ("training step", "reverse step")
_CONTRASTS = ("T1w", "T2w", "PDw", "FLAIR")
_TASK = "growth"  # the first word of a part's name; the second is the axis


def changes(axis: str, value: int, devices: int) -> dict[str, Any]:
    """The fields that make the network of an axis at a value; on the axis 'devices' each of the most has a slice."""
    of_axis = {
        "side": {"data.image_size": value},
        "batch": {"data.batch_size": value},
        "draws": {"mrdiff.draws": value},
        "sources": {"data.sources": ",".join(_CONTRASTS[:value])},
        "devices": {"data.batch_size": devices},
    }
    return {"data.batch_size": 1, "data.sources": ",".join(_CONTRASTS[:2]), "data.target": "none"} | of_axis[axis]


def picture(results: Results, path: Path) -> None:
    """Draws seconds against what grew, for every axis that was measured; no picture where there was none.

    Both scales are logarithmic. The dashed lines grow with the pixels, or what else there is more of, from the first
    measurement on; on more devices the work stays the same.
    """
    found = {task.split()[1]: measurements(rows) for task, rows in results.items() if task.split()[0] == _TASK}
    drawn = {axis: rows for axis, rows in found.items() if any("seconds" in row for row in rows.values())}
    if not drawn:
        return
    figure = Figure(figsize=(2.9 * len(drawn), 2.9), layout="constrained", dpi=120)
    for ax, (axis, rows) in zip(figure.subplots(1, len(drawn), sharey=True, squeeze=False)[0], drawn.items(), strict=True):
        _draw(ax, axis, rows)
    figure.axes[0].set_ylabel("seconds")
    figure.axes[0].legend(frameon=False, fontsize=8)
    figure.savefig(path)


def _draw(ax: Axes, axis: str, rows: Mapping[str, Record]) -> None:
    for program, color in zip(PROGRAMS, ("tab:blue", "tab:orange"), strict=True):
        x, y = _series(axis, program, rows)
        if x:
            ax.plot(x, y, "o-", color=color, label=program, markersize=4)
            if axis in PROPORTION:
                ax.plot(x, [y[0] * (value / x[0]) ** PROPORTION[axis] for value in x], "--", color=color, linewidth=0.8)
    ax.set(xscale="log", yscale="log", title=axis)
    ax.set_xticks(AXES[axis], [str(value) for value in AXES[axis]])
    ax.minorticks_off()


def _series(axis: str, program: str, rows: Mapping[str, Record]) -> tuple[Sequence[int], Sequence[float]]:
    points = [(row[axis], row["seconds"]) for name, row in rows.items() if name.startswith(program) and "seconds" in row]
    return [x for x, _ in points], [y for _, y in points]
