"""What the device is, and the most that it computes a second."""

import platform
import sys
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp

from mrdiff_jax import host
from mrdiff_jax.measuring.programs import MIB, Program
from mrdiff_jax.measuring.timing import Record, interleaved
from mrdiff_jax.storage.files import commit

PRODUCTS = 8  # in a call: after another program the first is slow
_CPU_INFO = Path("/proc/cpuinfo")


def about() -> Record:
    """Names, versions, cores and memory."""
    device = jax.local_devices()[0]
    names = {"device": device.device_kind, "platform": device.platform, "devices": jax.device_count()}
    machine = {"processor": _processor(), "cores": host.cores(), "python": sys.version.split()[0], "commit": commit()}
    versions = {name: version(name) for name in ("jax", "jaxlib", "flax", "optax", "numpy")}
    limit = (device.memory_stats() or {}).get("bytes_limit")
    return names | machine | versions | ({"memory_limit_mib": limit // MIB} if limit else {})


def _processor() -> str:
    lines = _CPU_INFO.read_text().splitlines() if _CPU_INFO.exists() else []
    models = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()


def gemm(dtype: str, precision: str = "default", side: int | None = None) -> Record:
    """The rate of a large matrix product on one device; of the cores that is all of them."""
    call, record = product(dtype, precision, side)
    (timing,) = interleaved(call, most=2.0)
    return {"side": record["side"], "tflops": record["gflop"] / timing["seconds"] / 1e3} | timing


def product(dtype: str, precision: str = "default", side: int | None = None) -> Program:
    """That product, some times over, as a program; without a side it is so large that it reaches the device's rate."""
    side = side or (2048 if jax.local_devices()[0].platform == "cpu" else 8192)
    a, b = (jax.random.normal(jax.random.key(i), (side, side), dtype) for i in range(2))
    with jax.default_matmul_precision(precision):
        compiled = jax.jit(jnp.matmul).lower(a, b).compile()
    record = {"devices": 1, "side": side, "times": PRODUCTS, "gflop": PRODUCTS * 2 * side**3 / 1e9}
    return lambda: [compiled(a, b) for _ in range(PRODUCTS)], record
