"""From a config to batches: preparation, splits, order, sharding, and the state of the iterator."""

import csv
import itertools
import subprocess
import sys
from pathlib import Path

import grain
import numpy as np
import orbax.checkpoint as ocp
import pytest

from mrdiff_jax import config as configuration
from mrdiff_jax.data import datasets, phantom
from mrdiff_jax.data.batches import evaluation_batches, train_iterator
from mrdiff_jax.errors import UserError
from mrdiff_jax.preparation import slicing
from mrdiff_jax.preparation.splits import SPLITS

SUBJECTS, SLICES = 6, 5


def data_config(cache, **changes):
    config = configuration.default(None).data
    small = {"image_size": 16, "subjects": SUBJECTS, "subject_slices": SLICES, "sources": "T2w,PDw", "target": "T1w"}
    config.update({"name": "phantom", "cache": str(cache)} | small | changes)
    return config


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def dataset(cache):
    return datasets.open_dataset(data_config(cache))


def examples(dataset, split):
    source = dataset.split(split)
    return [source[i] for i in range(len(source))]


def subjects(dataset, split):
    return {example["subject"] for example in examples(dataset, split)}


def identities(batches):
    """A hashable identity for each slice in some batches."""
    return [target.tobytes() for batch in batches for target in batch["target"]]


def same(a, b):
    return all(np.array_equal(a[key], b[key]) for key in a) and a.keys() == b.keys()


# Preparation


def test_the_set_is_prepared_once_and_found_again(cache, dataset, monkeypatch):
    monkeypatch.setattr(datasets, "_prepare", None)
    again = datasets.open_dataset(data_config(cache))
    assert again == dataset
    assert again.folder == cache / f"phantom-{again.fingerprint}"
    assert same(again.split("train")[0], dataset.split("train")[0])


def test_sources_and_target_are_chosen_without_a_new_preparation(cache, dataset, monkeypatch):
    monkeypatch.setattr(datasets, "_prepare", None)
    other = datasets.open_dataset(data_config(cache, sources="T1w, FLAIR", target="T2w"))
    assert other.folder == dataset.folder
    a, b = dataset.split("train")[2], other.split("train")[2]
    np.testing.assert_array_equal(a["sources"][..., 0], b["target"])
    np.testing.assert_array_equal(a["target"], b["sources"][..., 0])
    assert b["ti"][0] == 0 < b["ti"][1]
    assert a["scale"].tolist() != b["scale"].tolist()


def test_an_example_holds_what_was_simulated(dataset):
    for example in examples(dataset, "test")[:7]:
        index = int(example["subject"].removeprefix("sub-")) - 1
        exam = phantom.simulate_exam(0, index, image_size=16, slice_count=SLICES)
        z = example["slice"]
        offset, factor = example["scale"]
        image = slicing.slice_image(exam.volumes[0, :, :, z])
        inside = (example["target"] > 0) & (example["target"] < 1)
        assert inside.mean() > 0.3
        np.testing.assert_allclose((offset + factor * example["target"])[inside], image[inside], atol=factor * 1e-5)
        maps = slicing.slice_image(np.moveaxis(exam.maps[:, :, z], -1, 0))
        np.testing.assert_allclose(example["maps"], np.moveaxis(maps, 0, -1), rtol=1e-5)
        lesions = slicing.slice_image(exam.lesions[:, :, z]) >= 0.5
        np.testing.assert_array_equal(example["lesions"], lesions)
        assert example["spacing"] == pytest.approx(phantom.FIELD_MM / 16)
        assert example["slice_spacing"] == pytest.approx(exam.spacing[2])
        np.testing.assert_array_equal(example["tr"], exam.times[1:3, 0])
        np.testing.assert_array_equal(example["te"], exam.times[1:3, 1])


@pytest.mark.parametrize(
    "changes", [{"seed": 1}, {"image_size": 18}, {"percentiles": (1.0, 99.0)}, {"slices": "0:2"}, {"split_seed": 1}]
)
def test_whatever_changes_the_examples_changes_the_folder(cache, dataset, monkeypatch, changes):
    monkeypatch.setattr(datasets, "_prepare", lambda *args, **options: None)
    assert datasets.open_dataset(data_config(cache, **changes)).folder != dataset.folder


def test_a_broken_preparation_leaves_nothing_and_the_next_one_works(tmp_path, monkeypatch):
    simulate, calls = phantom.simulate_exam, []

    def dies(seed, index, **options):
        calls.append(index)
        if len(calls) > 3:
            raise KeyboardInterrupt
        return simulate(seed, index, **options)

    with monkeypatch.context() as patch:
        patch.setattr(phantom, "simulate_exam", dies)
        with pytest.raises(KeyboardInterrupt):
            datasets.open_dataset(data_config(tmp_path))
    assert len(calls) > 3
    assert list(tmp_path.iterdir()) == []
    assert len(datasets.open_dataset(data_config(tmp_path)).split("train")) > 0


def test_what_a_killed_preparation_leaves_is_not_taken_for_a_set(tmp_path):
    code = f"""
import os
from mrdiff_jax.data import datasets, phantom
from tests.data.test_datasets import data_config
simulate = phantom.simulate_exam
phantom.simulate_exam = lambda seed, index, **o: os._exit(9) if index == 4 else simulate(seed, index, **o)
datasets.open_dataset(data_config({str(tmp_path)!r}))
"""
    process = start(code)
    _, stderr = process.communicate()
    assert process.returncode == 9, stderr
    assert list(tmp_path.glob(".preparing-*"))
    assert not list(tmp_path.glob("phantom-*"))
    assert len(datasets.open_dataset(data_config(tmp_path)).split("test")) > 0


def test_a_set_that_an_older_version_wrote_in_parts_is_made_anew(tmp_path):
    config = data_config(tmp_path, subjects=3)
    dataset = datasets.open_dataset(config)
    before = examples(dataset, "train")
    (dataset.folder / "prepared.json").unlink()
    again = datasets.open_dataset(config)
    assert again == dataset
    assert all(same(a, b) for a, b in zip(examples(again, "train"), before, strict=True))
    (dataset.folder / "prepared.json").write_text("{}")
    with pytest.raises(UserError, match=r"prepared\.json: is damaged.*remove"):
        datasets.open_dataset(config)


def test_two_preparations_at_once_agree_without_tensorflow(tmp_path, dataset):
    code = f"""
import sys
sys.path.insert(0, "tests")
from tests.data.test_datasets import data_config, datasets, evaluation_batches, train_iterator
dataset = datasets.open_dataset(data_config({str(tmp_path)!r}))
next(train_iterator(dataset, 2, 0))
next(evaluation_batches(dataset, "test", 2))
assert "tensorflow" not in sys.modules
print(dataset.fingerprint)
"""
    processes = [start(code) for _ in range(2)]
    outputs = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert [out.strip() for out, _ in outputs] == [dataset.fingerprint] * 2
    assert [path.name for path in tmp_path.iterdir()] == [dataset.folder.name]
    theirs = datasets.open_dataset(data_config(tmp_path))
    assert all(same(a, b) for a, b in zip(examples(theirs, "train"), examples(dataset, "train"), strict=True))


def start(code):
    command = [sys.executable, "-W", "error", "-c", code]
    root = Path(__file__).parents[2]
    return subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


# Splits


def test_splits_are_disjoint_by_subject_complete_and_written_down(dataset):
    split_of = {subject: split for split in SPLITS for subject in subjects(dataset, split)}
    assert sum(len(subjects(dataset, split)) for split in SPLITS) == SUBJECTS
    assert sum(len(dataset.split(split)) for split in SPLITS) == SUBJECTS * SLICES
    with open(dataset.folder / "splits.csv", newline="") as file:
        assert {row["subject"]: row["split"] for row in csv.DictReader(file)} == split_of


def test_the_first_example_of_each_exam_stands_for_what_its_slices_share(dataset):
    every, firsts = dataset.split("train"), dataset.first_of_each_exam("train")
    first_rows = {every[i]["subject"]: i for i in reversed(range(len(every)))}
    assert [firsts[i]["subject"] for i in range(len(firsts))] == sorted(first_rows, key=first_rows.get)
    for i in range(len(firsts)):
        same_slice = every[first_rows[firsts[i]["subject"]]]
        assert firsts[i]["slice"] == same_slice["slice"]
        np.testing.assert_array_equal(firsts[i]["target"], same_slice["target"])


def test_few_subjects_leave_validation_empty_but_not_train_or_test(cache):
    dataset = datasets.open_dataset(data_config(cache, subjects=2))
    assert [len(dataset.split(split)) for split in SPLITS] == [SLICES, 0, SLICES]
    assert list(evaluation_batches(dataset, "validation", 2)) == []
    for changes in ({"subjects": 1}, {"test_fraction": 0.0}, {"test_subjects": "sub-*"}):
        with pytest.raises(UserError, match="the choice of test subjects"):
            datasets.open_dataset(data_config(cache, **changes))


def test_an_empty_splits_file_is_refused(tmp_path, cache):
    (tmp_path / "mine.csv").write_text("")
    with pytest.raises(UserError, match=r"mine\.csv: its first line does not name the column split"):
        datasets.open_dataset(data_config(cache, splits_file=str(tmp_path / "mine.csv")))


def test_an_edited_splits_file_decides(tmp_path, cache, dataset):
    text = (dataset.folder / "splits.csv").read_text()
    moved = sorted(subjects(dataset, "train"))[0]
    path = tmp_path / "mine.csv"
    path.write_text(text.replace(f"{moved},train", f"{moved},test"))
    edited = datasets.open_dataset(data_config(cache, splits_file=str(path), test_subjects="sub-0001"))
    assert subjects(edited, "test") == subjects(dataset, "test") | {moved}
    assert subjects(edited, "train") == subjects(dataset, "train") - {moved}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("sub-0003,", "sub-3333,", ("no row for sub-0003",)),
        ("sub-0002,", "sub-0001,", ("row 3", "sub-0001", "second time")),
        ("sub-0002,train", "sub-0002,training", ("row 3", "'training'", "train, validation, test")),
        ("subject,split", "name,part", ("first line does not name the column split",)),
        ("subject,split", "subject;split", ("first line does not name the column split",)),
        (",test", ",train", ("no subject for test",)),
    ],
)
def test_a_wrong_splits_file_is_refused_by_row(tmp_path, cache, old, new, words):
    splits = ["train", "train", "train", "validation", "test", "test"]
    text = "subject,split\n" + "".join(f"sub-{i + 1:04d},{split}\n" for i, split in enumerate(splits))
    path = tmp_path / "mine.csv"
    path.write_text(text.replace(old, new))
    with pytest.raises(UserError) as caught:
        datasets.open_dataset(data_config(cache, splits_file=str(path)))
    for word in (str(path), *words):
        assert word in str(caught.value)


def test_a_missing_splits_file_is_refused(cache):
    with pytest.raises(UserError, match=r"nowhere\.csv: not a readable CSV of splits"):
        datasets.open_dataset(data_config(cache, splits_file="nowhere.csv"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "phantoms"}, "--config.data.name=phantoms: choose one of phantom, bids, prepared"),
        ({"sources": "T2w,T3w"}, "--config.data.sources: no contrast 'T3w' in this data set; choose from T1w, T2w"),
        ({"target": "T1"}, "--config.data.target: no contrast 'T1'"),
        ({"target": "T2w"}, "--config.data.sources: give one contrast or more, each once, and not the target 'T2w'"),
        ({"sources": ""}, "--config.data.sources: "),
        ({"sources": "T2w,T2w"}, "--config.data.sources: "),
        ({"contrasts": "T1w,CT"}, "--config.data.contrasts: "),
        ({"contrasts": "T1w,T2w"}, "--config.data.sources: no contrast 'PDw'"),
    ],
)
def test_a_wrong_field_is_named_with_its_choices(cache, changes, words):
    with pytest.raises(UserError) as caught:
        datasets.open_dataset(data_config(cache, **changes))
    assert words in str(caught.value)


# Batches


def test_a_training_batch_is_as_promised(dataset):
    batch = next(train_iterator(dataset, 4, 0))
    shapes = {"sources": (4, 16, 16, 2), "target": (4, 16, 16), "tr": (4, 2), "te": (4, 2), "ti": (4, 2)}
    assert {key: value.shape for key, value in batch.items()} == shapes
    assert {value.dtype for value in batch.values()} == {np.dtype(np.float32)}
    for image in (batch["sources"], batch["target"]):
        assert 0 <= image.min() < image.max() <= 1
    assert (batch["te"] < batch["tr"]).all()
    assert (batch["tr"] > 2000).all()


def test_mirroring_turns_half_of_the_slices_whole(dataset):
    plain, mirrored = (train_iterator(dataset, 16, 0, mirror=mirror) for mirror in (False, True))
    turned = []
    for a, b in zip(itertools.islice(plain, 4), mirrored, strict=False):
        for i in range(16):
            same = [np.array_equal(a[key][i], b[key][i]) for key in ("sources", "target")]
            flipped = [np.array_equal(a[key][i][:, ::-1], b[key][i]) for key in ("sources", "target")]
            assert all(same) or all(flipped)
            turned.append(all(flipped))
    assert 0.3 < np.mean(turned) < 0.7


def test_varied_intensity_keeps_the_target_and_the_order_of_grey_values(dataset):
    plain, varied = (train_iterator(dataset, 16, 0, intensity=intensity) for intensity in (0.0, 0.4))
    blacks = []
    for a, b in zip(itertools.islice(plain, 4), varied, strict=False):
        assert np.array_equal(a["target"], b["target"])
        for before, after in zip(
            np.moveaxis(a["sources"], -1, 1).reshape(32, -1), np.moveaxis(b["sources"], -1, 1).reshape(32, -1), strict=True
        ):
            assert (np.diff(after[np.argsort(before)]) >= -1e-6).all()
            assert 0 <= after.min() <= after.max() <= 1
            assert not np.array_equal(before, after)
            blacks.append(after[before.argmin()] - before.min())
    assert 0.3 < np.mean(np.array(blacks) > 0.01) < 0.7
    assert 0.2 < max(blacks) <= 0.4


def test_the_order_is_seeded(dataset):
    def order(seed):
        iterator = train_iterator(dataset, 3, seed)
        return identities(next(iterator) for _ in range(8))

    assert order(0) == order(0)
    assert order(0) != order(1)


def test_each_pass_sees_every_slice_once_in_another_order(dataset):
    count = len(dataset.split("train"))
    iterator = train_iterator(dataset, count, 0)
    first, second = (identities([next(iterator)]) for _ in range(2))
    assert len(set(first)) == count
    assert set(first) == set(second)
    assert first != second


def test_processes_see_disjoint_slices(dataset):
    count = len(dataset.split("train"))
    size = count // 2
    parts = [train_iterator(dataset, size, 0, process_index=index, process_count=2) for index in range(2)]
    for _ in range(3):
        seen = [set(identities([next(part)])) for part in parts]
        assert len(seen[0] | seen[1]) == 2 * size


def test_a_restored_state_goes_on_exactly(dataset, tmp_path):
    iterator = train_iterator(dataset, 4, 0)
    for _ in range(7):
        next(iterator)
    with ocp.CheckpointManager(tmp_path) as manager:
        manager.save(7, args=ocp.args.Composite(data=grain.checkpoint.CheckpointSave(iterator)))
        rest = [next(iterator) for _ in range(10)]
        fresh = train_iterator(dataset, 4, 0)
        manager.restore(7, args=ocp.args.Composite(data=grain.checkpoint.CheckpointRestore(fresh)))
    assert all(same(a, b) for a, b in zip(rest, [next(fresh) for _ in range(10)], strict=True))


@pytest.mark.parametrize("size", [1, 4, 100])
def test_evaluation_covers_every_slice_once_and_marks_the_padding(dataset, size):
    batches = list(evaluation_batches(dataset, "test", size))
    expected = examples(dataset, "test")
    rows = [(batch, i) for batch in batches for i in range(size) if batch["valid"][i]]
    assert all(len(batch["valid"]) == size for batch in batches)
    assert len(batches) == -(-len(expected) // size)
    for (batch, i), example in zip(rows, expected, strict=True):
        assert batch["subject"][i] == example["subject"]
        assert batch["slice"][i] == example["slice"]
        for key in ("sources", "target", "tr", "te", "ti", "scale", "maps"):
            np.testing.assert_array_equal(batch[key][i], example[key])
    last = batches[-1]
    for i in np.flatnonzero(~last["valid"]):
        np.testing.assert_array_equal(last["target"][i], expected[-1]["target"])


def test_some_slices_can_be_evaluated_alone(dataset):
    (batch,) = evaluation_batches(dataset, "train", 4, indices=np.array([7, 2]))
    assert batch["index"].tolist() == [7, 2, 2, 2]
    assert batch["valid"].tolist() == [True, True, False, False]
    np.testing.assert_array_equal(batch["target"][1], dataset.split("train")[2]["target"])
