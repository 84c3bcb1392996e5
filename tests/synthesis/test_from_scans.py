"""From scans to a synthetic volume on disk: geometry, intensities, what is written, and what is refused."""

import dataclasses
import json
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from helpers.dicom_files import PATIENT, write_series
from helpers.heads import FRAMES, SHAPE, TIMES, Copy, affine_of, head, save
from scipy.ndimage import center_of_mass

from mrdiff_jax.errors import UserError
from mrdiff_jax.preparation.placement import correct
from mrdiff_jax.preparation.registration import Grid, resample
from mrdiff_jax.scans.nifti_frame import NiftiFrame
from mrdiff_jax.scans.sequence_times import SequenceTimes
from mrdiff_jax.scans.volumes import read_nifti
from mrdiff_jax.storage.files import sha256
from mrdiff_jax.synthesis import from_scans, nifti_output
from mrdiff_jax.synthesis.from_scans import SynthesisOptions

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", FRAMES)
@pytest.mark.parametrize("codes", [(1, 1), (0, 1), (2, 0)])
def test_a_frame_is_that_of_the_file_to_the_bit(name, codes, tmp_path):
    affine, shape = FRAMES[name]
    volume = read_nifti(save(tmp_path / "a.nii.gz", affine, shape, codes, b"Doe^Jane"))
    NiftiFrame.of(volume).write(volume.data, tmp_path / "b.nii")
    a, b = nib.load(tmp_path / "a.nii.gz"), nib.load(tmp_path / "b.nii")
    assert a.shape == b.shape
    np.testing.assert_array_equal(a.affine, b.affine)
    np.testing.assert_array_equal(a.get_fdata(), b.get_fdata())
    assert b.get_data_dtype() == np.float32
    for field in ("sform_code", "qform_code", "pixdim"):
        np.testing.assert_array_equal(a.header[field], b.header[field])
    assert b"Doe" not in (tmp_path / "b.nii").read_bytes()


def test_a_frame_in_double_precision_stays_so(tmp_path):
    affine = affine_of((14, -9, 21)) + 1e-9
    path = save(tmp_path / "a.nii.gz", affine, kind=nib.Nifti2Image)
    volume = read_nifti(path)
    NiftiFrame.of(volume).write(volume.data, tmp_path / "b.nii.gz")
    made = nib.load(tmp_path / "b.nii.gz")
    np.testing.assert_array_equal(made.affine, nib.load(path).affine)
    assert (made.affine.astype(np.float32) != made.affine).any()


def test_a_file_of_one_volume_in_four_dimensions_keeps_them(tmp_path):
    path = save(tmp_path / "a.nii.gz", affine_of())
    image = nib.load(path)
    nib.save(nib.Nifti1Image(image.get_fdata(dtype=np.float32)[..., None], image.affine), path)
    volume = read_nifti(path)
    NiftiFrame.of(volume).write(volume.data, tmp_path / "b.nii.gz")
    assert nib.load(tmp_path / "b.nii.gz").shape == (*SHAPE, 1)


@pytest.fixture(scope="session")
def second(tmp_path_factory):
    """The second source: the same head on a grid of its own, finer and with a larger field."""
    shape = (46, 44, 40)
    return save(tmp_path_factory.mktemp("second") / "pd.nii.gz", affine_of((4, 3, -5), (1.5,) * 3, shape), shape)


@pytest.mark.parametrize("plane", ["axial", "sagittal", "coronal"])
@pytest.mark.parametrize("name", FRAMES)
def test_the_head_comes_back_in_its_own_frame_and_place(name, plane, tmp_path):
    affine, shape = FRAMES[name]
    paths = {source: save(tmp_path / f"{source}.nii.gz", affine, shape) for source in TIMES}
    copy = Copy(plane=plane)
    scans = from_scans.read_scans(copy, paths, None, TIMES)
    volumes = from_scans.synthesize(copy, scans, SynthesisOptions(batch_size=5))
    nifti_output.write(
        volumes, scans, nifti_output.provenance(copy, scans, SynthesisOptions()), lambda _: tmp_path / "t1.nii.gz"
    )
    source, made = nib.load(paths["T2w"]), nib.load(tmp_path / "t1.nii.gz")
    assert made.shape == source.shape
    np.testing.assert_array_equal(made.affine, source.affine)
    low, high = np.percentile(source.get_fdata(), (0.5, 99.5))
    expected = 10 + 200 * np.clip((source.get_fdata() - low) / (high - low), 0, 1)
    thick = plane != "axial"  # 3 mm slices cut across are brought to pixels of 2 mm and back
    np.testing.assert_allclose(made.get_fdata(), expected, atol=20 if thick else 1e-3)
    np.testing.assert_allclose(center_of_mass(made.get_fdata()), center_of_mass(expected), atol=0.02)


def test_sources_on_other_grids_are_registered_to_the_first(second, tmp_path):
    first = save(tmp_path / "t2.nii.gz", *FRAMES["oblique"])
    scans = from_scans.read_scans(Copy(), {"T2w": first, "PDw": second}, None, TIMES)
    assert scans.grid.shape == SHAPE
    assert [placement.action for placement in scans.placements.values()] == ["reference", "registered"]
    np.testing.assert_allclose(np.reshape(scans.placements["PDw"].transform, (4, 4)), np.eye(4), atol=0.5)
    a, b = scans.volumes
    assert np.abs(a - b)[a > 300].mean() < 15
    assert list(scans.paths) == ["T2w", "PDw"]


def test_the_grid_is_of_the_source_named_first_or_of_the_reference(second, tmp_path):
    first = save(tmp_path / "t2.nii.gz", *FRAMES["sagittal"])
    scans = from_scans.read_scans(Copy(), {"PDw": second, "T2w": first}, None, TIMES)
    assert scans.frame_path.path == second
    assert scans.volumes.shape == (2, 46, 44, 40)
    assert list(scans.paths) == ["T2w", "PDw"]  # the order of the model
    reference = save(tmp_path / "reference.nii.gz", *FRAMES["oblique"])
    copy = Copy()
    scans = from_scans.read_scans(copy, {"T2w": first, "PDw": first}, reference, TIMES)
    assert scans.frame_path.path == reference
    made = from_scans.synthesize(copy, scans, SynthesisOptions())["synthetic"]
    truth = read_nifti(reference).data
    assert np.corrcoef(made.ravel(), truth.ravel())[0, 1] > 0.99
    scans.frame.write(made, tmp_path / "t1.nii.gz")
    np.testing.assert_array_equal(nib.load(tmp_path / "t1.nii.gz").affine, nib.load(reference).affine)


def test_an_aligned_source_is_resampled_once_and_else_left_alone(tmp_path):
    first, other = (save(tmp_path / f"{name}.nii.gz", affine_of()) for name in "ab")
    scans = from_scans.read_scans(Copy(), {"T2w": first, "PDw": other}, None, TIMES)
    np.testing.assert_array_equal(scans.volumes[1], read_nifti(other).data)
    reference = read_nifti(save(tmp_path / "c.nii.gz", *FRAMES["oblique"]))
    scans = from_scans.read_scans(Copy(), {"T2w": first, "PDw": other}, reference.path, TIMES)
    grid = Grid(reference.data.shape, reference.affine)
    np.testing.assert_array_equal(scans.volumes[1], resample(read_nifti(other), grid, np.eye(4)))


@pytest.mark.parametrize("mask", ["none", "body"])
def test_what_a_grid_shows_does_not_change_intensities(pair, mask, tmp_path):
    first = read_nifti(pair["T2w"])
    part = tmp_path / "part.nii.gz"
    nib.save(nib.Nifti1Image(first.data[8:20, :, :10], first.affine @ nib.affines.from_matvec(np.eye(3), (8, 0, 0))), part)
    whole, cut = (from_scans.read_scans(Copy(mask=mask), pair, grid, TIMES) for grid in (None, part))
    np.testing.assert_array_equal(cut.scale, whole.scale)
    np.testing.assert_allclose(cut.volumes, whole.volumes[:, 8:20, :, :10], atol=1e-3)


def test_sources_are_corrected_as_the_training_scans_were(pair):
    raw, corrected = (from_scans.read_scans(Copy(mask=mask), pair, None, TIMES) for mask in ("none", "body"))
    options = Copy(mask="body").trained.data.preparation
    expected = correct(dict(zip(TIMES, raw.volumes, strict=True)), raw.grid, options)[0]
    np.testing.assert_array_equal(corrected.volumes, list(expected.values()))
    assert (corrected.volumes != raw.volumes).mean() > 0.1


def test_dicom_in_nifti_out_without_the_patients_name(tmp_path):
    affine = np.diag([-2.0, -2.0, 3.0, 1.0])
    affine[:3, 3] = (26, 30, -20)
    pixels = head(nib.affines.apply_affine(affine, np.moveaxis(np.indices(SHAPE), 0, -1))).astype(np.uint16)
    folder = tmp_path / "T2"
    write_series(folder, pixels, affine, te=90.0, tr=3000.0)
    paths = {"T2w": folder, "PDw": save(tmp_path / "pd.nii.gz", affine)}
    copy = Copy()
    scans = from_scans.read_scans(copy, paths, None, TIMES)
    assert scans.times.tolist() == [[3000, 90, 0], [2000, 10, 0]]  # the header's, and those stated
    volumes = from_scans.synthesize(copy, scans, SynthesisOptions())
    about = nifti_output.provenance(copy, scans, SynthesisOptions())
    assert about["Sources"]["T2w"]["SHA256"] == sha256(folder)
    nifti_output.write(volumes, scans, about, lambda _: tmp_path / "t1.nii")
    made = read_nifti(tmp_path / "t1.nii")
    assert np.corrcoef(made.data.ravel(), read_nifti(paths["PDw"]).data.ravel())[0, 1] > 0.99
    written = (tmp_path / "t1.nii").read_bytes() + (tmp_path / "t1.json").read_bytes()
    assert not any(text.encode() in written for text in PATIENT)


def test_every_slice_has_its_key_and_all_batches_one_shape(pair):
    keys = {}
    for size, shared in ((4, False), (5, False), (4, True)):
        copy = Copy()
        from_scans.synthesize(
            copy, from_scans.read_scans(copy, pair, None, TIMES), SynthesisOptions(batch_size=size, shared_noise=shared)
        )
        assert len({call["shape"] for call in copy.calls}) == 1
        keys[size, shared] = np.concatenate([call["rng"] for call in copy.calls])[: SHAPE[2]]
    np.testing.assert_array_equal(keys[4, False], keys[5, False])
    assert len(np.unique(keys[4, False], axis=0)) == SHAPE[2]
    assert len(np.unique(keys[4, True], axis=0)) == 1


def test_same_seed_same_volume_whatever_the_batch_size(synthesizer, pair):
    scans = from_scans.read_scans(synthesizer, pair, None, TIMES)
    first, again, other = (
        from_scans.synthesize(synthesizer, scans, SynthesisOptions(seed=seed, batch_size=size))["synthetic"]
        for seed, size in ((0, 4), (0, 8), (1, 8))
    )
    np.testing.assert_allclose(first, again, atol=200 * 1e-5)
    assert np.abs(first - other).max() > 1


def test_outputs_are_nifti():
    with pytest.raises(UserError, match=r"t1\.mgz: name it \.nii\.gz"):
        nifti_output.beside(Path("t1.mgz"), "synthetic")


def test_deviation_and_maps_come_in_their_units_and_files(pair, tmp_path):
    copy, settings = Copy(), SynthesisOptions(samples=2, maps=True)
    scans = from_scans.read_scans(copy, pair, None, TIMES)
    volumes = from_scans.synthesize(copy, scans, settings)
    np.testing.assert_allclose(volumes["std"], 0.5 * 200, rtol=1e-5)
    assert volumes["T1 features"].shape == SHAPE
    nifti_output.write(
        volumes,
        scans,
        nifti_output.provenance(copy, scans, settings),
        lambda name: nifti_output.beside(tmp_path / "t1.nii.gz", name),
    )
    names = {"t1", "t1_std", "t1_T1-features"}
    assert {path.name for path in tmp_path.glob("t1*")} == {f"{name}{end}" for name in names for end in (".nii.gz", ".json")}
    described = {name: json.loads((tmp_path / f"{name}.json").read_text())["Description"] for name in names}
    assert described["t1"].startswith("Synthetic T1w, made by a neural network from T2w, PDw; not acquired")
    assert described["t1_std"].startswith("Voxelwise standard deviation over 2 samples of a synthetic T1w")
    assert "not quantitative" in described["t1_T1-features"]


def test_the_sidecar_tells_how_it_was_made(synthesizer, pair):
    scans = from_scans.read_scans(synthesizer, pair, None, TIMES)
    about = nifti_output.provenance(synthesizer, scans, SynthesisOptions(steps=1, seed=3, sampler="ddpm"))
    assert about["Synthetic"] is True
    assert about["Model"] == {"Method": "mrdiff", "Step": 7, "WeightsSHA256": synthesizer.trained.sha256}
    assert about["Sources"]["T2w"]["SHA256"] == sha256(pair["T2w"])
    assert about["Sources"]["PDw"]["RepetitionTime"] == 2.0
    assert "InversionTime" not in about["Sources"]["PDw"]  # a spin echo has none
    assert about["Sampling"] == {
        **{"Sampler": "ddpm", "Steps": 1, "Eta": 1.0, "Samples": 1, "Seed": 3, "SharedNoise": False},
    }
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    changed = subprocess.run(["git", "diff", "--quiet", "HEAD"], cwd=ROOT, check=False).returncode
    head += "-dirty" * changed
    assert about["Software"] == {"Name": "mrdiff_jax", "Version": "0.1.0", "Commit": head}
    assert about["Intensities"]["Factor"] == 200
    assert str(pair["T2w"].parent) not in json.dumps(about)


def test_a_full_disk_leaves_nothing_half_written(pair, tmp_path, monkeypatch):
    copy, target = Copy(), tmp_path / "out" / "t1.nii.gz"
    scans = from_scans.read_scans(copy, pair, None, TIMES)
    volumes = from_scans.synthesize(copy, scans, SynthesisOptions(samples=2))

    def write(about):
        nifti_output.write(volumes, scans, about, lambda name: nifti_output.beside(target, name))

    save, written = nib.save, []

    def fills(image, path):
        save(image, path)
        written.append(path)
        if len(written) == 2:
            raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(nib, "save", fills)
    with pytest.raises(OSError, match="No space left"):
        write(nifti_output.provenance(copy, scans, SynthesisOptions()))
    assert len(written) == 2
    assert not list(target.parent.iterdir())
    written.append(None)
    write(nifti_output.provenance(copy, scans, SynthesisOptions()))
    before = target.read_bytes()
    written.clear()
    with pytest.raises(OSError, match="No space left"):
        write({"Sources": {}, "Target": "other", "Sampling": {"Samples": 2}, "Synthetic": True})
    assert target.read_bytes() == before
    assert len(list(target.parent.iterdir())) == 4


def test_no_acquired_scan_is_overwritten(pair, tmp_path):
    copy = Copy()
    scans = from_scans.read_scans(copy, pair, None, TIMES)
    volumes = from_scans.synthesize(copy, scans, SynthesisOptions())
    about = nifti_output.provenance(copy, scans, SynthesisOptions())
    before = pair["T2w"].read_bytes()
    with pytest.raises(UserError, match=r"T2w\.nii\.gz: is there and not synthetic"):
        nifti_output.write(volumes, scans, about, lambda _: pair["T2w"])
    assert pair["T2w"].read_bytes() == before
    for _ in range(2):  # what is synthetic may be made again
        nifti_output.write(volumes, scans, about, lambda _: tmp_path / "t1.nii.gz")
    (tmp_path / "t1.json").write_text('{"EchoTime": 0.1}')
    with pytest.raises(UserError, match="not synthetic"):
        nifti_output.write(volumes, scans, about, lambda _: tmp_path / "t1.nii.gz")
    with pytest.raises(UserError, match=r"T2w\.nii: would share its sidecar with \S*T2w\.nii\.gz"):
        nifti_output.check_free(pair["T2w"].with_suffix(""))


def refused(paths, *words, grid=None, stated=TIMES, copy=None):
    with pytest.raises(UserError) as caught:
        from_scans.read_scans(copy or Copy(), paths, grid, stated)
    assert "\n" not in str(caught.value)
    for word in words:
        assert str(word) in str(caught.value)


def test_sources_that_do_not_fit_the_model_are_refused(pair):
    refused(pair | {"FLAIR": pair["T2w"]}, "FLAIR", "T1w from T2w, PDw")
    refused({"T2w": pair["T2w"]}, "no PDw", "PDw=PATH")
    refused(pair | {"PDw": pair["T2w"].parent / "none.nii.gz"}, "none.nii.gz: no such file")


def test_times_that_a_source_hardly_has_are_warned_of(pair, caplog):
    from_scans.read_scans(Copy(), pair, None, TIMES)
    assert "too short" not in caplog.text
    (pair["T2w"].parent / "T2w.json").write_text('{"RepetitionTime": 2.3, "EchoTime": 0.00298, "InversionTime": 0.9}')
    from_scans.read_scans(Copy(), pair, None, TIMES)
    assert "T2w.nii.gz: TE 2.98 ms is too short for T2w; is it the right scan" in caplog.text


def test_missing_times_are_refused_and_may_be_stated(pair):
    refused(pair, "T2w.nii.gz (and 1 more scan)", "RepetitionTime", "--tr=T2w=MILLISECONDS,PDw=MILLISECONDS", stated={})
    refused(pair, "PDw.nii.gz", "EchoTime", "--te=PDw=MILLISECONDS", stated=TIMES | {"PDw": SequenceTimes(tr=2000.0)})
    refused(pair, "T2w.nii.gz", "implausible", stated=TIMES | {"T2w": SequenceTimes(4.0, 0.1)})
    copy = Copy()
    config = copy.trained.config
    data = dataclasses.replace(config.data, tr="T2w=4000,PDw=2000", te="T2w=100,PDw=10")
    copy.trained = dataclasses.replace(copy.trained, config=dataclasses.replace(config, data=data))
    assert from_scans.read_scans(copy, pair, None, {}).times[:, 0].tolist() == [4000, 2000]  # as stated in training
    (pair["T2w"].parent / "T2w.json").write_text('{"RepetitionTime": 3.5, "EchoTime": 0.08}')
    assert from_scans.read_scans(copy, pair, None, TIMES).times[0].tolist() == [3500, 80, 0]  # the sidecar before all


def test_fields_of_view_that_do_not_overlap_are_refused(pair, tmp_path):
    affine = affine_of()
    affine[2, 3] += 300
    away = tmp_path / "away.nii.gz"
    nib.save(nib.Nifti1Image(read_nifti(pair["PDw"]).data, affine), away)
    refused(pair | {"PDw": away}, away, "does not overlap", pair["T2w"])
    refused(pair, away, "does not overlap", pair["T2w"], grid=away)


def test_a_source_of_which_the_grid_holds_nothing_is_refused(pair):
    copy = Copy()
    scans = from_scans.read_scans(copy, pair, None, TIMES)
    scans.volumes[1] = 0
    with pytest.raises(UserError, match=r"PDw\.nii\.gz: no range between its percentiles"):
        from_scans.synthesize(copy, scans, SynthesisOptions())


def test_padding_of_a_source_stands_in_the_sidecar(tmp_path, pair):
    image = nib.load(pair["T2w"])
    data = image.get_fdata(dtype=np.float32)
    data[:3, :3] = -2000
    nib.save(nib.Nifti1Image(data, image.affine), tmp_path / "padded.nii.gz")
    scans = from_scans.read_scans(Copy(), {"T2w": tmp_path / "padded.nii.gz", "PDw": pair["PDw"]}, None, TIMES)
    sources = nifti_output.provenance(Copy(), scans, SynthesisOptions())["Sources"]
    assert sources["T2w"]["Padding"].startswith("padding -2000 ")
    assert "Padding" not in sources["PDw"]
    assert sources["T2w"]["Placement"] == {"action": "reference", "transform": np.eye(4).ravel().tolist()}
