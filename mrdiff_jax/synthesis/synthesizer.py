"""A trained model as a function from images to images."""

import dataclasses
from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mrdiff_jax import fields, methods, parallel
from mrdiff_jax.errors import UserError
from mrdiff_jax.methods.contract import Method
from mrdiff_jax.scans import sequence_times
from mrdiff_jax.scans.sequence_times import SequenceTimes
from mrdiff_jax.synthesis import model_files
from mrdiff_jax.synthesis.model_files import Trained
from mrdiff_jax.synthesis.sampling import Compiled, Sampler, on_devices

_ROUNDING = 1e-3  # how far outside of [0, 1] sources may be


class Synthesizer:
    """Synthesises images with a trained model on all local devices; compiled once for each shape.

    Attributes:
      trained: the model; of its variables only those that synthesis reads are there.
      method: behind the contract.
    """

    def __init__(self, model: Trained):
        self.trained = model
        self.method = methods.create(model.config)
        self._variables = parallel.replicate(model.variables)
        self._sampler = lru_cache(self._make_sampler)

    @classmethod
    def load(cls, path: str | Path, maps: bool = False) -> Self:
        """Loads a model from the workdir of a run, or from a file that `mrdiff export` wrote.

        Args:
          path: of the folder or the file.
          maps: loads as well what `maps` needs, which an exported file holds if it was written with `--maps`.

        Raises:
          UserError: there is none, its parts do not fit each other, or there are no feature maps.
        """
        return cls(model_files.load(Path(path), maps))

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the K sources, in their order."""
        return tuple(self.trained.data.sources)

    @property
    def target(self) -> str:
        """Name of the contrast that is synthesised."""
        return self.trained.data.target

    def __call__(
        self,
        sources: Any,
        tr: Any,
        te: Any,
        ti: Any = None,
        *,
        rng: Array,
        given: Sequence[str] | None = None,
        steps: int | None = None,
        samples: int = 1,
        sampler: str | None = None,
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Synthesises the target.

        Args:
          sources: (B, H, W, K) in [0, 1]; sides that the network cannot take are padded with zeros, and the result cropped.
          tr: (B, K) or (K,), ms; as are te and ti (None: 0).
          te: see tr.
          ti: see tr.
          rng: one key, or (B,) keys, one an image.
          given: names of the sources that `sources` and the times are of, for a method that does without some; None is all.
          steps: of the reverse chain, 1 being the direct estimate of x_0; None is as configured.
          samples: how many to average.
          sampler: 'ddim', 'ddpm' or 'dpm'; None is as configured.

        Returns:
          Images (B, H, W) in [0, 1]; with samples > 1 their mean and their standard deviation over the samples.

        Raises:
          UserError: an array is of another shape or range, times are implausible (in seconds, say), the key is none, or the
            settings do not fit the model.
        """
        names = self.sources if given is None else tuple(given)
        self.check_given(names)
        images = _checked(sources, names)
        if samples < 1:
            raise UserError(f"samples={samples}: must be at least 1")
        _, height, width, _ = images.shape
        rows, columns = (_padding(side, self.method.stride) for side in (height, width))
        padded = np.pad(images, ((0, 0), rows, columns, (0, 0)))
        found = self._run(self._sampler(steps, sampler, samples), self._batch(padded, (tr, te, ti), names), rng)
        mean, deviation = (image[:, rows[0] : rows[0] + height, columns[0] : columns[0] + width] for image in found)
        return (mean, deviation) if samples > 1 else mean

    def check_given(self, names: Sequence[str]) -> None:
        """Checks that synthesis can do with these sources. Raises UserError with those that the model wants."""
        wrong, lacking = self.misfits(names)
        known = ", ".join(self.sources)
        if wrong:
            raise UserError(f"source {wrong[0]}: the model makes {self.target} from {known}; give each of them once")
        if lacking:
            raise UserError(f"no source {lacking[0]}: the model makes {self.target} from {known}")

    def misfits(self, names: Sequence[str]) -> tuple[list[str], list[str]]:
        """Of names given as sources, those that are none or stand twice; and the sources that are needed beside them."""
        wrong = [name for name in names if name not in self.sources or list(names).count(name) > 1]
        needs_all = not names or not self.method.any_sources
        return wrong, [name for name in self.sources if name not in names] if needs_all else []

    def maps(self, sources: Any, tr: Any, te: Any, ti: Any = None, *, rng: Array) -> dict[str, np.ndarray]:
        """What the method sees, by name, (B, H', W') each: for MRDiff its feature maps, which are not quantitative.

        Arguments as for the synthesis, but sides must be multiples of `method.stride`. Raises UserError as that
        does, and where the model was not loaded with `maps`.
        """
        if not self.trained.maps:
            raise UserError("this model was loaded without what feature maps need: Synthesizer.load(path, maps=True)")
        batch = self._batch(_checked(sources, self.sources), (tr, te, ti), self.sources)
        described = self._run(self._describe, batch, rng)
        return dict(zip(self.method.described, described, strict=True))

    @cached_property
    def _describe(self) -> Compiled:
        return on_devices(self.method.describe)

    def sampling(self, steps: int | None, sampler: str | None, samples: int = 1) -> Method:
        """The method with other sampling; None is as configured.

        Raises:
          UserError: the model does not take it, or does not sample at all.
        """
        config = self.trained.config
        changes = {name: value for name, value in (("steps", steps), ("sampler", sampler)) if value is not None}
        if not self.method.samples and (changes or samples > 1):
            flags = ", ".join(f"--{name}" for name in [*changes, *(["samples"] if samples > 1 else [])])
            raise UserError(f"{flags}: {config.method.name} does not sample, it has one image; leave it out")
        if not changes:
            return self.method
        sample = dataclasses.replace(config.sample, **changes)
        try:
            fields.check(sample, "--config.sample.")
            return methods.create(dataclasses.replace(config, sample=sample))
        except UserError as error:
            raise UserError(str(error).replace("--config.sample.", "--")) from error

    def _make_sampler(self, steps: int | None, sampler: str | None, samples: int) -> Sampler:
        return Sampler(self.sampling(steps, sampler, samples), samples)

    def _batch(self, sources: np.ndarray, times: Sequence[Any], names: Sequence[str]) -> dict[str, np.ndarray]:
        """A batch of the contract, of the sources with these names."""
        count, *_, k = sources.shape
        batch = {"sources": sources}
        for name, values in zip(("tr", "te", "ti"), times, strict=True):
            try:
                batch[name] = np.broadcast_to(np.float32(0 if values is None else values), (count, k))
            except ValueError:
                raise UserError(f"{name} of shape {np.shape(values)}: give ({count}, {k}) or ({k},), ms") from None
        for i, source in enumerate(names):
            for row in np.unique([batch[name][:, i] for name in ("tr", "te", "ti")], axis=1).T:
                sequence_times.check(SequenceTimes(*row.tolist()), source)
        if self.method.any_sources:
            batch["available"] = np.ones((count, k), np.float32)
        places = [self.sources.index(name) for name in names]
        return {name: _spread(values, places, len(self.sources)) for name, values in batch.items()}

    def _run(self, compiled: Compiled, batch: dict[str, np.ndarray], rng: Array) -> tuple[np.ndarray, ...]:
        """Runs a compiled function of the contract on a batch."""
        count = len(batch["sources"])
        is_key = isinstance(rng, Array) and jnp.issubdtype(rng.dtype, jax.dtypes.prng_key)
        if not is_key or rng.shape not in ((), (count,)):
            raise UserError(f"rng: give jax.random.key(seed), or {count} such keys")
        keys = parallel.keys_at(rng, np.arange(count)) if rng.ndim == 0 else rng
        return compiled(self._variables, batch, keys)


def _checked(sources: Any, names: Sequence[str]) -> np.ndarray:
    """Sources as float32. Raises UserError where they are not (B, H, W, K) in [0, 1], a channel for each of the names."""
    if np.ndim(sources) != 4 or np.shape(sources)[-1] != len(names) or not np.size(sources):
        raise UserError(f"sources of shape {np.shape(sources)}: give (B, H, W, {len(names)}) for {', '.join(names)}")
    images = np.asarray(sources, np.float32)
    if not (images.min() >= -_ROUNDING and images.max() <= 1 + _ROUNDING):  # NaN is refused too
        raise UserError(f"sources from {images.min():g} to {images.max():g}: scale each volume's percentiles to 0 and 1")
    return images


def _spread(values: np.ndarray, places: Sequence[int], channels: int) -> np.ndarray:
    """Values (..., k) in their places among the channels, zero elsewhere."""
    spread = np.zeros((*values.shape[:-1], channels), values.dtype)
    spread[..., places] = values
    return spread


def _padding(side: int, stride: int) -> tuple[int, int]:
    missing = -side % stride
    return missing // 2, missing - missing // 2
