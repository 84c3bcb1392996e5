"""The contract of a synthesis method: all that the training step, the checkpoints, the evaluation and the commands know of it.

Batches are dictionaries of arrays: 'sources' (B, H, W, K) and 'target' (B, H, W) in [0, 1], 'tr', 'te', 'ti' (B, K)
milliseconds of the sources, and, for a method that allows it, 'available' (B, K). `rng` is one key an example, (B,), so that
a result does not depend on how examples are spread over batches and devices. `progress`, a scalar in [0, 1], is the share of
the training that is done, by steps or by the clock.
"""

import abc
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import optax
from flax import struct
from jax import Array

from mrdiff_jax.diffusion.schedules import Schedule

Batch = Mapping[str, Array]
Tree = Any


@struct.dataclass
class Variables:
    """Everything that a method's networks hold.

    Attributes:
      params: by player, what its loss trains.
      state: by player, what its network keeps beside them: running statistics, singular vectors.
      targets: by name, weights that no loss trains, moved by `Method.after_step`.
    """

    params: dict[str, Tree]
    state: dict[str, Tree] = struct.field(default_factory=dict)
    targets: dict[str, Tree] = struct.field(default_factory=dict)

    def of(self, player: str) -> dict[str, Tree]:
        """The variables of a player's network, as flax takes them."""
        return {"params": self.params[player], **self.state.get(player, {})}

    def with_params(self, player: str, params: Tree) -> "Variables":
        """With other parameters of one player."""
        return self.replace(params=self.params | {player: params})


class Outcome(NamedTuple):
    """What a loss says beside its value: scalars to log, and the new state of the players whose state it moves."""

    metrics: dict[str, Array]
    state: dict[str, Tree] = {}  # noqa: RUF012  (never changed)


Loss = Callable[[Variables, Batch, Array, Array], tuple[Array, Outcome]]  # of variables, batch, rng and progress


class Player(NamedTuple):
    """A network that is trained: its loss, which is differentiated by its own parameters alone, and how these move.

    `optimizer` takes `progress` as an extra argument of its update. It acts on packed parameters (`packing.pack`), so it must
    treat every element alike, or take norms over all of them.
    """

    loss: Loss
    optimizer: optax.GradientTransformationExtraArgs


class Method(abc.ABC):
    """One synthesis method.

    Attributes:
      players: what is trained, by name, in the order of the updates.
      simultaneous: every loss sees the weights from before the step; else those that the players before it have now.
      averaged: the players of which the moving average is evaluated.
      any_sources: synthesis does without some of the sources: 'available' (B, K) in the batch, if it is there, is 1 for each
        source that is given and 0 for each that is not, whose image is not read.
      samples: synthesis draws from a distribution, and takes `config.sample`; else it is deterministic.
      sampling: the fields of `config.sample` that it reads.
      described: names of the images that `describe` shows.
      inverted: the sources whose inversion time the losses read.
      stride: the sides of images must be a multiple of it.
      lean: its training step is compiled lean (`parallel.pmap`), as suits one of very many kernels.
      schedule: the noise of a method that has `denoise`.
    """

    players: Mapping[str, Player]
    simultaneous: bool = False
    averaged: tuple[str, ...] = ("generator",)
    any_sources: bool = False
    samples: bool = False
    sampling: tuple[str, ...] = ("sampler", "steps", "eta", "spacing")
    described: tuple[str, ...] = ()
    inverted: tuple[str, ...] = ()
    stride: int = 1
    lean: bool = False
    schedule: Schedule | None = None

    @abc.abstractmethod
    def init(self, key: Array, batch: Batch) -> Variables:
        """Fresh variables, as numpy arrays, for batches like this one."""

    def begin(self, variables: Variables) -> Variables:
        """Fresh variables with those of elsewhere in their place, if the settings name any; asked once, when a run begins.

        Raises:
          UserError: they cannot be read, or do not fit.
        """
        return variables

    @abc.abstractmethod
    def synthesize(self, variables: Variables, batch: Batch, rng: Array) -> Array:
        """Images (B, H, W) in [0, 1]; needs no 'target' in the batch."""

    def after_step(self, variables: Variables, progress: Array) -> Variables:
        """Moves what no loss trains, after all players were updated."""
        return variables

    def describe(self, variables: Variables, batch: Batch, rng: Array) -> tuple[Array, ...]:
        """Images (B, H, W) that show what the method sees, one for each of `described`."""
        return ()

    feature_maps: Callable[[Variables, Batch, Array], Mapping[str, Array]] | None = None
    """(variables, batch, rng) -> feature maps (B, h, w, C) that stand for T1, T2 and S0, by these names, of a method that has
    them; H and W are multiples of h and w."""

    reconstruct: Callable[[Variables, Batch, Array], Array] | None = None
    """(variables, batch, rng) -> the sources (B, H, W, K) in [0, 1] as signal equations at the batch's times explain them, of a
    method that has such equations."""

    denoise: Callable[[Variables, Batch, Array, Array], Array] | None = None
    """(variables, batch, x_t, t) -> the estimate of the target, both (B, H, W) in [-1, 1] but for the noise, of a method that
    walks a chain of noise, whose steps t (B,) `schedule` has."""
