"""What the elements of a header say of contrast, be they of a DICOM file or of the sidecar that was made of it."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from mrdiff_jax.scans.contrasts import Header
from mrdiff_jax.scans.descriptions import denies_agent
from mrdiff_jax.scans.vocabulary import Meaning

ELEMENTS = (  # beside those that multi-frame files have for each frame
    *("ScanningSequence", "SequenceVariant", "SequenceName", "ScanOptions", "EchoPulseSequence", "EchoPlanarPulseSequence"),
    *("ContrastBolusAgent", "ContrastBolusAgentSequence", "ContrastBolusIngredient", "ContrastBolusVolume"),
    *("ContrastBolusRoute", "ContrastBolusTotalDose", "ContrastBolusStartTime", "ContrastBolusStopTime"),
    *("ContrastBolusIngredientConcentration", "ContrastFlowRate", "ProtocolName"),
)
_OF_A_DOSE = (
    *("ContrastBolusIngredient", "ContrastBolusVolume", "ContrastBolusRoute", "ContrastBolusTotalDose"),
    *("ContrastBolusStartTime", "ContrastBolusStopTime", "ContrastBolusIngredientConcentration", "ContrastFlowRate"),
)
_JOINED = ("ScanningSequence", "SequenceVariant", "ScanOptions")  # GR_IR in sidecars
_FAT_OPTIONS = {"FS", "WE", "SPIR", "SPAIR", "FATSAT", "FAT_SAT", "FS_GEMS"}  # of ScanOptions
_GRADIENT_NAMES = ("me", "qme", "fl", "tfl", "fi", "ci", "de", "swi", "fm", "ps")  # of Siemens' sequences, as *me2d1r4
_INVERSION_NAMES = ("tir", "tirb", "spcir", "ir")
_MANY_ECHOES = re.compile(r"se_mc|se\dd(?!1$|2$)\d+")  # as *se2d16

Value = Callable[[str], Any]  # of a keyword; None where there is none


def words(value: Any) -> tuple[str, ...]:
    """The values of an element that may have several, in capitals."""
    values = [value] if isinstance(value, str | int | float) else value or ()
    return tuple(str(word).strip().upper() for word in values)


def header_of(value: Value, image_type: tuple[str, ...]) -> Header:
    """What a header says of contrast, but for the times."""
    scanning = words(value("ScanningSequence"))
    full = name = str(value("SequenceName") or "").lower().lstrip("*")
    name = name[: next((place for place, letter in enumerate(name) if not letter.isalpha()), len(name))]
    steady = not scanning and {"SS", "TRSS"} & {*words(value("SequenceVariant"))}
    sequence = set()
    if ("GR" in scanning and "SE" not in scanning) or steady or value("EchoPulseSequence") == "GRADIENT":
        sequence.add(Meaning.GRADIENT)
    if "SE" not in scanning and name in _GRADIENT_NAMES:
        sequence.add(Meaning.GRADIENT)
    if "IR" in scanning or value("InversionRecovery") == "YES" or name in _INVERSION_NAMES:
        sequence.add(Meaning.INVERSION)
    if _MANY_ECHOES.fullmatch(full):
        sequence.add(Meaning.MULTI_ECHO)
    suppressed = str(value("SpectrallySelectedSuppression") or "").upper().startswith("FAT")
    return Header(
        agent=_agent(value),
        sequence=frozenset(sequence),
        echo_planar="EP" in scanning or value("EchoPlanarPulseSequence") == "YES" or name in ("ep", "epse", "epfid"),
        fat_saturated=suppressed or bool(_FAT_OPTIONS & {*words(value("ScanOptions"))}),
        diffusion=_is_positive(value("DiffusionBValue")),
        acquired=str(value("AcquisitionContrast") or "").upper(),
        image_type=image_type,
        protocol=str(value("ProtocolName") or ""),
    )


def sidecar_header(fields: Mapping[str, Any]) -> Header:
    """What a JSON sidecar says of contrast, but for the times: the elements of the DICOM header, as dcm2niix writes them."""

    def value(keyword: str) -> Any:
        found = fields.get(keyword)
        if isinstance(found, str) and keyword in _JOINED:
            return found.split("_")
        return found if isinstance(found, str | int | float | list) and keyword != "ContrastBolusAgentSequence" else None

    image_type = value("ImageType")
    return header_of(value, words(image_type) if isinstance(image_type, str | list) else ())


def _agent(value: Value) -> bool | None:
    """Whether a contrast agent was given; None where the header does not say."""
    codes = [str(code.get("CodeMeaning") or "agent") for code in value("ContrastBolusAgentSequence") or ()]
    named = list(filter(None, [str(value("ContrastBolusAgent") or "").strip(), *codes]))
    if named:
        return not all(map(denies_agent, named))
    return any(_says_something(value(keyword)) for keyword in _OF_A_DOSE) or None


def _says_something(value: Any) -> bool:
    """Whether an element of a dose, a time or a route says more than zeros, or that there was none."""
    text = str("" if value is None else value)
    return bool(text.strip("0.:,[]' ")) and not denies_agent(text)


def _is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and value > 0
