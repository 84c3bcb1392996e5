"""The tables of a comparison as Markdown, CSV and LaTeX."""

import csv
import io
import math
from collections.abc import Mapping, Sequence

from mrdiff_jax.comparison.runs import Cell, Comparison, Test
from mrdiff_jax.config import STUDIES
from mrdiff_jax.evaluation import averages
from mrdiff_jax.scans import visits

DIGITS = {"psnr": 2, "ssim": 4, "fsim": 4, "gmsd": 4, "nmse": 4, "mae": 4}
DIGITS |= {"correlation": 3, "best_channel": 3, "linear_fit": 3, "follows": 3, "size": 3, "share": 3, "dice": 3}
LABELS = {"psnr": "PSNR (dB) ↑", "ssim": "SSIM ↑", "fsim": "FSIM ↑", "gmsd": "GMSD ↓", "nmse": "NMSE ↓", "mae": "MAE ↓"}
LABELS |= {"nmse_body": "NMSE inside the body ↓", "mae_body": "MAE inside the body ↓"}  # in one table with those of the slice
STUDIED = ("psnr", "ssim")
BY_SETTING = ("sampling", "denoising", "robustness")  # studies of the metrics
MEASURES = {  # of the other studies
    "rmse": "RMS error ↓",
    "bias": "mean error",
    "predicted": "RMS of the predicted error",
    "within_1": "error below the predicted one",
    "within_2": "error below twice the predicted one",
    "correlation": "rank correlation of predicted and real error ↑",
    "best_channel": "best channel ↑",
    "linear_fit": "linear fit ↑",
    "follows": "correlation of the changes ↑",
    "size": "size of the change, of the true one’s",
    "share": "share of the true change",
    "invented": "edges invented ↓",
    "lost": "edges lost ↓",
    "dice": "Dice ↑",
}
SHARES = ("within_1", "within_2", "invented", "lost")
STATISTICS_HEADER = (
    "against",
    "score",
    "difference [95% CI]",
    "t",
    "p (t-test)",
    "by Holm",
    "p (Wilcoxon)",
    "by Holm",
    "d_z [95% CI]",
)


def label(column: str) -> str:
    """Heading of a score column."""
    return LABELS.get(column) or LABELS[column.removesuffix("_body")]


def number(value: float, column: str) -> str:
    """A score with the digits of its metric."""
    return f"{value:.{DIGITS[column.removesuffix('_body')]}f}"


def mean_and_deviation(cell: Cell, column: str) -> str:
    """'28.54 ± 3.41', without the deviation where one subject has none."""
    deviation = "" if math.isnan(cell.deviation) else f" ± {number(cell.deviation, column)}"
    return number(cell.mean, column) + deviation


def seed_deviation(cell: Cell, column: str) -> str:
    """'± 0.12', or '' of a row without several seeds."""
    return "" if math.isnan(cell.seed_deviation) else f"± {number(cell.seed_deviation, column)}"


def _whole_cell(cell: Cell, column: str) -> str:
    """'28.54 ± 3.41 (± 0.12)'."""
    spread = seed_deviation(cell, column)
    return mean_and_deviation(cell, column) + (f" ({spread})" if spread else "")


def p_value(p: float) -> str:
    """A p-value as it is printed: three digits, '<0.001', or a dash where there was no test."""
    if math.isnan(p):
        return "–"
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def statistics_row(test: Test) -> list[str]:
    """One test as texts, for STATISTICS_HEADER."""
    paired, column = test.paired, test.column

    def bounded(value: float, interval: tuple[float, float], form: str) -> str:
        return "–" if math.isnan(value) else f"{value:{form}} [{interval[0]:{form}}, {interval[1]:{form}}]"

    return [
        test.method,
        label(column),
        bounded(paired.difference, paired.interval, f"+.{DIGITS[column.removesuffix('_body')]}f"),
        "–" if math.isnan(paired.t) else f"{paired.t:.2f}",
        p_value(paired.p_t),
        p_value(test.p_t_holm),
        p_value(paired.p_wilcoxon),
        p_value(test.p_wilcoxon_holm),
        bounded(paired.effect_size, paired.effect_size_interval, ".2f"),
    ]


def study_table(comparison: Comparison, study: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a study, empty where no run has it; a dash where a method has no value.

    A row is a setting, with PSNR and SSIM of every method, or a measure in a setting, with the value of every method.
    """
    found = comparison.study(study)
    methods = list(dict.fromkeys(method for row in found.values() for method in row))
    if study in BY_SETTING:
        header = ["setting", *(f"{method}, {LABELS[metric]}" for metric in STUDIED for method in methods)]
        cells = {setting: [(method, metric) for metric in STUDIED for method in methods] for setting in found}
        return header, [
            [setting, *(_study_cell(found[setting], *cell) for cell in of_setting)] for setting, of_setting in cells.items()
        ]
    measures = [
        (setting, measure)
        for setting, row in found.items()
        for measure in MEASURES
        if any(measure in of for of in row.values())
    ]
    return ["measure", *methods], [
        [f"{setting}: {MEASURES[measure]}", *(_study_cell(found[setting], method, measure) for method in methods)]
        for setting, measure in measures
    ]


def _study_cell(row: Mapping[str, Mapping[str, tuple[float, float]]], method: str, measure: str) -> str:
    if measure not in row.get(method, {}):
        return "–"
    values = [value for value in row[method][measure] if not math.isnan(value)]
    if measure in SHARES:
        return " ± ".join(f"{100 * value:.1f}" for value in values) + "%"
    return " ± ".join(f"{value:.{DIGITS.get(measure, 4)}f}" for value in values)


def how(comparison: Comparison) -> list[str]:
    """How the numbers came about, a sentence each; stands beside every table."""
    summary = comparison.summary
    convention = summary.convention
    one = f"1 {summary.split} subject: no tests, no stars"
    subjects = one if summary.subjects == 1 else f"{summary.subjects} {summary.split} subjects"
    unit = {"subject": "subjects, of the means over their slices", "slice": "all slices"}[convention.aggregation]
    lines = [
        f"{', '.join(summary.sources)} → {summary.target}; {subjects}, {summary.slices} slices; data set {summary.dataset}.",
        f"Convention '{convention.name}': scaling: {convention.scaling}. Mask: {convention.mask}."
        f" Data range: {convention.data_range}.",
        f"Mean ± standard deviation over {unit}; the best mean is bold.",
        f"Stars mark a difference to {comparison.first}, for better or worse: paired t-test over subjects, two-sided,"
        " p corrected by Holm over all tests of the table (* p < 0.05, ** p < 0.01, *** p < 0.001).",
    ]
    if comparison.several:
        seeds = ", ".join(f"{count} of {name}" for name, count in comparison.several.items())
        lines.insert(
            3,
            f"Training seeds: {seeds}. The scores of each slice are averaged over them before all else; in parentheses,"
            " the sample standard deviation of the seeds' means.",
        )
    exams = {averages.subject_of(row["subject"]) for row in comparison.rows[comparison.first]}
    if alike := [members for members in visits.patients(exams).values() if len(members) > 1]:
        lines.append(
            f"{sum(map(len, alike))} subjects look like visits of {len(alike)} patient{'s' * (len(alike) > 1)}, as"
            f" {' and '.join(alike[0][:2])} do: the tests take them for independent subjects; name visits ses-1, ses-2, ..."
            " if they are not."
        )
    return lines


def markdown(comparison: Comparison) -> str:
    """Table 1 for each region and the statistics behind its stars, as Markdown."""
    parts = []
    for region, columns in comparison.regions.items():
        table = comparison.table(region)
        cells = [
            [method.replace("|", "\\|"), *(_markdown_cell(row[column], column) for column in columns)]
            for method, row in table.items()
        ]
        tests = [statistics_row(test) for test in comparison.tests[region]]
        parts += [
            f"## Table 1, {region}\n\n{_markdown_table(['method', *map(label, columns)], cells)}",
            f"### {comparison.first} minus each other method, {region}\n\n{_markdown_table(STATISTICS_HEADER, tests)}",
        ]
    for study, title in STUDIES.items():
        if comparison.study(study):
            parts.append(f"## {title}\n\n{_markdown_table(*study_table(comparison, study))}")
    return "\n\n".join(["# Comparison", "\n".join(f"- {_unstarred(line)}" for line in how(comparison)), *parts]) + "\n"


def _markdown_cell(cell: Cell, column: str) -> str:
    text = _whole_cell(cell, column)
    return (f"**{text}**" if cell.best else text) + _unstarred(cell.stars)


def _unstarred(text: str) -> str:
    return text.replace("*", r"\*")


def _markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def latex(comparison: Comparison) -> str:
    """Table 1 for each region as LaTeX tables (package booktabs)."""
    return "\n\n".join(_latex_table(comparison, region, columns) for region, columns in comparison.regions.items()) + "\n"


def _latex_table(comparison: Comparison, region: str, columns: Sequence[str]) -> str:
    heads = [label(column).replace("↑", r"$\uparrow$").replace("↓", r"$\downarrow$") for column in columns]
    lines = [
        " & ".join([_latex_text(method), *(_latex_cell(row[column], column) for column in columns)]) + r" \\"
        for method, row in comparison.table(region).items()
    ]
    return "\n".join(
        [
            *(f"% {line}" for line in how(comparison)),
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_latex_text(' '.join([f'Scores, {region}.', *how(comparison)]))}}}",
            rf"\begin{{tabular}}{{l{'c' * len(columns)}}}",
            r"\toprule",
            " & ".join(["Method", *heads]) + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    )


def _latex_cell(cell: Cell, column: str) -> str:
    text = _whole_cell(cell, column).replace("±", r"\pm")
    bold = rf"\mathbf{{{text}}}" if cell.best else text
    return f"${bold}^{{{cell.stars}}}$" if cell.stars else f"${bold}$"


def _latex_text(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "→": r"$\rightarrow$", "±": r"$\pm$", "<": "$<$", ">": "$>$"}
    special |= {character: rf"\{character}" for character in "&%$#_{}"}
    special |= {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(special.get(character, character) for character in text)


def scores_csv(comparison: Comparison) -> str:
    """Table 1 as CSV, a row for each method, region and metric, with the test behind its stars and the convention."""
    rows, convention = [], comparison.summary.convention
    stated = {name: getattr(convention, name) for name in ("mask", "data_range", "aggregation")}
    for region, columns in comparison.regions.items():
        tests = {(test.method, test.column): test for test in comparison.tests[region]}
        for method, cells in comparison.table(region).items():
            for column in columns:
                cell, test = cells[column], tests.get((method, column))
                row = {
                    "method": method,
                    "split": comparison.summary.split,
                    "region": "body" if column.endswith("_body") else "whole slice",
                    "metric": column.removesuffix("_body"),
                    "mean": cell.mean,
                    "standard_deviation": cell.deviation,
                    "seeds": len(comparison.runs[method].results) if method in comparison.runs else "",
                    "seed_deviation": "" if math.isnan(cell.seed_deviation) else cell.seed_deviation,
                    "stars": cell.stars,
                }
                rows.append(row | _test_fields(test) | {"convention": convention.name} | stated)
    file = io.StringIO()
    table = csv.DictWriter(file, list(rows[-1]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return file.getvalue()


def _test_fields(test: Test | None) -> dict[str, float | str]:
    if test is None:
        names = (
            "subjects",
            "difference",
            "difference_low",
            "difference_high",
            "t",
            "p_t",
            "p_t_holm",
            "p_wilcoxon",
            "p_wilcoxon_holm",
        )
        return dict.fromkeys((*names, "effect_size", "effect_size_low", "effect_size_high"), "")
    paired = test.paired
    return {
        "subjects": paired.subjects,
        "difference": paired.difference,
        "difference_low": paired.interval[0],
        "difference_high": paired.interval[1],
        "t": paired.t,
        "p_t": paired.p_t,
        "p_t_holm": test.p_t_holm,
        "p_wilcoxon": paired.p_wilcoxon,
        "p_wilcoxon_holm": test.p_wilcoxon_holm,
        "effect_size": paired.effect_size,
        "effect_size_low": paired.effect_size_interval[0],
        "effect_size_high": paired.effect_size_interval[1],
    }
