"""The phantom: reproducible, a brain contrast by contrast, and true to its own maps."""

from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context

import numpy as np
import pytest

from mrdiff_jax.data import phantom

SIZE = {"image_size": 48, "slice_count": 6}


@cache
def exam(index):
    return phantom.simulate_exam(3, index, **SIZE)


def of_tissue(index):
    """Voxels that are almost surely grey matter, white matter and fluid, known by their true T1 and T2."""
    t1, t2, density = np.moveaxis(exam(index).maps, -1, 0)
    grey = (t1 > 1600) & (t1 < 2000) & (t2 > 85) & (t2 < 115)
    white = (t1 > 900) & (t1 < 1200) & (t2 < 80)
    return {"grey": grey, "white": white, "fluid": (t1 > 3500) & (density > 900)}


def simulated_bytes(index):
    simulated = phantom.simulate_exam(3, index, **SIZE)
    return simulated.volumes.tobytes() + simulated.maps.tobytes()


def test_bytes_do_not_depend_on_order_or_process():
    backwards = [simulated_bytes(index) for index in (1, 0)][::-1]
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert backwards == list(pool.map(simulated_bytes, (0, 1)))


def test_bytes_do_not_depend_on_the_contrasts_asked_for():
    alone = phantom.simulate_exam(3, 0, **SIZE, contrasts=("PDw",))
    np.testing.assert_array_equal(alone.volumes[0], exam(0).volumes[phantom.CONTRASTS.index("PDw")])
    np.testing.assert_array_equal(alone.times[0], exam(0).times[phantom.CONTRASTS.index("PDw")])


def test_subjects_and_seeds_differ():
    assert not np.array_equal(exam(0).maps, exam(1).maps)
    assert not np.array_equal(exam(0).maps, phantom.simulate_exam(4, 0, **SIZE).maps)


def test_a_subject_is_the_same_at_another_resolution():
    fine = phantom.simulate_exam(3, 0, image_size=96, slice_count=6).volumes
    coarse = fine.reshape(4, 48, 2, 48, 2, 6).mean((2, 4))
    assert np.corrcoef(coarse.ravel(), exam(0).volumes.ravel())[0, 1] > 0.99


def test_volumes_are_magnitudes_within_scanner_range_on_the_stated_grid():
    volumes, maps = exam(0).volumes, exam(0).maps
    assert volumes.shape == (4, 48, 48, 6)
    assert volumes.dtype == np.float32
    assert maps.shape == (48, 48, 6, 3)
    assert volumes.min() >= 0
    assert 100 < volumes.max() < 1500
    assert exam(0).spacing == (phantom.FIELD_MM / 48, phantom.FIELD_MM / 48, 75 / 6)


def test_the_brain_lies_inside_the_field_of_view():
    for index in range(3):
        brain = exam(index).maps[..., 2] > 0
        assert not brain[[0, -1]].any()
        assert not brain[:, [0, -1]].any()
        assert brain.mean() > 0.25


@pytest.mark.parametrize(
    ("contrast", "order"),
    [
        ("T1w", ("fluid", "grey", "white")),
        ("T2w", ("white", "grey", "fluid")),
        ("PDw", ("white", "grey")),
        ("FLAIR", ("fluid", "white", "grey")),
    ],
)
def test_tissues_stand_in_the_order_of_the_contrast(contrast, order):
    volume = exam(0).volumes[phantom.CONTRASTS.index(contrast)]
    masks = of_tissue(0)
    means = [volume[masks[name]].mean() for name in order]
    assert all(np.diff(means) > 0.05 * max(means))


@pytest.mark.parametrize("contrast", phantom.CONTRASTS)
def test_the_signal_of_the_true_maps_explains_the_images(contrast):
    channel = phantom.CONTRASTS.index(contrast)
    brain = exam(0).maps[..., 2] > 300
    clean = phantom.signal(*np.moveaxis(exam(0).maps, -1, 0), exam(0).times[channel])
    image = exam(0).volumes[channel]
    assert np.corrcoef(clean.ravel(), image.ravel())[0, 1] > 0.95
    np.testing.assert_allclose(np.median(image[brain] / clean[brain]), 1, atol=0.1)


def test_sequence_times_are_those_of_the_paper():
    times = np.stack([phantom.draw_subject(np.random.default_rng([0, i])).times for i in range(50)])
    t1w, t2w, pdw, flair = np.moveaxis(times, 1, 0)
    assert t1w[:, 0].min() > 400
    assert t1w[:, 0].max() < 600
    np.testing.assert_array_equal(t2w[:, 0], pdw[:, 0])
    assert 2700 < t2w[:, 0].min() < t2w[:, 0].max() < 5650
    assert 95.22 < t2w[:, 1].min() < t2w[:, 1].max() < 101.84
    assert 9.78 < pdw[:, 1].min() < pdw[:, 1].max() < 11.016
    assert (times[:, :3, 2] == 0).all()
    assert (flair[:, 2] > 0).all()


def test_about_a_third_of_the_subjects_carry_lesions_bright_in_flair():
    subjects = [phantom.draw_subject(np.random.default_rng([0, i])) for i in range(300)]
    carriers = [i for i, subject in enumerate(subjects) if len(subject.lesions)]
    assert 0.25 < len(carriers) / len(subjects) < 0.42
    tumour = next(i for i in carriers if subjects[i].lesions[:, 3].max() > 14)
    flair = phantom.simulate_exam(0, tumour, image_size=48, slice_count=16, contrasts=("FLAIR",))
    healthy = phantom.simulate_exam(0, next(i for i in range(300) if i not in carriers), image_size=48, slice_count=16)

    def brightest(exam):
        volume = exam.volumes[exam.contrasts.index("FLAIR")]
        return np.percentile(volume, 99.9) / np.median(volume[exam.maps[..., 2] > 300])

    assert brightest(flair) > 1.3 * brightest(healthy)


def test_the_deformed_template_does_not_fold():
    rng = np.random.default_rng(0)
    axes = [np.arange(-20.0, 20.0)] * 3
    displacement = np.stack([phantom.displacement(rng, axes) for _ in range(3)])
    gradient = np.stack(np.gradient(displacement, axis=(1, 2, 3)), 1)
    jacobian = np.linalg.det(np.moveaxis(gradient, (0, 1), (-2, -1)) + np.eye(3))
    assert jacobian.min() > 0


def test_noise_is_rician_outside_the_brain():
    outside = exam(0).maps[..., 2] == 0
    air = exam(0).volumes[0][outside]
    np.testing.assert_allclose(air.mean() / air.std(), np.sqrt(np.pi / (4 - np.pi)), rtol=0.05)
