"""Synthetic volumes on disk: NIfTI files, and beside each a JSON sidecar that says how it was made."""

import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

import mrdiff_jax
from mrdiff_jax.errors import UserError
from mrdiff_jax.preparation.records import Placement
from mrdiff_jax.scans.sequence_times import sidecar_path
from mrdiff_jax.storage.files import commit, replacing, sha256
from mrdiff_jax.synthesis.from_scans import DEVIATION, SYNTHETIC, Scans, SynthesisOptions, intensities, slicing_of
from mrdiff_jax.synthesis.synthesizer import Synthesizer

SUFFIXES = (".nii.gz", ".nii")


def beside(output: Path, result: str) -> Path:
    """Where a result other than the volume itself goes: t1.nii.gz, 'T2 features' -> t1_T2-features.nii.gz.

    Raises:
      UserError: the output is not named as NIfTI.
    """
    for suffix in SUFFIXES:
        if output.name.endswith(suffix):
            stem = output.name.removesuffix(suffix)
            return output.with_name(f"{stem}_{result.replace(' ', '-')}{suffix}") if result != SYNTHETIC else output
    raise UserError(f"--output={output}: name it .nii.gz or .nii")


def bids_name(exam: str, target: str, result: str) -> str:
    """The name that BIDS gives a result: 'sub-01', 'ce-gad_T1w', 'std' -> sub-01_ce-gad_desc-syntheticStd_T1w.nii.gz."""
    entities, _, suffix = target.rpartition("_")
    kind = "" if result == SYNTHETIC else "".join(word[0].upper() + word[1:] for word in result.split())
    return "_".join(filter(None, (exam, entities, f"desc-synthetic{kind}", suffix))) + ".nii.gz"


def check_free(path: Path) -> None:
    """Checks that a volume may be written there.

    Raises:
      UserError: a scan, or its sidecar, lies there that was not synthesised, or a scan that would share the sidecar.
    """
    sidecar = sidecar_path(path)
    for suffix in SUFFIXES:
        other = sidecar.with_name(sidecar.name.removesuffix(".json") + suffix)
        if other != path and other.exists():
            raise UserError(f"{path}: would share its sidecar with {other.name}; choose another --output")
    try:
        synthetic = sidecar.exists() and json.loads(sidecar.read_text(encoding="utf-8")).get("Synthetic")
    except (ValueError, AttributeError):
        synthetic = False
    if (path.exists() or sidecar.exists()) and not synthetic:
        raise UserError(f"{path}: is there and not synthetic; choose another --output")


def check_earlier(output: Path, results: Iterable[str]) -> None:
    """Checks that no result of an earlier synthesis would stay beside those of this one, which has other settings.

    Raises:
      UserError: an earlier standard deviation or feature map lies there and is not among `results`.
    """
    written = {beside(output, result) for result in results}
    maps = beside(output, "*-features").name.replace("[", "[[]")
    for path in (beside(output, DEVIATION), *sorted(output.parent.glob(maps))):
        if path.exists() and path not in written:
            raise UserError(f"{path}: would lie beside this synthesis, which makes none; remove it, or choose another --output")


def write(volumes: Mapping[str, np.ndarray], scans: Scans, about: Mapping[str, Any], path_of: Callable[[str], Path]) -> None:
    """Writes each volume with its sidecar, in the frame of the scans: all of them, or none.

    Args:
      volumes: as `from_scans.synthesize` gives them.
      scans: that they were made from.
      about: as `provenance` gives it, for all sidecars.
      path_of: from a volume's name to its path.

    Raises:
      UserError: a scan that was not synthesised lies at one of the paths.
    """
    with ExitStack() as files:
        for name, volume in volumes.items():
            path = path_of(name)
            check_free(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            sidecar = files.enter_context(replacing(sidecar_path(path)))
            sidecar.write_text(json.dumps({"Description": _describe(name, about), **about}, indent=2) + "\n", encoding="utf-8")
            scans.frame.write(volume, files.enter_context(replacing(path)))


def provenance(synthesizer: Synthesizer, scans: Scans, settings: SynthesisOptions) -> dict[str, Any]:
    """How the volumes were made, for JSON; names of files, not of their folders."""
    cut, options = slicing_of(synthesizer, scans.grid), synthesizer.trained.data.preparation
    offset, factor = intensities(synthesizer)
    return {
        "Synthetic": True,
        "Target": synthesizer.target,
        "Sources": {
            name: {
                "File": path.name,
                "SHA256": sha256(path.path),
                "RepetitionTime": times[0] / 1000,
                "EchoTime": times[1] / 1000,
                **({"InversionTime": times[2] / 1000} if times[2] else {}),
                "Placement": _placement(scans.placements[name]),
                **({"Padding": scans.padding[name]} if scans.padding[name] else {}),
            }
            for (name, path), times in zip(scans.paths.items(), scans.times.tolist(), strict=True)
        },
        "Grid": scans.frame_path.name,
        **recipe(synthesizer, settings),
        "Preparation": {name: getattr(options, name) for name in ("plane", "percentiles", "bias_correction", "mask")},
        "Slices": {"PixelMillimetres": cut.pixel, "Pixels": list(cut.size)},
        "Intensities": {
            "Offset": offset,
            "Factor": factor,
            "Meaning": "offset + factor x the network's scale: medians over training scans, not of this subject's scanner",
        },
        "Software": {"Name": "mrdiff_jax", "Version": mrdiff_jax.__version__, "Commit": commit()},
    }


def _placement(placement: Placement) -> dict[str, Any]:
    return {"action": placement.action, "transform": list(placement.transform)} | placement.to_json()


def recipe(synthesizer: Synthesizer, settings: SynthesisOptions) -> dict[str, Any]:
    """Which model it is and how it samples, for JSON: what makes the volume of given scans."""
    trained = synthesizer.trained
    sample = trained.config.sample
    model = {"Method": trained.config.method.name, "Step": trained.step, "WeightsSHA256": trained.sha256}
    if sample is None:
        return {"Model": model}
    chain = {"sampler": settings.sampler or sample.sampler, "steps": settings.steps or sample.steps, "eta": sample.eta}
    return {
        "Model": model,
        "Sampling": {
            **{name.capitalize(): value for name, value in chain.items() if name in synthesizer.method.sampling},
            "Samples": settings.samples,
            "Seed": settings.seed,
            "SharedNoise": settings.shared_noise,
        },
    }


def _describe(name: str, about: Mapping[str, Any]) -> str:
    made = f"made by a neural network from {', '.join(about['Sources'])}; not acquired, not for diagnosis"
    if name == SYNTHETIC:
        return f"Synthetic {about['Target']}, {made}."
    if name == DEVIATION:
        samples = about["Sampling"]["Samples"]
        return f"Voxelwise standard deviation over {samples} samples of a synthetic {about['Target']}, {made}."
    return f"{name}: mean over the channels of a feature map of the network; not quantitative, no relaxation time or density."
