"""Splits by subject."""

import pytest

from mrdiff_jax.errors import UserError
from mrdiff_jax.preparation import prepared_set
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
        *["patient01_01 patient01_02", "patient_01-01 patient_01-02", "p1_01-02-2020 p1_03-04-2021", "p1_2020 p1_2021"],
        *["P01-2010 P01-2012", "p1_Jan2020 p1_Mar2021", "p1_vor p1_nach", "p1_avant p1_apres", "p1_erst p1_verlauf"],
        *["p1_1.5T p1_3T", "p1_first p1_second", "p1-I p1-II", "sub-p01visitA sub-p01visitB", "sub-CC110033 sub-CC110033r"],
        *["Patient-001-week-000-1 Patient-001-week-000-2", "002_S_0295_sc 002_S_0295_m06", "p1(1) p1(2)", "p1_run1 p1_run2"],
        *["BraTS-GLI-00005-000 BraTS-GLI-00005-001", "BraTS-MEN-RT-0001-1 BraTS-MEN-RT-0001-2", "p1_old p1_new"],
        *["UPENN-GBM-00001_11 UPENN-GBM-00001_21", "NDARINV001_baselineYear1Arm1 NDARINV001_2YearFollowUpYArm1"],
        *["p1_preop p1_postop", "ReMIND-001-preop ReMIND-001-intraop", "sub-01pre sub-01post", "John_visit1 John_visit2"],
    ],
)
def test_names_of_visits_of_one_patient(visits):
    assert sorted(visits.split()) in patients([*visits.split(), "sub-77"]).values()


def test_names_of_patients_are_not_taken_for_visits():
    names = "sub-01 sub-02 sub-11 sub-12 002_S_0295 002_S_0413 IXI002 IXI012 TCGA-02-0006 TCGA-02-0007"
    names += " BraTS2021_00005 BraTS2021_00006 UCSF-PDGM-0004 UCSF-PDGM-0005 site1_01 site1_02 c01s12 c01s13 11m 12f John Jane"
    names += (
        " patient_1 patient_2 sub-V1 sub-V2 TCGA-06-2010 TCGA-06-2011 patient_2020_01 patient_2020_02 site1_2010 site1_2011"
    )
    names += (
        " BraTS-GLI-00005-000 BraTS-GLI-00006-000 sub-20200101 sub-20210101 study1_patient1 study1_patient2 GroupA_01 GroupA_02"
    )
    names += " UPENN-GBM-00002_11 UPENN-GBM-00003_11 p-1 p-2 001_01 001_02 002_01 sub-RC4101 sub-RC4102"
    assert all(len(group) == 1 for group in patients(names.split()).values())


def test_visits_of_one_patient_alone_leave_nobody_to_train(tmp_path):
    with pytest.raises(UserError, match=r"visits of one patient.*leaves no subject for train, of 2"):
        assign_splits(["sub-01a", "sub-01b"], Assignment())


def test_a_missing_table_of_splits_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no\.csv: not a readable CSV of splits"):
        read_rows(tmp_path / "no.csv")


def test_edited_splits_outlive_subjects_that_fail_for_a_while(tmp_path):
    subjects = [f"sub-{i}" for i in range(5)]
    edited = dict.fromkeys(subjects, "train") | {"sub-3": "test"}
    (tmp_path / "splits.csv").write_text("subject,split\n" + "".join(f"{s},{split}\n" for s, split in edited.items()))
    with pytest.raises(UserError, match="leaves no subject for test"):
        prepared_set.update_splits(tmp_path, [s for s in subjects if s != "sub-3"], edited, Assignment())
    assert prepared_set.known_splits(tmp_path) == edited
    splits = prepared_set.update_splits(tmp_path, [*subjects, "sub-5"], edited, Assignment())
    assert {s: split for s, split in splits.items() if s != "sub-5"} == edited
