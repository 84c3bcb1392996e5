"""Makes the scan that was not acquired: NIfTI or DICOM in, NIfTI out, on the grid of the first source.

mrdiff synthesize --demo
mrdiff synthesize --workdir=runs/mine --source T1w=t1.nii.gz --source T2w=dicom/ --output flair.nii.gz
mrdiff synthesize --workdir=runs/mine --bids SCANS --output DERIVATIVES
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from mrdiff_jax import cli
from mrdiff_jax.errors import UserError
from mrdiff_jax.log import logger
from mrdiff_jax.scans.sequence_times import Stated, parse_stated
from mrdiff_jax.storage.paths import local_path

if TYPE_CHECKING:  # importing them takes seconds
    from mrdiff_jax.synthesis.from_scans import SynthesisOptions
    from mrdiff_jax.synthesis.synthesizer import Synthesizer

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a trained run, or a file that mrdiff export wrote.")
_SOURCE = flags.DEFINE_multi_string("source", [], "NAME=PATH of a source: NIfTI, .mha, .nrrd or a DICOM folder; once for each.")
_OUTPUT = flags.DEFINE_string("output", None, "NIfTI file to write; with --bids the folder of the derivative.")
_GRID = flags.DEFINE_string("grid", None, "A scan on whose grid to write; default: the first source.")
_BIDS = flags.DEFINE_string("bids", None, "BIDS folder: synthesises the target of every subject that lacks it.")
_DEMO = flags.DEFINE_bool("demo", False, "A first look: the model that ships, on a simulated subject, in a new folder.")
_SAMPLES = flags.DEFINE_integer(
    "samples", None, "Samples to average; several give their standard deviation too. Default: 1, of --demo 8.", lower_bound=1
)
_MAPS = flags.DEFINE_bool("maps", False, "Writes the method's feature maps too, which are not quantitative.")
_STEPS = flags.DEFINE_integer("steps", None, "Reverse steps; 1 is the direct estimate. Default: as trained.", lower_bound=1)
_SAMPLER = flags.DEFINE_enum("sampler", None, ["ddim", "ddpm", "dpm"], "Default: as trained.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the noise: the same seed makes the same volume.", 0, 2**32 - 1)
_SHARED = flags.DEFINE_bool("shared-noise", False, "Starts all slices from the same noise.")
_BATCH = flags.DEFINE_integer("batch-size", 8, "Slices at a time, over all devices.", lower_bound=1)
_TR = flags.DEFINE_string("tr", "", "Milliseconds, as 'T1w=500,T2w=4000', for sources that record none.")
_TE = flags.DEFINE_string("te", "", "As --tr.")
_TI = flags.DEFINE_string("ti", "", "As --tr.")


@flags.multi_flags_validator(["workdir", "output", "demo"], "give --workdir and --output, or --demo for a first look")
def _is_complete(given: dict[str, Any]) -> bool:
    return given["demo"] or None not in (given["workdir"], given["output"])


def main() -> None:
    """Loads the model and synthesises one subject, or all of a folder."""
    if _DEMO.value:
        _check_alone()
    from mrdiff_jax import parallel
    from mrdiff_jax.synthesis.from_scans import SynthesisOptions

    parallel.initialize(_BATCH.value)
    settings = SynthesisOptions(
        steps=_STEPS.value,
        sampler=_SAMPLER.value,
        samples=_SAMPLES.value or 1,
        seed=_SEED.value,
        batch_size=_BATCH.value,
        shared_noise=_SHARED.value,
        maps=_MAPS.value,
    )
    if _DEMO.value:
        return _show(settings)
    stated = parse_stated(_TR.value, _TE.value, _TI.value, "--")
    run = _one if _BIDS.value is None else _all
    run(local_path(_OUTPUT.value, "--output"), settings, stated)


def _check_alone() -> None:
    for flag in (_WORKDIR, _SOURCE, _GRID, _BIDS, _MAPS, _TR, _TE, _TI):
        if flag.present:
            raise UserError(f"--{flag.name}: --demo has a model, a subject and sources of its own; leave it out")
    if _SAMPLES.value == 1:
        raise UserError("--samples=1: --demo shows how samples differ; give 2 or more")


def _show(settings: SynthesisOptions) -> None:
    from mrdiff_jax.metrics.conventions import METRICS
    from mrdiff_jax.synthesis import demonstration
    from mrdiff_jax.synthesis.synthesizer import Synthesizer

    output = local_path(_OUTPUT.value or "mrdiff-demo", "--output")
    settings = settings._replace(samples=_SAMPLES.value or demonstration.SAMPLES)
    synthesizer = Synthesizer.load(demonstration.MODEL)
    scores = demonstration.run(synthesizer, output, settings)
    print(f"{'':<18}" + "".join(f"{name.upper():>8}" for name in METRICS) + "   RMSE in the tumour")
    for name, row in scores.items():
        print(f"{name:<18}" + "".join(f"{value:8.{2 if metric == 'psnr' else 3}f}" for metric, value in row.items()))
    print(f"{output / demonstration.PICTURE} shows it; {output} holds the scans and what was made of them")


def _one(output: Path, settings: SynthesisOptions, stated: Stated) -> None:
    from mrdiff_jax.synthesis import from_scans, nifti_output

    path_of = partial(nifti_output.beside, output)
    nifti_output.check_free(path_of(from_scans.SYNTHETIC))  # before anything is read or computed
    sources = _sources()
    synthesizer = _synthesizer(settings)
    results = from_scans.results(synthesizer, settings)
    for result in results:
        nifti_output.check_free(path_of(result))
    nifti_output.check_earlier(output, results)
    scans = from_scans.read_scans(synthesizer, sources, local_path(_GRID.value, "--grid") if _GRID.value else None, stated)
    for name, placement in scans.placements.items():
        if placement.action == "registered":
            logger.info("%s: registered, for its edges lay %.1f mm off", name, placement.shift_before_mm)
    volumes = from_scans.synthesize(synthesizer, scans, settings)
    nifti_output.write(volumes, scans, nifti_output.provenance(synthesizer, scans, settings), path_of)
    print(*map(path_of, volumes), sep="\n")


def _all(output: Path, settings: SynthesisOptions, stated: Stated) -> None:
    from mrdiff_jax.synthesis import cohort

    if _SOURCE.value or _GRID.value:
        raise UserError("--bids: finds the sources itself, and each exam keeps its grid; leave --source and --grid out")
    synthesizer = _synthesizer(settings)
    outcomes = cohort.run(synthesizer, local_path(_BIDS.value, "--bids"), output, settings, stated)
    print(*cohort.summary(outcomes), sep="\n")
    failed = [one for one in outcomes if one.outcome == "failed"]
    if failed:
        raise UserError(
            f"{len(failed)} of {len(outcomes)} exams failed, see {output / 'report.csv'}; first: {failed[0].reason}"
        )


def _synthesizer(settings: SynthesisOptions) -> Synthesizer:
    from mrdiff_jax.synthesis.synthesizer import Synthesizer

    synthesizer = Synthesizer.load(local_path(_WORKDIR.value, "--workdir"), maps=settings.maps)
    synthesizer.sampling(settings.steps, settings.sampler, settings.samples)  # refused before scans are read
    return synthesizer


def _sources() -> dict[str, Path]:
    sources: dict[str, Path] = {}
    for text in _SOURCE.value:
        name, equals, path = text.partition("=")
        if not (name and equals and path) or name in sources:
            raise UserError(f"--source={text}: write NAME=PATH, each source once")
        sources[name] = local_path(path, f"--source={name}")
    return sources


if __name__ == "__main__":
    cli.run(main, __doc__)
