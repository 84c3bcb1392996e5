"""The synthesizer in Python: what it loads, what it computes, and what it refuses."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from conftest import make_batch
from helpers.models import TINY_METHODS, tiny, write_run
from safetensors.numpy import load_file, save_file

import mrdiff_jax
from mrdiff_jax import methods, parallel
from mrdiff_jax.config import resolve
from mrdiff_jax.errors import UserError
from mrdiff_jax.methods.reading import flatten, read_by
from mrdiff_jax.streams import stream
from mrdiff_jax.synthesis import model_files

KEY = jax.random.key(0)
TIMES = ((4000.0, 2000.0), (100.0, 10.0))


@pytest.fixture
def pair(workdir, tmp_path):
    model_files.export(model_files.load(workdir), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def sources(count=4, side=16):
    return make_batch(count, side)["sources"]


def test_the_package_is_light_until_the_synthesizer_is_asked_for():
    code = "import sys, mrdiff_jax; assert 'jax' not in sys.modules; mrdiff_jax.Synthesizer; assert 'jax' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="Synthetizer"):
        mrdiff_jax.Synthetizer  # noqa: B018


def test_arrays_in_arrays_out(synthesizer):
    images = synthesizer(sources(), *TIMES, rng=KEY)
    assert images.shape == (4, 16, 16)
    assert images.dtype == np.float32
    assert images.min() >= 0
    assert images.max() <= 1
    assert images.std() > 0.01
    assert (synthesizer.sources, synthesizer.target) == (("T2w", "PDw"), "T1w")
    np.testing.assert_array_equal(images, synthesizer(sources(), *TIMES, rng=KEY))
    assert not np.allclose(images, synthesizer(sources(), *TIMES, rng=jax.random.key(1)))
    assert not np.allclose(images, synthesizer(sources()[::-1], *TIMES, rng=KEY))


def test_an_image_depends_on_its_key_and_not_on_its_batch(synthesizer):
    keys = jax.random.split(KEY, 4)
    together = synthesizer(sources(), *TIMES, rng=keys)
    for part in (slice(0, 2), slice(2, 4), slice(3, 4)):
        np.testing.assert_allclose(synthesizer(sources()[part], *TIMES, rng=keys[part]), together[part], atol=1e-5)


def test_samples_are_the_methods_syntheses_and_give_their_mean_and_standard_deviation(synthesizer):
    keys = jax.random.split(KEY, 2)
    batch = {"sources": sources(2)} | {name: np.ones((2, 2), np.float32) for name in ("tr", "te", "ti")}
    of_method = jax.jit(synthesizer.method.synthesize)
    of_samples = [stream(keys, "sample", number) for number in range(3)]
    draws = np.stack([np.clip(of_method(synthesizer.trained.variables, batch, own), 0, 1) for own in of_samples])
    np.testing.assert_allclose(synthesizer(sources(2), *TIMES, rng=keys), draws[0], atol=1e-5)
    mean, deviation = synthesizer(sources(2), *TIMES, rng=keys, samples=3)
    np.testing.assert_allclose(mean, draws.mean(0), atol=1e-5)
    np.testing.assert_allclose(deviation, draws.std(0, ddof=1), atol=1e-4)
    assert deviation.max() > 1e-3


def test_one_step_is_the_direct_estimate(synthesizer):
    direct = synthesizer(sources(2), *TIMES, rng=KEY, steps=1)
    assert not np.allclose(direct, synthesizer(sources(2), *TIMES, rng=KEY, steps=2))
    np.testing.assert_allclose(direct, synthesizer(sources(2), *TIMES, rng=KEY, steps=1, sampler="ddpm"), atol=1e-5)


def test_a_method_that_does_without_some_sources_is_given_those_there_are(tmp_path):
    config = tiny(**{"method.name": "m2dn"} | TINY_METHODS["m2dn"])
    model = mrdiff_jax.Synthesizer.load(write_run(tmp_path / "m2dn", config))
    images, tr, te = sources(2, 32), *TIMES
    both = model(images, tr, te, rng=KEY)
    one = model(images[..., 1:], tr[1:], te[1:], rng=KEY, given=("PDw",))
    assert np.abs(one - both).max() > 1e-3
    batch = {"sources": images * [0, 1], "available": np.tile([0.0, 1.0], (2, 1))}
    keys = stream(parallel.keys_at(KEY, np.arange(2)), "sample", 0)
    expected = jax.jit(model.method.synthesize)(model.trained.variables, batch, keys)
    np.testing.assert_allclose(one, np.clip(expected, 0, 1), atol=1e-5)
    swapped = model(images[..., ::-1], tr[::-1], te[::-1], rng=KEY, given=("PDw", "T2w"))
    np.testing.assert_array_equal(swapped, both)
    for given, message in (((), "no source T2w"), (("T2w", "FLAIR"), "source FLAIR: .* from T2w, PDw"), (("PDw",) * 2, "PDw")):
        with pytest.raises(UserError, match=message):
            model(images[..., : len(given)], 1, 1, rng=KEY, given=given)


def test_other_methods_need_all_of_their_sources_in_any_order(synthesizer):
    both = synthesizer(sources(), *TIMES, rng=KEY)
    swapped = [values[::-1] for values in TIMES]
    np.testing.assert_array_equal(synthesizer(sources()[..., ::-1], *swapped, rng=KEY, given=("PDw", "T2w")), both)
    with pytest.raises(UserError, match="no source T2w: the model makes T1w from T2w, PDw"):
        synthesizer(sources()[..., 1:], 4000, 100, rng=KEY, given=("PDw",))


def test_it_compiles_once_for_each_shape(workdir, monkeypatch):
    synthesizer = mrdiff_jax.Synthesizer.load(workdir)
    traced, create = [], methods.create

    def counting(config):
        method = create(config)
        original = method.synthesize

        def synthesize(variables, batch, rng):
            traced.append(batch["sources"].shape)
            return original(variables, batch, rng)

        method.synthesize = synthesize
        return method

    monkeypatch.setattr(methods, "create", counting)
    for count in (2, 2, 2, 4, 4, 2):
        synthesizer(sources(count), *TIMES, rng=KEY, steps=1)
    assert len(traced) == len(set(traced)) == 2


def test_sides_the_network_cannot_take_are_padded_and_cropped(synthesizer):
    assert synthesizer.method.stride == 2
    images = synthesizer(sources(2, 16)[:, 1:, 3:], *TIMES, rng=KEY)
    assert images.shape == (2, 15, 13)
    padded = np.pad(sources(2, 16)[:, 1:, 3:], ((0, 0), (0, 1), (0, 1), (0, 0)))
    np.testing.assert_array_equal(images, synthesizer(padded, *TIMES, rng=KEY)[:, :15, :13])


def parts(variables):
    return set(variables.params["generator"])


def size(params):
    return sum(leaf.nbytes for leaf in jax.tree.leaves(params))


def test_only_encoder_and_generator_are_read_and_on_the_devices(workdir):
    held = jax.live_arrays()  # while they are held, no new array takes the place of one
    before = {id(array) for array in held}
    synthesizer = mrdiff_jax.Synthesizer.load(workdir)
    assert parts(synthesizer.trained.variables) == {"encoder", "generator", "step_embedding"}
    on_devices = sum(array.nbytes for array in jax.live_arrays() if id(array) not in before)
    wanted = size(synthesizer.trained.variables) * jax.local_device_count()
    assert wanted <= on_devices < 1.001 * wanted
    with_maps = mrdiff_jax.Synthesizer.load(workdir, maps=True)
    of_maps = {"map_block", "signal_block", "decoder"}
    assert parts(with_maps.trained.variables) == {"encoder", "generator", "step_embedding"} | of_maps


@pytest.mark.parametrize("name", methods.NAMES)
def test_what_a_method_reads_is_enough_and_of_no_other_player(name):
    config = resolve(tiny(**{"method.name": name, "mrdiff.spectral_norm": True, "sample.steps": 1} | TINY_METHODS[name]))
    method, batch, keys = methods.create(config), make_batch(2, 32), jax.random.split(KEY, 2)
    rng = np.random.default_rng(0)
    whole = jax.tree.map(lambda leaf: leaf + 0.1 * np.abs(rng.standard_normal(leaf.shape, np.float32)), method.init(KEY, batch))
    read = read_by(method.synthesize, whole, batch, keys)
    del batch["target"]
    np.testing.assert_array_equal(method.synthesize(read, batch, keys), method.synthesize(whole, batch, keys))
    assert set(flatten(read)) <= set(flatten(whole))
    assert set(read.params) == {"generator"}


def test_maps_are_feature_maps_by_name(workdir):
    synthesizer = mrdiff_jax.Synthesizer.load(workdir, maps=True)
    maps = synthesizer.maps(sources(3), *TIMES, rng=KEY)
    assert list(maps) == ["T1 features", "T2 features", "S0 features"]
    assert all(len(image) == 3 and np.isfinite(image).all() and image.min() >= 0 for image in maps.values())
    with pytest.raises(UserError, match=r"give \(B, H, W, 2\) for T2w, PDw"):
        synthesizer.maps(sources(3)[..., :1], *TIMES, rng=KEY)


def test_an_exported_pair_gives_the_same_images_without_orbax(synthesizer, pair, tmp_path):
    images = synthesizer(sources(), *TIMES, rng=KEY)
    for path in (pair, pair.with_suffix(".json")):
        np.testing.assert_array_equal(images, mrdiff_jax.Synthesizer.load(path)(sources(), *TIMES, rng=KEY))
    weights = load_file(pair)
    assert {name.split("/")[2] for name in weights} == {"encoder", "generator", "step_embedding"}
    assert model_files.load(pair).sha256 == synthesizer.trained.sha256
    assert not list(tmp_path.glob(".partial*"))
    code = f"import sys; sys.modules['orbax'] = None; import mrdiff_jax; mrdiff_jax.Synthesizer.load({str(pair)!r})"
    subprocess.run([sys.executable, "-c", code], check=True)


def change_description(path, **changes):
    description = path.with_suffix(".json")
    values = json.loads(description.read_text())
    for name, value in changes.items():
        section, field = name.split("__")
        values[section][field] = value
    description.write_text(json.dumps(values))


def test_a_pair_that_does_not_fit_is_refused_by_name(pair):
    weights = load_file(pair)
    kernel = "params/generator/encoder/conv_in/kernel"

    def refused(changed, *words):
        save_file(changed, pair)
        with pytest.raises(UserError) as caught:
            model_files.load(pair)
        assert "\n" not in str(caught.value)
        for word in (pair.name, *words):
            assert word in str(caught.value)

    refused({name: array for name, array in weights.items() if name != kernel}, "kernel", "/encoder/conv_in")
    refused(weights | {"params/generator/decoder/conv_out/bias": np.zeros(4, np.float32)}, "decoder/conv_out/bias")
    refused(weights | {kernel: weights[kernel][:, :, :-1]}, "kernel", "/encoder/conv_in", str(weights[kernel].shape))
    refused(weights | {kernel: 2 * weights[kernel]}, "other weights")
    pair.write_bytes(b"not a safetensors file")
    with pytest.raises(UserError, match="readable safetensors"):
        model_files.load(pair)


def test_a_description_of_another_model_is_refused(pair):
    change_description(pair, config__method={"name": "regression"})
    with pytest.raises(UserError, match="embedding"):
        model_files.load(pair)
    change_description(pair, config__method={"name": "mrdiff"}, config__model={"heads": 3})
    with pytest.raises(UserError, match=r"config\.model\.heads: a field that this version does not know"):
        model_files.load(pair)
    description = json.loads(pair.with_suffix(".json").read_text())
    del description["maps"]
    pair.with_suffix(".json").write_text(json.dumps(description))
    with pytest.raises(UserError, match="says nothing of maps; it is of an older version, export the model again"):
        model_files.load(pair)
    pair.with_suffix(".json").write_text("{}")
    with pytest.raises(UserError, match="does not describe an exported model"):
        model_files.load(pair)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training_data__pixel_mm": 2.0}, "is damaged"),
        ({"training_data__target": {"name": "T1w", "factor": 1.0}}, r"is damaged.*'offset'"),
        (
            {"training_data__target": {"name": "FLAIR", "offset": 0.0, "factor": 1.0}},
            "is of T2w, PDw, FLAIR, .* of T2w, PDw, T1w",
        ),
        ({"config__model": 3}, r"config\.model: is 3, not a group of fields"),
    ],
)
def test_a_damaged_description_is_refused(pair, changes, message):
    change_description(pair, **changes)
    with pytest.raises(UserError, match=message):
        model_files.load(pair)


def test_a_pair_holds_what_feature_maps_need_if_it_was_written_so(workdir, pair):
    with pytest.raises(UserError, match="lacks what feature maps need; export it with --maps, or give --workdir the run"):
        model_files.load(pair, maps=True)
    with_maps = pair.with_name("maps.safetensors")
    model_files.export(model_files.load(workdir, maps=True), with_maps)
    maps, expected = (
        mrdiff_jax.Synthesizer.load(path, maps=True).maps(sources(), *TIMES, rng=KEY) for path in (with_maps, workdir)
    )
    for name in expected:
        np.testing.assert_array_equal(maps[name], expected[name])
    assert with_maps.stat().st_size > pair.stat().st_size
    assert model_files.load(with_maps).sha256 == model_files.load(pair).sha256


def test_maps_of_a_model_loaded_without_them_are_refused(synthesizer):
    with pytest.raises(UserError, match="maps=True"):
        synthesizer.maps(sources(), *TIMES, rng=KEY)


def test_maps_of_a_method_without_any_are_refused(tmp_path):
    folder = write_run(tmp_path / "run", tiny(**{"method.name": "regression"}))
    with pytest.raises(UserError, match="regression has no feature maps"):
        mrdiff_jax.Synthesizer.load(folder, maps=True)


def test_a_workdir_that_lacks_something_is_refused(workdir, tmp_path):
    cases = {
        "nothing": ((), "no such folder"),
        "no config": (("training_data.json",), "config.json: no such file"),
        "old": (("config.json",), r"training_data.json: no such file; mrdiff train --workdir=\S+ --mode=eval, with the data"),
        "untrained": (("config.json", "training_data.json"), "no checkpoint; train first"),
    }
    for name, (files, message) in cases.items():
        folder = tmp_path / name
        for file in files:
            folder.mkdir(exist_ok=True)
            (folder / file).write_text((workdir / file).read_text())
        with pytest.raises(UserError, match=message):
            model_files.load(folder)
        assert not (folder / "checkpoints").exists()


def test_a_description_of_another_version_is_refused(workdir, tmp_path):
    (tmp_path / "config.json").write_text((workdir / "config.json").read_text())
    (tmp_path / "training_data.json").write_text("{}")
    with pytest.raises(UserError, match=r"training_data\.json: is damaged, or of another version"):
        model_files.load(tmp_path)


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path):
    folder = write_run(tmp_path / "run", tiny())
    (folder / "config.json").write_text(json.dumps(resolve(tiny(**{"model.base_channels": 16})).to_dict()))
    with pytest.raises(UserError, match=r"checkpoints: does not fit the configuration beside it.*kernel"):
        model_files.load(folder)
    (folder / "config.json").write_text(json.dumps(resolve(tiny(**{"method.name": "regression"})).to_dict()))
    with pytest.raises(UserError, match="does not fit the configuration beside it"):
        model_files.load(folder)


def test_a_damaged_checkpoint_is_refused(tmp_path):
    folder = write_run(tmp_path / "run", tiny())
    for file in (folder / "checkpoints").rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(UserError, match="is damaged") as caught:
        model_files.load(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arrays", "settings", "message"),
    [
        ((np.zeros((2, 16, 16, 3)), *TIMES), {}, r"give \(B, H, W, 2\) for T2w, PDw"),
        ((np.zeros((16, 16, 2)), *TIMES), {}, r"give \(B, H, W, 2\)"),
        ((np.zeros((2, 16, 16, 2)), *TIMES), {"steps": 2000}, "the chain has 1000 steps"),
        ((np.zeros((2, 16, 16, 2)), *TIMES), {"steps": 0}, "at least 1"),
        ((np.zeros((2, 16, 16, 2)), *TIMES), {"sampler": "euler"}, "ddim, ddpm"),
        ((np.zeros((2, 16, 16, 2)), *TIMES), {"samples": 0}, "at least 1"),
        ((np.zeros((2, 16, 16, 2)), (4000.0,) * 3, TIMES[1]), {}, r"tr of shape \(3,\): give \(2, 2\) or \(2,\)"),
        ((np.full((2, 16, 16, 2), 700), *TIMES), {}, "sources from 700 to 700: scale each volume"),
        ((np.full((2, 16, 16, 2), np.nan), *TIMES), {}, "sources from nan to nan"),
        ((np.zeros((2, 16, 16, 2)), (4.0, 2.0), (0.1, 0.01)), {}, "T2w: TE 0.1 ms is implausible.*seconds taken for milli"),
        ((np.zeros((2, 16, 16, 2)), (4000.0, np.nan), TIMES[1]), {}, "PDw: TR nan ms is implausible"),
        ((np.zeros((2, 16, 16, 2)), *TIMES), {"rng": jax.random.PRNGKey(0)}, r"jax\.random\.key"),
        ((np.zeros((0, 16, 16, 2)), *TIMES), {}, r"sources of shape \(0, 16, 16, 2\)"),
        ((np.zeros((2, 16, 16, 2)), *TIMES), {"rng": 0}, r"rng: give jax\.random\.key"),
        ((np.zeros((2, 16, 16, 2)), *TIMES), {"rng": jax.random.split(KEY, 3)}, "or 2 such keys"),
    ],
)
def test_what_does_not_fit_the_model_is_refused(synthesizer, arrays, settings, message):
    with pytest.raises(UserError, match=message):
        synthesizer(*arrays, **{"rng": KEY} | settings)
