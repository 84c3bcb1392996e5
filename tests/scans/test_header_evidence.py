"""What the elements of a DICOM header, or of a sidecar, say of contrast."""

import pytest
from helpers.dicom_files import change, counts, write_enhanced, write_series
from pydicom import Dataset, dcmread
from pydicom.sequence import Sequence

from mrdiff_jax.scans.contrasts import judge
from mrdiff_jax.scans.descriptions import denies_agent
from mrdiff_jax.scans.dicom import find_series
from mrdiff_jax.scans.header_evidence import header_of
from mrdiff_jax.scans.image_types import part_of
from mrdiff_jax.scans.vocabulary import Meaning


def of(**elements):
    return header_of(elements.get, ())


NO_AGENT = (
    "None|NO CONTRAST|nativ|without|0|0.0|N|NO IV CONTRAST|No Contrast Used|ohne KM|OHNE|W/O|NIL|plain|NONE GIVEN|(none)|"
    "no agent|NA|n/a|Not administered|no contrast agent|kein Kontrastmittel|Keine|sin contraste|sans contraste|"
    "senza mdc|unenhanced|FALSE|NO_CONTRAST|No, none|none.|-"
)


@pytest.mark.parametrize("text", NO_AGENT.split("|"))
def test_words_that_deny_an_agent(text):
    assert denies_agent(text)
    assert of(ContrastBolusAgent=text).agent is False


@pytest.mark.parametrize(
    "text", ["Gadovist", "UNKNOWN", "Y", "10", "CONTRAST", "ORAL", "Water", "Gadovist pre", "no Foovist", "given"]
)
def test_all_others_name_one(text):
    assert of(ContrastBolusAgent=text).agent is True


@pytest.mark.parametrize(
    ("elements", "agent"),
    [
        ({"ContrastBolusVolume": 10.0}, True),
        ({"ContrastFlowRate": [2.0]}, True),
        ({"ContrastBolusStopTime": "120000"}, True),
        ({"ContrastBolusIngredient": "GADOLINIUM"}, True),
        ({"ContrastBolusIngredientConcentration": "1"}, True),
        ({"ContrastBolusVolume": "0", "ContrastBolusTotalDose": 0.0}, None),
        ({"ContrastBolusStartTime": "000000"}, None),
        ({"ContrastBolusRoute": "NONE"}, None),
        ({}, None),
    ],
)
def test_a_dose_says_that_there_was_an_agent(elements, agent):
    assert of(**elements).agent is agent


@pytest.mark.parametrize(("meaning", "agent"), [("None", False), ("Gadobutrol", True), ("", True)])
def test_the_code_of_an_agent_is_read(meaning, agent):
    code = Dataset()
    code.CodeMeaning = meaning
    assert of(ContrastBolusAgentSequence=Sequence([code])).agent is agent


@pytest.mark.parametrize("options", ["FS", ["SAT1", "WE"], "SPIR", "SPAIR", "FATSAT", ["FAST_GEMS", "FS_GEMS"]])
def test_options_say_fat_saturation(options):
    assert of(ScanOptions=options).fat_saturated
    assert not of(ScanOptions=["FAST_GEMS", "EDR_GEMS", "PFP"]).fat_saturated


@pytest.mark.parametrize("name", ["se_mc", "*se2d16", "*se2d5"])
def test_a_sequence_of_many_echoes_is_known_by_its_name(name):
    assert Meaning.MULTI_ECHO in of(SequenceName=name).sequence
    for usual in ("*se2d1", "*se2d2", "*tse2d1_16", "*h2d1_128"):
        assert of(SequenceName=usual).sequence == frozenset()


@pytest.mark.parametrize(
    ("elements", "doubt"),
    [
        ({"SpectrallySelectedSuppression": "FAT"}, "fat-saturated"),
        ({"DiffusionBValue": 1000.0}, "diffusion"),
        ({"AcquisitionContrast": "T1"}, "AcquisitionContrast says T1"),
        ({"ScanOptions": ["SAT1", "WE"]}, "fat-saturated"),
        ({"ProtocolName": "FLAIR"}, "ProtocolName says FLAIR"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M_FFE", "M", "FFE"]}, "gradient echo"),
    ],
)
def test_what_is_in_the_files_is_held_against_their_words(tmp_path, elements, doubt):
    write_series(tmp_path, te=95.0, tr=4000.0, **elements)
    (series,) = find_series(tmp_path)
    assert doubt in judge("T2 tra", series.header).doubt


@pytest.mark.parametrize(
    ("sequence", "element", "doubt"),
    [
        ("MRModifierSequence", {"SpectrallySelectedSuppression": "FAT"}, "fat-saturated"),
        ("MRDiffusionSequence", {"DiffusionBValue": 1000.0}, "diffusion"),
        ("MRImageFrameTypeSequence", {"AcquisitionContrast": "FLUID_ATTENUATED"}, "AcquisitionContrast"),
    ],
)
def test_what_multi_frame_files_say_of_all_frames_counts(tmp_path, sequence, element, doubt):
    path = tmp_path / "x.dcm"
    write_enhanced(path, {95.0: counts()})
    group = Dataset()
    for keyword, value in element.items():
        setattr(group, keyword, value)
    dataset = dcmread(path)
    setattr(dataset.SharedFunctionalGroupsSequence[0], sequence, Sequence([group]))
    dataset.save_as(path)
    (series,) = find_series(path)
    assert doubt in judge("T2 tra", series.header).doubt


@pytest.mark.parametrize(
    ("elements", "doubt"),
    [
        ({"ContrastBolusAgent": "Gadovist"}, "contrast agent"),
        ({"InversionTime": 150.0}, "another inversion time"),
        ({"ScanOptions": "FS"}, "fat-saturated"),
    ],
)
def test_slices_of_a_series_that_disagree_leave_a_doubt(tmp_path, elements, doubt):
    for path in write_series(tmp_path, te=95.0, tr=4000.0)[3:]:
        change(path, **elements)
    (series,) = find_series(tmp_path)
    assert f"its slices differ: some say {doubt}" in judge("T2 tra", series.header).doubt


def test_philips_says_phase_in_a_private_element(tmp_path):
    for path, part in zip(write_series(tmp_path), "MMPPMM", strict=True):
        dataset = dcmread(path)
        dataset.add_new(0x20050010, "LO", "Philips MR Imaging DD 001")
        dataset.add_new(0x20051011, "CS", part)
        dataset.save_as(path)
    assert [(len(series.frames), part_of(series.header.image_type)) for series in find_series(tmp_path)] == [
        (4, ""),
        (2, "phase"),
    ]
