"""Trees as archives have them: ADNI, IXI, BraTS and its relatives, spines."""

import numpy as np
import pytest
from helpers.dicom_files import SAGITTAL, counts, write_dual_echo, write_series
from helpers.layouts import found, names, nifti, the_problem

from mrdiff_jax.errors import UserError
from mrdiff_jax.scans.sequence_times import SequenceTimes
from mrdiff_jax.scans.volumes import read_scan, scan_times


def adni_visit(root, subject, date, image, dual="Axial_PD_T2_FSE"):
    """A visit as LONI packs it."""
    dual_echo = write_dual_echo(root / subject / dual / f"{date}_08_20_30.0" / f"I{image}")
    options = {"tr": 8.6, "te": 3.8, "ti": 1000.0, "SeriesDescription": "MP-RAGE"}
    write_series(root / subject / "MP-RAGE" / f"{date}_08_11_12.0" / f"S99/I{image + 1}", counts(), SAGITTAL, **options)
    return dual_echo


@pytest.mark.parametrize("above", ["", "ADNI"])
def test_adni(tmp_path, above):
    root = tmp_path / above
    pd, _ = adni_visit(root, "002_S_0295", "2006-04-18", 13720)
    adni_visit(root, "002_S_0295", "2007-05-25", 13730, dual="Double_TSE")
    write_series(
        root / "002_S_0295/MP-RAGE_REPEAT/2006-04-18_08_15_00.0/I13722", affine=SAGITTAL, SeriesDescription="MP-RAGE REPEAT"
    )
    write_series(root / "002_S_0413/MPRAGE/2006-05-02_12_00_00.0/I13999", SeriesDescription="MPRAGE")
    write_series(root / "002_S_0413/Axial_T2-Star/2006-05-02_12_30_00.0/I14000")
    (root / "011_S_0002").mkdir()
    exams = found(tmp_path, "adni", "T1w,T2w,PDw")
    first, second = "002_S_0295_ses-2006-04-18", "002_S_0295_ses-2007-05-25"
    assert list(exams) == [first, second, "002_S_0413_ses-2006-05-02", "011_S_0002"]
    assert exams[second].subject == "002_S_0295"
    assert not exams[first].problems
    assert not exams[second].problems
    volume, times = read_scan(exams[first].scans["PDw"])
    assert sorted(np.unique(volume.data)) == sorted(np.unique(pd))
    assert times == (2500, 10, None)
    assert read_scan(exams[first].scans["T2w"])[1].te == 96
    assert read_scan(exams[first].scans["T1w"])[1] == (8.6, 3.8, 1000)
    no_t2, no_pd = exams["002_S_0413_ses-2006-05-02"].problems
    assert "has no T2w (it has MPRAGE (series 1, TE 10 ms, 6 slices) in I13999, Axial_T2-Star)" in no_t2
    assert "has no PDw" in no_pd
    assert len(exams["011_S_0002"].problems) == 3


def test_ixi(tmp_path):
    for folder in ("T1", "T2", "PD"):
        for name in ("IXI002-Guys-0828", "IXI012-HH-1211", "IXI035-IOP-0873"):
            nifti(tmp_path / f"IXI-{folder}/{name}-{folder}.nii.gz")
    nifti(tmp_path / "IXI-DTI/IXI002-Guys-0828-DTI-00.nii.gz")
    nifti(tmp_path / "again/IXI012-HH-1211-T1.nii")
    (tmp_path / "IXI-PD/IXI002-Guys-0828-PD.nii.gz").unlink()
    exams = found(tmp_path, "ixi", "T1w,T2w,PDw")
    assert list(exams) == ["IXI002", "IXI012", "IXI035"]
    the_problem(exams["IXI002"], "has no PDw (it has T1w, T2w)")
    the_problem(exams["IXI012"], "IXI012-HH-1211-T1.nii.gz", "again/IXI012-HH-1211-T1.nii", "all fit T1w")
    assert names(exams["IXI035"])["PDw"] == "IXI035-IOP-0873-PD.nii.gz"
    guys, hh, iop = (exams[name].times for name in exams)
    assert guys["T2w"] == SequenceTimes(8178.34, 100)
    assert hh["PDw"] == SequenceTimes(5725.79, 8)
    assert scan_times(exams["IXI002"].scans["T1w"], "T1w", guys) == (9.813, 4.603, 0)
    with pytest.raises(UserError, match="no RepetitionTime"):
        scan_times(exams["IXI035"].scans["T1w"], "T1w", iop)


@pytest.mark.parametrize(
    ("file", "subject", "session"),
    [
        ("BraTSReg_001_01_0106_t1.nii.gz", "BraTSReg_001", "01_0106"),
        ("BraTS-GoAT-00000-t1n.nii.gz", "BraTS-GoAT-00000", ""),
        ("Brats18_CBICA_AAB_1_t1.nii.gz", "Brats18_CBICA_AAB", "1"),
        ("PatientID_0003_Timepoint_1_brain_t1n.nii.gz", "PatientID_0003", "Timepoint_1"),
        ("UCSF-PDGM-0429_FU003d_T1.nii.gz", "UCSF-PDGM-0429", "FU003d"),
        ("UCSF-PDGM-0004_T1.nii.gz", "UCSF-PDGM-0004", ""),
        ("UPENN-GBM-00001_21_T1.nii.gz", "UPENN-GBM-00001", "21"),
        ("BraTS19_TCIA12_146_1_t1.nii.gz", "BraTS19_TCIA12_146", "1"),
        ("TCGA-02-0006_1996.08.23_t1.nii.gz", "TCGA-02-0006", "1996.08.23"),
        ("YG_ABC_2010-01-02_t1.nii.gz", "YG_ABC", "2010-01-02"),
        ("p1_preop_t1.nii.gz", "p1", "preop"),
        ("ReMIND-001-intraop_t1.nii.gz", "ReMIND-001", "intraop"),
        ("100101_time2_t1.nii.gz", "100101", "time2"),
        ("BraTS20_Training_001_t1.nii", "BraTS20_Training_001", ""),
    ],
)
def test_visits_in_the_names_of_brats_and_its_relatives_are_sessions(tmp_path, file, subject, session):
    nifti(tmp_path / file)
    (exam,) = found(tmp_path, "brats", "T1w").values()
    assert (exam.subject, exam.session) == (subject, session)


def test_brats_old_and_new(tmp_path):
    for contrast in ("t1", "t1ce", "t2", "flair", "seg"):
        nifti(tmp_path / f"HGG/Brats18_TCIA01_1/Brats18_TCIA01_1_{contrast}.nii.gz")
    for contrast in ("t1n", "t1c", "t2w", "t2f", "seg"):
        for visit in ("000", "001"):
            nifti(tmp_path / f"BraTS-GLI-00005-{visit}/BraTS-GLI-00005-{visit}-{contrast}.nii.gz")
    exams = found(tmp_path, "brats", "T1w,ce-gad_T1w,T2w,FLAIR")
    assert [(exam.subject, exam.session) for exam in exams.values()] == [
        ("BraTS-GLI-00005", "000"),
        ("BraTS-GLI-00005", "001"),
        ("Brats18_TCIA01_1", ""),
    ]
    assert not any(exam.problems for exam in exams.values())
    assert names(exams["Brats18_TCIA01_1"])["ce-gad_T1w"] == "Brats18_TCIA01_1_t1ce.nii.gz"
    assert names(exams["BraTS-GLI-00005_ses-001"])["FLAIR"] == "BraTS-GLI-00005-001-t2f.nii.gz"


def test_spine_from_dicom_or_nifti(tmp_path):
    for te, description in ((9.8, "T1 TSE sag"), (100.0, "T2 TSE sag"), (113.0, "T2 TSE FS sag")):
        write_series(tmp_path / "case1" / description, affine=SAGITTAL, te=te, SeriesDescription=description)
    for name in ("T1w", "T2w", "T2wFS"):
        nifti(tmp_path / f"T2case/T2case_{name}.nii.gz")  # the subject's name says nothing of the contrast
    exams = found(tmp_path, "spine", "T1w,T2w,T2wFS")
    assert not any(exam.problems for exam in exams.values())
    assert [read_scan(path)[1].te for path in exams["case1"].scans.values()] == [9.8, 100, 113]
    times = [scan_times(path, name, exams["T2case"].times) for name, path in exams["T2case"].scans.items()]
    assert times == [(450, 9.8, 0), (3760, 100, 0), (4580, 113, 0)]
