"""How scans become slices. Apart from the code that does it, which training does not need."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

REGISTRATIONS = ("auto", "never")
PLANES = ("sagittal", "coronal", "axial")  # by the axis that they cut
INTERPOLATIONS = ("nearest", "linear", "cubic")
MASKS = ("body", "none")


@dataclass(frozen=True)
class Options:
    """How scans are prepared; a change means preparing again."""

    contrasts: tuple[str, ...]
    reference: str
    registration: str = "auto"
    interpolation: str = "linear"
    bias_correction: bool = True
    mask: str = "body"
    percentiles: tuple[float, float] = (0.5, 99.5)
    plane: str = "axial"
    slices: str = ""
    image_size: int = 256
    field_mm: float = 0.0

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """From the JSON of its fields. Raises TypeError or KeyError where they are not those of this version."""
        low, high = values["percentiles"]
        return cls(**{**values, "contrasts": tuple(values["contrasts"]), "percentiles": (low, high)})
