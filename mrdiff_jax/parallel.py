"""Data parallelism: one replica a device, the batch split over axis 'data', gradients averaged.

The only file that knows of devices. With several hosts every process runs the same program on its share of the data
(`jax.distributed`), and the axis spans all of them.
"""

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax import Array
from jax.experimental.multihost_utils import (
    broadcast_one_to_all,
    global_array_to_host_local_array,
    host_local_array_to_global_array,
)
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
_LEAN = "xla_cpu_use_fusion_emitters"  # which keep what they made of each kernel until all are compiled
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
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter is what JAX says where a platform has no device
        why = _first_sentence(error) or "no such device"
        raise UserError(
            f"JAX_PLATFORMS={jax.config.jax_platforms or ''}: cannot be used ({why}); unset it, or set it to cpu"
        ) from error


def _number(variable: str) -> int | None:
    """Of the environment; None leaves it to JAX, which knows the scheduler of some clusters."""
    value = os.environ.get(variable)
    return None if value is None else int(value)


def on_cpu() -> bool:
    """Whether cores are the devices."""
    return jax.default_backend() == "cpu"


def few_cores() -> bool:
    """Whether a device is made of one or two cores: for such, work in blocks that fit the cache was measured."""
    return on_cpu() and 2 * jax.local_device_count() >= host.cores()


def numerics() -> dict[str, Any]:
    """JAX's own settings that change numbers, by the names that set them."""
    return {name.upper(): getattr(jax.config, name) for name in _NUMERICS}


def _first_sentence(error: Exception) -> str:
    return " ".join(str(error).split()).partition(". ")[0][:110]


def pmap(
    fn: Callable[..., Any],
    devices: Sequence[jax.Device] | None = None,
    donate: tuple[int, ...] = (),
    once: bool = False,
    lean: bool = False,
) -> Any:
    """Compiles fn once for all devices; arguments and results carry a leading axis of this host's devices.

    Args:
      fn: of what one device has, without that axis.
      devices: that run it; all of all hosts if none are named.
      donate: numbers of the arguments whose memory the result may take.
      once: it is compiled for the shapes of its first call alone, and the memory that this took goes back before it runs.
      lean: compiled in a third to a half of the memory on CPUs; it may run in up to 1.1 of the time.
    """
    devices = devices or [device for process in range(jax.process_count()) for device in jax.local_devices(process)]
    mesh, split = Mesh(devices, (AXIS,)), PartitionSpec(AXIS)

    @functools.wraps(fn)
    def on_device(*shards: Any) -> Any:
        return jax.tree.map(lambda x: jax.numpy.expand_dims(x, 0), fn(*jax.tree.map(lambda x: x[0], shards)))

    layout = NamedSharding(mesh, split)
    program = jax.jit(
        jax.shard_map(on_device, mesh=mesh, in_specs=split, out_specs=split, check_vma=False),
        in_shardings=layout,
        out_shardings=layout,
        donate_argnums=donate,
        compiler_options=_lean_options() if lean else None,
    )
    if once:
        program = _compiled_first(program)
    if jax.process_count() == 1:
        return program

    def run(*arguments: Any) -> Any:
        result = program(*host_local_array_to_global_array(arguments, mesh, split))
        return global_array_to_host_local_array(result, mesh, split)

    return run


def _compiled_first(program: Any) -> Any:
    """Compiles a program for the arguments of its first call, on which it then runs."""
    compiled = None

    def run(*arguments: Any) -> Any:
        nonlocal compiled
        compiled = compiled or compile_and_trim(program, *arguments)
        return compiled(*arguments)

    run.lower = program.lower
    return run


def compile_and_trim(program: Any, *arguments: Any) -> jax.stages.Compiled:
    """Compiles what `pmap` made for arguments, or their shapes, and returns the memory that this took before it runs."""
    compiled = program.lower(*arguments).compile()
    host.return_freed_memory()
    return compiled


def _lean_options() -> dict[str, Any] | None:
    """What XLA is told of a lean program: on CPUs, where it can be told so and the environment says nothing else."""
    if not on_cpu() or _LEAN in os.environ.get("XLA_FLAGS", ""):
        return None
    options = {_LEAN: False}
    try:
        jax.jit(lambda: 0, compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError:  # this XLA has no other way
        return None
    return options


def replicate(tree: Tree, devices: Sequence[jax.Device] | None = None) -> Tree:
    """Copies a tree of arrays to every local device, laid out as `pmap` takes and returns it."""
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


def said_by_first(answer: bool) -> bool:
    """The first host's answer, on all hosts: each must ask, where their clocks would tell them different things."""
    return bool(broadcast_one_to_all(np.bool_(answer))) if jax.process_count() > 1 else answer


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
