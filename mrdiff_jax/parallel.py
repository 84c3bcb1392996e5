"""Data parallelism: one replica a device (pmap), the batch split over axis 'data', gradients averaged.

The only file that knows of devices. With several hosts every process runs the same program on its share of the data
(`jax.distributed`), and the axis spans all of them.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mrdiff_jax import host
from mrdiff_jax.errors import UserError

AXIS = "data"
_NUMERICS = (
    "jax_enable_x64",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
    "jax_random_seed_offset",
    "jax_default_matmul_precision",
    "jax_numpy_dtype_promotion",
)
Tree = TypeVar("Tree")


def initialize(batch_size: int) -> None:
    """Joins the other hosts, where the environment names a coordinator; must come before anything runs on a device.

    Where the cores are the device they are used as two, if a batch can be halved: XLA keeps them busier so.

    Raises:
      UserError: the environment asks for hosts or devices that cannot be had.
    """
    if "JAX_COORDINATOR_ADDRESS" in os.environ:
        try:
            jax.distributed.initialize(num_processes=_number("JAX_NUM_PROCESSES"), process_id=_number("JAX_PROCESS_ID"))
        except (ValueError, RuntimeError) as error:
            raise UserError(
                f"JAX_COORDINATOR_ADDRESS={os.environ['JAX_COORDINATOR_ADDRESS']}: cannot join ({_first_sentence(error)});"
                " set JAX_NUM_PROCESSES and JAX_PROCESS_ID, too, or unset it"
            ) from error
    elif batch_size % 2 == 0 and host.cores() > 1 and "XLA_FLAGS" not in os.environ:
        jax.config.update("jax_num_cpu_devices", 2)
    try:
        if jax.devices()[0].platform == "cpu":
            host.keep_freed_memory()
    except (RuntimeError, AssertionError) as error:  # the latter is what JAX says where a platform has no device
        why = _first_sentence(error) or "no such device"
        raise UserError(
            f"JAX_PLATFORMS={jax.config.jax_platforms or ''}: cannot be used ({why}); unset it, or set it to cpu"
        ) from error


def _number(variable: str) -> int | None:
    """Of the environment; None leaves it to JAX, which knows the scheduler of some clusters."""
    value = os.environ.get(variable)
    return None if value is None else int(value)


def numerics() -> dict[str, Any]:
    """JAX's own settings that change numbers, by the names that set them."""
    return {name.upper(): getattr(jax.config, name) for name in _NUMERICS}


def _first_sentence(error: Exception) -> str:
    return " ".join(str(error).split()).partition(". ")[0][:110]


def pmap(fn: Callable[..., Any], devices: Sequence[jax.Device] | None = None, donate: tuple[int, ...] = ()) -> Any:
    """Compiles fn once for all devices; every argument carries a leading axis of devices."""
    return jax.pmap(fn, axis_name=AXIS, devices=devices, donate_argnums=donate)


def replicate(tree: Tree, devices: Sequence[jax.Device] | None = None) -> Tree:
    """Copies a tree of arrays to every local device, laid out as `pmap` returns it: anything else compiles a step twice."""
    devices = list(devices or jax.local_devices())
    layout = NamedSharding(Mesh(devices, (AXIS,)), PartitionSpec(AXIS))

    def copy(x: Any) -> Array:
        copies = [jax.device_put(np.asarray(x)[None], device) for device in devices]
        return jax.make_array_from_single_device_arrays((len(devices), *np.shape(x)), layout, copies)

    return jax.tree.map(copy, tree)


def unreplicate(tree: Tree) -> Tree:
    """Fetches the first local device's copy of a replicated tree, as numpy arrays."""
    return jax.device_get(jax.tree.map(lambda x: x.addressable_data(0)[0], tree))


def shard(batch: Tree, devices: int | None = None) -> Tree:
    """Splits the leading axis of every array: (B, ...) -> (devices, B / devices, ...)."""
    count = devices or jax.local_device_count()
    return jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), batch)


def gather(tree: Tree) -> Tree:
    """Undoes `shard`, on the host."""
    return jax.tree.map(lambda x: np.asarray(x).reshape(-1, *x.shape[2:]), tree)


def on_batch(compiled: Callable[..., Tree], batch: Tree, *replicated: Any) -> Tree:
    """Runs what `pmap` compiled on `replicated` arguments and a batch of any size, which is filled up for the devices.

    Args:
      compiled: (*replicated, batch) -> tree of arrays with a leading axis of examples.
      batch: tree of arrays (B, ...).
      replicated: trees that `replicate` laid out.

    Returns:
      The function's tree of arrays (B, ...), on the host.
    """
    count, devices = len(jax.tree.leaves(batch)[0]), jax.local_device_count()
    filled = np.minimum(np.arange(-(-count // devices) * devices), count - 1)
    result = compiled(*replicated, shard(jax.tree.map(lambda leaf: leaf[filled], batch)))
    return jax.tree.map(lambda leaf: leaf[:count], gather(result))


def mean(tree: Tree) -> Tree:
    """Averages over all devices; inside `pmap`."""
    return jax.lax.pmean(tree, AXIS)


def devices() -> int:
    """How many devices `mean` averages over; inside `pmap`."""
    return jax.lax.axis_size(AXIS)


def example_keys(key: Array, examples: int) -> Array:
    """Keys of this device's examples: (examples,), key i of the whole batch whatever the number of devices; inside `pmap`."""
    first = jax.lax.axis_index(AXIS) * examples
    return keys_at(key, first + jax.numpy.arange(examples))


def keys_at(key: Array, index: Array) -> Array:
    """One key for each index, (B,) -> (B,)."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, index)


def local_batch_size(batch_size: int) -> int:
    """This process's share of a batch.

    Raises:
      ValueError: the batch is not a multiple of the devices; the message names both numbers.
    """
    if batch_size % jax.device_count():
        raise ValueError(f"must be a multiple of the {jax.device_count()} devices")
    return batch_size // jax.process_count()
