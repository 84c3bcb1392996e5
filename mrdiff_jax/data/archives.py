"""How archives name their files and series, and the sequence times that are published for them."""

import re

from mrdiff_jax.data.sequence_times import SequenceTimes

NIFTI = r"\.nii(\.gz)?"

ECHO_OF = {"PDw": 1, "T2w": 2}  # of a series with two echoes, the shorter first

ADNI_SUBJECT = r"\d{3}_S_\d{4,5}"
ADNI_DATE = r"\d{4}-\d{2}-\d{2}"
_DUAL_ECHO = r"pd.{0,3}t2|t2.{0,3}pd|double.?tse|dual.?echo"
ADNI_SERIES = {  # what the folders of the series are called that are wanted
    "T1w": r"^(?!.*repeat).*(mp.?rage|ir.?f?spgr)",
    "T2w": _DUAL_ECHO,
    "PDw": _DUAL_ECHO,
}
ADNI_TIMES = {"T1w": SequenceTimes(ti=1000.0)}  # the MRDiff paper, Sec. 3

SPINE_TIMES = {  # the MRDiff paper, Sec. 3
    "T1w": SequenceTimes(450.0, 9.8),
    "T2w": SequenceTimes(3760.0, 100.0),
    "T2wFS": SequenceTimes(4580.0, 113.0),
}

IXI_FILE = re.compile(rf"(.*/)?(?P<subject>IXI\d+)-(?P<site>[^-/]+)-\d+-(?P<contrast>T1|T2|PD){NIFTI}")
IXI_RULES = {"T1w": "T1", "T2w": "T2", "PDw": "PD"}
IXI_TIMES = {  # by site, as the archive publishes them; it does not for the site IOP
    "Guys": {
        "T1w": SequenceTimes(9.813, 4.603),
        "T2w": SequenceTimes(8178.34, 100.0),
        "PDw": SequenceTimes(8178.34, 8.0),
    },
    "HH": {
        "T1w": SequenceTimes(9.6, 4.6),
        "T2w": SequenceTimes(5725.79, 100.0),
        "PDw": SequenceTimes(5725.79, 8.0),
    },
}

BRATS_FILES = (  # since 2023, where the last number is the visit, and before
    re.compile(rf"(.*/)?(?P<subject>[^/]+?)-(?P<session>\d{{3}})-(?P<contrast>t1n|t1c|t2w|t2f){NIFTI}"),
    re.compile(rf"(.*/)?(?P<subject>[^/]+)_(?P<contrast>t1ce|t1|t2|flair){NIFTI}"),
)
BRATS_RULES = {"T1w": "t1|t1n", "ce-gad_T1w": "t1ce|t1c", "T2w": "t2|t2w", "FLAIR": "flair|t2f"}
