"""The baseline `regression`: what it may depend on, its size, its loss, and the loop around it."""

import jax
import numpy as np
import pytest

from mrdiff_jax import methods
from mrdiff_jax.config import resolve
from mrdiff_jax.methods.distances import DISTANCES
from mrdiff_jax.methods.reading import read_by
from mrdiff_jax.training.loop import train_and_evaluate


@pytest.fixture
def config(tiny_config):
    tiny_config.method.name = "regression"
    return tiny_config


def size(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def keys(seed, count=2):
    return jax.random.split(jax.random.key(seed), count)


def packet(images):
    return np.asarray(DISTANCES["wavelet_l1"](images[..., None]))


@pytest.mark.parametrize(("loss", "distance"), [("l1", np.abs), ("l2", np.square), ("wavelet_l1", packet)])
def test_the_loss_is_the_mean_distance_of_images(config, batch, loss, distance):
    config.regression.distance = loss
    method = methods.create(resolve(config))
    params = method.init(jax.random.key(0), batch)
    value, outcome = method.loss(params, batch, keys(0), 0.0)
    assert value == pytest.approx(distance(2 * batch["target"] - 1).mean(), rel=1e-5)  # a fresh network answers 0
    assert outcome.metrics["L_G"] == value


def test_the_image_depends_on_the_sources_alone(config, batch):
    method = methods.create(resolve(config))
    params = method.init(jax.random.key(0), batch)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: leaf + 0.1 * rng.standard_normal(leaf.shape, np.float32), params)
    image = method.synthesize(params, batch, keys(0))
    assert image.shape == batch["target"].shape
    others = {"tr": 2 * batch["tr"], "te": 2 * batch["te"], "target": 1 - batch["target"]}
    np.testing.assert_array_equal(image, method.synthesize(params, batch | others, keys(1)))
    for k in range(2):
        changed = batch["sources"].copy()
        changed[0, 4, 4, k] += 0.5
        other = method.synthesize(params, batch | {"sources": changed}, keys(0))
        assert not np.allclose(image[0], other[0])
        np.testing.assert_array_equal(image[1], other[1])


def test_it_has_the_size_of_encoder_and_generator(config, batch):
    regression = methods.create(resolve(config)).init(jax.random.key(0), batch)
    config.method.name = "mrdiff"
    method = methods.create(resolve(config))
    mrdiff = read_by(method.synthesize, method.init(jax.random.key(0), batch), batch, keys(0))
    bands_of_x_t = 9 * 4 * config.model.base_channels  # of the first convolution: the noisy target, which is not there
    assert size(regression.params["generator"]) == size(mrdiff.params["generator"]) - bands_of_x_t


def test_it_trains_and_evaluates_as_any_method(config, tmp_path):
    config.train.steps = 30
    summary = train_and_evaluate(config, tmp_path)
    assert summary.method == "regression"
    config.train.steps = 31
    assert train_and_evaluate(config, tmp_path).step == 31
    rows = (tmp_path / "metrics.csv").read_text().splitlines()
    assert len(rows) == 1 + summary.slices


def test_blocks_that_are_computed_again_give_the_same_gradient_and_keep_less(config, batch):
    def differentiated(remat):
        config.model.remat = remat
        method = methods.create(resolve(config))
        variables = method.init(jax.random.key(0), batch)
        params = jax.tree.map(lambda leaf: leaf + np.float32(0.01), variables.params["generator"])

        def loss(params):
            return method.loss(variables.with_params("generator", params), batch, keys(0), 0.0)[0]

        _, gradient = jax.vjp(loss, params)
        return gradient(np.float32(1))[0], size(gradient)

    (kept, numbers_kept), (again, numbers_kept_again) = differentiated(False), differentiated(True)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), kept, again)
    assert numbers_kept_again < 0.6 * numbers_kept
