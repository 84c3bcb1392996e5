"""What a GPU or TPU gives here: its peak, parity with the CPU, speed and memory of the networks, a short training.

    python tools/accelerator_check.py --output=check --set=PREPARED --sources=T1w,T2w --target=FLAIR [--minutes=8]

PREPARED is a folder that mrdiff prepare wrote, or a configuration file, whose data are then taken. Without --set nothing is
trained. Leaves results.json and results.md in the output folder. Every measurement is written when it is made, and every part
runs in a process of its own that is stopped when its time is up: what was measured until then stays. The same call again
does the parts that had no time, and those of another commit; for other flags name another folder. One device is timed,
compilation is cold; training uses all devices.
"""

import argparse
import json
import runpy
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mrdiff_jax import host, methods, parallel
from mrdiff_jax.config import default, resolve
from mrdiff_jax.data.batches import train_iterator
from mrdiff_jax.data.datasets import open_dataset
from mrdiff_jax.errors import UserError
from mrdiff_jax.evaluation.run import evaluate_only
from mrdiff_jax.fields import split_names
from mrdiff_jax.log import log_to_console
from mrdiff_jax.measuring import device, networks
from mrdiff_jax.measuring.pipeline import batches_per_second
from mrdiff_jax.measuring.programs import measure, peak_mib
from mrdiff_jax.measuring.reports import Report, Results, Save, brief, ends, measurements, table
from mrdiff_jax.methods.contract import Variables
from mrdiff_jax.preparation import prepared_set
from mrdiff_jax.training.loop import Diverged, train_and_evaluate

PARTS = {"device": 1, "parity": 2, "training": 14, "benchmark": 14}  # in their order, with the share of the time of each
SIZES = {  # what differs from the paper's configuration, and the share of the benchmark's time
    "paper": ({}, 2),
    "base64": ({"data.image_size": 128, "model.base_channels": 64, "mrdiff.map_channels": 64}, 1),
    "tiny": (networks.TINY, 1),
}
STEPS = (5, 1, 50)  # reverse steps that a trained method is scored at; the first is what training ends with
SCORES = ("psnr", "ssim", "fsim", "gmsd")


def check_device(save: Save, options: argparse.Namespace) -> None:
    """Names, versions, and the rate of a large matrix product."""
    save("about", device.about())
    for name, dtype, precision in (
        ("bfloat16", "bfloat16", "default"),
        ("float32", "float32", "default"),
        ("float32_highest", "float32", "highest"),
    ):
        save(f"gemm_{name}", device.gemm(dtype, precision))


def check_parity(save: Save, options: argparse.Namespace) -> None:
    """A tiny network's loss, gradients and synthesis beside the CPU's, of one seed, as shares of the largest value there."""
    config = resolve(sized("tiny", "float32", steps=3))
    method, batch = methods.create(config), networks.random_batch(config, config.data.batch_size)
    rng = np.random.default_rng(0)
    fresh = method.init(jax.random.key(0), batch)
    variables = jax.tree.map(lambda leaf: leaf + 0.1 * rng.standard_normal(np.shape(leaf), np.float32), fresh)

    def everything(variables: Variables, batch: Any) -> Any:
        keys = parallel.keys_at(jax.random.key(1), jnp.arange(len(batch["tr"])))
        name, player = next(iter(method.players.items()))

        def loss(params: Any) -> jax.Array:
            return player.loss(variables.with_params(name, params), batch, keys, jnp.float32(0))[0]

        value, gradient = jax.value_and_grad(loss)(variables.params[name])
        return {"loss": value, "gradient": gradient, "synthesis": method.synthesize(variables, batch, keys)}

    def on(device: jax.Device, precision: str) -> Any:
        with jax.default_matmul_precision(precision):
            return jax.device_get(jax.jit(everything)(*jax.device_put((variables, batch), device)))

    truth = on(jax.devices("cpu")[0], "highest")
    for precision in ("highest", "default"):
        found = on(jax.local_devices()[0], precision)
        save(precision, {name: deviation(found[name], truth[name]) for name in truth})


def deviation(found: Any, truth: Any) -> float:
    """The largest difference of two trees, as a share of the largest value of the second."""
    pairs = list(zip(jax.tree.leaves(found), jax.tree.leaves(truth), strict=True))
    return float(max(np.abs(a - b).max() for a, b in pairs) / max(np.abs(b).max() for _, b in pairs))


def sized(size: str, dtype: str, steps: int = 50) -> ConfigDict:
    """The paper's configuration at one of SIZES."""
    config = default("paper")
    config.update_from_flattened_dict(SIZES[size][0] | {"model.dtype": dtype, "sample.steps": steps})
    return config


def check_benchmark(save: Save, options: argparse.Namespace) -> None:
    """Training step and synthesis of one network on one device."""
    one = jax.local_devices()[:1]
    config = resolve(sized(options.size, options.dtype, steps=5 if options.size == "tiny" else 50))
    state = networks.fresh_state(config)
    about = {"parameters": networks.parameters(state.variables), "batch": config.data.batch_size, "draws": config.own.draws}
    save("network", about)
    measure(save, {"training_step": partial(networks.training_step, config, state, one)})
    name, synthesis = f"synthesis_of_{config.sample.steps}_steps", partial(networks.synthesis, config, state.evaluated())
    record = measure(save, {name: lambda: synthesis(config.data.batch_size, one)})[name]
    if "seconds" in record:
        save(name, record | {"seconds_a_step": record["seconds"] / config.sample.steps})


def check_training(save: Save, options: argparse.Namespace) -> None:
    """Trains one method for most of the time, then scores it on the test subjects, at each of STEPS where it samples."""
    start, minutes = time.monotonic(), options.budget / 60
    config = training_config(options)
    samples = methods.create(resolve(config)).samples
    if samples:
        config.sample.steps = STEPS[0]
    iterator = train_iterator(open_dataset(config.data), config.data.batch_size, 0, mirror=config.data.mirror)
    save("data", {"batches_per_second": batches_per_second(iterator)})
    config.train.max_minutes = 0.75 * minutes
    with tempfile.TemporaryDirectory() as folder:
        workdir = Path(folder, "run")
        try:
            summary = train_and_evaluate(config, workdir)
        except Diverged as error:
            save("diverged", {"error": str(error)})
            return
        log = [json.loads(line) for line in (workdir / "log.jsonl").read_text().splitlines()]
        speeds = [row["train/steps_per_second"] for row in log if row.get("train/steps_per_second")]
        losses = [row["train/generator/loss"] for row in log if "train/generator/loss" in row]
        run = {"steps": summary.step, "steps_per_second": float(np.median(speeds or [0])), "peak_mib": peak_mib()}
        run |= {"seconds": time.monotonic() - start, "loss_at_last": losses[-1] if losses else None}
        save("run", run | {"subjects": summary.subjects, "slices": summary.slices, "batch": config.data.batch_size})
        for name, scores in summary.references.items():
            save(name, scores)
        save(f"{STEPS[0]} steps" if samples else "synthesis", summary.synthesis)
        for steps in STEPS[1:] if samples else ():
            config.sample.steps = steps
            save(f"{steps} steps", evaluate_only(config, workdir).synthesis)


def training_config(options: argparse.Namespace) -> ConfigDict:
    """A network for minutes of training, on the set or on the data of the configuration that is given."""
    config = default("paper")
    path = Path(options.set)
    if path.suffix == ".py":
        config.data.update(runpy.run_path(str(path))["get_config"]().data)
    else:
        config.data.update(name="prepared", root=str(path), image_size=prepared_set.read(path).options.image_size)
    config.data.update(batch_size=options.batch_size, mirror=True)
    for field in ("sources", "target"):
        config.data[field] = getattr(options, field) or config.data[field]
    config.method.name = options.method
    width = options.base_channels
    config.model.update(base_channels=width, channel_mult=(1, 2, 4), attention_levels=(2,), head_channels=min(width, 32))
    config.model.update(norm_groups=max(width // 4, 1), dtype=options.dtype)
    config.mrdiff.update(map_channels=width, schedule="linear", loss_draws="first")
    for method in ("mrdiff", "regression"):
        config[method].optimizer.update(hold=0.0, ema_decay=0.995, clip_norm=1.0)
    config.optimizer.learning_rate = options.learning_rate
    never = 10_000_000
    config.train.update(steps=never, log_every=50, evaluate_every=never, checkpoint_every=never)
    config.evaluate.update(batch_size=options.evaluate_batch, images=8)
    return config


CHECKS = {"device": check_device, "parity": check_parity, "benchmark": check_benchmark, "training": check_training}


def work(options: argparse.Namespace, report: Report) -> None:
    """Runs one part, in the process that was started for it, and writes what it finds as it finds it."""
    save = partial(report.add, options.task)
    log_to_console()
    parallel.initialize(options.batch_size)
    try:
        CHECKS[options.work](save, options)
    except UserError as error:
        save("failed", {"error": str(error)})
        sys.exit(f"error: {error}")


def tasks(options: argparse.Namespace) -> list[tuple[str, list[str], float]]:
    """What is to be done, in order: a name, the flags of its process, and its share of the time."""
    found = []
    sizes, methods_wanted = split_names(options.sizes), split_names(options.methods)
    for part in split_names(options.parts):
        if part == "benchmark":
            whole = 2 * sum(SIZES[size][1] for size in sizes)
            for size in sizes:
                for dtype in ("float32", "bfloat16"):
                    flags = [f"--size={size}", f"--dtype={dtype}"]
                    found.append((f"benchmark {size} {dtype}", [part, *flags], PARTS[part] * SIZES[size][1] / whole))
        elif part == "training":
            for method in methods_wanted if options.set else ():
                found.append((f"training {method}", [part, f"--method={method}"], PARTS[part] / len(methods_wanted)))
        else:
            found.append((part, [part], PARTS[part]))
    return found


def run(options: argparse.Namespace, arguments: list[str], report: Report) -> bool:
    """Runs all tasks; what one does not use of its time, the rest may. Whether none failed."""
    well, end, left = True, time.monotonic() + 60 * options.minutes, tasks(options)
    if kept := [name for name, _, _ in left if report.has(name)]:
        print(f"measured before, and kept: {', '.join(kept)}", flush=True)
        left = [task for task in left if task[0] not in kept]
    while left:
        remaining = end - time.monotonic()
        name, (part, *flags), share = left[0]
        budget = remaining * share / sum(share for _, _, share in left)
        limit = max(min(1.5 * budget, remaining), 1)
        left.pop(0)
        print(f"{name}: about {budget:.0f} s, at most {limit:.0f} s", flush=True)
        own = [f"--work={part}", f"--task={name}", f"--budget={budget}", *flags]
        well &= report.run(name, [sys.executable, __file__, *arguments, *own], limit)
    return well


def markdown(results: Results) -> str:
    """The results as tables."""
    found, peaks = results.get("device", {}), {}
    lines = ["# Accelerator check", "", brief(found.get("about", {})), ""]
    for name, record in found.items():
        if name.startswith("gemm_"):
            peaks[name.removeprefix("gemm_")] = record["tflops"]
            lines.append(f"- matrix product, {name.removeprefix('gemm_')}: {record['tflops']:.3g} TFLOP/s")
    parity = measurements(results.get("parity", {}))
    lines += table("Largest difference from the CPU, relative", parity, ("loss", "gradient", "synthesis"))
    for name, found in results.items():
        rows = measurements(found)
        if name.startswith("benchmark"):
            for key, record in rows.items():
                if "gflops" in record:
                    rows[key] = record | {"tflops": record["gflops"] / 1e3}
                    if name.split()[-1] in peaks:
                        rows[key]["share_of_gemm"] = rows[key]["tflops"] / peaks[name.split()[-1]]
            columns = ("compile_s", "seconds", "seconds_a_step", "tflops", "share_of_gemm", "needs_mib", "peak_mib", "error")
            network = brief(rows.pop("network", {}))
            lines += table(f"{name.capitalize()} ({network})", rows, columns)
        elif name.startswith("training"):
            run = brief(rows.pop("run", {}) | rows.pop("data", {}))
            lines += table(f"{name.capitalize()} ({run})", rows, SCORES)
    return "\n".join([*lines, *ends(results)]) + "\n"


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, help="folder for results.json and results.md")
    parser.add_argument("--minutes", type=float, default=8.0, help="for all of it")
    parser.add_argument("--parts", default=",".join(PARTS), help="those wanted, in their order")
    parser.add_argument("--sizes", default="base64,paper", help=f"networks of the benchmark, of {', '.join(SIZES)}")
    parser.add_argument("--set", default="", help="a prepared set, or a configuration file with the data to train on")
    parser.add_argument("--sources", default="", help="contrasts to train from, as T1w,T2w")
    parser.add_argument("--target", default="", help="contrast to train for")
    parser.add_argument("--methods", default="mrdiff,regression,pix2pix", help="to train")
    parser.add_argument("--base-channels", type=int, default=64, help="of the trained networks")
    parser.add_argument("--batch-size", type=int, default=16, help="of training")
    parser.add_argument("--evaluate-batch", type=int, default=64, help="slices that are synthesised at a time")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="of training")
    for hidden in ("work", "task", "size", "method"):  # of the processes that this one starts
        parser.add_argument(f"--{hidden}", help=argparse.SUPPRESS)
    parser.add_argument("--budget", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    for flag, known in (("parts", PARTS), ("sizes", SIZES), ("methods", methods.NAMES)):
        for name in split_names(getattr(options, flag)) or ("",):
            if name not in known:
                parser.error(f"--{flag}: no {name!r}; choose from {', '.join(known)}")
    report = Report(Path(options.output), markdown)
    if options.work:
        work(options, report)
        return
    if options.set and not options.set.endswith(".py"):
        try:
            prepared_set.read(Path(options.set))
        except UserError as error:
            parser.error(f"--set: {error}")
    try:
        report.begin(keep=True)
    except UserError as error:
        parser.error(f"--output: {error}")
    well = run(options, arguments, report)
    print(f"results.json and results.md are in {options.output}")
    sys.exit(not well)


if __name__ == "__main__":
    host.use_large_pages()
    main(sys.argv[1:])
