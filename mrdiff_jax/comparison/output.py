"""What a comparison leaves in its folder: tables, figures and the page."""

from pathlib import Path

from mrdiff_jax.comparison import tables
from mrdiff_jax.comparison.report import Figure, page
from mrdiff_jax.comparison.runs import Comparison
from mrdiff_jax.evaluation import figures
from mrdiff_jax.evaluation.results import SYNTHESIS


def write(comparison: Comparison, output: Path, slices: int) -> None:
    """Writes table1.md, .csv and .tex, the figures as PNG and PDF, and index.html with all of it."""
    (output / "figures").mkdir(parents=True, exist_ok=True)
    (output / "table1.md").write_text(tables.markdown(comparison), encoding="utf-8")
    (output / "table1.csv").write_text(tables.scores_csv(comparison), encoding="utf-8")
    (output / "table1.tex").write_text(tables.latex(comparison), encoding="utf-8")
    drawn = _draw(comparison, output / "figures")
    (output / "index.html").write_text(page(comparison, drawn, slices), encoding="utf-8")


def _draw(comparison: Comparison, folder: Path) -> list[Figure]:
    """Draws all figures that there is something for into the folder."""
    drawn = [
        *(_draw_images(comparison, folder / "qualitative") if comparison.common_slices else []),
        *_draw_scores(comparison, folder),
        _draw_frequencies(comparison, folder / "frequencies"),
        *(_draw_robustness(comparison, folder / "robustness") if comparison.study("robustness") else []),
        *(_draw_reliability(comparison, folder / "reliability") if comparison.reliability() else []),
    ]
    return [figure._replace(path=figure.path.with_suffix(".png")) for figure in drawn]


def _draw_images(comparison: Comparison, path: Path) -> list[Figure]:
    examples, titles = _examples(comparison)
    figures.qualitative(examples, titles, len(comparison.summary.sources), path)
    kept, of = len(comparison.common_slices), comparison.summary.slices
    caption = (
        f"The slice of median PSNR of {comparison.first}, and its worst, of the {kept} of {of} slices with images. The box,"
        " enlarged beside each slice, is where the truth has most detail. Errors are drawn on one scale."
    )
    if comparison.several:
        caption += " Slices are ranked by the mean over seeds; the images are of each row's first seed."
    return [Figure(path, "Images and errors", caption)]


def _draw_scores(comparison: Comparison, folder: Path) -> list[Figure]:
    unit = comparison.summary.convention.aggregation
    columns = comparison.regions["whole slice"]
    values = {
        tables.label(column): {method: comparison.values(method, column) for method in comparison.rows} for column in columns
    }
    figures.box_plots(values, folder / "boxplots")
    boxes = Figure(folder / "boxplots", "Distribution", f"Boxes are quartiles with the median, points one {unit} each.")
    if len(comparison.runs) == 1:
        return [boxes]
    of_runs = {
        tables.label(column): {name: comparison.values(name, column) for name in comparison.runs} for column in ("psnr", "ssim")
    }
    figures.ablation(of_runs, folder / "ablation")
    caption = f"The runs in the order given: mean over {unit}s and its 95% confidence interval."
    return [boxes, Figure(folder / "ablation", "Run by run", caption)]


def _draw_frequencies(comparison: Comparison, path: Path) -> Figure:
    linear, first = comparison.label("linear"), comparison.runs[comparison.first]
    spectra = {name: run.spectra[SYNTHESIS] for name, run in comparison.runs.items()}
    spectra |= {"truth": first.spectra["target"], linear: first.spectra["linear"]}
    bands = {name: comparison.bands(name) for name in (*comparison.runs, linear)}
    figures.frequencies(spectra, first.spectra["frequency"], bands, path)
    caption = (
        "Left: mean power by spatial frequency. Middle: a synthesis below 0 dB lacks detail at that frequency, one above"
        " invents it. Right: error of each Haar wavelet band, relative to the truth's content of the band."
    )
    return Figure(path, "Detail by spatial frequency", caption)


def _draw_robustness(comparison: Comparison, path: Path) -> list[Figure]:
    study = comparison.study("robustness")
    psnr = {setting: {method: scores["psnr"][0] for method, scores in row.items()} for setting, row in study.items()}
    figures.robustness(psnr, path)
    caption = "Mean PSNR with spoiled sources. The broken line is what the method has with the sources as acquired."
    return [Figure(path, "What spoiled sources cost", caption, "robustness")]


def _draw_reliability(comparison: Comparison, path: Path) -> list[Figure]:
    figures.reliability(comparison.reliability(), path)
    caption = (
        "Left: real error of the pixels by their predicted error; on the line it is as large as predicted, above it the"
        " method is too sure of itself. Right: how many pixels are given which predicted error."
    )
    return [Figure(path, "Predicted and real error", caption, "uncertainty")]


def _examples(comparison: Comparison) -> tuple[list[dict], list[str]]:
    """The first run's slice of median PSNR, and its worst, as named images in the order of the figure."""
    scores = {(row["subject"], row["slice"]): row["psnr"] for row in comparison.rows[comparison.first]}
    ranked = sorted(comparison.common_slices, key=scores.get)
    keys = dict.fromkeys([ranked[len(ranked) // 2], ranked[0]])
    pictures = [comparison.pictures(*key) for key in keys]
    truth = f"{comparison.summary.target}, true"
    return (
        [{**picture.sources, truth: picture.truth, **picture.methods} for picture in pictures],
        [f"{title}: {subject}, slice {number}" for title, (subject, number) in zip(("median", "worst"), keys, strict=False)],
    )
