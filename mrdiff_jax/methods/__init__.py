"""The contract of a synthesis method, and its registry.

A method is a file of this package with a function `create(config) -> Method`. Everything around it, the training step, the
checkpoints, the evaluation and the commands, knows the contract alone.

Batches are dictionaries of arrays: 'sources' (B, H, W, K) and 'target' (B, H, W) in [0, 1], 'tr', 'te', 'ti' (B, K)
milliseconds of the sources. `rng` is one key an example, (B,), so that a result does not depend on how examples are spread
over batches and devices. Parameters are a dictionary keyed by player ('generator', 'discriminator', ...); the extra entry
'stats' holds what a network keeps beside its parameters (running statistics, singular vectors).
"""

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array
from jax.extend.core import Var

from mrdiff_jax.errors import UserError

Batch = Mapping[str, Array]
Params = dict[str, Any]
Aux = dict[str, Any]


@dataclass(frozen=True)
class Method:
    """One synthesis method.

    Attributes:
      init: (key, batch) -> params.
      losses: for each player, in the order of their updates, (params, batch, rng) -> (scalar, aux). aux has 'metrics', scalars
        to log, and may have 'stats', the new value of params['stats'].
      synthesize: (params, batch, rng) -> images (B, H, W) in [0, 1]; needs no 'target' in the batch.
      describe: (params, batch, rng) -> images (B, H, W) that show what the method sees, one for each of `described`.
      described: their names.
      maps: (params, batch, rng) -> feature maps (B, h, w, C) that stand for T1, T2 and S0, by these names, of a method that has
        them; h and w divide H and W.
      inverted: the sources whose inversion time its losses read.
      stride: what the sides of images must divide by.
    """

    init: Callable[[Array, Batch], Params]
    losses: Mapping[str, Callable[[Params, Batch, Array], tuple[Array, Aux]]]
    synthesize: Callable[[Params, Batch, Array], Array]
    describe: Callable[[Params, Batch, Array], tuple[Array, ...]] = lambda params, batch, rng: ()
    described: tuple[str, ...] = ()
    maps: Callable[[Params, Batch, Array], Mapping[str, Array]] | None = None
    inverted: tuple[str, ...] = ()
    stride: int = 1


def names() -> list[str]:
    """Names of all methods."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def create(config: Any) -> Method:
    """Builds the method that `config.method.name` names.

    Raises:
      UserError: there is no such method; the message lists them.
    """
    name = config.method.name
    if name not in names():
        raise UserError(f"--config.method.name={name}: no such method; choose one of {', '.join(names())}")
    return importlib.import_module(f"{__name__}.{name}").create(config)


def parameters_read(function: Callable[..., Any], params: Params, *args: Any) -> Params:
    """The part of the parameters that a function of the contract reads, say `synthesize`: found by tracing it.

    Args:
      function: (params, *args) -> anything.
      params: parameters, or their shapes; of every player, though the function need not read it.
      args: the other arguments, or their shapes.

    Returns:
      The same tree without the leaves that do not matter to the function; every player stays, if empty.
    """
    flat = flatten_dict(params)

    def of_leaves(leaves: list[Any], *args: Any) -> Any:
        return function(_nested(dict(zip(flat, leaves, strict=True)), params), *args)

    jaxpr = jax.make_jaxpr(of_leaves)(list(flat.values()), *args).jaxpr
    read = {var for equation in jaxpr.eqns for var in equation.invars if isinstance(var, Var)} | set(jaxpr.outvars)
    kept = {path: leaf for (path, leaf), var in zip(flat.items(), jaxpr.invars, strict=False) if var in read}
    return _nested(kept, params)


def _nested(flat: Mapping[tuple, Any], players: Iterable[str]) -> Params:
    return {player: {} for player in players} | unflatten_dict(flat)
