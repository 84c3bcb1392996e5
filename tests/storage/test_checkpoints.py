"""Checkpoints that are whole, or said not to be."""

import shutil

import grain
import numpy as np
import pytest

from mrdiff_jax.errors import UserError
from mrdiff_jax.storage import checksums
from mrdiff_jax.storage.checkpoints import Checkpoints, restore_part

STEPS = (2, 4, 6)


def state(step):
    return {"step": np.full((), step, np.int32), "average": {"w": np.random.default_rng(step).random(500)}}


def data():
    return iter(grain.MapDataset.range(10).to_iter_dataset())


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder, iterator = tmp_path_factory.mktemp("run"), data()
    checkpoints = Checkpoints(folder, keep=3)
    for step in STEPS:
        next(iterator)
        checkpoints.save(step, state(step), iterator)
    checkpoints.close()
    return folder


@pytest.fixture
def run(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "run")


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def readers(run):
    checkpoints = Checkpoints(run, keep=3)
    return (
        lambda: checkpoints.restore(state(0), data()),
        lambda: restore_part(run, lambda tree: tree),
    )


def test_state_and_place_in_the_data_come_back(run):
    iterator = data()
    restored = Checkpoints(run, keep=3).restore(state(0), iterator)
    assert restored["step"] == 6
    np.testing.assert_array_equal(restored["average"]["w"], state(6)["average"]["w"])
    assert next(iterator) == 3


def test_any_flipped_bit_is_seen_and_the_sound_ones_are_named(run):
    newest = run / "checkpoints" / "6"
    for line in (newest / checksums.NAME).read_text().splitlines():
        path = newest / line.split("  ")[1]
        if not path.stat().st_size:
            continue
        flip(path)
        for read in readers(run):
            with pytest.raises(
                UserError, match=r"checkpoints/6: is damaged \(.* not as it was written\); sound: 2, 4; remove 6"
            ):
                read()
        flip(path)
    assert {line.split("  ")[1].split("/")[0] for line in (newest / checksums.NAME).read_text().splitlines()} >= {
        "state",
        "data",
    }
    for read in readers(run):
        read()


@pytest.mark.parametrize("harm", ["truncate", "remove", "empty sums"])
def test_other_damage_is_one_line_too(run, harm):
    newest = run / "checkpoints" / "6"
    for path in [path for path in (newest / "state").rglob("*") if path.is_file()]:
        if harm == "truncate":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        elif harm == "remove":
            path.unlink()
        else:
            (newest / checksums.NAME).write_text("")
    for read in readers(run):
        with pytest.raises(UserError, match=r"^[^\n]*is damaged[^\n]*remove 6, and all goes on from 4$"):
            read()


def test_of_several_damaged_ones_all_are_to_go(run):
    for step in (4, 6):
        flip(run / "checkpoints" / str(step) / "data" / "process_0-of-1.json")
    with pytest.raises(UserError, match=r"sound: 2; remove 4 and 6, and all goes on from 2$"):
        restore_part(run, lambda tree: tree)
    flip(run / "checkpoints" / "2" / "data" / "process_0-of-1.json")
    with pytest.raises(UserError, match=r"no other one is known to be sound"):
        restore_part(run, lambda tree: tree)


def test_without_checksums_it_is_read_with_a_warning_and_what_orbax_cannot_read_is_one_line(run, caplog, monkeypatch):
    monkeypatch.setattr("mrdiff_jax.log.logger.propagate", True)
    newest = run / "checkpoints" / "6"
    (newest / checksums.NAME).unlink()
    assert restore_part(run, lambda tree: tree)[0] == 6
    assert "has no checksums" in caplog.text
    for path in [path for path in (newest / "state").rglob("*") if path.is_file()]:
        path.write_bytes(b"")
    for read in readers(run):
        with pytest.raises(UserError, match=r"^[^\n]*checkpoints/6: is damaged[^\n]*sound: 2, 4"):
            read()


def test_the_best_one_stays_and_is_the_one_that_is_read_and_training_goes_on_from_the_newest(tmp_path):
    checkpoints, iterator = Checkpoints(tmp_path, keep=2), data()
    for step, score in ((1, 0.3), (2, 0.1), (3, 0.2), (4, None), (5, float("nan"))):
        checkpoints.save(step, state(step), iterator)
        if score is not None:
            checkpoints.note(step, score, {"score": "gmsd"}, highest=False)
    checkpoints.close()
    assert sorted(int(path.name) for path in (tmp_path / "checkpoints").glob("[0-9]*")) == [2, 4, 5]
    again = Checkpoints(tmp_path, keep=2)
    step, kept = restore_part(tmp_path, lambda tree: tree)
    assert (step, kept["step"]) == (2, 2)
    assert again.restore(state(0), data())["step"] == 5
    again.note(5, 0.1, {"score": "gmsd"}, highest=False)  # no better: the first stays
    assert restore_part(tmp_path, lambda tree: tree)[0] == 2
    flip(tmp_path / "checkpoints" / "2" / "data" / "process_0-of-1.json")
    with pytest.raises(
        UserError, match=r"checkpoints/2: is damaged .*; sound: 4, 5; remove 2, and another of them takes its place"
    ):
        restore_part(tmp_path, lambda tree: tree)


def test_scores_are_compared_with_their_like_and_those_of_lost_steps_are_forgotten(run):
    checkpoints = Checkpoints(run, keep=3)
    checkpoints.note(2, 9.0, {"slices": 4}, highest=True)
    checkpoints.note(4, 1.0, {"slices": 8}, highest=True)
    checkpoints.note(6, 2.0, {"slices": 8}, highest=True)
    assert restore_part(run, lambda tree: tree)[0] == 6
    shutil.rmtree(run / "checkpoints" / "6")
    assert restore_part(run, lambda tree: tree)[0] == 4
    assert checkpoints.has_score(6)
    checkpoints.restore(state(0), data())
    assert not checkpoints.has_score(6)
    assert checkpoints.has_score(4)


@pytest.mark.parametrize("text", ["", "[]", '{"best": 3}', '{"how": {}, "highest": true, "steps": {"9": "x"}}'])
def test_scores_that_cannot_be_read_are_told_before_the_work(run, text):
    (run / "checkpoints" / "scores.json").write_text(text)
    with pytest.raises(UserError, match=r"^[^\n]*scores\.json: not [^\n]*; remove it; the newest checkpoint then counts"):
        Checkpoints(run, keep=3)


def test_reading_writes_nothing_and_leaves_alone_what_is_being_written(run, tmp_path):
    half = run / "checkpoints" / "8.orbax-checkpoint-tmp-1"
    (half / "state").mkdir(parents=True)
    before = sorted(run.rglob("*"))
    for read in readers(run):
        read()
    assert sorted(run.rglob("*")) == before
    assert Checkpoints(tmp_path / "nothing", keep=1).latest() is None
    assert not (tmp_path / "nothing").exists()


def test_one_that_is_removed_while_it_is_read_gives_way_to_the_next(run):
    newer = shutil.copytree(run / "checkpoints" / "6", run / "8")
    old = run / "checkpoints" / "6"

    def training_goes_on(tree):
        if old.exists():
            newer.rename(run / "checkpoints" / "8")
            shutil.rmtree(old)
            raise FileNotFoundError(old)
        return tree

    assert restore_part(run, training_goes_on)[0] == 8


def test_a_full_disk_is_one_line_and_leaves_the_older_ones(run, monkeypatch):
    checkpoints, iterator = Checkpoints(run, keep=3), data()

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checksums, "write", full)
    with pytest.raises(UserError, match=r"could not be saved \(No space left on device\); the newest is of step 6"):
        checkpoints.save(8, state(8), iterator)
    checkpoints.close()
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["2", "4", "6"]
    monkeypatch.undo()
    checkpoints.save(8, state(8), iterator)
    checkpoints.close()
    assert restore_part(run, lambda tree: tree)[0] == 8


def test_a_first_checkpoint_that_cannot_be_read_is_told_at_once(tmp_path):
    checkpoints = Checkpoints(tmp_path / "lr[3e-3]", keep=1)
    with pytest.raises(UserError, match="cannot be read again"):
        checkpoints.save(1, state(1), data())
    checkpoints.close()
