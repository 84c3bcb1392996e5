"""Times the parts that decide how long a run takes, beside an alternative where there is one.

    python tools/benchmark.py [--image-size=64] [--batch-size=8] [--repeats=10]

Prints a line for each: median milliseconds, and for pairs how many times as long the other takes. FSIM is timed beside piq
where that is installed (pip install '.[benchmark]'; it brings torch). On a busy machine compare only within one run.
"""

import argparse
import importlib.util
import time
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import jaxwt
import numpy as np

from mrdiff_jax import methods, metrics, parallel
from mrdiff_jax.config import default, resolve
from mrdiff_jax.evaluation import scoring
from mrdiff_jax.evaluation.baselines import References
from mrdiff_jax.fields import Optimizer
from mrdiff_jax.methods.contract import Method
from mrdiff_jax.metrics import conventions
from mrdiff_jax.networks.normalization import GroupNorm
from mrdiff_jax.synthesis.sampling import Sampler
from mrdiff_jax.training.step import create_train_state, make_train_step
from mrdiff_jax.wavelets import dwt2


def timed(repeats: int, *functions: Callable[[], object]) -> list[float]:
    """Median milliseconds of each function, run in turn after one call of each."""
    times = [[] for _ in functions]
    for i in range(repeats + 1):
        for row, function in zip(times, functions, strict=True):
            start = time.perf_counter()
            jax.block_until_ready(function())
            if i:
                row.append(1e3 * (time.perf_counter() - start))
    return [float(np.median(row)) for row in times]


def report(name: str, milliseconds: list[float], other: str = "") -> None:
    """Prints one line."""
    ratio = f"   {other}: {milliseconds[1]:.2f} ms, {milliseconds[1] / milliseconds[0]:.1f} times as long" if other else ""
    print(f"{name:42} {milliseconds[0]:9.2f} ms{ratio}", flush=True)


def small_network(image_size: int, batch_size: int) -> tuple[Method, dict, Optimizer]:
    """The demo's network, a random batch, and the recipe of its optimiser."""
    config = default("paper")
    config.data.update(image_size=image_size, batch_size=batch_size)
    config.model.update(base_channels=16, channel_mult=(1, 2, 4), attention_levels=(2,), head_channels=32)
    config.mrdiff.map_channels = 16
    rng = np.random.default_rng(0)
    batch = {
        "sources": rng.random((batch_size, image_size, image_size, 2), np.float32),
        "target": rng.random((batch_size, image_size, image_size), np.float32),
        "tr": np.full((batch_size, 2), 3000, np.float32),
        "te": np.full((batch_size, 2), 100, np.float32),
        "ti": np.zeros((batch_size, 2), np.float32),
    }
    return methods.create(resolve(config)), batch, resolve(config).optimizer


def scoring_of_an_evaluation() -> tuple[Callable[[], object], Callable[[], object]]:
    """All that is computed to score 32 slices of 256 x 256 with two sources: of the synthesis, and of the references too."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:256, :256] - 128
    contrasts = (0.1 + 0.8 * rng.random((32, 256, 256, 3), np.float32)) * (np.hypot(x, y) < 100)[..., None]
    batch = {"sources": contrasts[..., :2], "target": contrasts[..., 2], "valid": np.ones(32, bool)}
    batch |= {"subject": ["sub-01"] * 32, "slice": np.arange(32)}
    synthesis = np.clip(batch["target"] + 0.05 * rng.standard_normal((32, 256, 256), np.float32), 0, 1)
    score = scoring.Scorer("default")

    def score_synthesis() -> object:
        return score(synthesis, batch | {"body": conventions.body_mask(contrasts)})

    def score_all() -> object:
        fitted = References(0, np.array([0.3, 0.3, 0.1]))
        body = batch | {"body": conventions.body_mask(contrasts)}
        return [score(image, body) for image in (synthesis, *fitted.predict(batch["sources"]).values())]

    return score_synthesis, score_all


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=10)
    flags = parser.parse_args()
    parallel.initialize(flags.batch_size)
    print(f"jax {jax.__version__}, {jax.device_count()} x {jax.devices()[0].device_kind}")

    x = jnp.asarray(np.random.default_rng(0).random((8, 256, 256, 1), np.float32))
    ours, other = jax.jit(dwt2), jax.jit(lambda a: jaxwt.wavedec2(a[..., 0], "haar", level=1))
    report("Haar transform, 8 x 256 x 256", timed(flags.repeats, lambda: ours(x), lambda: other(x)), "jaxwt")

    x = jnp.asarray(np.random.default_rng(0).random((8, 64, 64, 64), np.float32))
    pair = []
    for layer in (GroupNorm(), nn.GroupNorm(32, epsilon=1e-5)):
        params = layer.init(jax.random.key(0), x)
        gradient = jax.jit(jax.grad(lambda a, layer=layer, params=params: jnp.square(nn.silu(layer.apply(params, a))).sum()))
        pair.append(lambda gradient=gradient: gradient(x))
    report("GroupNorm + SiLU with gradient", timed(flags.repeats, *pair), "flax")

    method, batch, recipe = small_network(flags.image_size, flags.batch_size)
    state = parallel.replicate(create_train_state(method, recipe, jax.random.key(0), batch))
    shards, progress = parallel.shard(batch), np.zeros(jax.local_device_count(), np.float32)
    step = parallel.pmap(make_train_step(method, recipe, jax.random.key(1)))
    report(
        f"training step of the demo's network, batch {flags.batch_size}",
        timed(flags.repeats, lambda: step(state, shards, progress)),
    )

    sample, keys = Sampler(method), parallel.keys_at(jax.random.key(0), np.arange(flags.batch_size))
    report(f"50-step synthesis of {flags.batch_size} slices", timed(3, lambda: sample(state.evaluated(), batch, keys)))

    one, all_three = scoring_of_an_evaluation()
    milliseconds = timed(3, one, all_three)
    print(f"{'metrics of an evaluation, 256 x 256':42} {milliseconds[0] / 32:9.1f} s for 1,000 slices")
    print(f"{'the same, and once the two references':42} {milliseconds[1] / 32:9.1f} s for 1,000 slices")

    a, b = (np.random.default_rng(i).random((64, 256, 256), np.float32) for i in range(2))
    if importlib.util.find_spec("piq"):
        import piq
        import torch

        tensors = [torch.from_numpy(image)[:, None] for image in (a, b)]
        parts = list(zip(*(tensor.split(8) for tensor in tensors), strict=True))  # faster for piq than all at once

        def other() -> list:
            return [piq.fsim(*part, chromatic=False, reduction="none").numpy() for part in parts]

        pair = [lambda: metrics.fsim(a, b), other]
        report("FSIM, 64 pairs of 256 x 256", timed(3, *pair), "piq")
    else:
        report("FSIM, 64 pairs of 256 x 256", timed(3, lambda: metrics.fsim(a, b)))


if __name__ == "__main__":
    main()
