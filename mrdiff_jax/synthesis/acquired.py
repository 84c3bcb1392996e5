"""Whether an exam of a BIDS folder has a contrast already, under whatever spelling its files have."""

from collections.abc import Sequence
from enum import Enum

from mrdiff_jax.scans import descriptions
from mrdiff_jax.scans.exam_files import ExamFiles
from mrdiff_jax.scans.scan_path import ScanPath
from mrdiff_jax.scans.vocabulary import Meaning
from mrdiff_jax.synthesis.synthesizer import Synthesizer

_ANOTHER_SCAN = ("mt", "inv", "label", "part")  # entities that make it another scan
_PERHAPS_ANOTHER = ("echo", "flip", "desc")
_UNREAD = ("run", "space", "res", "den")  # entities that say nothing of contrast
_KINDS = {"t2flair": ("flair", False), "t2wfs": ("t2w", True)}  # of a suffix: what it is, and whether fat is saturated


class _Is(Enum):
    YES = 2
    PERHAPS = 1
    NO = 0


def acquired(exam: ExamFiles, synthesizer: Synthesizer) -> ScanPath | None:
    """The scan of the target that an exam has: acq-3D_run-1_FLAIR is a FLAIR, ce-dotarem_T1w no T1w but a ce-gad_T1w."""
    return _first(exam, synthesizer, _Is.YES)


def perhaps_acquired(exam: ExamFiles, synthesizer: Synthesizer) -> ScanPath | None:
    """A scan of an exam that may be the target, or another, as echo-1_FLAIR and acq-prepost_T1w."""
    return _first(exam, synthesizer, _Is.PERHAPS)


def _first(exam: ExamFiles, synthesizer: Synthesizer, wanted: _Is) -> ScanPath | None:
    target = synthesizer.target
    others = {spelled: path for spelled, path in exam.found.items() if spelled not in synthesizer.sources}
    return next((path for spelled, path in others.items() if _is(spelled, target) is wanted), None)


def _is(spelled: str, target: str) -> _Is:
    *entities, suffix = target.casefold().split("_")
    *own, own_suffix = spelled.casefold().split("_")
    asked = {entity for entity in entities if _key(entity) != "ce"}
    further = [entity for entity in own if entity not in asked and entity != "part-mag"]
    if not asked <= {*own} or any(_key(entity) in _ANOTHER_SCAN or entity.startswith("desc-synthetic") for entity in further):
        return _Is.NO
    words = descriptions.read(" ".join(_value(entity) for entity in further if _key(entity) not in ("ce", *_UNREAD)))
    kind, saturated = _KINDS.get(suffix, (suffix, False))
    own_kind, own_saturated = _KINDS.get(own_suffix, (own_suffix, False))
    is_other_t2 = own_kind == "t2w" and Meaning.FLAIR in words.meanings
    if kind != own_kind and not (is_other_t2 and kind == "flair"):
        return _Is.NO
    if kind == "t2w" and saturated != (own_saturated or Meaning.FAT_SATURATED in words.meanings):
        return _Is.NO
    by_agent = _by_agent(any(_key(entity) == "ce" for entity in entities), own, words, kind)
    if is_other_t2 or any(_key(entity) in _PERHAPS_ANOTHER for entity in further):
        return min(by_agent, _Is.PERHAPS, key=lambda answer: answer.value)
    return by_agent


def _by_agent(enhanced: bool, own: Sequence[str], words: descriptions.Words, kind: str) -> _Is:
    """Whether a scan may be one after contrast agent (`enhanced`), or one before it."""
    named = [_value(entity) for entity in own if _key(entity) == "ce"]
    if named:
        is_after = _agent(f"{named[0]} gd") != "before"  # ce-none
        sure = not is_after or _agent(named[0]) == "after"
        return _Is.NO if enhanced != is_after else _Is.YES if sure else _Is.PERHAPS
    if words.agent == "unclear" or (words.agent == "after" and kind != "t1w"):
        return _Is.PERHAPS
    return _Is.YES if enhanced == (words.agent == "after") else _Is.NO


def _agent(text: str) -> str:
    return descriptions.read(text).agent


def _key(entity: str) -> str:
    return entity.partition("-")[0]


def _value(entity: str) -> str:
    return entity.partition("-")[2] or entity
