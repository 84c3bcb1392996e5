"""Which of a method's variables a function reads: what synthesis must load, and what it can leave."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.extend.core import Var

from mrdiff_jax.fields import split_names
from mrdiff_jax.methods.contract import Method, Variables


def flatten(variables: Variables) -> dict[str, Any]:
    """The leaves by path, as 'params/generator/encoder/conv_in/kernel'."""
    groups = {"params": variables.params, "state": variables.state, "targets": variables.targets}
    return flatten_dict(groups, sep="/")


def unflatten(leaves: dict[str, Any]) -> Variables:
    """The variables with these leaves. Raises TypeError where a path is none of theirs."""
    return Variables(**{"params": {}} | unflatten_dict(leaves, sep="/"))


def read_by(function: Callable[..., Any], variables: Variables, *args: Any) -> Variables:
    """The part of the variables that a function of the contract reads, say `synthesize`: found by tracing it.

    Args:
      function: (variables, *args) -> anything.
      variables: or their shapes; of every player, though the function need not read it.
      args: the other arguments, or their shapes.
    """
    leaves = flatten(variables)

    def of_leaves(values: list[Any], *args: Any) -> Any:
        return function(unflatten(dict(zip(leaves, values, strict=True))), *args)

    jaxpr = jax.make_jaxpr(of_leaves)(list(leaves.values()), *args).jaxpr
    read = {var for equation in jaxpr.eqns for var in equation.invars if isinstance(var, Var)} | set(jaxpr.outvars)
    return unflatten({path: leaf for (path, leaf), var in zip(leaves.items(), jaxpr.invars, strict=False) if var in read})


def synthesis_part(method: Method, config: Any, variables: Variables, *, maps: bool = False) -> Variables:
    """What synthesis reads of the variables, or of their shapes, and with `maps` what is made of feature maps, too."""
    functions = (method.synthesize, method.describe, method.reconstruct) if maps else (method.synthesize,)

    def run(*args: Any) -> Any:
        return [function(*args) for function in functions if function]

    return read_by(run, variables, *_example(config))


def _example(config: Any) -> tuple[dict[str, jax.ShapeDtypeStruct], jax.ShapeDtypeStruct]:
    """Shapes of a batch of one, and of its key."""
    side, k = config.data.image_size, len(split_names(config.data.sources))
    shapes = {"sources": (1, side, side, k), "tr": (1, k), "te": (1, k), "ti": (1, k)}
    key = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1))
    return {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in shapes.items()}, key


RestorePart = Callable[[Callable[[dict[str, Any]], dict[str, Any]]], tuple[int, dict[str, Any]]]


def restore_evaluated(restore_part: RestorePart, choose: Callable[[Variables], Variables]) -> tuple[int, Variables]:
    """Of a run's checkpoint the variables that are evaluated: averages where they are kept, and only what is chosen.

    Args:
      restore_part: `checkpoints.restore_part` of a workdir: from what is chosen of the shapes of a `TrainState` to the step and
        the arrays.
      choose: from the shapes of all variables to those to restore.

    Returns:
      The step, and the variables as numpy arrays.

    Raises:
      UserError: there is no checkpoint, or it is damaged.
    """

    def part(shapes: dict[str, Any]) -> dict[str, Any]:
        """What to restore of a `TrainState`."""
        variables, average = shapes["variables"], shapes.get("average") or {}
        chosen = choose(Variables(**variables | {"params": variables["params"] | average}))
        own = {player: tree for player, tree in chosen.params.items() if player not in average}
        rest = {"params": own, "state": chosen.state, "targets": chosen.targets}
        parts = {
            "variables": {name: tree for name, tree in rest.items() if tree},
            "average": {player: tree for player, tree in chosen.params.items() if player in average},
        }
        return {name: tree for name, tree in parts.items() if tree}

    step, read = restore_part(part)
    variables = read.get("variables", {})
    return step, Variables(**variables | {"params": variables.get("params", {}) | read.get("average", {})})
