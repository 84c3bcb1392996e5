"""Refusals, tables and tests of a comparison, on imaginary runs."""

import csv
import dataclasses
import io

import numpy as np
import pytest
from helpers.made_results import comparison_of, make_results

from mrdiff_jax.comparison import significance, tables
from mrdiff_jax.errors import UserError
from mrdiff_jax.evaluation import averages


@pytest.fixture
def comparison():
    return comparison_of({"ours": make_results(0.05), "theirs": make_results(0.1, seed=1)})


def test_stars_are_holm_corrected_paired_tests_over_subjects_against_the_first(comparison):
    tests = {(test.method, test.column): test for test in comparison.tests["whole slice"]}
    methods = ["theirs", "copy of PDw", "linear regression"]
    assert set(tests) == {(method, column) for method in methods for column in ("psnr", "ssim", "fsim", "gmsd")}
    rows = {name: comparison.rows[name] for name in ("ours", "theirs")}
    ours, theirs = (averages.subject_means(rows[name], "ssim") for name in ("ours", "theirs"))
    expected = significance.paired_comparison(ours, theirs, seed=0)
    found = tests["theirs", "ssim"]
    assert found.paired == expected
    family = [test.paired.p_t for test in comparison.tests["whole slice"]]
    assert found.p_t_holm == pytest.approx(significance.holm(family)[list(tests).index(("theirs", "ssim"))])
    cell = comparison.table("whole slice")["theirs"]["ssim"]
    assert cell.stars == significance.stars(found.p_t_holm) != ""
    assert comparison.table("whole slice")["ours"]["ssim"].stars == ""


def test_means_and_deviations_are_over_subjects_or_slices_as_the_convention_says(comparison):
    rows = comparison.rows["ours"]
    subjects = list(averages.subject_means(rows, "psnr").values())
    cell = comparison.table("whole slice")["ours"]["psnr"]
    assert (cell.mean, cell.deviation) == pytest.approx((np.mean(subjects), np.std(subjects, ddof=1)))

    by_slice = comparison_of({"ours": make_results(0.05, convention="fast-ddpm")})
    slices = [row["psnr"] for row in by_slice.rows["ours"]]
    cell = by_slice.table("whole slice")["ours"]["psnr"]
    assert (cell.mean, cell.deviation) == pytest.approx((np.mean(slices), np.std(slices, ddof=1)))
    assert list(by_slice.regions) == ["whole slice", "errors"]


def test_best_is_highest_but_lowest_gmsd(comparison):
    for region, columns in comparison.regions.items():
        table = comparison.table(region)
        for column in columns:
            assert [method for method, row in table.items() if row[column].best] == ["ours"]


def changed(error=0.1, *, summary=(), **kwargs):
    results = make_results(error, **kwargs)
    return dataclasses.replace(results, summary=dataclasses.replace(results.summary, **dict(summary)))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (changed(convention="apt"), r"theirs: scored by the convention 'apt', ours by 'default'.*evaluate\.convention"),
        (
            changed(summary={"split": "validation"}),
            r"theirs: scored on its validation subjects.*evaluate\.split",
        ),
        (changed(summary={"target": "FLAIR"}), "theirs: its target is FLAIR, of ours is T1w"),
        (changed(summary={"sources": ("T2w",)}), "theirs: its sources are T2w, of ours are T2w, PDw"),
        (changed(subjects=7), "theirs: has not been tested on 3 of the slices that ours has been, of subjects sub-07"),
        (changed(subjects=9), "ours: has not been tested on 3 of the slices that theirs has been, of subjects sub-08"),
        (changed(slices=2), "theirs: has not been tested on 8 of the slices .* sub-04 ...;"),
        (changed(summary={"dataset": "fedcba"}), "theirs: its data set is fedcba, that of ours 0123456789abcdef"),
    ],
)
def test_runs_that_differ_are_refused_by_name(other, message):
    with pytest.raises(UserError, match=message):
        comparison_of({"ours": make_results(0.05), "theirs": other})


def studied(numbers, value=1.0, method="synthesis"):
    """Results with a study of slices of these numbers, of two subjects."""
    rows = [
        {
            "study": "lesions",
            "setting": "lesions",
            "measure": "rmse",
            "method": method,
            "subject": s,
            "slice": n,
            "value": value,
        }
        for s in ("sub-00", "sub-01")
        for n in numbers
    ]
    return dataclasses.replace(make_results(0.1), studies=rows)


def test_studies_of_other_slices_are_refused_by_name():
    with pytest.raises(UserError, match=r"theirs: its study 'lesions' is of other slices than that of ours.*study_slices"):
        comparison_of({"ours": studied([0, 1]), "theirs": studied([0, 2])})
    assert comparison_of({"ours": studied([0, 1]), "theirs": make_results(0.1)}).study("lesions")


def test_labels_of_another_segmenter_are_refused_by_name():
    def segmented(command):
        made = studied([0, 1])
        rows = [row | {"study": "segmentation", "measure": "dice"} for row in made.studies]
        return dataclasses.replace(made, studies=rows, summary=dataclasses.replace(made.summary, segmenter=command))

    with pytest.raises(UserError, match=r"theirs: its study 'segmentation' is by another command than that of ours"):
        comparison_of({"ours": segmented("a {input} {output}"), "theirs": segmented("b {input} {output}")})
    assert comparison_of({"ours": segmented("a"), "theirs": segmented("a")}).study("segmentation")
    assert comparison_of({"ours": segmented("a"), "theirs": make_results(0.1)}).study("segmentation")


@pytest.mark.parametrize("name", ["linear regression", "copy of PDw", "truth"])
def test_a_row_is_not_called_like_a_reference(name):
    with pytest.raises(UserError, match=f"--names: '{name}' is what something else is called"):
        comparison_of({"ours": make_results(0.05), name: make_results(0.1)})


def test_a_convention_that_meant_something_else_is_said():
    made = make_results(0.1)
    other = dataclasses.replace(made.summary.convention, mask="another")
    with pytest.raises(UserError, match=r"theirs: the convention 'default' meant something else .* evaluate both again"):
        comparison_of({"ours": made, "theirs": changed(summary={"convention": other})})


def test_exams_without_a_label_do_not_part_segmented_runs():
    def segmented(subjects, **changes):
        of = {"study": "segmentation", "setting": "label 1", "measure": "dice", "method": "synthesis", "slice": 0, "value": 0.5}
        return dataclasses.replace(make_results(0.1, **changes), studies=[of | {"subject": subject} for subject in subjects])

    comparison_of({"ours": segmented(["sub-00"]), "theirs": segmented(["sub-00", "sub-01"], seed=1)})


def test_subjects_that_look_like_visits_of_one_patient_are_told(comparison):
    assert "visits" not in " ".join(tables.how(comparison))
    named = {f"sub-{i:02d}": f"sub-{i // 2:02d}{'ab'[i % 2]}" for i in range(8)}
    made = make_results(0.1)
    rows = {name: [row | {"subject": named[row["subject"]]} for row in found] for name, found in made.rows.items()}
    how = " ".join(tables.how(comparison_of({"ours": dataclasses.replace(made, rows=rows)})))
    assert "8 subjects look like visits of 4 patients, as sub-00a and sub-00b do: the tests take them for independent" in how


def test_a_study_stands_beside_its_references_and_gaps_are_dashes():
    ours = studied([0, 1], 0.25)
    ours = dataclasses.replace(ours, studies=[*ours.studies, *studied([0, 1], 0.5, "linear").studies])
    both = comparison_of({"without": make_results(0.1), "ours": ours, "theirs": studied([0, 1], 0.125)})
    header, rows = tables.study_table(both, "lesions")
    assert header == ["measure", "ours", "theirs", "linear regression"]
    assert rows == [["lesions: RMS error ↓", "0.2500 ± 0.0000", "0.1250 ± 0.0000", "0.5000 ± 0.0000"]]
    assert tables.study_table(both, "maps")[1] == []


def test_the_order_of_slices_does_not_matter():
    other = make_results(0.1)
    turned = dataclasses.replace(other, rows={name: rows[::-1] for name, rows in other.rows.items()})
    first = make_results(0.05)
    a, b = (comparison_of({"ours": first, "theirs": results}) for results in (other, turned))
    assert [test.p_t_holm for test in a.tests["body"]] == pytest.approx([test.p_t_holm for test in b.tests["body"]])


def test_pictures_are_those_of_the_slice_in_every_run(comparison):
    ours, theirs = (comparison.runs[name].results[0] for name in ("ours", "theirs"))
    other = theirs.images
    order = np.arange(len(other.slice))[::-1][:5]
    fewer = dataclasses.replace(other, **{field.name: getattr(other, field.name)[order] for field in dataclasses.fields(other)})
    mixed = comparison_of({"ours": ours, "theirs": dataclasses.replace(theirs, images=fewer)})
    assert mixed.common_slices == [("sub-06", 1), ("sub-06", 2), ("sub-07", 0), ("sub-07", 1), ("sub-07", 2)]
    pictures = mixed.pictures("sub-07", 1)
    place = other.places["sub-07", 1]
    np.testing.assert_array_equal(pictures.methods["theirs"], other.synthesis[place])
    np.testing.assert_array_equal(pictures.truth, other.target[place])
    np.testing.assert_array_equal(pictures.sources["PDw"], other.sources[place, ..., 1])
    linear = np.clip(0.5 * pictures.sources["T2w"] + 0.25 * pictures.sources["PDw"] + 0.1, 0, 1)
    np.testing.assert_allclose(pictures.methods["linear regression"], linear, atol=1e-6)


class TestTables:
    def test_markdown_carries_numbers_stars_and_convention(self, comparison):
        text = tables.markdown(comparison)
        cell = comparison.table("whole slice")["ours"]["psnr"]
        assert f"| ours | **{cell.mean:.2f} ± {cell.deviation:.2f}** |" in text
        other = comparison.table("whole slice")["theirs"]["gmsd"]
        assert f"| {other.mean:.4f} ± {other.deviation:.4f}{other.stars.replace('*', chr(92) + '*')} |" in text
        assert "Convention 'default': scaling: one affine map per volume" in text
        assert "8 test subjects, 24 slices" in text
        assert "## Table 1, body" in text

    def test_csv_has_the_test_behind_every_star(self, comparison):
        rows = list(csv.DictReader(io.StringIO(tables.scores_csv(comparison))))
        assert len(rows) == 4 * (2 * 4 + 4)  # methods, regions and metrics, errors
        row = next(r for r in rows if (r["method"], r["region"], r["metric"]) == ("theirs", "body", "fsim"))
        test = next(t for t in comparison.tests["body"] if (t.method, t.column) == ("theirs", "fsim_body"))
        assert float(row["p_t_holm"]) == test.p_t_holm
        assert float(row["effect_size_low"]) == test.paired.effect_size_interval[0]
        assert row["convention"] == "default"
        assert next(r for r in rows if r["method"] == "ours")["p_t"] == ""

    def test_latex_is_balanced_and_escaped(self):
        text = tables.latex(comparison_of({"a_b": make_results(0.05), "50% & more": make_results(0.1, seed=1)}))
        assert text.count("{") == text.count("}")
        assert r"a\_b &" in text
        assert r"50\% \& more &" in text
        assert r"\mathbf{" in text
        assert "^{***}$" in text
        body = [line for line in text.splitlines() if not line.startswith("%")]
        assert not set("↑↓→±") & set("".join(body))

    def test_one_subject_has_no_tests(self):
        alone = comparison_of({"ours": make_results(0.05, subjects=1), "theirs": make_results(0.1, subjects=1)})
        text = tables.markdown(alone)
        assert "1 test subject: no tests" in text
        assert "nan" not in text
        assert not any(cell.stars for row in alone.table("body").values() for cell in row.values())

    def test_p_values(self):
        assert [tables.p_value(p) for p in (0.0004, 0.04321, 1.0, float("nan"))] == ["<0.001", "0.043", "1.000", "–"]
