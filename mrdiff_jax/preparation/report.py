"""What a call of `prepare` says at its end, in lines."""

import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from mrdiff_jax.preparation import checks
from mrdiff_jax.preparation.options import Options
from mrdiff_jax.preparation.records import ExamRecord, prepared
from mrdiff_jax.scans import visits


def lines(
    output: Path, options: Options, records: Sequence[ExamRecord], splits: Mapping[str, str], ruled: Collection[str]
) -> Iterator[str]:
    """What was made, what to look at, and how to train on it; `ruled` are the contrasts that a rule of the user's names."""
    done = prepared(records)
    if alike := visits.look_alike(splits):
        yield alike
    slices = sum(len(record.slices) for record in done)
    yield f"{len(done)} of {len(records)} exams prepared, {slices} slices; look at {output / 'index.html'}"
    for index, contrast in enumerate(options.contrasts):
        yield from _about(contrast, index, done)
    for contrast in options.contrasts:
        if contrast not in ruled:
            yield from checks.odd_times(contrast, options, done)
    if splits:
        yield "to train, any of the contrasts may be the target:"
        yield _training(output, options)


def _about(contrast: str, index: int, done: Sequence[ExamRecord]) -> Iterator[str]:
    blank = [record.scans[index].blank_slices for record in done]
    if any(blank):
        yield f"{sum(blank)} slices of {sum(map(bool, blank))} exams left out: {contrast} is blank in them (manifest.csv)"
    padded = [record.exam for record in done if record.scans[index].padding]
    if padded:
        yield f"padding taken for air in {contrast} of {len(padded)} exams, {padded[0]} for one (manifest.csv)"
    lacking = sum(not (record.times[index].tr and record.times[index].te) for record in done)
    if lacking:
        yield (
            f"{contrast} of {lacking} exams lacks TR or TE, which training asks for of sources; call again with"
            f" --tr={contrast}=MILLISECONDS --te={contrast}=MILLISECONDS (what is finished stays, times are added)"
        )


def _training(output: Path, options: Options) -> str:
    *sources, target = options.contrasts
    return (
        "mrdiff train --config=configs/bids.py"
        " --workdir=runs/mine --config.data.name=prepared "
        f"--config.data.root={shlex.quote(str(output))} --config.data.image_size={options.image_size} "
        f"--config.data.sources={','.join(sources)} --config.data.target={target} --config.train.max_minutes=60"
    )
