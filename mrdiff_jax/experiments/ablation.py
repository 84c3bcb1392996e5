"""The rows of an ablation of MRDiff: its components one by one (paper, Figure 4), and other settings of them."""

from collections.abc import Mapping, Sequence
from operator import attrgetter

from ml_collections import ConfigDict

from mrdiff_jax.experiments.plan import Rows
from mrdiff_jax.methods.distances import DISTANCES

WHOLE = "MRDiff"
PARTS: Mapping[str, Rows] = {
    "components": {
        "L_G": {"mrdiff.lambda_d": 0.0, "mrdiff.lambda_cct": 0.0},
        "L_G+L_D_without_M": {"mrdiff.modulation": False, "mrdiff.lambda_cct": 0.0},
        "L_G+L_D": {"mrdiff.lambda_cct": 0.0},
    },
    "maps": {
        "no_skips_to_D": {"mrdiff.decoder_skips": False},
        "D_per_source": {"mrdiff.decoder_skips": False, "mrdiff.decoder_per_source": True},
        "softplus": {"mrdiff.positivity": "softplus"},
    },
    "draws": {f"N_{count}": {"mrdiff.draws": count} for count in (1, 2, 3, 5)},
    "consistency": {f"lambda_3_{weight:g}": {"mrdiff.lambda_cct": weight} for weight in (0.001, 0.1)},
    "distance": {f"distance_{name}": {"mrdiff.distance": name} for name in DISTANCES},
    "wavelets": {f"wavelet_levels_{levels}": {"model.wavelet_levels": levels} for levels in (0, 1, 2)},
}


def rows(config: ConfigDict, parts: Sequence[str]) -> Rows:
    """The configuration as it is, and the rows of the parts that change it."""
    others = {row: fields for part in parts for row, fields in PARTS[part].items()}
    changing = {row: fields for row, fields in others.items() if any(attrgetter(f)(config) != fields[f] for f in fields)}
    return {WHOLE: {}} | changing
