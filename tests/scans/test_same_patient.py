"""Subjects that may be one patient, by what their DICOM files say and their names do not."""

import pytest
from helpers.dicom_files import write_series
from pydicom import dcmread

from mrdiff_jax.scans.layouts import find_subjects


def patient(folder, name, **attributes):
    for path in write_series(folder, SeriesDescription="T1 SE", **attributes):
        dataset = dcmread(path)
        dataset.PatientID = name
        dataset.save_as(path)


def test_subjects_of_one_patient_id_are_told_without_it(tmp_path, caplog):
    for index, name in enumerate(("SECRET1", "SECRET1", "SECRET2", "SECRET3", "", "", "Anonymous", "Anonymous")):
        patient(tmp_path / f"s{index}", name)
    find_subjects(tmp_path, "dicom", ["T1w"])
    assert [record.getMessage() for record in caplog.records] == [
        "s0 and s1 have one PatientID; if they are one patient, give them one split in --splits"
    ]


@pytest.mark.parametrize(("names", "count"), [(("p1a", "p1b", "p2"), 2), (("p1", "p2", "p3"), 3)])
def test_one_patient_id_says_nothing_new_of_visits_and_nothing_where_most_have_it(tmp_path, caplog, names, count):
    for index, name in enumerate(names):
        patient(tmp_path / name, "SECRET1" if index < count else "SECRET2")
    find_subjects(tmp_path, "dicom", ["T1w"])
    assert not caplog.records
