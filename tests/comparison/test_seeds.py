"""Several seeds as one row: their means by known answer, and runs that may not share a row."""

import csv
import dataclasses
import io

import numpy as np
import pytest
from helpers.made_results import comparison_of, make_results

from mrdiff_jax.comparison import report, seeds, significance, tables
from mrdiff_jax.comparison.seeds import Seeds
from mrdiff_jax.errors import UserError
from mrdiff_jax.evaluation import averages, results
from mrdiff_jax.storage import json_files
from mrdiff_jax.training.loop import train_and_evaluate


def with_scores(made, column, value):
    """The results with one score of every slice set to a value of its subject's and slice's number."""
    rows = [row | {column: value(int(row["subject"][-2:]), row["slice"])} for row in made.rows["synthesis"]]
    return dataclasses.replace(made, rows=made.rows | {"synthesis": rows})


@pytest.fixture
def two_seeds():
    """PSNR 20 + subject and 23 + subject: means 23.5 and 26.5 over the 8 subjects."""
    return [with_scores(make_results(0.05, seed=s), "psnr", lambda subject, _, s=s: 20.0 + 3 * s + subject) for s in (0, 1)]


def test_a_row_has_the_mean_of_its_seeds_and_their_spread(two_seeds):
    both = comparison_of({"ours": two_seeds, "theirs": make_results(0.1)})
    cell = both.table("whole slice")["ours"]["psnr"]
    assert cell.mean == pytest.approx(25)
    assert cell.deviation == pytest.approx(np.std(np.arange(8), ddof=1))
    assert cell.seed_deviation == pytest.approx(3 / np.sqrt(2))
    assert both.by_subject("ours", "psnr") == pytest.approx({f"sub-{s:02d}": 21.5 + s for s in range(8)})
    assert both.values("ours", "psnr") == pytest.approx([21.5 + s for s in range(8)])
    assert np.isnan(both.table("whole slice")["theirs"]["psnr"].seed_deviation)
    assert np.isnan(both.table("whole slice")["linear regression"]["psnr"].seed_deviation)
    assert both.several == {"ours": 2}


def test_the_paired_test_is_that_of_subjects_averaged_over_seeds():
    ours, theirs = ([make_results(error, seed=s) for s in range(3)] for error in (0.05, 0.06))
    both = comparison_of({"ours": ours, "theirs": theirs})

    def averaged(runs):
        means = [averages.subject_means(run.rows["synthesis"], "ssim") for run in runs]
        return {subject: np.mean([of_seed[subject] for of_seed in means]) for subject in means[0]}

    expected = significance.paired_comparison(averaged(ours), averaged(theirs), seed=0)
    found = next(t.paired for t in both.tests["whole slice"] if (t.method, t.column) == ("theirs", "ssim"))
    assert found.subjects == 8
    assert dataclasses.astuple(found)[1:2] == pytest.approx(dataclasses.astuple(expected)[1:2])
    for name in ("t", "p_t", "p_wilcoxon", "effect_size", "effect_size_interval"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name))


def test_the_order_of_slices_and_one_seed_change_nothing(two_seeds):
    first, second = two_seeds
    turned = dataclasses.replace(second, rows={name: rows[::-1] for name, rows in second.rows.items()})
    assert Seeds([first, turned]).rows == Seeds([first, second]).rows
    alone = Seeds([first])
    assert alone.rows == first.rows
    assert all(np.array_equal(alone.spectra[name], first.spectra[name]) for name in first.spectra)


def test_a_score_that_is_infinite_with_one_seed_is_left_out(two_seeds):
    first, second = two_seeds
    second = with_scores(second, "psnr", lambda subject, number: np.inf if number == 0 else 23.0 + subject)
    both = comparison_of({"ours": [first, second]})
    assert both.by_subject("ours", "psnr")["sub-02"] == pytest.approx(23.5)  # of the other two slices


def test_spectra_and_bands_are_means_over_seeds():
    both = comparison_of({"ours": [make_results(0.25), make_results(0.75)]})
    power = make_results(0.5).spectra
    np.testing.assert_allclose(both.runs["ours"].spectra["synthesis"], power["synthesis"])
    np.testing.assert_allclose(both.runs["ours"].spectra["target"], power["target"])
    single = [comparison_of({"ours": make_results(error)}).bands("ours")["HH1"] for error in (0.25, 0.75)]
    assert both.bands("ours")["HH1"] == pytest.approx(np.mean(single))
    assert single[0] == pytest.approx(make_results(0.25).summary.bands.synthesis["HH1"])


def study_row(study, setting, measure, value, number=0, method="synthesis"):
    of = {"study": study, "setting": setting, "measure": measure, "method": method, "subject": "sub-00", "slice": number}
    return of | {"value": value}


def test_studies_are_means_over_seeds_and_reliability_is_pooled():
    def sums(bin_, pixels, predicted, error):
        names = ("pixels", "predicted_squares", "error_squares")
        return [study_row("reliability", bin_, *of) for of in zip(names, (pixels, predicted, error), strict=True)]

    first = [study_row("lesions", "lesions", "rmse", 0.25), *sums("low", 1, 1, 4)]
    second = [study_row("lesions", "lesions", "rmse", 0.75), *sums("low", 3, 3, 0), *sums("high", 4, 64, 16)]
    made = [dataclasses.replace(make_results(0.05), studies=rows) for rows in (first, second)]
    both = comparison_of({"ours": made})
    assert both.study("lesions")["lesions"]["ours"]["rmse"][0] == pytest.approx(0.5)
    curve = both.reliability()["ours"]
    np.testing.assert_allclose(curve.predicted, [1, 4])
    np.testing.assert_allclose(curve.error, [1, 2])
    np.testing.assert_allclose(curve.share, [0.5, 0.5])


def test_a_label_that_one_seed_invents_does_not_part_the_seeds():
    def run(labels):
        return dataclasses.replace(make_results(0.1), studies=[{"study": "segmentation", "setting": label} for label in labels])

    seeds._check_studies("a", run(["label 1"]), "b", run(["label 1", "label 7"]))
    with pytest.raises(UserError, match="its study 'segmentation' is of nothing"):
        seeds._check_studies("a", run(["label 1"]), "b", run([]))


def test_pictures_and_the_scores_beside_them_are_of_the_first_seed(two_seeds):
    both = comparison_of({"ours": two_seeds, "theirs": make_results(0.1)})
    pictures = both.pictures("sub-01", 2)
    images = two_seeds[0].images
    np.testing.assert_array_equal(pictures.methods["ours"], images.synthesis[images.places["sub-01", 2]])
    assert pictures.scores["ours"]["psnr"] == 21
    html = report.page(both, [], 0)
    assert "Of several seeds, the first is shown, with its own scores." in html
    assert "ours (imaginary, 2 seeds, step 10), theirs (imaginary, step 10)" in html


class TestTables:
    def test_every_form_shows_the_spread_and_says_what_it_is(self, two_seeds):
        both = comparison_of({"ours": two_seeds, "theirs": make_results(0.1)})
        assert "| ours | **25.00 ± 2.45 (± 2.12)** |" in tables.markdown(both)
        assert r"ours & $\mathbf{25.00 \pm 2.45 (\pm 2.12)}$" in tables.latex(both)
        html = report.page(both, [], 0)
        assert '<b>25.00 ± 2.45</b><span class="stars"></span><span class="seeds">(± 2.12 over seeds)</span>' in html
        sentence = "Training seeds: 2 of ours. The scores of each slice are averaged over them before all else; in parentheses,"
        for text in (tables.markdown(both), html, tables.latex(both)):
            assert sentence in text

    def test_csv_has_the_number_of_seeds_and_their_deviation(self, two_seeds):
        both = comparison_of({"ours": two_seeds, "theirs": make_results(0.1)})
        rows = {(r["method"], r["region"], r["metric"]): r for r in csv.DictReader(io.StringIO(tables.scores_csv(both)))}
        ours, theirs, linear = (rows[name, "whole slice", "psnr"] for name in ("ours", "theirs", "linear regression"))
        assert (ours["seeds"], theirs["seeds"], linear["seeds"]) == ("2", "1", "")
        assert float(ours["seed_deviation"]) == pytest.approx(3 / np.sqrt(2))
        assert theirs["seed_deviation"] == linear["seed_deviation"] == ""

    def test_rows_of_one_run_look_as_they_did(self):
        alone = comparison_of({"ours": make_results(0.05)})
        for text in (tables.markdown(alone), report.page(alone, [], 0), tables.latex(alone)):
            assert "Training seeds" not in text
            assert "(±" not in text.replace(r"\pm", "±")
            assert "Of several seeds" not in text


IDENTITY = {
    "--config.method.name": "mrdiff",
    "--config.data.splits_file": "",
    "--config.data.batch_size": 8,
    "--config.optimizer.learning_rate": 2e-4,
    "--config.train.seed": 0,
    "the data set": "0123456789abcdef",
}


def make_run(folder, number, identity=(), train=(), **changes):
    """The workdir of an imaginary run, as far as a comparison reads it."""
    made = make_results(0.05, seed=number, **{name: changes.pop(name) for name in ("convention",) if name in changes})
    studies = changes.pop("studies", [])
    made = dataclasses.replace(made, summary=dataclasses.replace(made.summary, **changes), studies=studies)
    folder.mkdir()
    results.write(made, folder)
    json_files.write(folder / "run.json", IDENTITY | {"--config.train.seed": number} | dict(identity))
    json_files.write(folder / "config.json", {"train": {"steps": 10, "seed": number} | dict(train)})
    return folder


def test_seeds_are_read_from_their_workdirs(tmp_path):
    workdirs = [
        make_run(tmp_path / "a", 0, train={"log_every": 5, "checkpoint_every": 5}),
        make_run(tmp_path / "b", 1, {"--config.data.splits_file": "a/splits.csv"}, seed=7),
    ]
    assert [run.rows for run in seeds.read(workdirs).results] == [results.read(workdir).rows for workdir in workdirs]
    assert len(seeds.read(workdirs[:1]).results) == 1


def test_under_a_time_limit_steps_may_differ(tmp_path):
    limit = {"max_minutes": 5.0}
    workdirs = [make_run(tmp_path / "a", 0, train=limit, step=10), make_run(tmp_path / "b", 1, train=limit, step=9)]
    assert [run.summary.step for run in seeds.read(workdirs).results] == [10, 9]


LESIONS = [study_row("lesions", "lesions", "rmse", 0.25)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"identity": {"--config.method.name": "hinet"}},
            r"b: --config.method.name is hinet, but mrdiff in .*a; .*train\.seed alone",
        ),
        (
            {"identity": {"--config.optimizer.learning_rate": 0.5}},
            "b: --config.optimizer.learning_rate is 0.5, but 0.0002 in .*a;",
        ),
        ({"identity": {"--config.new": 1}}, "b: --config.new is 1, but unknown in .*a;"),
        ({"train": {"steps": 20}}, "b: --config.train.steps is 20, but 10 in .*a;"),
        ({"train": {"max_minutes": 1.0}}, "b: --config.train.max_minutes is 1.0, but 0.0 in .*a;"),
        ({"step": 5}, "b: the last step is 5, but 10 in .*a;"),
        ({"sample": {"steps": 1}}, "b: --config.sample.steps is 1, but unknown in .*a;"),
        ({"convention": "apt"}, "b: scored by the convention 'apt', .*a by 'default'"),
        ({"identity": {"--config.train.seed": 0}}, "b: --config.train.seed is 0, as in .*a; .* different seeds"),
        ({"studies": LESIONS}, "b: its study 'lesions' is of lesions, that of .*a of nothing; .*evaluate.studies"),
    ],
)
def test_other_runs_are_refused_by_both_workdirs_and_the_field(tmp_path, changes, message):
    workdirs = [make_run(tmp_path / "a", 0), make_run(tmp_path / "b", 1, **changes)]
    with pytest.raises(UserError, match=message):
        seeds.read(workdirs)


@pytest.mark.parametrize("name", ["run.json", "config.json"])
def test_what_training_left_is_needed(tmp_path, name):
    workdirs = [make_run(tmp_path / "a", 0), make_run(tmp_path / "b", 1)]
    (tmp_path / "b" / name).unlink()
    with pytest.raises(UserError, match=rf"b/{name}: no such file; runs of one row need it"):
        seeds.read(workdirs)
    (tmp_path / "b" / name).write_text('{"train": {"steps": "many"}}' if name == "config.json" else "{")
    with pytest.raises(UserError, match=rf"b/{name}: "):
        seeds.read(workdirs)


def test_trained_runs_of_two_seeds_are_a_row(tiny_config, tmp_path):
    tiny_config.method.name = "regression"
    tiny_config.train.steps = 1
    workdirs = []
    for seed in (0, 1):
        tiny_config.train.update(seed=seed, log_every=1 + seed)
        train_and_evaluate(tiny_config, tmp_path / str(seed))
        workdirs.append(tmp_path / str(seed))
    row = seeds.read(workdirs)
    first, second = (run.rows["synthesis"][0]["psnr"] for run in row.results)
    assert row.rows["synthesis"][0]["psnr"] == pytest.approx((first + second) / 2)
    assert first != second
    other_best = dataclasses.replace(row.results[1].summary, step=0)
    results.write(dataclasses.replace(row.results[1], summary=other_best), workdirs[1])
    seeds.read(workdirs)
    tiny_config.optimizer.learning_rate = 0.5
    train_and_evaluate(tiny_config, tmp_path / "other")
    with pytest.raises(UserError, match=r"other: --config.optimizer.learning_rate is 0.5, but "):
        seeds.read([workdirs[0], tmp_path / "other"])
