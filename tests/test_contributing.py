"""The worked examples of CONTRIBUTING.md, as somebody would save them: together they train."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

from mrdiff_jax import data, methods
from mrdiff_jax.training.loop import train_and_evaluate

TEXT = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")


@pytest.fixture
def examples(tmp_path, monkeypatch):
    """Both modules, registered as the text says."""
    codes = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    modules = {}
    for name, code in zip(("mrdiff_jax.methods.weighted", "mrdiff_jax.data.discs"), codes, strict=True):
        assert len(code.splitlines()) < 100
        path = tmp_path / f"{name.rpartition('.')[2]}.py"
        path.write_text(code)
        spec = importlib.util.spec_from_file_location(name, path)
        modules[name] = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, modules[name])
        spec.loader.exec_module(modules[name])
    monkeypatch.setattr(methods, "NAMES", (*methods.NAMES, "weighted"))
    monkeypatch.setattr(data, "NAMES", (*data.NAMES, "discs"))


def test_an_added_method_learns_an_added_data_set(examples, tiny_config, tmp_path):
    from mrdiff_jax.config import default

    config = default()
    config.update_from_flattened_dict({f"train.{name}": value for name, value in tiny_config.train.items()})
    config.method.name = "weighted"
    config.data.update(name="discs", sources="A,B", target="MEAN", image_size=32, batch_size=4, subjects=6)
    config.evaluate.update(batch_size=4, panels=2)
    config.train.update(steps=300, log_every=100, evaluate_every=1000, checkpoint_every=300)
    summary = train_and_evaluate(config, tmp_path / "run")
    assert summary.method == "weighted"
    assert summary.synthesis["psnr"] > 30  # the target is the mean of the sources
    assert summary.sample is None
