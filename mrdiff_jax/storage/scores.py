"""Scores of a run's validations, in a file beside its checkpoints: which checkpoint is the best one."""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mrdiff_jax.errors import UserError
from mrdiff_jax.storage import json_files

_NAME = "scores.json"
_FIX = "remove it; the newest checkpoint then counts as the best"


@dataclass(frozen=True)
class Scores:
    """Scores that can be compared.

    Attributes:
      how: which score, of what; any other score is not comparable.
      highest: whether the highest is the best, or the lowest.
      steps: score by step; None where there was no number.
    """

    how: Mapping[str, Any] = field(default_factory=dict)
    highest: bool = True
    steps: Mapping[int, float | None] = field(default_factory=dict)

    def best(self, among: Collection[int]) -> int | None:
        """Of these steps the one with the best score, the first of equals; None where none has one."""
        sign = 1 if self.highest else -1
        scores = {step: sign * self.steps[step] for step in sorted(among) if self.steps.get(step) is not None}
        return max(scores, key=scores.__getitem__, default=None)


def read(folder: Path) -> Scores:
    """What the file in a folder says; nothing where there is none. Raises UserError where it cannot be read."""
    path = folder / _NAME
    if not path.exists():
        return Scores()
    values = json_files.read(path, _FIX)
    try:
        steps = {int(step): None if score is None else float(score) for step, score in values["steps"].items()}
        return Scores(dict(values["how"]), bool(values["highest"]), steps)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not the scores of a run ({error}); {_FIX}") from error


def note(folder: Path, step: int, score: float, how: Mapping[str, Any], highest: bool) -> None:
    """Notes a step's score; those of another kind, which `how` tells, are forgotten."""
    known = read(folder)
    steps = known.steps if known.how == how else {}
    _write(folder, Scores(how, highest, {**steps, step: score}))


def forget_after(folder: Path, step: int) -> None:
    """Forgets the scores of later steps, from before the training went back to this one."""
    known = read(folder)
    if any(later > step for later in known.steps):
        _write(folder, Scores(known.how, known.highest, {s: score for s, score in known.steps.items() if s <= step}))


def _write(folder: Path, scores: Scores) -> None:
    json_files.write(folder / _NAME, asdict(scores))
