"""The study of the physics: changes of known size, and a method that knows the truth."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import make_batch
from helpers.models import TINY_METHODS, tiny

from mrdiff_jax import methods, parallel
from mrdiff_jax.config import resolve
from mrdiff_jax.evaluation.studies import physics
from mrdiff_jax.experiments import plan
from mrdiff_jax.methods.contract import Variables
from mrdiff_jax.physics import spin_echo


@pytest.fixture
def batch():
    """A slice whose source is a spin echo of its maps, but for scale, offset, air and pixels that are clipped."""
    rng = np.random.default_rng(0)
    maps_ = np.stack([rng.uniform(800, 2000, (16, 16)), rng.uniform(60, 120, (16, 16)), rng.uniform(0.6, 1, (16, 16))], -1)
    maps_[:4] = 0
    image = 0.1 + 1.2 * np.array(spin_echo(*np.moveaxis(maps_, -1, 0), 3000.0, 80.0))
    image[4] = 1
    times = {"tr": np.array([[3000.0]]), "te": np.array([[80.0]]), "ti": np.array([[0.0]])}
    return {"sources": image[None, ..., None].astype(np.float32), "maps": maps_[None].astype(np.float32), **times}


def test_the_true_change_is_in_the_scale_of_the_image(batch):
    truth, seen = physics.true_change(batch, batch | {"te": np.array([[40.0]])}, 0, 0)
    brighter = spin_echo(*np.moveaxis(batch["maps"][0], -1, 0), 3000.0, 40.0)
    np.testing.assert_allclose(truth[seen], (0.1 + 1.2 * brighter - batch["sources"][0, ..., 0])[seen], atol=1e-5)
    assert (truth[seen] > 0.05).all()
    np.testing.assert_array_equal(seen.any(1), np.arange(16) > 4)


def test_too_little_brain_says_nothing(batch):
    batch["maps"][0, 6:] = 0
    truth, seen = physics.true_change(batch, batch, 0, 0)
    assert not seen.any()
    assert np.isnan(list(physics.agreement(truth[seen], truth[seen]).values())).all()


def test_a_method_that_knows_t2_follows_te_and_not_tr(batch):
    """Told another TE it decays or recovers by its T2, which all of this slice has: the true change, but for rounding."""
    t2 = 90.0
    batch["maps"][..., 1] = t2
    batch["sources"] = 0.9 * np.array(spin_echo(*np.moveaxis(batch["maps"], -1, 0), 3000.0, 80.0))[..., None]
    about = {"valid": np.ones(1, bool), "subject": ["a"], "slice": np.zeros(1)}

    def reconstruct(variables, batch, rng):
        return batch["sources"] * jnp.exp((80 - batch["te"][:, None, None]) / t2)

    context = types.SimpleNamespace(
        method=types.SimpleNamespace(reconstruct=reconstruct),
        dataset=types.SimpleNamespace(sources=("T2w",)),
        evaluator=types.SimpleNamespace(keys=lambda batch: jax.random.split(jax.random.key(0), 1)),
        variables=parallel.replicate(Variables({})),
        batches=lambda text: [batch | about],
    )
    found = {(row["setting"], row["measure"]): row["value"] for row in physics.run(context)}
    assert found["T2w, as scanned", "rmse"] == pytest.approx(0, abs=1e-6)
    for factor in ("0.5", "2"):
        for measure in ("follows", "size", "share"):
            assert found[f"T2w, TE x {factor}", measure] == pytest.approx(1, abs=1e-3)
        assert found[f"T2w, TR x {factor}", "size"] == pytest.approx(0, abs=1e-6)


def test_half_of_the_change_follows_it_and_noise_does_not():
    truth, noise = np.random.default_rng(0).normal(size=(2, 5000))
    assert physics.agreement(0.5 * truth, truth) == pytest.approx({"follows": 1, "size": 0.5, "share": 0.5})
    assert physics.agreement(noise, truth) == pytest.approx({"follows": 0, "size": 1, "share": 0}, abs=0.05)


def test_a_method_is_asked_only_where_its_equations_are_trained(tiny_config):
    assert methods.create(resolve(tiny_config)).reconstruct
    for fields in ({"mrdiff.modulation": False}, {"mrdiff.lambda_d": 0.0}, {"method.name": "regression"}):
        assert methods.create(resolve(plan.chosen(tiny_config, fields))).reconstruct is None


@pytest.mark.parametrize("name", ["mrdiff", "blochgan"])
def test_the_sources_explained_depend_on_the_times(name):
    method = methods.create(resolve(tiny(**{"method.name": name} | TINY_METHODS[name])))
    batch, keys, rng = make_batch(2, 32), jax.random.split(jax.random.key(0), 2), np.random.default_rng(0)
    variables = method.init(jax.random.key(0), batch)
    params = jax.tree.map(lambda leaf: leaf + 0.1 * rng.standard_normal(leaf.shape, np.float32), variables.params)
    variables = variables.replace(params=params)
    y_hat, same, moved = (
        method.reconstruct(variables, batch | changed, keys)
        for changed in ({}, {"target": 1 - batch["target"]}, {"te": 2 * batch["te"]})
    )
    assert y_hat.shape == batch["sources"].shape
    np.testing.assert_array_equal(y_hat, same)
    assert np.abs(y_hat - moved).max() > 0
