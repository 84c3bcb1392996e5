"""What a GPU or TPU gives here: its peak, parity with the CPU, speed and memory of the networks, a short training.

    python tools/accelerator_check.py --output=check --set=PREPARED --sources=T1w,T2w --target=FLAIR [--minutes=8]

PREPARED is a folder that mrdiff_jax.prepare wrote, or a configuration file, whose data are then taken. Without --set nothing is
trained. Leaves results.json and results.md in the output folder. Every measurement is written when it is made, and every part
runs in a process of its own that is stopped when its time is up: what was measured until then stays. One device is timed,
compilation is cold; training uses all devices.
"""

import argparse
import dataclasses
import json
import os
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mrdiff_jax import methods, parallel
from mrdiff_jax.config import Config, default, resolve
from mrdiff_jax.data.batches import READ_OPTIONS, train_iterator
from mrdiff_jax.data.datasets import open_dataset
from mrdiff_jax.errors import UserError
from mrdiff_jax.evaluation.run import evaluate_only
from mrdiff_jax.fields import split_names
from mrdiff_jax.log import log_to_console
from mrdiff_jax.methods.contract import Variables
from mrdiff_jax.methods.reading import synthesis_part
from mrdiff_jax.preparation import prepared_set
from mrdiff_jax.storage.files import write_text
from mrdiff_jax.training.loop import Diverged, train_and_evaluate
from mrdiff_jax.training.step import create_train_state, make_train_step

Record = dict[str, Any]
Save = Callable[[str, Record], None]

PARTS = {"device": 1, "parity": 2, "training": 14, "benchmark": 14}  # in their order, with the share of the time of each
SIZES = {  # what differs from the paper's configuration, and the share of the benchmark's time
    "paper": ({}, 2),
    "base64": ({"data.image_size": 128, "model.base_channels": 64, "mrdiff.map_channels": 64}, 1),
    "tiny": (
        {"data.image_size": 16, "data.batch_size": 2, "model.base_channels": 8, "model.channel_mult": (1,)}
        | {"model.attention_levels": (), "model.head_channels": 8, "mrdiff.map_channels": 4},
        1,
    ),
}
STEPS = (5, 1, 50)  # reverse steps that a trained method is scored at; the first is what training ends with
SCORES = ("psnr", "ssim", "fsim", "gmsd")
MIB = 2**20


def seconds(function: Callable[[], object], most: float = 8.0, repeats: int = 20) -> float:
    """Median time of a call after one that is not counted: of `repeats` calls, of fewer where they take longer than `most`."""
    jax.block_until_ready(function())
    times, start = [], time.perf_counter()
    while len(times) < 3 or (len(times) < repeats and time.perf_counter() - start < most):
        begun = time.perf_counter()
        jax.block_until_ready(function())
        times.append(time.perf_counter() - begun)
    return float(np.median(times))


def check_device(save: Save, options: argparse.Namespace) -> None:
    """Names, versions, and the rate of a large matrix product."""
    device = jax.local_devices()[0]
    memory = device.memory_stats() or {}
    about = {"device": device.device_kind, "platform": device.platform, "devices": jax.device_count()}
    versions = {name: sys.modules[name].__version__ for name in ("jax", "jaxlib", "flax", "optax", "numpy")}
    save(
        "about", about | versions | {"python": sys.version.split()[0], "memory_limit_mib": memory.get("bytes_limit", 0) // MIB}
    )
    side = 1024 if device.platform == "cpu" else 8192
    for name, dtype, precision in (
        ("bfloat16", jnp.bfloat16, "default"),
        ("float32", jnp.float32, "default"),
        ("float32_highest", jnp.float32, "highest"),
    ):
        a, b = (jax.random.normal(jax.random.key(i), (side, side), dtype) for i in range(2))
        with jax.default_matmul_precision(precision):
            product = jax.jit(jnp.matmul).lower(a, b).compile()
        save(f"gemm_{name}", {"side": side, "tflops": 2 * side**3 / seconds(lambda: product(a, b), 2.0) / 1e12})  # noqa: B023


def check_parity(save: Save, options: argparse.Namespace) -> None:
    """A tiny network's loss, gradients and synthesis beside the CPU's, of one seed, as shares of the largest value there."""
    config = resolve(sized("tiny", "float32", steps=3))
    method, batch = methods.create(config), random_batch(config)
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


def random_batch(config: Config) -> dict[str, np.ndarray]:
    """A batch as training sees it, of random images."""
    rng, count, side = np.random.default_rng(0), config.data.batch_size, config.data.image_size
    k = len(split_names(config.data.sources))
    times = {"tr": 3000.0, "te": 100.0, "ti": 1000.0}
    images = {"sources": rng.random((count, side, side, k), np.float32), "target": rng.random((count, side, side), np.float32)}
    return images | {name: np.full((count, k), value, np.float32) for name, value in times.items()}


def check_benchmark(save: Save, options: argparse.Namespace) -> None:
    """Training step, 50-step synthesis and reverse step of one network on one device."""
    device = jax.local_devices()[:1]
    config = resolve(sized(options.size, options.dtype, steps=5 if options.size == "tiny" else 50))
    method, batch = methods.create(config), random_batch(config)
    state = create_train_state(method, config.optimizer, jax.random.key(0), batch)
    count = sum(leaf.size for leaf in jax.tree.leaves(state.variables.params))
    save("network", {"parameters": int(count), "batch": config.data.batch_size, "draws": config.own.draws})
    train = parallel.pmap(make_train_step(method, config.optimizer, jax.random.key(1)), device, donate=(0,))
    example = (state, batch, np.float32(0))
    compiled, record = compile_and_weigh(train, example)
    if compiled:
        on_device = parallel.replicate(example, device)
        held = [on_device[0]]

        def one_step() -> Any:
            held[0], metrics = compiled(held[0], *on_device[1:])
            return metrics

        save("training_step", record | timed(one_step) | peak())
        del held, on_device
    else:
        save("training_step", record)

    slices = {name: array for name, array in batch.items() if name != "target"}
    for steps in (config.sample.steps, 1):
        method = methods.create(dataclasses.replace(config, sample=dataclasses.replace(config.sample, steps=steps)))

        def sample(variables: Variables, batch: Any, synthesize: Callable = method.synthesize) -> jax.Array:
            return synthesize(variables, batch, parallel.example_keys(jax.random.key(0), len(batch["tr"])))

        example = (synthesis_part(method, config, state.evaluated(), described=False), slices)
        compiled, record = compile_and_weigh(parallel.pmap(sample, device), example)
        if compiled:
            on_device = parallel.replicate(example, device)
            record |= timed(lambda compiled=compiled, on_device=on_device: compiled(*on_device))
        save("reverse_step" if steps == 1 else f"synthesis_of_{steps}_steps", record)


def compile_and_weigh(function: Any, arguments: Any) -> tuple[Any, Record]:
    """The compiled program, or None where it cannot fit; seconds of compilation, FLOPs and the memory it will take."""
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *np.shape(x)), x.dtype), arguments)
    start = time.perf_counter()
    try:
        lowered = function.lower(*shapes)
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        return None, {"out_of_memory": "RESOURCE_EXHAUSTED" in str(error), "error": str(error)[:300]}
    record = {"compile_s": time.perf_counter() - start, "gflop": flops(lowered) / 1e9, "gflop_compiled": flops(compiled) / 1e9}
    memory = compiled.memory_analysis()
    needed = memory.argument_size_in_bytes + memory.temp_size_in_bytes + memory.output_size_in_bytes
    needed -= memory.alias_size_in_bytes
    record |= {"needs_mib": needed // MIB, "scratch_mib": memory.temp_size_in_bytes // MIB}
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit", needed)
    if needed > limit:
        return None, record | {"out_of_memory": True, "error": f"not run: the device has {limit // MIB} MiB"}
    return compiled, record


def flops(stage: Any) -> float:
    """Of the cost analysis, which counts the body of a loop once; 0 where there is none."""
    try:
        costs = stage.cost_analysis()
    except (NotImplementedError, jax.errors.JaxRuntimeError):
        return 0.0
    costs = costs[0] if isinstance(costs, list) else costs
    return float((costs or {}).get("flops", 0.0))


def timed(function: Callable[[], object]) -> Record:
    """Seconds of a call, or why there are none."""
    try:
        return {"seconds": seconds(function)}
    except jax.errors.JaxRuntimeError as error:
        return {"out_of_memory": "RESOURCE_EXHAUSTED" in str(error), "error": str(error)[:300]}


def peak() -> Record:
    """The most memory that the process has held on the device, where that is known."""
    bytes_held = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return {"peak_mib": bytes_held // MIB} if bytes_held else {}


def check_training(save: Save, options: argparse.Namespace) -> None:
    """Trains one method for most of the time, then scores it on the test subjects at each of STEPS."""
    start, minutes = time.monotonic(), options.budget / 60
    config = training_config(options)
    save("data", {"batches_per_second": data_rate(config)})
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
        run = {"steps": summary.step, "steps_per_second": float(np.median(speeds or [0]))} | peak()
        run |= {"seconds": time.monotonic() - start, "loss_at_last": losses[-1] if losses else None}
        save("run", run | {"subjects": summary.subjects, "slices": summary.slices, "batch": config.data.batch_size})
        for name, scores in summary.references.items():
            save(name, scores)
        save(f"{config.sample.steps} steps", summary.synthesis)
        for steps in STEPS[1:]:
            config.sample.steps = steps
            save(f"{steps} steps", evaluate_only(config, workdir).synthesis)


def data_rate(config: ConfigDict, most: float = 3.0) -> float:
    """Batches a second that the data pipeline gives to a device that takes no time."""
    iterator = train_iterator(open_dataset(config.data), config.data.batch_size, 0, mirror=config.data.mirror)
    for _ in range(READ_OPTIONS.prefetch_buffer_size):  # what was read ahead
        next(iterator)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < most:
        next(iterator)
        count += 1
    return count / (time.perf_counter() - start)


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
        config[method].optimizer.update(learning_rate=options.learning_rate, hold=0.0, ema_decay=0.995, clip_norm=1.0)
    never = 10_000_000
    config.train.update(steps=never, log_every=50, evaluate_every=never, checkpoint_every=never)
    config.evaluate.update(batch_size=options.evaluate_batch, images=8)
    config.sample.steps = STEPS[0]
    return config


CHECKS = {"device": check_device, "parity": check_parity, "benchmark": check_benchmark, "training": check_training}


def work(options: argparse.Namespace) -> None:
    """Runs one part, in the process that was started for it, and writes what it finds as it finds it."""
    found: dict[str, Record] = {}

    def save(name: str, record: Record) -> None:
        found[name] = record
        write_text(Path(options.file), json.dumps(found))
        print(f"  {name}: {brief(record)}", flush=True)

    log_to_console()
    parallel.initialize(options.batch_size)
    try:
        CHECKS[options.work](save, options)
    except UserError as error:
        save("failed", {"error": str(error)})
        sys.exit(f"error: {error}")


def brief(record: Mapping[str, Any]) -> str:
    """A record in one line."""
    return ", ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in record.items())


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


def run(options: argparse.Namespace, arguments: list[str]) -> dict[str, dict[str, Record]]:
    """Runs all tasks; what one does not use of its time, the rest may."""
    output = Path(options.output)
    output.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * options.minutes
    left, results = tasks(options), {}
    with tempfile.TemporaryDirectory() as folder:
        while left:
            name, (part, *flags), share = left[0]
            remaining = end - time.monotonic()
            budget = remaining * share / sum(share for _, _, share in left)
            limit = min(1.5 * budget, remaining)
            left.pop(0)
            print(f"{name}: about {budget:.0f} s, at most {limit:.0f} s", flush=True)
            file, begun = Path(folder, "found.json"), time.monotonic()
            file.unlink(missing_ok=True)
            command = [sys.executable, __file__, *arguments, f"--work={part}", f"--file={file}", f"--budget={budget}", *flags]
            ended = wait(command, limit)
            found = json.loads(file.read_text()) if file.exists() else {}
            results[name] = found | {"process": {"ended": ended, "seconds": time.monotonic() - begun}}
            write_text(output / "results.json", json.dumps(results, indent=1) + "\n")
            write_text(output / "results.md", markdown(results))
    return results


def wait(command: list[str], limit: float) -> str:
    """How a process ended that has that many seconds: 'finished', 'out of time' or 'failed', with the end of what it said."""
    environment = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.95"} | os.environ | {"PYTHONUNBUFFERED": "1"}
    with tempfile.TemporaryFile("w+") as errors:
        try:
            code = subprocess.run(command, env=environment, timeout=max(limit, 1), stderr=errors, check=False).returncode
        except subprocess.TimeoutExpired:
            return "out of time"
        errors.seek(0)
        said = errors.read()
    if code:
        print(said[-3000:], flush=True)
    return "finished" if not code else f"failed ({code}): {said.strip()[-300:]}"


def markdown(results: Mapping[str, Mapping[str, Record]]) -> str:
    """The results as tables."""
    device, peaks = results.get("device", {}), {}
    lines = ["# Accelerator check", "", brief(device.get("about", {})), ""]
    for name, record in device.items():
        if name.startswith("gemm_"):
            peaks[name.removeprefix("gemm_")] = record["tflops"]
            lines.append(f"- matrix product, {name.removeprefix('gemm_')}: {record['tflops']:.3g} TFLOP/s")
    parity = {name: record for name, record in results.get("parity", {}).items() if name != "process"}
    lines += table("Largest difference from the CPU, relative", parity, ("loss", "gradient", "synthesis"))
    for name, found in results.items():
        rows = {key: record for key, record in found.items() if key != "process"}
        if name.startswith("benchmark"):
            for key, record in rows.items():
                record = rows[key] = dict(record)
                if record.get("gflop") and record.get("seconds"):
                    loops = int(key.split("_")[2]) if key.startswith("synthesis_of") else 1
                    record["tflops"] = loops * record["gflop"] / record["seconds"] / 1e3
                    if name.split()[-1] in peaks:
                        record["share_of_gemm"] = record["tflops"] / peaks[name.split()[-1]]
            columns = ("compile_s", "seconds", "tflops", "share_of_gemm", "needs_mib", "peak_mib", "error")
            network = brief(rows.pop("network", {}))
            lines += table(f"{name.capitalize()} ({network})", rows, columns)
        elif name.startswith("training"):
            run = brief(rows.pop("run", {}) | rows.pop("data", {}))
            lines += table(f"{name.capitalize()} ({run})", rows, SCORES)
    ends = {name: found["process"] for name, found in results.items() if "process" in found}
    return "\n".join([*lines, *table("How each part ended", ends, ("ended", "seconds"))]) + "\n"


def table(title: str, rows: Mapping[str, Record], columns: tuple[str, ...]) -> list[str]:
    """A Markdown table, a line each, of the columns that some row has."""
    if not rows:
        return []
    columns = tuple(column for column in columns if any(column in row for row in rows.values()))
    if not columns:
        return ["", f"## {title}", "", *(f"- {name}: {brief(row)}" for name, row in rows.items())]

    def cell(value: Any) -> str:
        return f"{value:.4g}" if isinstance(value, float) else str(value).replace("\n", " ").replace("|", "/")

    lines = ["", f"## {title}", "", f"| | {' | '.join(columns)} |", "|---|" + "---|" * len(columns)]
    return lines + [f"| {name} | {' | '.join(cell(row.get(column, '')) for column in columns)} |" for name, row in rows.items()]


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, help="folder for results.json and results.md")
    parser.add_argument("--minutes", type=float, default=8.0, help="for all of it")
    parser.add_argument("--parts", default=",".join(PARTS), help="those wanted, in their order")
    parser.add_argument("--sizes", default="paper,base64", help=f"networks of the benchmark, of {', '.join(SIZES)}")
    parser.add_argument("--set", default="", help="a prepared set, or a configuration file with the data to train on")
    parser.add_argument("--sources", default="", help="contrasts to train from, as T1w,T2w")
    parser.add_argument("--target", default="", help="contrast to train for")
    parser.add_argument("--methods", default="mrdiff,regression", help="to train")
    parser.add_argument("--base-channels", type=int, default=64, help="of the trained networks")
    parser.add_argument("--batch-size", type=int, default=16, help="of training")
    parser.add_argument("--evaluate-batch", type=int, default=64, help="slices that are synthesised at a time")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--dtype", default="float32", help="of training")
    for hidden in ("work", "file", "size", "method"):  # of the processes that this one starts
        parser.add_argument(f"--{hidden}", help=argparse.SUPPRESS)
    parser.add_argument("--budget", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    for flag, known in (("parts", PARTS), ("sizes", SIZES), ("methods", methods.NAMES)):
        for name in split_names(getattr(options, flag)):
            if name not in known:
                parser.error(f"--{flag}: no {name!r}; choose from {', '.join(known)}")
    if options.work:
        work(options)
        return
    if options.set and not options.set.endswith(".py"):
        try:
            prepared_set.read(Path(options.set))
        except UserError as error:
            parser.error(f"--set: {error}")
    results = run(options, arguments)
    print(f"results.json and results.md are in {options.output}")
    sys.exit(any(found["process"]["ended"].startswith("failed") for found in results.values()))


if __name__ == "__main__":
    main(sys.argv[1:])
