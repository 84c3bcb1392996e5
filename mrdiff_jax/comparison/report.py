"""One self-contained HTML page of a comparison: tables, figures, subjects, and slices to leaf through."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from mrdiff_jax import pages
from mrdiff_jax.comparison import tables
from mrdiff_jax.comparison.runs import Comparison
from mrdiff_jax.evaluation.averages import subject_of
from mrdiff_jax.metrics.conventions import HIGHER_IS_BETTER, METRICS
from mrdiff_jax.plotting import colormaps

_STUDY_LEADS = {
    "sampling": "The same weights with other numbers of reverse steps, and with several syntheses of a slice averaged.",
    "denoising": "One estimate from the true target with the noise of step t. Synthesis starts at the last step.",
    "robustness": "The same weights on sources with Rician noise (deviation as a share of the data range), a smooth bias field,"
    " with one source shifted against the others, and without a source (zeros in its place).",
    "uncertainty": "Where k syntheses of a slice differ, their mean should err. The predicted error of a pixel is their"
    " standard deviation times √(1 + 1/k), for the mean of k draws is not exact. Pixels inside the body; shares of the data"
    " range.",
    "maps": "Pearson’s correlation of the features h_t with the true T1, T2 and S0 of the phantom inside each slice, at the"
    " resolution of h_t. The best channel and the linear fit of all channels were found on training slices. The linear"
    " regression is the same fit of the sources: what can be read off the images without the maps.",
    "physics": "How the sources that D explains change when it is told other TR and TE, against what the phantom’s true T1, T2"
    " and S0 give, inside the brain: the correlation of the two, how large the change is, and the share of the true one that is"
    " in it (1 is all of it).",
    "hallucination": "Flat regions of the body and background are away from the truth’s edges; an edge there as strong as the"
    " truth’s is invented. An edge of the truth without half such a gradient within 1 pixel is lost. Errors are shares of the"
    " data range; the truth’s own noise is part of them for every method.",
    "lesions": "Slices that show a lesion; errors as shares of the data range, synthesis minus truth.",
    "segmentation": "The same segmenter on synthetic and true volumes; Dice of its labels, those of the true volume as truth.",
}
HEADINGS = {"whole slice": "Whole slice", "body": "Inside the body", "errors": "Errors of single pixels"}
LOWER_IS_BETTER = ", ".join(name.upper() for name, higher in HIGHER_IS_BETTER.items() if not higher)
EXTREMES = 3  # subjects at either end that are marked and always among the slices


class Figure(NamedTuple):
    """A picture for the page: its PNG file, a heading, and what it shows."""

    path: Path
    title: str
    caption: str
    study: str = ""  # whose section it stands in


def page(comparison: Comparison, figures: Sequence[Figure], slices: int) -> str:
    """The page as HTML that needs no other file and no network; at most that many slices can be leafed through (0: all)."""
    summary, first = comparison.summary, escape(comparison.first)
    chosen = choose_slices(comparison, slices)
    pictured = " Of several seeds, the first is shown, with its own scores." if comparison.several else ""
    studies = _studies(comparison, figures)
    return pages.fill(
        "comparison",
        title=f"{' + '.join(summary.sources)} → {summary.target}",
        lead=f"{', '.join(comparison.runs)}: {_count(summary.subjects, f'{summary.split} subject')},"
        f" {_count(summary.slices, 'slice')};"
        f" convention “{summary.convention.name}”; data set {summary.dataset}.",
        scores="".join(_scores(comparison, region) for region in comparison.regions),
        how="".join(f"<p>{escape(line)}</p>" for line in tables.how(comparison)),
        tests_lead=f"{first} minus each other method, paired over subjects. Positive differences speak for {first},"
        f" except in {LOWER_IS_BETTER}. d_z is Cohen's effect size of paired differences, its interval from the bootstrap."
        if summary.subjects > 1
        else "One subject is too few for a test.",
        tests="".join(_tests(comparison, region) for region in comparison.regions) if summary.subjects > 1 else "",
        figures="".join(_figure(figure) for figure in figures if not figure.study),
        studies=studies,
        studies_link='<a href="#studies">Beyond the paper</a>' if studies else "",
        subjects_lead=f"PSNR (dB) of each subject, from {first}’s worst to its best.",
        subjects=_subjects(comparison, {subject_of(exam): exam for exam, _ in reversed(chosen)}),
        slices_lead=f"{_count(len(chosen), 'slice')} of {summary.slices}, in 8 bits.{pictured} Click an image to"
        " enlarge that place in all of them; the arrow keys move the slider."
        if chosen
        else "The runs keep no images of the same slices.",
        footer=_made_by(comparison),
        data=_viewer_data(comparison, chosen),
    )


def choose_slices(comparison: Comparison, limit: int) -> list[tuple[str, int]]:
    """At most `limit` (0: all) slices with images: those of the worst and best subjects first, the rest evenly spread."""
    common = comparison.common_slices
    if not limit or len(common) <= limit:
        return common
    ranked = comparison.ranked_subjects
    extremes = {*ranked[:EXTREMES], *ranked[-EXTREMES:]}
    chosen: list[tuple[str, int]] = []
    is_extreme = [subject_of(exam) in extremes for exam, _ in common]
    for wanted in (True, False):
        group = [key for key, found in zip(common, is_extreme, strict=True) if found == wanted]
        room = min(limit - len(chosen), len(group))
        chosen += [group[i] for i in np.linspace(0, len(group) - 1, room).round().astype(int)]
    return sorted(chosen, key=common.index)


def _made_by(comparison: Comparison) -> str:
    runs = []
    for name, run in comparison.runs.items():
        seeds = f", {comparison.several[name]} seeds" if name in comparison.several else ""
        steps = ", ".join(dict.fromkeys(str(seed.summary.step) for seed in run.results))
        runs.append(f"{name} ({run.summary.method}{seeds}, step {steps})")
    return f"Runs: {', '.join(runs)}. Written by mrdiff compare. Research use only: synthetic images can mislead."


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _scores(comparison: Comparison, region: str) -> str:
    columns, rows = comparison.regions[region], []
    for method, cells in comparison.table(region).items():
        texts = [f"<td>{escape(method)}</td>"]
        for column in columns:
            cell = cells[column]
            text = tables.mean_and_deviation(cell, column)
            text = f"<b>{text}</b>" if cell.best else text
            spread = tables.seed_deviation(cell, column)
            seeds = f'<span class="seeds">({spread} over seeds)</span>' if spread else ""
            texts.append(pages.number(cell.mean, f'{text}<span class="stars">{cell.stars}</span>{seeds}'))
        kind = "" if method in comparison.runs else ' class="reference"'
        rows.append(f"<tr{kind}>{''.join(texts)}</tr>")
    return f"<h3>{HEADINGS[region]}</h3>{pages.table(['Method', *map(tables.label, columns)], rows)}"


def _tests(comparison: Comparison, region: str) -> str:
    rows = []
    for test in comparison.tests[region]:
        paired = test.paired
        p_values = (paired.p_t, test.p_t_holm, paired.p_wilcoxon, test.p_wilcoxon_holm)
        values = (paired.difference, paired.t, *p_values, paired.effect_size)
        method, score, *texts = map(escape, tables.statistics_row(test))
        cells = "".join(pages.number(0.0 if math.isnan(v) else v, text) for v, text in zip(values, texts, strict=True))
        rows.append(f"<tr><td>{method}</td><td>{score}</td>{cells}</tr>")
    return f"<h3>{HEADINGS[region]}</h3>{pages.table(tables.STATISTICS_HEADER, rows, tall=len(rows) > 12, dense=True)}"


def _figure(figure: Figure) -> str:
    return pages.picture(figure.path.read_bytes(), figure.title, figure.caption)


def _studies(comparison: Comparison, figures: Sequence[Figure]) -> str:
    """The section of the studies, if any run has one."""
    parts = []
    for study, title in tables.STUDIES.items():
        header, rows = tables.study_table(comparison, study)
        cells = ["".join(f"<td>{escape(text)}</td>" for text in row) for row in rows]
        if rows:
            body = pages.table(header, [f"<tr>{row}</tr>" for row in cells], dense=True, sortable=False)
            drawn = "".join(_figure(figure) for figure in figures if figure.study == study)
            parts.append(f'<h3 id="{study}">{title}</h3><p>{_STUDY_LEADS[study]}</p>{body}{drawn}')
    return f'<section id="studies"><h2>Beyond the paper</h2>{"".join(parts)}</section>' if parts else ""


def _subjects(comparison: Comparison, shown: Mapping[str, str]) -> str:
    ranked, methods = comparison.ranked_subjects, list(comparison.rows)
    scores = {method: comparison.by_subject(method, "psnr") for method in methods}
    marks: dict[str, str] = {}
    if len(ranked) > 2 * EXTREMES:
        marks |= dict.fromkeys(ranked[:EXTREMES], '<span class="mark hard">worst</span>')
        marks |= dict.fromkeys(ranked[-EXTREMES:], '<span class="mark easy">best</span>')
    rows = []
    for subject in ranked:
        name = escape(subject)
        if subject in shown:
            name = f'<a href="#slices" data-subject="{escape(shown[subject])}">{name}</a>'
        cells = "".join(pages.number(scores[m][subject], tables.number(scores[m][subject], "psnr")) for m in methods)
        rows.append(f"<tr><td>{name}{marks.get(subject, '')}</td>{cells}</tr>")
    return pages.table(["Subject", *methods], rows, tall=len(rows) > 10)


def _viewer_data(comparison: Comparison, chosen: Sequence[tuple[str, int]]) -> dict[str, Any]:
    """What the viewer reads: names, and for each slice a strip of its images side by side and the methods' scores."""
    summary = comparison.summary
    slices, methods, size = [], [], (1, 1)
    for key in chosen:
        pictures = comparison.pictures(*key)
        methods, size = list(pictures.methods), pictures.truth.shape
        scores = {m: {name: tables.number(pictures.scores[m][name], name) for name in METRICS} for m in methods}
        strip = _png(np.concatenate([*pictures.sources.values(), pictures.truth, *pictures.methods.values()], axis=1))
        slices.append({"subject": key[0], "slice": key[1], "scores": scores, "strip": strip})
    heat = (colormaps["inferno"](np.arange(256))[:, :3] * 255).round().astype(np.uint8)
    kept = {subject_of(exam): exam for exam, _ in reversed(chosen)}
    return {
        "sources": summary.sources,
        "truth": f"{summary.target}, true",
        "methods": methods,
        "size": size,
        "heat": base64.b64encode(heat.tobytes()).decode(),
        "slices": slices,
        "first": next((kept[subject] for subject in comparison.ranked_subjects if subject in kept), None),
    }


def _png(image: np.ndarray) -> str:
    """An image (H, W) in [0, 1] as an 8-bit grey PNG in base64."""
    file = io.BytesIO()
    Image.fromarray(np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()
