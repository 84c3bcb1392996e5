from types import SimpleNamespace

from mrdiff_jax.config import default, resolve
from mrdiff_jax.workdir import identity


def flags_of(method, data):
    config = default()
    config.update_from_flattened_dict({"method.name": method, "data.name": data})
    return set(identity(resolve(config), SimpleNamespace(fingerprint="0123")))


def test_a_run_is_known_by_what_its_method_and_its_data_read():
    mrdiff, pix2pix = flags_of("mrdiff", "phantom"), flags_of("pix2pix", "phantom")
    assert {"--config.model.base_channels", "--config.mrdiff.draws", "--config.data.seed", "the data set"} < mrdiff
    assert not {flag for flag in pix2pix if flag.startswith(("--config.model.", "--config.mrdiff."))}
    assert "--config.model.head_channels" not in flags_of("cdpm", "phantom")
    prepared = {flag for flag in flags_of("mrdiff", "prepared") if flag.startswith("--config.data.")}
    assert prepared == {
        f"--config.data.{name}" for name in ("name", "sources", "target", "image_size", "batch_size", "mirror", "intensity")
    }
