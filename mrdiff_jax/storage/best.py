"""Which checkpoint of a run is the best one: scores of validations, in a file beside the checkpoints."""

from collections.abc import Collection
from pathlib import Path

from mrdiff_jax.storage import json_files

NAME = "scores.json"


def note(folder: Path, step: int, score: float) -> None:
    """Notes how good the weights of a step are; more is better."""
    json_files.write(folder / NAME, _read(folder) | {str(step): score})


def best_of(folder: Path, steps: Collection[int]) -> int | None:
    """The step with the highest score, the first of equals; None where none of these has one."""
    scores = {int(step): score for step, score in _read(folder).items() if score is not None}
    return max(sorted(scores.keys() & set(steps)), key=scores.__getitem__, default=None)


def _read(folder: Path) -> dict[str, float | None]:
    path = folder / NAME
    return json_files.read(path, "remove it; the newest checkpoint then counts as the best") if path.exists() else {}
