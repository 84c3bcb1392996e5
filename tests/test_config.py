import importlib.util
from pathlib import Path

import pytest

from mrdiff_jax import config as config_module
from mrdiff_jax.config import PRESETS, default, validate
from mrdiff_jax.errors import UserError
from mrdiff_jax.methods.mrdiff.method import build_network

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.py"))


def load(path, *preset):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(*preset)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
@pytest.mark.parametrize("preset", [(), *((name,) for name in PRESETS)])
def test_every_config_is_valid_locked_and_builds_its_network(path, preset):
    config = load(path, *preset)
    validate(config)
    assert config.is_locked
    assert build_network(config).signals
    with pytest.raises(AttributeError):
        config.data.image_sise = 64


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_heads_with_its_command(path):
    assert f"python -m mrdiff_jax.main --config=configs/{path.name}" in path.read_text().split('"""')[1]


def test_presets_differ_in_the_fields_of_the_table_alone():
    paper, authors = (default(preset).to_dict() for preset in PRESETS)
    different = {
        f"{section}.{field}"
        for section, fields in paper.items()
        for field, value in fields.items()
        if authors[section][field] != value
    }
    assert different == {
        "optimizer.name",
        "optimizer.learning_rate",
        "optimizer.weight_decay",
        "optimizer.ema_warmup",
        "model.wavelet_of",
        "model.spectral_norm",
        "loss.joint_mean",
        "loss.draw_reduction",
        "loss.cct_normalize",
        "loss.cct_stop_gradient",
    }


def test_adni_and_spine_follow_the_paper():
    configs = {path.stem: load(path) for path in CONFIGS}
    adni, spine = configs["adni"], configs["spine"]
    assert (adni.data.sources, adni.data.target, adni.train.steps) == ("T2w,PDw", "T1w", 350_000)
    assert (spine.data.sources, spine.data.target, spine.train.steps) == ("T1w,T2w", "T2wFS", 300_000)
    for config in (adni, spine):
        assert config.data.image_size == 256
        assert config.data.batch_size == 8
        assert config.sample.steps == 50
        assert (config.loss.draws, config.loss.lambda_g, config.loss.lambda_d, config.loss.lambda_cct) == (
            3,
            1,
            1,
            0.01,
        )


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("sample.sampler", "heun", r"--config\.sample\.sampler=heun: choose one of ddim, ddpm"),
        ("train.steps", 0, r"--config\.train\.steps=0: must be at least 1"),
        ("sample.steps", 2000, r"--config\.sample\.steps=2000: the chain has 1000 steps"),
        ("model.channel_mult", (), r"--config\.model\.channel_mult=\(\): give a number"),
        ("model.attention_levels", (2, 5), r"--config\.model\.attention_levels=\(2, 5\): give levels of 0 to 4"),
        ("data.percentiles", (1.0, 2.0, 3.0), r"--config\.data\.percentiles=.*two rising numbers"),
        ("evaluate.panels", 0, r"--config\.evaluate\.panels=0: must be at least 1"),
        ("train.seed", -1, r"--config\.train\.seed=-1: must be at least 0"),
        ("data.seed", 2**32, r"--config\.data\.seed=4294967296: must be at most 4294967295"),
        ("loss.lambda_cct", -0.1, r"--config\.loss\.lambda_cct=-0\.1: must be at least 0"),
        ("optimizer.weight_decay", -1.0, r"--config\.optimizer\.weight_decay=-1\.0: must be at least 0"),
        ("model.channel_mult", (1, 1.5), r"--config\.model\.channel_mult=\(1, 1\.5\): give whole numbers"),
        ("data.percentiles", ("low", 99.0), r"--config\.data\.percentiles=.*: give numbers"),
        ("data.percentiles", (0.5, float("nan")), r"--config\.data\.percentiles=.*two rising numbers"),
        ("sample.eta", 1.5, r"--config\.sample\.eta=1\.5: must be at most 1"),
    ],
)
def test_wrong_values_name_the_field_and_the_choices(field, value, message):
    config = default("paper")
    config.update_from_flattened_dict({field: value})
    with pytest.raises(UserError, match=message):
        validate(config)


def test_unknown_preset_lists_the_presets():
    with pytest.raises(UserError, match=r":author'.*:paper, :authors"):
        default("author")


def numbers(kinds):
    values = default("paper").to_dict()
    return [
        f"{section}.{name}"
        for section, fields in values.items()
        for name, value in fields.items()
        if type(value) in kinds  # bool is an int, too
    ]


def test_every_number_has_a_range():
    assert set(numbers((int, float))) == set(config_module._RANGES)
    assert set(numbers((tuple,))) == set(config_module._TUPLES)


@pytest.mark.parametrize("field", numbers((float,)))
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_are_finite(field, value):
    config = default("paper")
    config.update_from_flattened_dict({field: value})
    with pytest.raises(UserError, match=f"--config.{field}={value}: must be a finite number"):
        validate(config)
