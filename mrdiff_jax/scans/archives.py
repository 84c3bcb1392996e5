"""How archives name their files and series, and the sequence times that are published for them."""

import re

from mrdiff_jax.scans.scan_path import NIFTI
from mrdiff_jax.scans.sequence_times import SequenceTimes

LAYOUTS = ("bids", "pattern", "dicom", "adni", "ixi", "brats", "spine")  # of folders of scans
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

_BRATS_CONTRAST = rf"(?P<contrast>t1n|t1c|t2w|t2f){NIFTI}"  # since 2023, and before, with relatives:
_OLD_BRATS_CONTRAST = rf"(?P<contrast>(?i:t1ce|t1gd|t1c|t1n|t1|t2w|t2f|t2|flair)){NIFTI}"
_VISIT_WORDS = (
    r"(?i:time ?point|time|tp|visit|ses|session|week|month|day|fu)[-_]?\d+\w*?"
    r"|(?i:pre|intra|post)[-_]?(?i:op)|(?:19|20)\d\d[-_.]?\d\d[-_.]?\d\d"
)
BRATS_FILES = (  # subject and session; the first that fits counts
    re.compile(rf"(.*/)?(?P<subject>[^/]+?\d)-(?P<session>\d{{1,3}})[-_]{_BRATS_CONTRAST}"),  # BraTS-GLI-00005-000-t1n
    re.compile(rf"(.*/)?(?P<subject>BraTSReg_\d+)_(?P<session>\d+_\d+)_{_OLD_BRATS_CONTRAST}"),  # BraTSReg_001_00_0000_t1
    re.compile(
        rf"(.*/)?(?P<subject>(?i:brats1[789])_[^/_]+_[^/_]+)_(?P<session>\d+)_{_OLD_BRATS_CONTRAST}"
    ),  # Brats18_TCIA01_131_1_t1
    re.compile(rf"(.*/)?(?P<subject>UPENN-GBM-\d+)_(?P<session>\d+)_{_OLD_BRATS_CONTRAST}"),  # UPENN-GBM-00001_11_T1GD
    re.compile(rf"(.*/)?(?P<subject>[^/]+?)[-_](?P<session>{_VISIT_WORDS})(_brain)?[-_]{_OLD_BRATS_CONTRAST}"),  # 1001_time1_t1
    re.compile(rf"(.*/)?(?P<subject>[^/]+)-{_BRATS_CONTRAST}"),  # BraTS-GoAT-00000-t1c
    re.compile(rf"(.*/)?(?P<subject>[^/]+)_{_OLD_BRATS_CONTRAST}"),  # BraTS2021_00005_t1ce
)
BRATS_RULES = {"T1w": "t1|t1n", "ce-gad_T1w": "t1ce|t1c|t1gd", "T2w": "t2|t2w", "FLAIR": "flair|t2f"}
