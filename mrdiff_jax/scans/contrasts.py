"""Which contrast a series is: what its description says, held against what its header says."""

from collections.abc import Iterator
from typing import NamedTuple

from mrdiff_jax.scans import descriptions, image_types
from mrdiff_jax.scans.descriptions import Words
from mrdiff_jax.scans.sequence_times import SequenceTimes
from mrdiff_jax.scans.vocabulary import Meaning

NAMES = ("T1w", "T2w", "PDw", "FLAIR", "ce-gad_T1w", "T2wFS")  # those that are known without a rule of the user's
SLACK = 2.0  # times in sidecars are often nominal: what is off by less than this factor may be meant


class Limits(NamedTuple):
    """The times that a contrast can have, in ms."""

    te: tuple[float, float]
    ti: tuple[float, float] | None  # None: no inversion


_LIMITS = {
    "T1w": Limits((0.0, 40.0), (0.0, 2000.0)),
    "ce-gad_T1w": Limits((0.0, 40.0), (0.0, 2000.0)),
    "T2w": Limits((40.0, float("inf")), None),
    "T2wFS": Limits((25.0, float("inf")), (0.0, 400.0)),
    "PDw": Limits((0.0, 60.0), None),
    "FLAIR": Limits((40.0, float("inf")), (1000.0, float("inf"))),
}
_SPIN_ECHO_TR = {  # ms; of those without inversion
    **dict.fromkeys(("T1w", "ce-gad_T1w"), (0.0, 3000.0)),
    **dict.fromkeys(("T2w", "T2wFS", "PDw", "FLAIR"), (1000.0, float("inf"))),
}
PROTON_DENSITY_TE, T2_TE = 40.0, 60.0  # ms: of the echoes of 'PD/T2', those below are PD, those above T2


class Header(NamedTuple):
    """What the header of a series says of its contrast; empty where it says nothing.

    protocol: the name of its protocol, which may be that of the whole exam; acquired: AcquisitionContrast; mixed: what some of
    its slices say, and others do not.
    agent: whether a contrast agent was given; sequence: GRADIENT and INVERSION, where it is such; image_type: of the frames,
    in capitals; echo: which of its `echoes` it is, from 1, the shortest first.
    """

    agent: bool | None = None
    sequence: frozenset[Meaning] = frozenset()
    echo_planar: bool = False
    fat_saturated: bool = False
    diffusion: bool = False
    acquired: str = ""
    mixed: str = ""
    image_type: tuple[str, ...] = ()
    times: SequenceTimes = SequenceTimes()
    echo: int = 1
    echoes: int = 1
    protocol: str = ""


_ACQUIRED = {  # values of AcquisitionContrast, and which contrasts may have them; others say nothing
    "T1": ("T1w", "ce-gad_T1w"),
    "T2": ("T2w", "T2wFS", "FLAIR", "PDw"),
    "PROTON_DENSITY": ("PDw",),
    "FLUID_ATTENUATED": ("FLAIR",),
    "STIR": ("T2wFS",),
    **dict.fromkeys(("T2_STAR", "DIFFUSION", "PERFUSION", "FLOW_ENCODED", "TAGGING", "TOF"), ()),
}


class Verdict(NamedTuple):
    """The contrasts that a series may be, and why that is doubtful; with no doubt it is one."""

    contrasts: frozenset[str] = frozenset()
    doubt: str = ""

    def surely(self, contrast: str) -> bool:
        """Whether the series is that contrast, without a doubt."""
        return not self.doubt and contrast in self.contrasts


def judge(description: str, header: Header) -> Verdict:
    """What a series is. Where its words are ambiguous, or its header contradicts them, it says why."""
    words = descriptions.read(description)
    if not words.meanings & _WEIGHTINGS:
        return Verdict()
    meant = _meant(words, header)
    doubts = (doubt for contrast in sorted(meant) for doubt in _doubts(contrast, words, header) if doubt)
    return Verdict(frozenset(meant), _clash(words, meant) or next(doubts, ""))


_WEIGHTINGS = {Meaning.T1, Meaning.T2, Meaning.PD, Meaning.FLAIR, Meaning.GRADIENT_T1, Meaning.T2_STAR, Meaning.DUAL_ECHO}


def _meant(words: Words, header: Header) -> set[str]:
    """The contrasts that the words mean."""
    said = words.meanings
    meant: set[str] = set()
    if said & {Meaning.T1, Meaning.GRADIENT_T1}:
        native, enhanced = {"T1w"}, {"ce-gad_T1w"}
        silent = native | enhanced if header.agent else native
        said_of_agent = "unclear" if words.strange else words.agent
        meant |= {"": silent, "before": native, "after": enhanced, "unclear": native | enhanced}[said_of_agent]
    if Meaning.FLAIR in said:
        return meant | {"FLAIR"}
    t2 = "T2wFS" if Meaning.FAT_SATURATED in said else "T2w"
    if _is_dual(words) and not meant:
        return _echo({"PDw", t2}, t2, header)
    if said & {Meaning.T2, Meaning.T2_STAR}:
        meant |= {"T2w", "T2wFS"} if Meaning.FAT in said else {t2}
    if Meaning.PD in said:
        meant.add("PDw")
    return meant


def _is_dual(words: Words) -> bool:
    """Whether the words mean both echoes of PD/T2."""
    return Meaning.DUAL_ECHO in words.meanings or {Meaning.T2, Meaning.PD} <= words.meanings


def _echo(both: set[str], t2: str, header: Header) -> set[str]:
    """Of the two contrasts of a dual echo, the one that the echo time says."""
    if header.echoes == 2:
        return {("PDw", t2)[header.echo - 1]}
    te = header.times.te
    if te is None or PROTON_DENSITY_TE < te < T2_TE:
        return both
    return {"PDw" if te <= PROTON_DENSITY_TE else t2}


def _clash(words: Words, meant: set[str]) -> str:
    """Why the words alone leave a doubt."""
    if words.other_kind:
        return f"its description says {words.other_kind}"
    if Meaning.FAT in words.meanings:
        return "fat or water: saturated, or alone in it?"
    if meant == {"T1w", "ce-gad_T1w"} and words.agent == "unclear":
        return "before or after contrast agent is unclear"
    if words.strange:
        return f"{words.strange[:20]!r} in its description is no word that is known"
    if meant == {"T1w", "ce-gad_T1w"}:
        return "its header names a contrast agent, its description does not"
    if len(meant) > 1:
        return f"its description fits {' and '.join(sorted(meant))}"
    return ""


def header_contradiction(contrast: str, header: Header) -> str:
    """Why what a header or sidecar says cannot be of a contrast that a name states; '' where it can, or for an unknown one.

    Names may mean what is reformatted, filtered or fat-saturated.
    """
    if contrast not in NAMES:
        return ""
    part = image_types.part_of(header.image_type)
    kinds = sorted({kind for kind, _ in image_types.other_kinds(header.image_type)} - {*image_types.NAMED_SO})
    images = [f"its ImageType says {kind}" for kind in ([f"{part} images"] if part else kinds)]
    doubts = *images, *_agent_doubts(contrast, header), *_sequence_doubts(contrast, header.sequence, header)
    return next(iter(doubts), "")


def _doubts(contrast: str, words: Words, header: Header) -> Iterator[str]:
    """Why a series may not be the contrast that its words mean."""
    said = words.meanings | header.sequence
    is_t1 = contrast in ("T1w", "ce-gad_T1w")
    part = image_types.part_of(header.image_type)
    if part:
        yield f"its ImageType says {part} images"
    for kind, value in image_types.other_kinds(header.image_type):
        if not (kind == image_types.WATER and contrast == "T2wFS"):
            yield f"its ImageType says {kind} ({value[:20]})"
    if header.image_type[:2] == ("DERIVED", "SECONDARY"):
        yield "its ImageType says derived images"
    if header.mixed:
        yield f"its slices differ: some say {header.mixed}"
    if Meaning.REFORMAT in said and header.image_type[:1] != ("ORIGINAL",) and not header.times.ti:
        yield "'mpr' may be MP-RAGE or a reformat"
    yield from _sequence_doubts(contrast, said, header)
    if is_t1 and Meaning.TIRM in said:
        yield "TIRM may be a T1 FLAIR"
    if Meaning.DIXON in said and Meaning.FAT_SATURATED not in said:
        yield "it is a part of a Dixon scan"
    if Meaning.PERHAPS_PART in said:
        yield "it may be a part of a Dixon scan"
    if not is_t1 and (Meaning.MULTI_ECHO in said or header.echoes > 2) and not _is_dual(words):
        yield "it may be one of many echoes"
    if (is_t1 or contrast == "PDw") and Meaning.FAT_SATURATED in said:
        yield "it is fat-saturated"
    if contrast in ("T1w", "T2w", "PDw") and header.fat_saturated:
        yield "its header says fat-saturated"
    yield from _agent_doubts(contrast, header)
    yield _protocol_contradiction(contrast, header)
    if not is_t1 and words.agent in ("after", "unclear"):
        yield "its description says contrast agent" + (", perhaps" if words.agent == "unclear" else "")
    yield contradiction(contrast, header.times)
    if not said & {Meaning.GRADIENT, Meaning.GRADIENT_T1, Meaning.INVERSION} and not header.times.ti:
        yield _spin_echo_contradiction(contrast, header.times.tr)
    inverted = Meaning.INVERSION in header.sequence
    if contrast == "FLAIR" and not (header.times.ti or inverted) and header.times.te is not None:
        yield "its header has no inversion time"


def _sequence_doubts(contrast: str, said: frozenset[Meaning], header: Header) -> Iterator[str]:
    """Why a sequence, as words and header say it, cannot make a contrast."""
    is_t1 = contrast in ("T1w", "ce-gad_T1w")
    gradient = said & {Meaning.T2_STAR, Meaning.GRADIENT, Meaning.GRADIENT_T1}
    if not is_t1 and (gradient or image_types.is_gradient_echo(header.image_type)):
        yield "it is a gradient echo (T2*)"
    if is_t1 and Meaning.T2_STAR in said:
        yield "its description says T2*"
    if header.echo_planar:
        yield "its header says echo planar"
    if header.diffusion:
        yield "its header says diffusion"
    if contrast in ("T2w", "PDw") and said & {Meaning.INVERSION, Meaning.TIRM}:
        yield "it is an inversion recovery"
    if contrast not in _ACQUIRED.get(header.acquired, NAMES):
        yield f"its AcquisitionContrast says {header.acquired}"


def _agent_doubts(contrast: str, header: Header) -> Iterator[str]:
    """What a header says of contrast agent against a T1w; T2w and FLAIR hardly change with it."""
    if contrast == "T1w" and header.agent:
        yield "its header names a contrast agent"
    if contrast == "ce-gad_T1w" and header.agent is False:
        yield "its header says no contrast agent"


def _protocol_contradiction(contrast: str, header: Header) -> str:
    """Why a protocol's name is that of another contrast. One that names several, or none, is that of an exam."""
    words = descriptions.read(header.protocol)
    meant = _meant(words, header)
    if words.strange or not meant:
        return ""
    if contrast == "T1w" and words.agent == "after" and words.meanings & {Meaning.T1, Meaning.GRADIENT_T1}:
        return "its ProtocolName says contrast agent"
    weightings = {_WEIGHTING[name] for name in meant}
    if len(weightings) == 1 and _WEIGHTING[contrast] not in weightings:
        return f"its ProtocolName says {' or '.join(sorted(meant))}"
    if contrast in ("T2w", "PDw", "FLAIR", "T2wFS") and Meaning.T2_STAR in words.meanings:
        return "its ProtocolName says T2*"
    if contrast == "T2w" and meant == {"T2wFS"}:
        return "its ProtocolName says fat-saturated"
    return ""


_WEIGHTING = {"T1w": "T1", "ce-gad_T1w": "T1", "T2w": "T2", "T2wFS": "T2", "PDw": "PD", "FLAIR": "FLAIR"}


def _spin_echo_contradiction(contrast: str, tr: float | None) -> str:
    """Why a TR (ms) cannot be that of a spin echo of a contrast."""
    least, most = _SPIN_ECHO_TR[contrast]
    if tr and not least <= tr <= most:
        return f"TR {tr:g} ms is too {'short' if tr < least else 'long'} for {contrast}"
    return ""


def oddity(contrast: str, times: SequenceTimes) -> str:
    """Why times (ms) are hardly those of a contrast, be they nominal or not; '' where they may be."""
    if contrast == "FLAIR" and times.te and not times.ti:
        return "it has no inversion time, which every FLAIR has"
    return contradiction(contrast, times)


def contradiction(contrast: str, times: SequenceTimes, slack: float = 1.0) -> str:
    """Why times (ms) cannot be those of a contrast, where they are known; '' where they can, or for an unknown contrast.

    What is off its limits by less than the factor `slack` passes.
    """
    limits = _LIMITS.get(contrast)
    if limits is None:
        return ""
    (least, most), inversion = limits
    if times.te and times.te < least / slack:
        return f"TE {times.te:g} ms is too short for {contrast}"
    if times.te and times.te > most * slack:
        return f"TE {times.te:g} ms is too long for {contrast}"
    if times.ti and inversion is None:
        return f"TI {times.ti:g} ms says inversion, which {contrast} has not"
    if times.ti and not inversion[0] / slack <= times.ti <= inversion[1] * slack:
        return f"TI {times.ti:g} ms is too {'short' if times.ti < inversion[0] else 'long'} for {contrast}"
    return ""
