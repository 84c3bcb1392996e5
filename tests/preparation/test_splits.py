"""Splits by subject."""

import pytest

from mrdiff_jax.errors import UserError
from mrdiff_jax.preparation.splits import SPLITS, assign_splits
from mrdiff_jax.scans.visits import look_alike, patients


def test_visits_in_the_names_of_subjects_stay_in_one_split():
    pairs = [f"sub-X{i:02d}tp{visit}" for i in range(9) for visit in (1, 2)]
    pairs += [f"OAS1_{i:04d}_MR{visit}" for i in range(9) for visit in (1, 2)] + [f"sub-{i}a" for i in range(4)]
    splits = assign_splits([*pairs, *(f"sub-{i}b" for i in range(4))])
    groups = patients(splits)
    assert len(groups) == 22
    assert all(len({splits[member] for member in members}) == 1 for members in groups.values())
    assert "look like visits of one patient" in look_alike(splits)
    assert "several splits" in look_alike({"sub-1a": "train", "sub-1b": "test"})
    assert not look_alike(dict.fromkeys(("sub-01", "sub-02", "sub-FG7637", "002_S_0295", "BraTS2021_00001"), "train"))


def test_assignment_is_seeded_and_keeps_its_shares():
    names = [f"sub-{i}" for i in range(40)]
    splits = assign_splits(names, seed=0)
    assert splits == assign_splits(names[::-1], seed=0)
    assert splits != assign_splits(names, seed=1)
    assert [list(splits.values()).count(split) for split in SPLITS] == [28, 4, 8]


def test_patterns_choose_the_test_subjects():
    names = [f"sub-{site}{i}" for site in ("A", "B") for i in range(5)]
    splits = assign_splits(names, test_subjects="sub-A*, sub-B3", validation_fraction=0.1)
    assert {name for name, split in splits.items() if split == "test"} == {*names[:5], "sub-B3"}
    assert list(splits.values()).count("validation") == 1
    with pytest.raises(UserError, match=r"test subjects: 'sub-C\*'"):
        assign_splits(names, test_subjects="sub-A*,sub-C*")
