"""What there is to make slices of: exams that are read when they are needed."""

from collections.abc import Callable
from typing import Any, NamedTuple

from mrdiff_jax.scans.exam import Exam


class ExamRef(NamedTuple):
    """An exam not yet read."""

    subject: str
    load: Callable[[], Exam]


class Study(NamedTuple):
    """What there is to prepare; `identity` is JSON that changes whenever the exams do, `truths` what is known beside them."""

    contrasts: tuple[str, ...]
    exams: list[ExamRef]
    identity: Any
    truths: tuple[str, ...]
