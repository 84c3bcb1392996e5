import dataclasses
import importlib.util
import json
from pathlib import Path

import pytest

from mrdiff_jax import config as config_module
from mrdiff_jax import fields, methods
from mrdiff_jax.config import PRESETS, default, fields_from_json, from_json, resolve, small
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
    assert build_network(resolve(config)).signals
    assert config.is_locked
    with pytest.raises(AttributeError):
        config.data.image_sise = 64


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_heads_with_its_command(path):
    assert f"mrdiff train --config=configs/{path.name}" in path.read_text().split('"""')[1]


def test_presets_differ_in_the_fields_of_the_table_alone():
    paper, authors = (resolve(default(preset)).to_dict() for preset in PRESETS)
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
        "mrdiff.wavelet_of",
        "mrdiff.spectral_norm",
        "mrdiff.joint_mean",
        "mrdiff.draw_reduction",
        "mrdiff.cct_normalize",
        "mrdiff.cct_stop_gradient",
    }


def test_adni_and_spine_follow_the_paper():
    configs = {path.stem: resolve(load(path)) for path in CONFIGS}
    adni, spine = configs["adni"], configs["spine"]
    assert (adni.data.sources, adni.data.target, adni.train.steps) == ("T2w,PDw", "T1w", 350_000)
    assert (spine.data.sources, spine.data.target, spine.train.steps) == ("T1w,T2w", "T2wFS", 300_000)
    for config in (adni, spine):
        assert config.data.image_size == 256
        assert config.data.batch_size == 8
        assert config.sample.steps == 50
        assert (config.own.draws, config.own.lambda_g, config.own.lambda_d, config.own.lambda_cct) == (3, 1, 1, 0.01)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("sample.sampler", "heun", r"--config\.sample\.sampler=heun: choose one of ddim, ddpm, dpm"),
        ("train.steps", 0, r"--config\.train\.steps=0: must be at least 1"),
        ("model.channel_mult", (), r"--config\.model\.channel_mult=\(\): give a number"),
        ("model.attention_levels", (2, 5), r"--config\.model\.attention_levels=\(2, 5\): give levels of 0 to 4"),
        ("data.percentiles", (1.0, 2.0, 3.0), r"--config\.data\.percentiles=.*two rising numbers"),
        ("data.percentiles", (99.0, 1.0), r"--config\.data\.percentiles=.*two rising numbers"),
        (
            "data.name",
            "phantum",
            r"--config\.data\.name=phantum: choose one of phantom, .*; did you mean phantom\?",
        ),
        ("evaluate.studies", "sampling,lesion", r"studies=sampling,lesion: no study 'lesion'; .*did you mean lesions\?"),
        ("evaluate.panels", 0, r"--config\.evaluate\.panels=0: must be at least 1"),
        ("train.seed", -1, r"--config\.train\.seed=-1: must be at least 0"),
        ("data.seed", 2**32, r"--config\.data\.seed=4294967296: must be at most 4294967295"),
        ("mrdiff.lambda_cct", -0.1, r"--config\.mrdiff\.lambda_cct=-0\.1: must be at least 0"),
        ("optimizer.weight_decay", -1.0, r"--config\.optimizer\.weight_decay=-1\.0: must be at least 0"),
        ("model.channel_mult", (1, 1.5), r"--config\.model\.channel_mult=\(1, 1\.5\): give whole numbers"),
        ("data.percentiles", ("low", 99.0), r"--config\.data\.percentiles=.*: give numbers"),
        ("data.percentiles", (0.5, float("nan")), r"--config\.data\.percentiles=.*must be a finite number"),
        ("sample.eta", 1.5, r"--config\.sample\.eta=1\.5: must be at most 1"),
    ],
)
def test_wrong_values_name_the_field_and_the_choices(field, value, message):
    config = default("paper")
    config.update_from_flattened_dict({field: value})
    with pytest.raises(UserError, match=message):
        resolve(config)


def test_unknown_preset_lists_the_presets():
    with pytest.raises(UserError, match=r":author'.*:paper, :authors"):
        default("author")


SECTIONS = config_module.SHARED | {name: methods.settings(name) for name in methods.NAMES}


def declared(section, prefix):
    """The fields of a section and of those in it, by flag."""
    for entry in dataclasses.fields(section):
        value = getattr(section(), entry.name)
        if dataclasses.is_dataclass(value):
            yield from declared(type(value), f"{prefix}.{entry.name}")
        else:
            yield f"{prefix}.{entry.name}", entry, fields.value_type(entry)


FIELDS = [found for name, section in SECTIONS.items() for found in declared(section, name)]


@pytest.mark.parametrize(("name", "entry", "kind"), FIELDS, ids=[name for name, *_ in FIELDS])
def test_every_field_says_what_it_means_and_every_number_has_a_range(name, entry, kind):
    assert entry.metadata["doc"]
    if kind in (int, float, tuple):
        assert entry.metadata["least"] is not None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", [name for name, _, kind in FIELDS if kind is float])
def test_numbers_are_finite(name, value):
    config = default("paper")
    config.method.name = name.partition(".")[0] if name.partition(".")[0] in methods.NAMES else "mrdiff"
    config.update_from_flattened_dict({name: value})
    with pytest.raises(UserError, match=f"--config.{name}={value}: must be a finite number"):
        resolve(config)


@pytest.mark.parametrize("name", methods.NAMES)
def test_the_name_alone_switches_a_config_to_a_method_and_its_recipe(name):
    config = default()
    config.method.name = name
    config.data.image_size = 64
    resolved = resolve(config)
    assert resolved.own == methods.settings(name)()
    assert resolved.optimizer == resolved.own.optimizer
    assert set(resolved.to_dict()) - set(config_module.SHARED) == {name}
    assert from_json(json.loads(json.dumps(resolved.to_dict()))) == resolved


def test_shared_fields_override_the_recipe_of_the_chosen_method_and_other_methods_do_not_matter():
    config = default()
    config.pix2pix.lambda_l1 = -1.0  # wrong, but of another method
    config.optimizer.learning_rate = 0.5
    config.sample.steps = 7
    resolved = resolve(config)
    assert resolved.optimizer.learning_rate == 0.5
    assert resolved.optimizer.ema_decay == 0.9999
    assert resolved.sample.steps == 7
    config.method.name = "regression"
    assert resolve(config).sample is None
    assert "sample" not in resolve(config).to_dict()


@pytest.mark.parametrize(
    ("method", "data", "field", "flag"),
    [
        ("mrdiff", "phantom", "hinet.base_channels", "method.name=mrdiff"),
        ("mrdiff", "phantom", "cm.optimizer.learning_rate", "method.name=mrdiff"),
        ("pix2pix", "phantom", "model.base_channels", "method.name=pix2pix"),
        ("regression", "phantom", "sample.steps", "method.name=regression"),
        ("cdpm", "phantom", "model.head_channels", "method.name=cdpm"),
        ("mrdiff", "prepared", "data.percentiles", "data.name=prepared"),
        ("mrdiff", "bids", "data.subjects", "data.name=bids"),
        ("mrdiff", "phantom", "data.root", "data.name=phantom"),
    ],
)
def test_a_field_without_meaning_counts_nowhere_and_is_warned_of_as_a_flag(method, data, field, flag, caplog):
    plain = default()
    plain.update_from_flattened_dict({"method.name": method, "data.name": data})
    config = plain.copy_and_resolve_references()
    other = {"data.percentiles": (1.0, 2.0), "data.root": "elsewhere", "cm.optimizer.learning_rate": 0.5}.get(field, 9)
    config.update_from_flattened_dict({field: other})
    assert resolve(config) == resolve(plain)
    assert field not in {f"{section}.{name}" for section, entries in resolve(config).to_dict().items() for name in entries}
    assert from_json(resolve(config).to_dict()) == resolve(plain)
    config_module.warn_of_ignored(resolve(config), ["train.steps", field])
    assert [f"--config.{field}: has no meaning for --config.{flag}, and is left out"] == caplog.messages


def test_fields_with_a_meaning_are_taken_as_flags_without_a_word(caplog):
    config = default()
    for method, given in (
        ("mrdiff", ["mrdiff.draws", "model.head_channels", "sample.eta", "data.seed", "optimizer.b1", "evaluate.samples"]),
        ("hinet", ["hinet.optimizer.b1", "optimizer.b1", "data.split_seed"]),
        ("cdpm", ["model.norm_groups", "sample.steps"]),
    ):
        config.update_from_flattened_dict({"method.name": method, "data.name": "phantom"})
        config_module.warn_of_ignored(resolve(config), given)
    assert not caplog.messages


def test_fields_of_other_versions():
    values = resolve(default()).to_dict()
    assert from_json(values | {"evaluate": values["evaluate"] | {"robustness": True}}) == resolve(default())
    with pytest.raises(UserError, match=r"config\.loss: a section that this version does not know"):
        from_json(values | {"loss": {"draws": 3}})
    with pytest.raises(UserError, match=r"config\.mrdif: a section that this version does not know; did you mean mrdiff\?"):
        from_json(values | {"mrdif": {"draws": 3}})
    with pytest.raises(UserError, match=r"config\.mrdiff\.drawz: a field that this version .*; did you mean draws\?"):
        from_json(values | {"mrdiff": {"drawz": 3}})


@pytest.mark.parametrize("method", methods.NAMES)
def test_the_settings_of_a_run_can_still_be_changed_by_both_spellings_of_its_recipe(method):
    config = small("authors")
    config.method.name = method
    config.optimizer.weight_decay = 0.01
    written = resolve(config)
    read = fields_from_json(json.loads(json.dumps(written.to_dict())))
    assert resolve(read).to_dict() == written.to_dict()
    read[method].optimizer.learning_rate = 0.5
    assert resolve(read).optimizer.learning_rate == 0.5
    if written.sample:
        read[method].sample.steps = 3
        assert resolve(read).sample.steps == 3
        read.sample.steps = 4
        assert resolve(read).sample.steps == 4
