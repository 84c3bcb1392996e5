"""How fast training and synthesis are here, what they need, and how others do where there are others.

    python tools/benchmark.py --output=bench [--networks=demo,bids,base32,base64,paper] [--parts=device,networks,start,...]

Leaves results.json and results.md in the output folder, written with every measurement, and in the end growth.png, time
against size; parts measured into that folder before stay, with their commits. Every part runs in a process of its own: its
peak of memory is its own, and one that fails leaves the others. What is compared is called in turn in one process; on a
busy machine trust ratios more than seconds, and CPU seconds more than wall seconds; peers only on one that does nothing
else, for PyTorch's threads spin while they wait for one another. Some alternatives are timed only where they are installed:
pip install -e '.[bench]' brings piq, torch, diffusers and monai.
"""

import argparse
import importlib.util
import os
import runpy
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from mrdiff_jax import host, parallel
from mrdiff_jax.config import Config, default, resolve
from mrdiff_jax.errors import UserError
from mrdiff_jax.fields import split_names
from mrdiff_jax.measuring import alternatives, device, growth, networks
from mrdiff_jax.measuring.peers import LIBRARIES, Peer
from mrdiff_jax.measuring.programs import Program, measure
from mrdiff_jax.measuring.reports import Report, Results, Save, brief, ends, measurements, table
from mrdiff_jax.measuring.start import first_step
from mrdiff_jax.measuring.timing import Record, compared, interleaved
from mrdiff_jax.methods.contract import Variables

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("device", "networks", "start", "evaluation", "data", "reading", "growth", "pieces", "peers")
NETWORKS = ("demo", "bids", "base32", "base64", "paper")
WIDTHS = {"base32": ("authors", 32), "base64": ("paper", 64)}  # the paper's network at 128 x 128, narrower: preset and width
PRODUCT = "matrix product"  # whose rate the others are held against
AT_A_TIME, CALLS = 8, 3  # slices that `synthesize` takes at once; how often it does for a volume of 24
STEPS = 50  # reverse steps at which every network is timed
LONGEST = 120.0  # seconds: a volume that would take longer is not synthesised
INSTALL = "pip install -e '.[bench]'"


class Sizes(NamedTuple):
    """Of what is measured beside the networks.

    Attributes:
      changes: fields that differ from configs/ in what is trained.
      slices: that are scored.
      side: of these, pixels.
      peer_side: of an image for our network and its peers.
      steps: of a stretch of training.
      seconds: for which the input pipeline runs alone.
      read: slices of a large set, 64 x 64.
      product: side of the matrix product that programs stand beside; None is one that reaches the device's rate.
      growth: what grows, and its values.
    """

    changes: Mapping[str, Any]
    slices: int
    side: int
    peer_side: int
    steps: int
    seconds: float
    read: int
    product: int | None
    growth: Mapping[str, Sequence[int]]


FULL = Sizes({}, slices=32, side=256, peer_side=128, steps=20, seconds=3.0, read=100_000, product=None, growth=growth.AXES)
TINY = Sizes(
    networks.TINY | {"method.name": "regression"},
    **{"slices": 2, "side": 64, "peer_side": 16, "steps": 3, "seconds": 0.3, "read": 400, "product": 256},
    growth={"side": (16, 32), "devices": (1, 2)},
)
LEGEND = {
    "devices": "that compute together",
    "compile_s": "seconds of compilation, from nothing",
    "seconds, cpu_seconds": "medians of a call: wall, and user + system of all threads",
    "gflop": "10^9 operations of a call on all devices, by the cost analysis of the program as written for accelerators",
    "gflops": "gflop / seconds",
    "share_of_gemm": "gflops beside those of a large matrix product of the same type, called in turn with the programs",
    "needs_mib, scratch_mib": "memory of a device that the compiled program asks for, and what of it only the call needs",
    "peak_mib": "what the device, or the process where the device does not tell, had held when the program had run once",
    "times_the_first": "seconds beside those of the first of the group",
    "idle_share": "of the step, which a training waits for its batches",
    "set_mib, first_batch_s, slices_per_second": "of a prepared set on disk; from its opening to a first batch; read in a pass",
    "peak_mib_after_...": "what the process had held when so much of the pass was read",
    "side, batch, draws, sources": "what grows, of configs/bids.py's network with a batch of 1",
}


def check_device(save: Save, options: argparse.Namespace) -> None:
    """Names, versions, and the rate of a large matrix product."""
    save("about", device.about())
    for dtype in ("float32",) if jax.default_backend() == "cpu" else ("float32", "bfloat16"):
        save(f"gemm_{dtype}", device.gemm(dtype, side=options.sizes.product))


def check_training(save: Save, options: argparse.Namespace, name: str) -> None:
    """The training step of a network, on all devices and on one."""
    config = network(name)
    state, every = networks.fresh_state(config), jax.local_devices()
    save("network", about(name, config, state.variables))
    places = {"training step": every} | ({"training step, one device": every[:1]} if len(every) > 1 else {})
    programs = {label: partial(networks.training_step, config, state, devices) for label, devices in places.items()}
    measure_beside_product(save, options, config, programs)


def check_synthesis(save: Save, options: argparse.Namespace, name: str) -> None:
    """The reverse step of a network, and a volume."""
    config = network(name)
    variables, every = networks.fresh_variables(config), jax.local_devices()
    save("network", about(name, config, variables))
    one = networks.with_steps(config, 1)
    single = partial(networks.synthesis, one, variables, 1, every[:1])
    several = partial(networks.synthesis, one, variables, AT_A_TIME, every)
    steps = {"reverse step, 1 slice": single, f"reverse step, {AT_A_TIME} slices": several}
    found = measure_beside_product(save, options, config, steps)
    seconds = CALLS * found[f"reverse step, {AT_A_TIME} slices"].get("seconds", np.inf)
    volumes = {}
    for steps in sorted({STEPS, config.sample.steps}):
        label = f"volume of {CALLS * AT_A_TIME} slices, {steps} steps"
        if steps * seconds > LONGEST:
            save(label, {"note": f"not run: {steps * seconds:.0f} s by the reverse step"})
        else:
            volumes[label] = partial(volume, networks.with_steps(config, steps), variables)
    measure_beside_product(save, options, config, volumes)


def network(name: str) -> Config:
    """The configuration of a network, for which the devices are made ready."""
    if name == "paper":
        config = default("paper")
        parallel.initialize(1)
        if jax.default_backend() == "cpu":  # which has neither the memory nor the time for more
            config.data.batch_size = 1
        return resolve(config)
    if name in WIDTHS:
        preset, width = WIDTHS[name]
        config = default(preset)
        config.data.image_size, config.model.base_channels, config.model.head_channels = 128, width, min(width, 64)
        parallel.initialize(config.data.batch_size)
        return resolve(config)
    config = read("demo", networks.TINY) if name == "tiny" else read(name)
    parallel.initialize(config.data.batch_size)
    return resolve(config)


def read(name: str, changes: Mapping[str, Any] = {}) -> ConfigDict:
    """A configuration of configs/ with some fields changed."""
    config = runpy.run_path(str(ROOT / "configs" / f"{name}.py"))["get_config"]()
    config.update_from_flattened_dict(changes)
    return config


def about(name: str, config: Config, variables: Variables) -> Record:
    """What a network is."""
    batch, usual = config.data.batch_size, default().data.batch_size
    record = {"parameters": networks.parameters(variables), "side": config.data.image_size, "batch": batch}
    record |= {"draws": config.own.draws, "default_steps": config.sample.steps}
    return record | ({"note": f"batch {batch} instead of {usual} on a CPU"} if name == "paper" and batch != usual else {})


def volume(config: Config, variables: Variables) -> Program:
    """A volume as it is synthesised: some slices at a time, on all devices."""
    call, record = networks.synthesis(config, variables, AT_A_TIME, jax.local_devices())
    if "gflop" in record:
        record["gflop"] *= CALLS
    return call and (lambda: [call() for _ in range(CALLS)]), record


def measure_beside_product(
    save: Save, options: argparse.Namespace, config: Config, programs: Mapping[str, Callable[[], Program]]
) -> Mapping[str, Record]:
    """Measures programs, and what share they reach of the rate of a large matrix product of the same moment."""
    product = partial(device.product, config.model.dtype, side=options.sizes.product)
    found = measure(save, {PRODUCT: product} | programs) if programs else {}
    for name in programs:
        if "gflops" in found[name]:
            together = 1 if jax.default_backend() == "cpu" else found[name]["devices"]  # on CPUs all share the same cores
            share = found[name]["gflops"] / (together * found[PRODUCT]["gflops"])
            save(name, found[name] | {"share_of_gemm": share})
    return found


def check_start(save: Save, options: argparse.Namespace) -> None:
    """From the start of the process to the end of the demo's first step: with an empty cache folder, and once more."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "mrdiff_jax.main", f"--config={ROOT / 'configs' / 'demo.py'}"]
        command += [f"--config.{field}={value}" for field, value in options.sizes.changes.items()]
        for name in ("cold", "warm"):
            save(name, first_step([*command, f"--workdir={folder}/{name}"], f"{folder}/cache"))


def check_evaluation(save: Save, options: argparse.Namespace) -> None:
    """The metrics of an evaluation, and FSIM beside piq's."""
    from mrdiff_jax.measuring.scores import scoring  # not above: it takes seconds to import, and only this part needs it

    count, side = options.sizes.slices, options.sizes.side
    parallel.initialize(count)
    calls = scoring(count, side)
    for name, record in zip(calls, interleaved(*calls.values()), strict=True):
        save(name, record | {"seconds_per_1000_slices": 1000 * record["seconds"] / count})

    save_compared(save, f"FSIM of {2 * count} pairs", alternatives.fsim(2 * count, side))
    if not importlib.util.find_spec("piq"):
        save("FSIM, piq", {"note": f"not installed: {INSTALL}"})


def check_data(save: Save, options: argparse.Namespace) -> None:
    """What the demo's input pipeline gives, and how long its training waits for it."""
    from mrdiff_jax.measuring.pipeline import input_pipeline  # likewise

    config = read("demo", options.sizes.changes)
    parallel.initialize(config.data.batch_size)
    save("demo", input_pipeline(resolve(config), options.sizes.steps, options.sizes.seconds))


def check_reading(save: Save, options: argparse.Namespace) -> None:
    """Memory and speed as a large prepared set is read."""
    from mrdiff_jax.measuring.reading import large_set  # likewise

    save("a set of noise", large_set(options.sizes.read, side=64))


def check_growth(save: Save, options: argparse.Namespace, axis: str) -> None:
    """The training step and the reverse step of bids' network as one thing grows, on one device or on so many."""
    values = options.sizes.growth[axis]
    if axis == "devices" and "XLA_FLAGS" not in os.environ:
        jax.config.update("jax_num_cpu_devices", max(values))  # cores that pretend to be several devices
    parallel.initialize(1)
    every, at, programs = jax.local_devices(), {}, {}
    for value in [value for value in values if axis != "devices" or value <= len(every)]:
        devices = every[: value if axis == "devices" else 1]
        config = resolve(read("bids", options.sizes.changes | growth.changes(axis, value, max(values))))
        state = networks.fresh_state(config)
        one, batch = networks.with_steps(config, 1), config.data.batch_size
        built = partial(networks.training_step, config, state), partial(networks.synthesis, one, state.evaluated(), batch)
        for program, build in zip(growth.PROGRAMS, built, strict=True):
            programs[f"{program}, {axis} {value}"] = partial(build, devices)
            at[f"{program}, {axis} {value}"] = {axis: value}
    measure(lambda name, record: save(name, at[name] | record), programs)


def check_pieces(save: Save, options: argparse.Namespace) -> None:
    """The wavelet transform and the normalisation beside other implementations."""
    save_compared(save, "Haar transform", alternatives.haar(options.sizes.side))
    save_compared(save, "GroupNorm + SiLU with gradient", alternatives.normalization(options.sizes.side // 4))


def save_compared(save: Save, what: str, calls: alternatives.Calls) -> None:
    """Times what does the same in turn."""
    for name, record in compared(calls).items():
        save(f"{what}, {name}", record)


def check_peers(save: Save, options: argparse.Namespace) -> None:
    """Our `regression` network without wavelets beside PyTorch networks of its size: a training step and a forward pass."""
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # a GPU is PyTorch's, too
    installed = [name for name in LIBRARIES if importlib.util.find_spec("torch") and importlib.util.find_spec(name)]
    for name in set(LIBRARIES) - set(installed):
        save(name, {"note": f"not installed: {INSTALL}"})
    if not installed:
        return
    config = default()
    config.method.name, config.optimizer.ema_decay = "regression", 0.0
    config.data.update(image_size=options.sizes.peer_side, batch_size=4)
    config.model.update(base_channels=32, channel_mult=(1, 2, 4), attention_levels=(2,), head_channels=32)
    config.model.update(norm_groups=8, wavelet_levels=0)
    parallel.initialize(config.data.batch_size)
    config = resolve(config)
    state, batch = networks.fresh_state(config), networks.random_batch(config, config.data.batch_size)
    theirs = {name: Peer(name, config.model, batch["sources"], batch["target"]) for name in installed}
    save("ours", {"parameters": networks.parameters(state.variables), "version": f"jax {version('jax')}"})
    for name, peer in theirs.items():
        save(
            name,
            {"parameters": peer.parameters, "version": f"{version(name)}, torch {version('torch')}", "device": peer.device},
        )
    step, _ = networks.training_step(config, state, jax.local_devices())
    forward, _ = networks.synthesis(config, state.evaluated(), config.data.batch_size, jax.local_devices())
    for task, ours, call in (("training step", step, Peer.train), ("forward pass", forward, Peer.predict)):
        save_compared(save, task, {"ours": ours} | {name: partial(call, peer) for name, peer in theirs.items()})


CHECKS = {
    "device": check_device,
    "training": check_training,
    "synthesis": check_synthesis,
    "start": check_start,
    "evaluation": check_evaluation,
    "data": check_data,
    "reading": check_reading,
    "growth": check_growth,
    "pieces": check_pieces,
    "peers": check_peers,
}


def tasks(options: argparse.Namespace) -> list[str]:
    """A process each: a check, and the network that it is of or the thing that grows."""
    sizes = ("tiny",) if options.tiny else split_names(options.networks)
    several = {
        "networks": [f"{check} {name}" for name in sizes for check in ("training", "synthesis")],
        "growth": [f"growth {axis}" for axis in options.sizes.growth],
    }
    return [task for part in split_names(options.parts) for task in several.get(part, [part])]


def markdown(results: Results) -> str:
    """The results as tables."""
    lines = ["# Benchmark", "", brief(results.get("device", {}).get("about", {}))]
    for task, found in results.items():
        rows = measurements(found)
        rows.pop("about", None)
        title = f"{task} ({brief(rows.pop('network'))})" if "network" in rows else task
        lines += table(title, rows)
    lines += [*ends(results), "", "## Columns", "", *(f"- {name}: {meaning}" for name, meaning in LEGEND.items())]
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, help="folder for results.json and results.md")
    parser.add_argument("--networks", default=",".join(NETWORKS), help="those wanted")
    parser.add_argument("--parts", default=",".join(PARTS), help="those wanted, in their order")
    parser.add_argument(
        "--tiny", action="store_true", help="one network, and all so small that the numbers say no more than that it works"
    )
    parser.add_argument("--work", help=argparse.SUPPRESS)  # of the processes that this one starts
    options = parser.parse_args(arguments)
    for flag, known in (("networks", NETWORKS), ("parts", PARTS)):
        for name in split_names(getattr(options, flag)) or ("",):
            if name not in known:
                parser.error(f"--{flag}: no {name!r}; choose from {', '.join(known)}")
    options.report, options.sizes = Report(Path(options.output), markdown), TINY if options.tiny else FULL
    if options.work:
        check, *name = options.work.split()
        CHECKS[check](partial(options.report.add, options.work), options, *name)
        return
    try:
        options.report.begin(keep=True)
    except UserError as error:
        parser.error(f"--output: {error}")
    well = True
    for task in tasks(options):
        print(task, flush=True)
        well &= options.report.run(task, [sys.executable, __file__, *arguments, f"--work={task}"])
    growth.picture(options.report.read(), Path(options.output, "growth.png"))
    print(f"results.json and results.md are in {options.output}")
    sys.exit(not well)


if __name__ == "__main__":
    host.use_large_pages()
    main(sys.argv[1:])
