"""Which contrast a series is: descriptions as scanners and people write them, and headers that contradict them."""

import pytest

from mrdiff_jax.scans.contrasts import Header, Verdict, contradiction, judge
from mrdiff_jax.scans.image_types import part_of
from mrdiff_jax.scans.sequence_times import SequenceTimes
from mrdiff_jax.scans.vocabulary import Meaning

T1, GE, T2, STIR, PD, FLAIR = "T1w", "ce-gad_T1w", "T2w", "T2wFS", "PDw", "FLAIR"
TIMES = {
    T1: SequenceTimes(500.0, 10.0),
    GE: SequenceTimes(500.0, 10.0),
    T2: SequenceTimes(4000.0, 95.0),
    STIR: SequenceTimes(4000.0, 60.0),
    PD: SequenceTimes(3000.0, 12.0),
    FLAIR: SequenceTimes(9000.0, 90.0, 2500.0),
}


def of(description, **header):
    return judge(description, Header(**header))


@pytest.mark.parametrize(
    ("contrast", "descriptions"),
    [
        (
            T1,
            (
                "t1_mprage_sag|MP-RAGE|MPRAGE|MPRAGE_GRAPPA2|IR-FSPGR|T1W_3D_TFE_SENSE|T1W_IR|T1 SE|t1_se_tra|"
                "T1 FLASH|AXT1|eT1W_SE|AXT1PRE|AX T1 PRE GAD|T1 sans inj|T1 sans injection de gadolinium|T1 ohne KM|"
                "T1 w/o contrast|T1 WO GAD|T1 (C-)|T1 C-|T1 -C|T1 nativ|T1 vor KM|T1 KM vor|T1 avant injection|"
                "T1 pré gado|T1 sin contraste|T1 zonder contrast|T1 senza mdc|non-contrast T1|T1 noncontrast|"
                "unenhanced T1|SAG T1 C-SPINE|T1 FA 15|T1 5cm slab|T1 post-op|SAG T1 no FS|T1 without fat sat|"
                "T1 o. KM|T1 o KM|t1_tse_oKM|T1 v. KM|T1 kontrastlos|kontrastfrei T1|contrast-free T1|T1 gad free|"
                "uncontrasted T1|T1 kontrastsiz|T1 bez kontrastu|T1 post ictal|T1 post laminectomy|T1 post SRS|T1 post surg|"
                "T1 post-radio|SAG T1 MPRAGE ISO (1mm)|NEURO^T1 tra|Head-T1 SE|WIP T1W_SE|Accelerated Sagittal MPRAGE|"
                "ADNI GO AC - MPRAGE|"
                "t1_mprage_sag_p2_iso_32ch|MPRAGE SENSE2|MP-RAGE REPEAT|AX T1 SE 256x256|t1_se_sag_5mm_NORM|pat017_T1w.nii.gz|"
                "sub-01_ses-1_acq-hi_run-1_T1w.nii.gz|T1W SE AX CLEAR|T1 non-selective|T1 free breathing|"
                "t1_fl2d_tra|T1 s/c|T1 posterior fossa|T1w|t1_mprage_sag_p2_iso|BRAVO"
            ),
        ),
        (
            GE,
            (
                "AX T1 C+|T1C+|AX T1 +C|t1_tse_tra_KM|t1_tse_tra_+KM|T1 nach KM|T1 KM+|T1 + KM|T1 KM-Gabe|T1 POST|AXT1POST|"
                "T1 POST GD|T1 Gd|T1 inj|T1 injecté|T1 après injection|T1 avec gado|T1 con contraste|T1 c/c|"
                "T1 met contrast|T1 na contrast|T1 mdc|T1 Gadovist|T1 DOTAREM|t1 ProHance|T1 Magnevist|T1 gadobutrol|"
                "T1 MultiHance|T1 Clariscan|T1 Eovist|T1 W GAD|T1w CE|T1 W/ GAD|T1 contrast enhanced|postcontrast T1|"
                "MPRAGE POST|FSPGR 3D +C|T1 i.v. KM|T1 kontrastverstärkt|ce-gad_T1w|PRE-OP T1 GAD|T1 with C|T1 late|"
                "T1 mKM|T1 m. KM|T1 nKM|T1 n. KM|T1 IVKM|T1 Dotagraf|T1 Magnetolux|T1 Resovist|T1 bolus|T1 spät|"
                "T1 po kontraście|T1 sonrası|AX T1 SE C+ 150|MPRAGE + C|T1 +C free breathing|T1 no wrap +C|T1 post op post gad|"
                "T1 Kontrastmittel|T1 GBCA|T1 without FS post GD"
            ),
        ),
        (
            T2,
            (
                "t2_tse_tra|AXT2|T2 FSE AX|T2W_TSE|sT2W_TSE|T2 BLADE|t2_spc_sag_iso|T2 HASTE|T2 no FS|T2 w/o fatsat|"
                "Ax T2 FRFSE|T2W_TSE_SENSE|AX T2 FRFSE PROPELLER|t2_tse_tra_512_5mm|T2 TSE tra 3mm HIPPO|AXIAL T2 RF2 150|"
                "T2 CUBE|T2SPACE|T2w|T12 T2"
            ),
        ),
        (
            STIR,
            (
                "T2_TSE_FS|T2 SPIR|T2 SPAIR|T2 STIR|T2STIR|T2 fatsat|T2 fat sat|T2wFS|t2_tse_dixon_tra_W|T2 Fettsättigung|"
                "T2 fat-suppressed"
            ),
        ),
        (PD, ("PD_TSE|PDw|proton density|FSE PD AXIAL OBL|DP tra")),
        (
            FLAIR,
            (
                "FLAIR|AX T2 FLAIR|FLAIR dark fluid|t2_tirm_tra_dark-fluid|T2W_FLAIR_SPIR|AXFLAIR|t2_spc_da-fl_sag|"
                "Dark-Fluid T2|AXIAL FLAIR RF2 150|Sagittal 3D FLAIR|t2_blade_dark-fl|T2_DarkFl|T2 CSF suppressed|"
                "T2 fluid suppressed"
            ),
        ),
    ],
)
def test_what_scanners_and_people_call_them(contrast, descriptions):
    wrong = {text: found for text in descriptions.split("|") if not (found := of(text, times=TIMES[contrast])).surely(contrast)}
    assert not wrong


@pytest.mark.parametrize(
    ("contrast", "descriptions"),
    [
        (
            T1,
            (
                "T1 INJ-|T1 INJ -|T1 MDC-|T1 CE-|T1 CM -|T1 contraste -|T1 CIV-|T1 gadolinium-|T1 Gadovist-|T1 gd(-)|T1 KM(-)|"
                "T1_KM_-|T1 KM\u2013|T1 KM- axial|T1 KM_neg|T1 IV-|T1 no post|T1 not post|T1 w/o post gad|T1 sine contrast|"
                "T1 unenh|T1 basale|T1 diretta|T1 axiaal|T1 sagitale|T1 assiale|T1 post gamma knife|T1 nach OP|T1 nach der OP|"
                "T1 apres chir|T1 dopo RT|T1 nach OP ohne KM|T1 post surgery|T1 W|T1 MPRAGE me|OSag T1|"
                "SAG T1 C SPINE|T1 follow up"
            ),
        ),
        (
            GE,
            (
                "T1 CM|3D T1 EG GADO|SAG T1 +C SPINE|T1 + C SPINE|"
                "T1 INJ +|T1 Gd-BOPTA|T1 dopo m.d.c.|T1 con cte|AX T1 POST BRAIN|T1 POST IAC|T1 - POST GD|"
                "STEALTH T1 POST|T1 POST GAD - 3D|T1 post gad fossa|T1 POSTERIOR FOSSA POST GAD|T1 post week 2 KM|"
                "T1 nach OP mit KM|PRE-STEALTH T1 POST|T1 10 min post|T1 without FS POST"
            ),
        ),
        (T2, ("T2 assiale|T2 coronaal|T2 post op|T2 nach OP|T2 TE 100|SAG T2 C SPINE|OAx T2 FSE")),
        (STIR, ("T2 dixon water|T2 mDIXON_W|T2 water excitation")),
        (FLAIR, ("FLAIR transversaal|FLAIR post op|FLAIR - axial")),
    ],
)
def test_small_words_and_signs_are_read(contrast, descriptions):
    wrong = {text: found for text in descriptions.split("|") if not (found := of(text, times=TIMES[contrast])).surely(contrast)}
    assert not wrong


ASKED = (
    "T1 - Gd|T1 -KM|T1 \u2212 Gd|T1 KM - axial|T1 POST-|T1 POST GAD-|T1 nativ +|T1 POST FOSSA|T1 fossa post|T1 post left fossa|"
    "T1 ant/post|T1 post lesion|T1 post tumor|T1 post week 2|T1 week 2 post|T1 post 6 weeks|T1 nach 6 Monaten|T1 post visit|"
    "T1 post follow-up|T1 POST STEALTH|T1+G|T1 G+|T1 G|T1 I+|T1 V+|T1 P+|T1 ++|T1+ tra|T1 60s|T1 90 s|T1 3'|T1 +5|T1 5 min|"
    "T1 OP|T1 in/op|T1 I/O|T1_in|t1_vibe_F|t1_vibe_W|T1 Fett|T2 IV|T2 C|T2 60s|FLAIR IV|FLAIR PC|FLAIR pi|FLAIR C|"
    "T2 fat only dixon|T2 dixon fat|T2 IDEAL fat|T2 fat|T2 Fett|T2 graisse|T2 sin grasa|T2 water|T2 water sat|"
    "T2 water suppressed|T2 dixon W F|t2_se_mc|T2 ME|T2 5 echo|T2_32echo|T2 4TE|T2 te 30 60 90|T2 multi TE|T2prep 3D|"
    "T2 prep|T2'"
)


@pytest.mark.parametrize("description", ASKED.split("|"))
def test_what_may_be_a_contrast_is_asked_about(description):
    verdict = of(description)
    assert verdict.contrasts
    assert 0 < len(verdict.doubt) < 65


def test_fat_alone_is_asked_about_for_either_contrast():
    assert of("T2 fat").contrasts == {T2, STIR}


def test_one_of_many_echoes_is_asked_about():
    assert "many echoes" in of("t2_tse", times=TIMES[T2], echo=3, echoes=5).doubt


NOT_CERTAIN = (
    "T1 C|T1C|T1 p.c.|T1+|T1 (+)|pre/post T1|T1 W/WO CONTRAST|T1 W&W/O|T1 with and without gad|"
    "T1 mit und ohne KM|T1 -GD|T1 vor und nach KM|T1_SE_TRA_nativ+KM|T1/T2|T1 FLAIR|T1 map|T2 map|"
    "T2 mapping|MapIt T2|T1rho|MP2RAGE T1|t1_mp2rage_INV1|t1_mp2rage_UNI-DEN|T2 TIRM|t2_me2d_tra|T2 FFE|"
    "T2* hemo|T2-Star|T2star|T2 GRE|T2 MEDIC|T2 MERGE|T2 FLASH|T2 CISS|SWI T2|T2 SWAN|T2 susceptibility|"
    "ADC T2|DWI T2|ep2d T2|T2 diffusion|T1 perfusion|T1 DCE|T1 dynamic|T1 TOF|T1 MIP|T2 MIP|T1 localizer|"
    "T2 scout|T2 survey|loc T2|T1 subtraction|T1 SUB|T2 phase|T2 in phase|T1 mDixon|T2 Dixon F|T2 post GD|"
    "FLAIR +C|FLAIR post|T1 W/|T1 with|T1 p.i.|T2 MyoMaps|t2_ci3d|T1 MPR tra|T1 fs|t1_vibe_fs_tra_post|"
    "T1 SPIR|T1 MT|T2 DIR|SyMRI T1W|PD FS|T1 +/- KM|T1 +- contrast|T1 contrast?|T1 ±KM|T1 KM 0|T1 x KM|T1 KM n|T1 10ml|"
    "T1 增强|T1增强|T1 造影後|T1 с контрастом|T1 με σκιαγραφικό|T1 WATS|T1 PSIR|T1 TIRM|T1 in/out|T2 GRAD ECHO|T2 grad|T2 GE|"
    "T2 gre2d|T2 mFFE|T2 TruFISP|T2 COSMIC|T2 PRESTO|T2 hemorrhage|T2 blut|T2 starmap|T2 isoDWI|T2 calculated|T2 CALC|T2 fit|"
    "T2 mask|T2 seg|T2 color|T2 MESE|T2 multiecho|T2 multi-echo|FLAIR*"
)


@pytest.mark.parametrize("description", NOT_CERTAIN.split("|"))
def test_what_is_not_certain_is_not_taken(description):
    verdict = of(description, times=SequenceTimes(4000.0, 90.0 if "T1" not in description else 10.0))
    assert verdict.doubt or not verdict.contrasts
    assert not any(verdict.surely(contrast) for contrast in TIMES)


@pytest.mark.parametrize("description", ["T1 Foovist", "T1 post zyxw", "T2 zyxw", "FLAIR zyxw", "T2 взвешенное", "PD zyxw"])
def test_a_word_that_is_not_known_leaves_a_doubt(description):
    assert "no word that is known" in of(description).doubt


def test_an_unknown_word_may_be_an_agent():
    assert of("T1 Foovist").contrasts == {T1, GE}


def test_words_that_name_no_contrast_mean_none():
    for description in ("", "3-plane", "EPI", "scan 1", "restless", "ST123", "B1-calibration Head", "face", "test1"):
        assert of(description).contrasts == frozenset()


@pytest.mark.parametrize(
    ("description", "header", "doubt"),
    [
        ("t1_tse_tra", {"agent": True}, "names a contrast agent"),
        ("T1 PRE", {"agent": True}, "names a contrast agent"),
        ("T1 POST", {"agent": False}, "no contrast agent"),
        ("T2 tra", {"sequence": frozenset([Meaning.GRADIENT])}, "gradient echo"),
        ("T2 tra", {"sequence": frozenset([Meaning.INVERSION])}, "inversion"),
        ("T2 tra", {"echo_planar": True}, "echo planar"),
        ("T2 tra", {"fat_saturated": True}, "fat-saturated"),
        ("T2 tra", {"times": SequenceTimes(2300.0, 2.98, 900.0)}, "TE 2.98 ms is too short"),
        ("T2 tra", {"times": SequenceTimes(9000.0, 90.0, 2500.0)}, "TI 2500 ms"),
        ("T1 tra", {"times": SequenceTimes(4000.0, 95.0)}, "TE 95 ms is too long"),
        ("PD tra", {"times": SequenceTimes(4000.0, 95.0)}, "TE 95 ms is too long"),
        ("FLAIR", {"times": SequenceTimes(9000.0, 90.0)}, "no inversion time"),
        ("FLAIR", {"times": SequenceTimes(2000.0, 10.0, 800.0)}, "TE 10 ms is too short"),
        ("T1 tra", {"image_type": ("ORIGINAL", "PRIMARY", "P", "ND")}, "phase"),
        ("T1 tra", {"image_type": ("ORIGINAL", "PRIMARY", "R_IR", "IR")}, "real"),
        ("T1 tra", {"image_type": ("DERIVED", "SECONDARY", "MPR")}, "reformat"),
        ("T2 tra", {"image_type": ("DERIVED", "PRIMARY", "ADC")}, "diffusion"),
        ("T1 tra", {"image_type": ("DERIVED", "PRIMARY", "T1 MAP", "ND")}, "map"),
        ("T1 tra", {"image_type": ("DERIVED", "PRIMARY", "M", "WATER_X", "IN_PHASE")}, "Dixon"),
        ("t1_mpr_tra", {"image_type": ("DERIVED", "SECONDARY", "OTHER")}, "derived"),
        ("PD/T2 FSE", {"times": SequenceTimes(3000.0, 50.0)}, "fits PDw and T2w"),
        ("T1 SE", {"times": SequenceTimes(6000.0, 12.0)}, "TR 6000 ms is too long for T1w"),
        ("T2 TSE", {"times": SequenceTimes(500.0, 80.0)}, "TR 500 ms is too short for T2w"),
        ("PD TSE", {"times": SequenceTimes(500.0, 12.0)}, "TR 500 ms is too short for PDw"),
        ("T1 tra", {"protocol": "t1_tse_KM"}, "ProtocolName says contrast agent"),
        ("T2 tra", {"protocol": "FLAIR"}, "ProtocolName says FLAIR"),
        ("T2 tra", {"protocol": "T1 KM"}, "ProtocolName says ce-gad_T1w"),
        ("T2 tra", {"protocol": "T2* GRE"}, "ProtocolName says T2*"),
        ("T2 tra", {"protocol": "t2_fs"}, "ProtocolName says fat-saturated"),
        ("T2 tra", {"acquired": "T1"}, "AcquisitionContrast says T1"),
        ("T2 tra", {"acquired": "T2_STAR"}, "AcquisitionContrast says T2_STAR"),
        ("T2 tra", {"acquired": "FLUID_ATTENUATED"}, "FLUID_ATTENUATED"),
        ("T1 tra", {"acquired": "PROTON_DENSITY"}, "PROTON_DENSITY"),
        ("T2 tra", {"diffusion": True}, "diffusion"),
        ("T2 tra", {"mixed": "contrast agent"}, "its slices differ: some say contrast agent"),
    ],
)
def test_a_header_that_contradicts_the_words_leaves_a_doubt(description, header, doubt):
    verdict = of(description, **header)
    assert doubt in verdict.doubt
    assert verdict.contrasts


def test_an_agent_in_the_header_alone_may_mean_either():
    assert of("t1_tse_tra", agent=True).contrasts == {T1, GE}


def test_headers_as_scanners_write_them_leave_none():
    gradient, inversion = frozenset([Meaning.GRADIENT]), frozenset([Meaning.GRADIENT, Meaning.INVERSION])
    mprage = {"sequence": inversion, "times": SequenceTimes(2300.0, 2.98, 900.0)}
    siemens = ("ORIGINAL", "PRIMARY", "M", "ND", "NORM")
    assert of("t1_mprage_sag", image_type=siemens, **mprage).surely(T1)
    assert of("t1_mpr_ns_sag", image_type=siemens, **mprage).surely(T1)
    assert of("T1 POST", agent=True, times=TIMES[GE]).surely(GE)
    assert of("T1 POST", times=TIMES[GE]).surely(GE)  # old exports say nothing of the agent
    assert of("T1 FFE", sequence=gradient).surely(T1)
    assert of("T1 IR", times=SequenceTimes(6000.0, 12.0, 400.0)).surely(T1)
    assert of("T1 tra", protocol="BRAIN W WO CONTRAST").surely(T1)  # of the exam
    assert of("T1 tra", protocol="t1_tse_tra").surely(T1)
    assert of("T2 tra", protocol="BRAIN T1 T2 FLAIR").surely(T2)
    assert of("T2 tra", protocol="NEURO ROUTINE W WO GAD").surely(T2)
    assert of("T2 FS", protocol="t2_tse_tra").surely(STIR)
    assert of("T1 KM", protocol="t1_tse_tra").surely(GE)  # the same protocol again
    assert of("T2 tra", acquired="T2").surely(T2)
    assert of("T2 tra", acquired="UNKNOWN").surely(T2)
    assert of("FLAIR", agent=True, times=TIMES[FLAIR]).surely(FLAIR)  # looks the same after agent
    assert of("t2_tse_tra", agent=True, times=TIMES[T2]).surely(T2)
    assert of("T2 tra", image_type=("ORIGINAL", "PRIMARY", "MPR")).surely(T2)  # GE, oblique
    assert of("T2 tra", image_type=("ORIGINAL", "PRIMARY", "M_SE", "M", "SE")).surely(T2)  # Philips
    assert of("t2_spc_sag", times=SequenceTimes(3200.0, 409.0)).surely(T2)
    assert of("T2 STIR", sequence=frozenset([Meaning.INVERSION]), times=SequenceTimes(4000.0, 50.0, 160.0)).surely(STIR)
    assert of("AX T2 FLAIR", sequence=frozenset([Meaning.INVERSION]), times=SequenceTimes(9000.0, 120.0)).surely(FLAIR)


def test_the_echo_time_tells_the_echoes_of_a_dual_echo_apart():
    for description in ("Axial PD/T2 FSE", "Double_TSE", "dual echo"):
        for echo, contrast in ((1, PD), (2, T2)):
            assert of(description, echo=echo, echoes=2, times=TIMES[contrast]) == Verdict(frozenset([contrast]))
            assert of(description, times=TIMES[contrast]).surely(contrast)  # in series of their own


def test_times_that_are_off_by_little_may_be_nominal():
    assert contradiction(T2, SequenceTimes(2000.0, 30.0)) == "TE 30 ms is too short for T2w"
    assert contradiction(T2, SequenceTimes(2000.0, 30.0), slack=2.0) == ""
    assert contradiction(T2, SequenceTimes(2300.0, 2.98), slack=2.0)
    assert contradiction(T2, SequenceTimes(2300.0, 90.0, 900.0), slack=2.0)
    assert contradiction(FLAIR, SequenceTimes(9000.0, 90.0, 300.0), slack=2.0) == "TI 300 ms is too short for FLAIR"
    assert contradiction(FLAIR, SequenceTimes()) == contradiction("T2starw", SequenceTimes(600.0, 18.0)) == ""


def test_parts_of_complex_images_are_known_by_their_type():
    assert part_of(("ORIGINAL", "PRIMARY", "PHASE MAP", "P", "FFE")) == "phase"
    assert part_of(("ORIGINAL", "PRIMARY", "I_SE")) == "imaginary"
    assert part_of(("ORIGINAL", "PRIMARY", "M", "ND")) == part_of(()) == ""


DERIVED = (
    "FAT_FRACTION|FF|FATFRAC|WATER|WATER_FRACTION|PROJECTION|CURVED|CPR|MPR_CURVED|CSA MPR|THIN_MIP|MIP_SAG|MEAN|AVERAGE|"
    "STDDEV|RATIO|SUBTRACTED|ADDITION|MTR|R1|PD|PD MAP|T1_RHO_MAP|CBF_MAP|TTP_MAP|SYNTHETIC_T2W|COMPUTED|CALC_BVALUE|"
    "SCREENSHOT|FMRI|BOLD|T2_FIT|VRT|3DRENDERED|COMPOSED|SOMETHING_NEW|CR|CI_SE|CP"
)
ORIGINAL = "CR_IR|CI|CP|WATER|DIXON_WATER|FAT_FRACTION|FF|M_FFE|PHASE_CONTRAST_M|MIP_SAG|TTP_MAP|BOLD"


@pytest.mark.parametrize("value", DERIVED.split("|"))
def test_derived_images_are_taken_only_where_their_type_is_known_to_be_plain(value):
    assert "ImageType" in of("T2 tra", image_type=("DERIVED", "PRIMARY", value)).doubt


@pytest.mark.parametrize("value", ORIGINAL.split("|"))
def test_original_images_of_another_kind_are_not_taken(value):
    assert of("T2 tra", image_type=("ORIGINAL", "PRIMARY", value)).doubt


@pytest.mark.parametrize(
    "values", ["", "M", "M ND NORM", "M DIS2D FM FIL", "OTHER", "FILTERED", "M COMP_ADPT_COMB", "M_SE M SE"]
)
def test_derived_images_that_are_corrected_or_filtered_are_taken(values):
    assert of("T2 tra", image_type=("DERIVED", "PRIMARY", *values.split())).surely(T2)


def test_the_water_image_of_a_dixon_scan_is_fat_saturated():
    water = ("DERIVED", "PRIMARY", "DIXON", "WATER")
    assert of("t2_tse_dixon_W", image_type=water).surely(STIR)
    assert of("T1 FFE", image_type=("ORIGINAL", "PRIMARY", "M_FFE", "M", "FFE")).surely(T1)
