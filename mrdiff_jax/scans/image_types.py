"""ImageType of DICOM: which values say magnitude as acquired, which a part of a complex image, which another kind."""

from collections.abc import Iterator, Sequence

_PARTS = {  # values, and what a series of such images is; corrected ones (CR, CI, CP) are Philips'
    **dict.fromkeys(("P", "PHASE", "PHASE MAP", "VELOCITY", "VELOCITY MAP", "V", "CP"), "phase"),
    **dict.fromkeys(("R", "REAL", "CR"), "real"),
    **dict.fromkeys(("I", "IMAGINARY", "CI"), "imaginary"),
}
_PHILIPS_PARTS = {  # as in R_IR
    letters: part for letters, part in _PARTS.items() if letters in ("P", "R", "I", "V", "CP", "CR", "CI")
}
WATER = "the water image of a Dixon scan"
_REFORMAT, _DERIVED = "a reformat", "a derived image"
NAMED_SO = (WATER, _REFORMAT, _DERIVED)  # what people name by its contrast nevertheless
_WORDS = {  # whole values, and words in them
    _REFORMAT: "MPR REFORMATTED RESAMPLED CURVED CPR",
    "a projection": "MIP MINIP MNIP PROJECTION VRT RENDERED 3DRENDERED",
    "a diffusion image": "ADC DIFFUSION TRACEW FA TENSOR EADC DADC TRACE EXPONENTIAL BVALUE",
    "a map": "MAP MAPS T1MAP T2MAP R1 R2 R2STAR T2STAR RHO FIT QUANTITATIVE",
    "a perfusion image": "CBF CBV MTT TTP PERFUSION RELCBF RELCBV RELMTT ASL PBP",
    "a susceptibility image": "SWI SUSCEPTIBILITY QSM",
    "a subtraction": "SUB SUBTRACT SUBTRACTED SUBTRACTION",
    "a part of an MP2RAGE": "INV1 INV2 UNI",
    "a part of a Dixon scan": "FAT F IP OP FF FATFRAC FRACTION",
    WATER: "WATER W",
    "a field map": "B0 B1",
    "a localiser": "LOCALIZER SCOUT",
    "a synthetic image": "SYNTHETIC SYNT COMPUTED CALC",
    "a screenshot": "SCREENSHOT SCREENSAVE",
    "a magnetisation-transfer image": "MTR MTC",
    "an image of statistics": "MEAN AVERAGE STDDEV RATIO TTEST",
    "an angiogram": "TOF ANGIO PCA",
    "an echo-planar image": "MOSAIC FMRI BOLD",
}
_OTHER_KINDS = {
    **{word: kind for kind, words in _WORDS.items() for word in words.split()},
    **dict.fromkeys(("MIN IP", "MAX IP", "VOLUME RENDERED"), "a projection"),
    **dict.fromkeys(("T1", "T2", "T2 STAR", "R2 STAR"), "a map"),
    **dict.fromkeys(("IN PHASE", "OUT PHASE", "OPP PHASE", "OUT OF PHASE"), "a part of a Dixon scan"),
    "FIELD MAP": "a field map",
    "SCREEN SAVE": "a screenshot",
    "B VALUE": "a diffusion image",
    "PHASE CONTRAST M": "a flow image",
}
_ALSO_ORIGINAL = ("MPR", "T1", "T2")  # GE writes ORIGINAL\\PRIMARY\\MPR for oblique slices as acquired
_STILL_PLAIN = (  # in derived images: magnitude, corrected for distortion or filtered, and Philips' sequences
    "M MAGNITUDE MIXED ND NORM NONE DIS2D DIS3D FM FIL FILTERED OTHER PRIMARY SECONDARY ORIGINAL DERIVED MAIN NORMALIZED "
    "COMP ADPT COMB MFSPLIT RETRO SE IR FFE TSE DRB DRG DRS DRL X DIXON"
)


def part_of(image_type: Sequence[str]) -> str:
    """'phase', 'real' or 'imaginary', where a series' images are such; '' for magnitude. `image_type`: in capitals."""
    for value in image_type[2:]:
        letters, underscore, _ = value.partition("_")
        part = _PARTS.get(value.replace("_", " ")) or (_PHILIPS_PARTS.get(letters) if underscore else None)
        if part:
            return part
    return ""


def other_kinds(image_type: Sequence[str]) -> Iterator[tuple[str, str]]:
    """What a series' images are beside magnitude as acquired, and the values that say so.

    Of original images, what is known to be another kind; of derived ones, all that is not known to be plain.
    """
    original, derived = (image_type[:1] == (kind,) for kind in ("ORIGINAL", "DERIVED"))
    for value in image_type[2:]:
        spaced = value.replace("_", " ")
        kind = _OTHER_KINDS.get(spaced) or next((_OTHER_KINDS[word] for word in spaced.split() if word in _OTHER_KINDS), "")
        if original and value in _ALSO_ORIGINAL:
            continue
        if not kind and derived and not {*spaced.split()} <= {*_STILL_PLAIN.split()} and not part_of(("", "", value)):
            kind = _DERIVED
        if kind:
            yield kind, value


def is_gradient_echo(image_type: Sequence[str]) -> bool:
    """Whether Philips says so, with M_FFE or FFE."""
    return any("FFE" in value.split("_") for value in image_type[2:])


def what_matters(image_type: Sequence[str]) -> tuple[str, ...]:
    """What sets images of one series apart, not how they were filtered: two series may differ in it, slices of one do not."""
    kinds = {f"{kind} {value}" if kind == _DERIVED else kind for kind, value in other_kinds(image_type)}
    return (part_of(image_type), *(image_type[:2] if image_type[:2] == ("DERIVED", "SECONDARY") else ()), *sorted(kinds))
