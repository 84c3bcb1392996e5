"""Trees of scans, and what is found in them."""

import nibabel as nib
import numpy as np

from helpers.dicom_files import PATIENT
from helpers.scans import head
from mrdiff_jax.scans.layouts import find_subjects


def nifti(path, seed=0):
    """A tiny scan."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(head(seed, (6, 7, 4)), np.eye(4)), path)
    return path


def found(root, layout, contrasts, **options):
    """The exams by name, each problem checked to be one line without the patient's name."""
    exams = {exam.name: exam for exam in find_subjects(root, layout, contrasts.split(","), **options)}
    for exam in exams.values():
        for problem in exam.problems:
            assert "\n" not in problem
            assert not any(secret in problem for secret in PATIENT)
    return exams


def the_problem(exam, *words):
    """The exam's one problem, which has all the words."""
    (problem,) = exam.problems
    for word in words:
        assert str(word) in problem
    return problem


def names(exam):
    return {contrast: path.name for contrast, path in exam.scans.items()}
