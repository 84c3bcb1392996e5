"""Sequence times: from tables and flags, by order of trust, and what cannot be true."""

from pathlib import Path

import pytest

from mrdiff_jax.errors import UserError
from mrdiff_jax.scans.sequence_times import (
    SequenceTimes,
    check,
    complete,
    merged,
    overrides_of,
    parse_stated,
    read_overrides,
    read_sidecars,
    require,
)


def table(tmp_path, text):
    path = tmp_path / "times.csv"
    path.write_text(text)
    return path


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
def test_what_is_no_number_is_refused(tmp_path, number):
    for texts in ((f"T1w={number}", "", ""), ("", f"T1w={number}", ""), ("", "", f"T1w={number}")):
        with pytest.raises(UserError, match="cannot read"):
            parse_stated(*texts, "--")
    with pytest.raises(UserError, match="must be numbers"):
        read_overrides(table(tmp_path, f"subject,contrast,tr,te,ti\nsub-01,T1w,{number},,\n"))


def test_a_table_states_times_of_a_subject_and_of_its_sessions(tmp_path):
    text = "subject,session,contrast,tr,te,ti\nsub-01,,T1w,500,10,\nsub-01,ses-2,T1w,,12,900\nsub-02,ses-1,T2w,4000,100,\n"
    overrides = read_overrides(table(tmp_path, text))
    assert overrides_of(overrides, "sub-01", "") == {"T1w": (500, 10, None)}
    assert overrides_of(overrides, "sub-01", "ses-1") == {"T1w": (500, 10, None)}
    assert overrides_of(overrides, "sub-01", "ses-2") == {"T1w": (500, 12, 900)}
    assert overrides_of(overrides, "sub-02", "ses-2") == {}
    without_sessions = read_overrides(table(tmp_path, "\ufeffsubject,contrast,tr,te,ti\nsub-01, T1w ,500,10,\n"))
    assert overrides_of(without_sessions, "sub-01", "ses-9") == {"T1w": (500, 10, None)}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("subject,contrast,tr,te\n", "needs the columns"),
        ("subject,contrast,tr,te,ti,echo\n", "needs the columns"),
        ("", "needs the columns"),
        ("subject,contrast,tr,te,ti\nsub-01,T1w,fast,10,\n", "line 2: .* numbers"),
        ("subject,contrast,tr,te,ti\nsub-01,,500,10,\n", "line 2: .* name a subject"),
        ("subject,contrast,tr,te,ti\nsub-01,T1w,500,10,\nsub-01,T1w,500,11,\n", "line 3: .* once"),
    ],
)
def test_a_bad_table_is_refused_by_line(tmp_path, text, words):
    path = table(tmp_path, text)
    with pytest.raises(UserError, match=words) as caught:
        read_overrides(path)
    assert str(path) in str(caught.value)


def test_a_missing_table_is_refused(tmp_path):
    with pytest.raises(UserError, match="not a readable CSV"):
        read_overrides(tmp_path / "none.csv")


def test_sidecars_are_inherited_however_the_path_is_written(tmp_path, monkeypatch):
    (tmp_path / "sub-01" / "anat").mkdir(parents=True)
    (tmp_path / "T1w.json").write_text('{"EchoTime": 0.01}')
    monkeypatch.chdir(tmp_path / "sub-01")
    assert read_sidecars(Path("anat/sub-01_T1w.nii.gz")).te == 10
    assert read_sidecars(Path(".")).te is None


def test_sidecars_are_inherited_the_nearest_first(tmp_path):
    anat = tmp_path / "sub-01" / "ses-1" / "anat"
    anat.mkdir(parents=True)
    scan = anat / "sub-01_ses-1_acq-hi_T1w.nii.gz"
    (tmp_path / "T1w.json").write_text('{"RepetitionTime": 0.5, "EchoTime": 0.01, "InversionTime": 0.9}')
    (tmp_path / "acq-low_T1w.json").write_text('{"EchoTime": 0.07}')  # of other scans, as are the next two
    (tmp_path / "inplaneT1w.json").write_text('{"EchoTime": 0.08}')
    (tmp_path / "sub-01" / "sub-02_T1w.json").write_text('{"EchoTime": 0.09}')
    assert read_sidecars(scan) == (500, 10, 900)
    (tmp_path / "acq-hi_T1w.json").write_text('{"EchoTime": 0.011}')
    (tmp_path / "sub-01" / "sub-01_T1w.json").write_text('{"RepetitionTime": 0.6}')
    assert read_sidecars(scan) == (600, 11, 900)
    (anat / "sub-01_ses-1_acq-hi_T1w.json").write_text('{"EchoTime": 0.012}')
    assert read_sidecars(scan) == (600, 12, 900)
    elsewhere = tmp_path / "T1w.nii.gz"  # no BIDS folder: the file beside it alone
    assert read_sidecars(elsewhere.with_name("scan.nii.gz")) == (None, None, None)


def test_a_sidecar_may_begin_with_a_mark_and_0_is_unknown(tmp_path):
    (tmp_path / "scan.json").write_bytes(b'\xef\xbb\xbf{"RepetitionTime": 0, "EchoTime": 0.012, "InversionTime": 0.0}')
    assert read_sidecars(tmp_path / "scan.nii.gz") == (None, 12, None)


def test_all_missing_times_are_said_at_once(tmp_path):
    scans = [
        (tmp_path / "a", "T1w", SequenceTimes(500.0, 10.0)),
        (tmp_path / "b", "T2w", SequenceTimes()),
        (tmp_path / "c", "PDw", SequenceTimes(tr=3000.0)),
    ]
    require(scans[:1], "--")
    with pytest.raises(UserError) as caught:
        require(scans, "--")
    flags = "--tr=T2w=MILLISECONDS --te=T2w=MILLISECONDS,PDw=MILLISECONDS"
    assert f"{tmp_path / 'b'} (and 1 more scan): no RepetitionTime, no EchoTime" in str(caught.value)
    assert str(caught.value).endswith(f"; give {flags}")


def test_times_are_taken_by_order_of_trust(tmp_path):
    recorded = SequenceTimes(te=11.0)
    stated = merged(
        {"T1w": SequenceTimes(ti=900.0)},
        parse_stated("T1w=600, T2w=4000", "T1w=9", "T1w=800", "--"),
        {"T1w": SequenceTimes(tr=1.0, te=1.0, ti=1.0), "PDw": SequenceTimes(tr=3000.0)},
    )
    assert stated == {"T1w": (600, 9, 900), "T2w": (4000, None, None), "PDw": (3000, None, None)}
    assert complete(recorded, stated["T1w"], tmp_path, "T1w", flag="--") == (600, 11, 900)
    assert complete(SequenceTimes(), stated["PDw"], tmp_path, "PDw", required=False, flag="--") == (3000, 0, 0)
    with pytest.raises(UserError, match=r"no EchoTime .* give --te=PDw=MILLISECONDS"):
        complete(SequenceTimes(), stated["PDw"], tmp_path, "PDw", flag="--")


@pytest.mark.parametrize(
    ("times", "words"),
    [
        ((500.0, 0.1, None), "TE 0.1 ms .* seconds taken for milliseconds"),  # as IXI's 0.1 s would read
        ((0.5, None, None), "TR 0.5 ms .* seconds taken for milliseconds"),
        ((9000.0, 120.0, 2.5), "TI 2.5 ms .* seconds taken for milliseconds"),
        ((500_000.0, None, None), "TR 500000 ms .* milliseconds taken for seconds"),
        ((None, 9800.0, None), "TE 9800 ms .* milliseconds taken for seconds"),
        ((9.8, 4.6, 1e6), "TI 1e.06 ms .* milliseconds taken for seconds"),
        ((10.0, 10.0, None), "TE 10 ms in a TR of 10 ms"),
        ((500.0, -1.0, None), "TE -1 ms is implausible"),
        ((float("nan"), 1.0, None), "TR nan ms is implausible"),
    ],
)
def test_what_cannot_be_true_is_refused(tmp_path, times, words):
    with pytest.raises(UserError, match=words) as caught:
        check(SequenceTimes(*times), tmp_path / "scan.nii.gz")
    assert str(tmp_path / "scan.nii.gz") in str(caught.value)


@pytest.mark.parametrize(
    "times",
    [
        (9.6, 4.6, None),
        (8178.34, 8.0, 0.0),
        (6.608, 2.84, 1000.0),
        (11_000.0, 390.0, 2800.0),
        (None, None, None),
        (450.0, 9.8, 10.0),
    ],
)
def test_what_scanners_do_is_accepted(tmp_path, times):
    check(SequenceTimes(*times), tmp_path)
