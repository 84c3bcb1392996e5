"""What a compiled program costs: compilation, FLOPs, memory, time."""

import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mrdiff_jax import parallel
from mrdiff_jax.measuring.reports import Save
from mrdiff_jax.measuring.timing import Record, interleaved

MIB = 2**20
Program = tuple[Callable[[], Any] | None, Record]  # a call of it, or None where it cannot run; what is known of it


def measure(save: Save, programs: Mapping[str, Callable[[], Program]]) -> dict[str, Record]:
    """Builds each program and runs it once, then times all in turn; saves what is known of each when it is known."""
    records, ready = {}, {}
    for name, build in programs.items():
        call, records[name] = build()
        if call:
            records[name] |= run_once(call)
        save(name, records[name])
        if "error" not in records[name]:
            ready[name] = call
    for name, timing in zip(ready, interleaved(*ready.values()), strict=True):
        records[name] |= timing | {"gflops": records[name]["gflop"] / timing["seconds"]}
        save(name, records[name])
    return records


def run_once(call: Callable[[], Any]) -> Record:
    """The peak of memory after a call, or why it did not succeed."""
    try:
        jax.block_until_ready(call())
    except jax.errors.JaxRuntimeError as error:
        return _failure(error)
    return {"peak_mib": peak_mib()}


def compile_and_weigh(
    function: Callable[..., Any], arguments: Any, devices: Sequence[jax.Device], **options: Any
) -> tuple[Any, Record]:
    """The program that `parallel.pmap` makes of a function, or None where it cannot fit; and what it takes.

    Args:
      function: of what a device has.
      arguments: arrays or their shapes, with the leading axis of the devices.
      options: further arguments of `parallel.pmap`.

    Returns:
      The compiled function, and a record: seconds of compilation, FLOPs on all devices, memory on each.
    """
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype), arguments)
    start = time.perf_counter()
    try:
        program = parallel.pmap(function, devices, **options)
        compiled = parallel.compile_and_trim(program, *shapes) if options.get("once") else program.lower(*shapes).compile()
    except jax.errors.JaxRuntimeError as error:
        return None, _failure(error)
    record = {"devices": len(devices), "compile_s": time.perf_counter() - start}
    record["gflop"] = gflop(function, shapes) or len(devices) * _gflop_of(compiled)
    memory = compiled.memory_analysis()
    needed = memory.argument_size_in_bytes + memory.temp_size_in_bytes + memory.output_size_in_bytes
    needed -= memory.alias_size_in_bytes
    record |= {"needs_mib": needed / MIB, "scratch_mib": memory.temp_size_in_bytes / MIB}
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit", needed)
    if needed > limit:
        return None, record | {"out_of_memory": True, "error": f"not run: the device has {limit // MIB} MiB"}
    return compiled, record


def gflop(function: Callable[..., Any], shapes: Any) -> float:
    """10^9 operations of a call on all devices: by the cost analysis of the program for accelerators, which has no blocks.

    The body of a loop counts once; 0 where programs are analysed only when they are compiled.
    """
    every = jax.jit(jax.vmap(function, axis_name=parallel.AXIS))
    return _gflop_of(every.trace(*shapes).lower(lowering_platforms=("tpu",)))


def _gflop_of(stage: Any) -> float:
    try:
        costs = stage.cost_analysis()
    except (NotImplementedError, jax.errors.JaxRuntimeError):
        return 0.0
    costs = costs[0] if isinstance(costs, list) else costs
    return float((costs or {}).get("flops", 0.0)) / 1e9


def peak_mib() -> float:
    """The most memory that was held until now: on the device where it tells, else by the process."""
    held = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return held / MIB if held else process_peak_mib()


def process_peak_mib() -> float:
    """The most memory that the process had held until now."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MIB


def _failure(error: Exception) -> Record:
    return {"out_of_memory": "RESOURCE_EXHAUSTED" in str(error), "error": str(error)[:300]}
