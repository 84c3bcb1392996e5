"""How scans become slices. Apart from the code that does it, which training does not need."""

from dataclasses import dataclass

REGISTRATIONS = ("auto", "never")
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
