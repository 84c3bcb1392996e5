"""How images are scaled, masked and averaged before a score means anything: the default, and what peers' published code does.

Scores of different conventions cannot be compared (Dohmen et al., "Five pitfalls when assessing synthetic medical images
with reference metrics"). The peers' presets reproduce their scaling, mask, data range and aggregation; the metrics themselves
are always ours, and always of single slices.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jax import Array

from mrdiff_jax import metrics
from mrdiff_jax.scans.air import FOREGROUND_LEVEL, air_level, is_foreground

METRICS = {"psnr": metrics.psnr, "ssim": metrics.ssim, "fsim": metrics.fsim, "gmsd": metrics.gmsd}
ERRORS = {"nmse": metrics.nmse, "mae": metrics.mae}
HIGHER_IS_BETTER = {"psnr": True, "ssim": True, "fsim": True, "gmsd": False, "nmse": False, "mae": False}
BANDS = ("LL3", *(f"{kind}{level}" for level in (3, 2, 1) for kind in ("LH", "HL", "HH")))
BODY_RULE = (
    f"body: the truth or a source differs by more than {FOREGROUND_LEVEL} from the median of the slice's corners; opened by a"
    " 3 x 3 cross, holes filled; a slice without any counts whole"
)

Prepare = Callable[[Array, Array, Array], tuple[Array, Array, Array | float]]


@dataclass(frozen=True)
class Convention:
    """One way to score.

    Attributes:
      scaling, mask, data_range: in words.
      aggregation: 'subject' averages the slices of a subject and then subjects; 'slice' averages slices.
      prepare: (prediction, target, body), (B, H, W) each, -> prediction and target as they are compared, and the data range.
      body: scores inside the body are reported beside those of the whole slice.
    """

    scaling: str
    mask: str
    data_range: str
    aggregation: str
    prepare: Prepare
    body: bool = False

    def columns(self) -> list[str]:
        """Names of the scores, in the order of tables: the metrics, those inside the body, the errors, the wavelet bands."""
        inside = [f"{name}_body" for name in METRICS] if self.body else []
        return [*METRICS, *inside, *self.errors(), *BANDS]

    def errors(self) -> list[str]:
        """Of these names, those of the errors."""
        return [*ERRORS, *(f"{name}_body" for name in ERRORS if self.body)]

    def describe(self, name: str) -> "Description":
        """What a result carries of its convention."""
        return Description(name, self.scaling, self.mask, self.data_range, self.aggregation)


@dataclass(frozen=True)
class Description:
    """A convention in words, as a result carries it: its name, and what `Convention` says of it."""

    name: str
    scaling: str
    mask: str
    data_range: str
    aggregation: str


def body_mask(contrasts: np.ndarray) -> np.ndarray:
    """Where the body is, by BODY_RULE: (B, H, W, C) truth and sources in [0, 1] -> (B, H, W), boolean."""
    air = [[air_level(image[..., None]) for image in np.moveaxis(slice_, -1, 0)] for slice_ in contrasts]
    body = is_foreground(contrasts, np.array(air, contrasts.dtype)[:, None, None]).any(-1)
    cross = scipy.ndimage.generate_binary_structure(2, 1)[None]
    body = scipy.ndimage.binary_fill_holes(scipy.ndimage.binary_opening(body, cross), np.pad(cross, ((1, 1), (0, 0), (0, 0))))
    return body | ~body.any((1, 2), keepdims=True)


@functools.cache
def scorer(convention: Convention) -> Callable[[Array, Array, Array], dict[str, Array]]:
    """The compiled scores of a convention: (prediction, target, body), (B, H, W) each, -> {column: (B,)}."""

    @jax.jit
    def score(prediction: Array, target: Array, body: Array) -> dict[str, Array]:
        prediction, target, data_range = convention.prepare(prediction, target, body)
        masks = jnp.stack([jnp.ones_like(body), body]) if convention.body else jnp.ones_like(body)[None]
        suffixes = ("", "_body")[: len(masks)]
        scores = {}
        for name, metric in (METRICS | ERRORS).items():
            values = jax.vmap(metric, in_axes=(None, None, None, 0))(prediction, target, data_range, masks)
            scores |= {f"{name}{suffix}": value for suffix, value in zip(suffixes, values, strict=True)}
        return scores | dict(metrics.wavelet_band_errors(prediction, target))

    return score


def _as_they_are(prediction: Array, target: Array, body: Array) -> tuple[Array, Array, float]:
    return prediction, target, 1.0


def _each_by_its_maximum(prediction: Array, target: Array, body: Array) -> tuple[Array, Array, float]:
    return _by_maximum(prediction), _by_maximum(target), 1.0


def _each_from_0_to_1(prediction: Array, target: Array, body: Array) -> tuple[Array, Array, float]:
    return _from_0_to_1(prediction), _from_0_to_1(target), 1.0


def _in_8_bit(prediction: Array, target: Array, body: Array) -> tuple[Array, Array, float]:
    return jnp.round(prediction * 255), jnp.round(target * 255), 255.0


def _where_the_truth_is_not_0(prediction: Array, target: Array, body: Array) -> tuple[Array, Array, float]:
    prediction, target = _from_0_to_1(prediction), _from_0_to_1(target)
    return jnp.where(target == 0, 0, prediction), target, 1.0


def _in_the_bright_truth(prediction: Array, target: Array, body: Array) -> tuple[Array, Array, float]:
    bright = target > 0.01
    return _by_maximum(prediction * bright), _by_maximum(target * bright), 1.0


def _by_the_mean_of_the_body(prediction: Array, target: Array, body: Array) -> tuple[Array, Array, Array]:
    prediction, target = (_by_mean(image * body, body) for image in (prediction, target))
    return prediction, target, _or_1(target.max((1, 2)))


def _or_1(values: Array) -> Array:
    return jnp.where(values > 0, values, 1)


def _by_maximum(images: Array) -> Array:
    return images / _or_1(images.max((1, 2), keepdims=True))


def _from_0_to_1(images: Array) -> Array:
    return _by_maximum(images - images.min((1, 2), keepdims=True))


def _by_mean(images: Array, mask: Array) -> Array:
    pixels = _or_1(mask.sum((1, 2), keepdims=True))
    return images / _or_1(images.sum((1, 2), keepdims=True) / pixels)


CONVENTIONS = {
    "default": Convention(
        "one affine map per volume, from its own percentiles; clipped to [0, 1]; the prediction is never rescaled",
        f"none; {BODY_RULE}",
        "1",
        "subject",
        _as_they_are,
        body=True,
    ),
    "syndiff": Convention("each slice by its own maximum", "none", "1, the truth's maximum", "slice", _each_by_its_maximum),
    "resvit": Convention("each slice by its own maximum", "none", "1", "slice", _each_by_its_maximum),
    "d2diff": Convention("each slice from its own minimum to its maximum", "none", "1", "slice", _each_from_0_to_1),
    "fast-ddpm": Convention("rounded to 8 bits", "none", "255", "slice", _in_8_bit),
    "hinet": Convention(
        "each slice from its own minimum to its maximum",
        "the prediction is set to 0 where the truth is 0",
        "1, the truth's range",
        "slice",
        _where_the_truth_is_not_0,
    ),
    "apt": Convention(
        "each slice by its own maximum",
        "both are set to 0 where the truth is at most 0.01",
        "1",
        "slice",
        _in_the_bright_truth,
    ),
    "selfrdb": Convention(
        "each slice by its own mean inside the mask",
        f"both are set to 0 outside the body; {BODY_RULE}",
        "the truth's maximum",
        "subject",
        _by_the_mean_of_the_body,
    ),
}
