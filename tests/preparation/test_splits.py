"""Splits by subject."""

import pytest

from mrdiff_jax.errors import UserError
from mrdiff_jax.preparation.splits import SPLITS, Assignment, assign_splits, read_rows
from mrdiff_jax.scans.visits import look_alike, patients


def test_visits_in_the_names_of_subjects_stay_in_one_split():
    pairs = [f"sub-X{i:02d}tp{visit}" for i in range(9) for visit in (1, 2)]
    pairs += [f"OAS1_{i:04d}_MR{visit}" for i in range(9) for visit in (1, 2)] + [f"sub-{i}a" for i in range(4)]
    splits = assign_splits([*pairs, *(f"sub-{i}b" for i in range(4))], Assignment())
    groups = patients(splits)
    assert len(groups) == 22
    assert all(len({splits[member] for member in members}) == 1 for members in groups.values())
    assert "look like visits of one patient" in look_alike(splits)
    assert "several splits" in look_alike({"sub-1a": "train", "sub-1b": "test"})
    assert not look_alike(dict.fromkeys(("sub-01", "sub-02", "sub-FG7637", "002_S_0295", "BraTS2021_00001"), "train"))


def test_assignment_is_seeded_and_keeps_its_shares():
    names = [f"sub-{i}" for i in range(40)]
    splits = assign_splits(names, Assignment(seed=0))
    assert splits == assign_splits(names[::-1], Assignment(seed=0))
    assert splits != assign_splits(names, Assignment(seed=1))
    assert [list(splits.values()).count(split) for split in SPLITS] == [28, 4, 8]


def test_patterns_choose_the_test_subjects():
    names = [f"sub-{site}{i}" for site in ("A", "B") for i in range(5)]
    splits = assign_splits(names, Assignment("sub-A*, sub-B3", validation_fraction=0.1))
    assert {name for name, split in splits.items() if split == "test"} == {*names[:5], "sub-B3"}
    assert list(splits.values()).count("validation") == 1
    with pytest.raises(UserError, match=r"test subjects: 'sub-C\*'"):
        assign_splits(names, Assignment("sub-A*,sub-C*"))


@pytest.mark.parametrize(
    "visits",
    [
        *[
            "sub-01before sub-01after",
            "sub-01date20100102 sub-01date20110203",
            "01_6m 01_12m",
            "016mo 0112mo",
            "sub-01 sub-01rescan",
        ],
        *["sub-01s1 sub-01s2", "RHUH-0001_0 RHUH-0001_1", "sub-01wave1 sub-01wave2", "01rec1 01rec2", "sub-01I sub-01II"],
        *["002_S_0295_20060418 002_S_0295_20070525", "UCSF-PDGM-0004 UCSF-PDGM-0004_FU003d", "JohnV1 JohnV2"],
        *["TCGA-02-0006_1996.08.23 TCGA-02-0006_1997.08.23", "YG_ABC_2010-01-02 YG_ABC_2011-03-04"],
        *["p1_preop p1_postop", "ReMIND-001-preop ReMIND-001-intraop", "sub-01pre sub-01post", "John_visit1 John_visit2"],
    ],
)
def test_names_of_visits_of_one_patient(visits):
    assert sorted(visits.split()) in patients([*visits.split(), "sub-77"]).values()


def test_names_of_patients_are_not_taken_for_visits():
    names = "sub-01 sub-02 sub-11 sub-12 002_S_0295 002_S_0413 IXI002 IXI012 TCGA-02-0006 TCGA-02-0007"
    names += " BraTS2021_00005 BraTS2021_00006 UCSF-PDGM-0004 UCSF-PDGM-0005 site1_01 site1_02 c01s12 c01s13 11m 12f John Jane"
    names += " patient_1 patient_2 sub-V1 sub-V2"
    assert all(len(group) == 1 for group in patients(names.split()).values())


def test_visits_of_one_patient_alone_leave_nobody_to_train(tmp_path):
    with pytest.raises(UserError, match=r"visits of one patient.*leaves no subject for train, of 2"):
        assign_splits(["sub-01a", "sub-01b"], Assignment())


def test_a_missing_table_of_splits_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no\.csv: not a readable CSV of splits"):
        read_rows(tmp_path / "no.csv")
