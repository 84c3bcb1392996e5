"""Which of a method's variables a function reads: what synthesis must load, and what it can leave."""

from collections.abc import Callable
from typing import Any

import jax
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.extend.core import Var

from mrdiff_jax.methods.contract import Variables


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
