"""Pictures of results, drawn with matplotlib."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import scipy

from mrdiff_jax.pages import PIXELS_PER_INCH
from mrdiff_jax.plotting import Axes, Figure, FigureCanvasAgg, Rectangle

ERROR_RANGE = 0.25  # absolute errors are drawn on one scale, up to this share of the data range


def sample_panel(rows: Sequence[Mapping[str, np.ndarray]], titles: Sequence[str], path: Path) -> np.ndarray:
    """Draws one row of images an example and saves it as PNG.

    Args:
      rows: named images (H, W), the same names in every row; 'absolute error' and 'standard deviation', with whatever follows,
        are drawn as heat on a fixed scale, names that end in 'features' each on their own scale, all others on [0, 1].
      titles: one a row, written at its left.
      path: of the PNG.

    Returns:
      The picture, (height, width, 3) uint8.
    """
    names = list(rows[0])
    figure = Figure(figsize=(1.7 * len(names) + 0.3, 1.7 * len(rows) + 0.3), dpi=110, layout="compressed")
    axes = figure.subplots(len(rows), len(names), squeeze=False)
    for r, (row, title) in enumerate(zip(rows, titles, strict=True)):
        for c, name in enumerate(names):
            ax = axes[r, c]
            ax.imshow(row[name], **_look(name))
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
            if r == 0:
                ax.set_title(name, fontsize=9)
        axes[r, 0].set_ylabel(title, fontsize=7)
    canvas = FigureCanvasAgg(figure)
    canvas.print_png(path)
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _look(name: str) -> dict:
    if name.startswith(("absolute error", "standard deviation")):
        return dict(cmap="inferno", vmin=0, vmax=ERROR_RANGE)
    if name.endswith("features"):
        return dict(cmap="viridis")
    return dict(cmap="gray", vmin=0, vmax=1)


def qualitative(examples: Sequence[Mapping[str, np.ndarray]], titles: Sequence[str], sources: int, path: Path) -> None:
    """Draws, like the paper's Figures 2 and 3, each method's whole slice, a box of it enlarged, and its errors on one scale.

    Args:
      examples: named images (H, W) in [0, 1], the same names in each: first the sources, then the truth, then the methods. The
        box is where the truth has most detail.
      titles: of the examples, which stand side by side.
      sources: how many of the images are sources.
      path: without a suffix; PNG and PDF are written.
    """
    names = list(examples[0])
    figure = Figure(figsize=(4.6 * len(examples) + 1.2, 1.5 * len(names) + 0.8), layout="constrained")
    panels = figure.subplots(len(names), 3 * len(examples), squeeze=False, gridspec_kw=dict(wspace=0.02, hspace=0.02))
    for e, (example, title) in enumerate(zip(examples, titles, strict=True)):
        truth = example[names[sources]]
        rows, columns = _detailed_box(truth)
        for r, name in enumerate(names):
            image, axes = example[name], panels[r, 3 * e : 3 * e + 3]
            axes[0].imshow(image, **_look(name))
            axes[0].add_patch(_outline(rows, columns))
            axes[1].imshow(image[rows, columns], **_look(name))
            if r > sources:
                heat = axes[2].imshow(np.abs(image - truth), **_look("absolute error"))
            for ax in axes:
                ax.set(xticks=[], yticks=[])
                ax.spines[:].set_visible(False)
        panels[0, 3 * e].set_title(title, fontsize=9)
        panels[0, 3 * e + 1].set_title("enlarged", fontsize=9)
        panels[sources + 1, 3 * e + 2].set_title("absolute error", fontsize=9)
    for r, name in enumerate(names):
        panels[r, 0].set_ylabel(name, fontsize=9)
    for ax in panels[: sources + 1, 2::3].flat:
        ax.set_visible(False)
    figure.colorbar(heat, ax=panels[sources + 1 :, -1], shrink=0.9, extend="max", label="absolute error, of the data range")
    _save(figure, path)


def _detailed_box(image: np.ndarray, share: float = 0.375) -> tuple[slice, slice]:
    """Rows and columns of the square window, `share` of a side wide, with the largest sum of gradients."""
    side = max(round(share * min(image.shape)), 1)
    sums = np.pad(np.hypot(*np.gradient(image.astype(float))), ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    inside = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    row, column = np.unravel_index(np.argmax(inside), inside.shape)
    return slice(int(row), int(row) + side), slice(int(column), int(column) + side)


def _outline(rows: slice, columns: slice) -> Rectangle:
    height, width = rows.stop - rows.start, columns.stop - columns.start
    return Rectangle((columns.start - 0.5, rows.start - 0.5), width, height, fill=False, edgecolor="gold", linewidth=1)


def box_plots(scores: Mapping[str, Mapping[str, Sequence[float]]], path: Path) -> None:
    """Draws, for each metric, a box and the single values of every method: scores[metric][method]; PNG and PDF."""
    methods = list(next(iter(scores.values())))
    figure = Figure(figsize=(3.1 * len(scores), 0.42 * len(methods) + 1.3), layout="constrained")
    panels = figure.subplots(1, len(scores), squeeze=False, sharey=True)[0]
    for ax, (metric, values) in zip(panels, scores.items(), strict=True):
        data = [np.asarray(values[method])[np.isfinite(values[method])] for method in methods]
        ax.boxplot(data, orientation="horizontal", widths=0.6, showfliers=False, medianprops=dict(color="black"))
        for i, (points, colour) in enumerate(zip(data, colours(methods).values(), strict=True)):
            spread = np.random.default_rng(0).uniform(-0.18, 0.18, len(points))
            ax.scatter(points, i + 1 + spread, s=9, color=colour, alpha=0.7, linewidths=0, zorder=3)
        ax.set_title(metric, fontsize=10)
        ax.set_yticks(np.arange(len(methods)) + 1, methods)
        _plain(ax)
    panels[0].invert_yaxis()
    _save(figure, path)


def ablation(scores: Mapping[str, Mapping[str, Sequence[float]]], path: Path) -> None:
    """Draws, like the paper's Figure 4, mean and 95 % confidence interval of every method in the order given; PNG and PDF."""
    methods = list(next(iter(scores.values())))
    figure = Figure(figsize=(max(1.1 * len(methods) + 1.2, 3.2) * len(scores), 2.9), layout="constrained")
    panels = figure.subplots(1, len(scores), squeeze=False)[0]
    for ax, (metric, values) in zip(panels, scores.items(), strict=True):
        data = [np.asarray(values[method])[np.isfinite(values[method])] for method in methods]
        means = [points.mean() for points in data]
        bounds = [_half_interval(points) for points in data]
        for i, colour in enumerate(colours(methods).values()):
            ax.errorbar(i, means[i], bounds[i], fmt="o", color=colour, capsize=3)
        ax.set_xticks(range(len(methods)), methods, rotation=20, ha="right")
        ax.set_title(metric, fontsize=10)
        ax.set_xlim(-0.5, len(methods) - 0.5)
        _plain(ax)
    _save(figure, path)


def _half_interval(values: np.ndarray) -> float:
    """Half the 95 % confidence interval of a mean; 0 for a single value."""
    if len(values) < 2:
        return 0.0
    return float(scipy.stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))


def frequencies(
    spectra: Mapping[str, np.ndarray], frequency: np.ndarray, bands: Mapping[str, Mapping[str, float]], path: Path
) -> None:
    """Draws the radial power spectra, their ratio to the truth's, and the errors by wavelet band; PNG and PDF.

    Args:
      spectra: (rings,) by method, and of 'truth'.
      frequency: (rings,), cycles per pixel.
      bands: relative error by method and band.
      path: without a suffix.
    """
    methods = list(bands)
    palette = colours(methods) | {"truth": "black"}
    figure = Figure(figsize=(12.5, 3.6), layout="constrained")
    power, ratio, errors = figure.subplots(1, 3)
    for name in ("truth", *methods):
        width = 2 if name == "truth" else 1.4
        power.semilogy(frequency[1:], spectra[name][1:], label=name, color=palette[name], linewidth=width)
        if name != "truth":
            decibels = 10 * np.log10(spectra[name][1:] / spectra["truth"][1:])
            ratio.plot(frequency[1:], decibels, color=palette[name], linewidth=width)
            errors.plot(list(bands[name]), list(bands[name].values()), "o-", color=palette[name], linewidth=1, markersize=4)
    ratio.axhline(0, color="black", linewidth=2, zorder=0)
    power.set_xlabel("cycles per pixel", fontsize=9)
    ratio.set_xlabel("cycles per pixel", fontsize=9)
    errors.set_ylim(0, None)
    errors.tick_params(axis="x", labelrotation=45)
    titles = ("Radial power spectrum", "Power relative to the truth (dB)", "Relative error by wavelet band, coarse to fine")
    for ax, title in zip((power, ratio, errors), titles, strict=True):
        ax.set_title(title, fontsize=10)
        _plain(ax)
    power.legend(fontsize=8, frameon=False)
    _save(figure, path)


def robustness(scores: Mapping[str, Mapping[str, float]], path: Path) -> None:
    """Draws the mean PSNR by setting and method, the first setting as a line: scores[setting][method]; PNG and PDF."""
    methods = list(dict.fromkeys(method for row in scores.values() for method in row))
    first, *settings = scores
    figure = Figure(figsize=(8, 0.3 * len(settings) + 1.4), layout="constrained")
    ax = figure.subplots()
    height = 0.8 / len(methods)
    for m, (method, colour) in enumerate(colours(methods).items()):
        places = np.arange(len(settings)) + (m - (len(methods) - 1) / 2) * height
        values = [scores[setting].get(method, np.nan) for setting in settings]
        ax.plot(values, places, "o", color=colour, label=method, markersize=5)
        ax.axvline(scores[first].get(method, np.nan), color=colour, linestyle="--", linewidth=1)
        ax.hlines(places, values, scores[first].get(method, np.nan), color=colour, linewidth=1, alpha=0.5)
    ax.set_yticks(range(len(settings)), settings)
    ax.set_ylim(len(settings) - 0.5, -0.5)
    ax.set_xlabel(f"PSNR (dB); broken line: sources {first}", fontsize=9)
    _plain(ax)
    ax.grid(visible=False, axis="y")
    figure.legend(fontsize=8, frameon=False, loc="outside upper center", ncols=len(methods))
    _save(figure, path)


def reliability(curves: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]], path: Path) -> None:
    """Draws predicted against real error and the share of pixels, (bins,) each by method; PNG and PDF."""
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    against, shares = figure.subplots(1, 2)
    ends = []
    for (method, (predicted, error, share)), colour in zip(curves.items(), colours(list(curves)).values(), strict=True):
        seen = (share >= 0.001) & (predicted > 0)  # the mean of a handful of pixels says nothing
        against.loglog(predicted[seen], error[seen], "o-", color=colour, label=method, linewidth=1.4, markersize=4)
        shares.semilogx(predicted[seen], 100 * share[seen], "o-", color=colour, linewidth=1.4, markersize=4)
        ends += [*predicted[seen], *error[seen]]
    ends = [min(ends) / 1.3, max(ends) * 1.3]
    against.plot(ends, ends, "--", color="black", linewidth=1, zorder=0, label="as predicted")
    against.set(xlim=ends, ylim=ends, aspect="equal")
    shares.set(xlim=ends, ylim=(0, None))
    against.set_ylabel("real error (RMS)", fontsize=9)
    shares.set_ylabel("share of pixels (%)", fontsize=9)
    against.legend(fontsize=8, frameon=False)
    for ax in (against, shares):
        ax.set_xlabel("predicted error, of the data range", fontsize=9)
        _plain(ax)
    _save(figure, path)


def curves(series: Mapping[str, tuple[Sequence[int], Sequence[float]]], logarithmic: bool) -> bytes:
    """Draws values over training steps, a panel each: (steps, values) by name; a PNG.

    Panels are `logarithmic` where their values span more than a factor of three: labels of less have many digits.
    """
    width = 3.1 * len(series)
    figure = Figure(figsize=(width, 2.6))  # margins by hand: a layout engine takes 1.6 times as long, at every validation
    figure.subplots_adjust(left=0.85 / width, right=1 - 0.15 / width, bottom=0.18, top=0.88, wspace=0.45)
    for ax, (name, (steps, values)) in zip(figure.subplots(1, len(series), squeeze=False)[0], series.items(), strict=True):
        ax.plot(steps, values, ".-" if len(steps) < 20 else "-", color="#0072B2", linewidth=1.4)
        if logarithmic and 0 < 3 * min(values) < max(values):
            ax.set_yscale("log")
        else:
            ax.ticklabel_format(axis="y", style="plain", useOffset=False)
        ax.set_title(name, fontsize=10)
        ax.set_xlabel("steps", fontsize=9)
        _plain(ax)
    file = io.BytesIO()
    figure.savefig(file, dpi=PIXELS_PER_INCH, facecolor="white")
    return file.getvalue()


def colours(methods: Sequence[str]) -> dict[str, str]:
    """A colour for each method, apart for colour-blind readers too (Okabe and Ito)."""
    palette = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D46", "#7F7F7F")
    return {method: palette[i % len(palette)] for i, method in enumerate(methods)}


def _plain(ax: Axes) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(alpha=0.25)
    ax.set_axisbelow(True)
    ax.tick_params(which="both", labelsize=8)


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    for suffix in (".png", ".pdf"):
        figure.savefig(path.with_suffix(suffix), dpi=PIXELS_PER_INCH, facecolor="white")
