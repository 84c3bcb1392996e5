"""Two faked devices, one compilation cache for the session, and a network small enough to compile in seconds."""

import gc
import os
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2".strip()
# Tiny programs: compiling them takes longer than running them, and without XLA's fusion emitters a quarter of that.
os.environ["XLA_FLAGS"] += " --xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
os.environ["XLA_FLAGS"] += " --xla_cpu_parallel_codegen_split_count=1"  # in one piece: 0.9 of the time
os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")  # with which commands need not start themselves again
os.environ.setdefault("MRDIFF_CACHE", tempfile.mkdtemp(prefix="mrdiff-tests-"))

import jax
import numpy as np
import pytest
from helpers.scans import write_subjects

import mrdiff_jax
from mrdiff_jax.config import default
from mrdiff_jax.measuring import networks

jax.config.update("jax_compilation_cache_dir", os.path.join(os.environ["MRDIFF_CACHE"], "xla"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)

TINY = networks.TINY | {
    "data.name": "phantom",
    "data.sources": "T2w,PDw",
    "data.target": "T1w",
    "optimizer.learning_rate": 1e-3,
    "train.steps": 4,
    "train.log_every": 2,
    "train.evaluate_every": 2,
    "train.checkpoint_every": 2,
    "sample.steps": 2,
    "evaluate.batch_size": 4,
    "evaluate.panels": 2,
}


SLOW = ("notebooks", "tools", "training", "methods")  # folders whose files take minutes


def pytest_collection_modifyitems(items):
    """Slow files first, so that in the end no worker has one to itself while the others wait."""
    items.sort(key=lambda item: item.path.parent.name not in SLOW)


def forget_programs():
    """Drops what was compiled: each program takes memory maps, of which a Linux process may have 65,530."""
    jax.clear_caches()
    gc.collect()


@pytest.fixture(autouse=True, scope="module")
def programs_of_one_file():
    """Programs of a file's tests go with it."""
    yield
    forget_programs()


@pytest.fixture
def tiny_config():
    """Training of a tiny network on a tiny phantom."""
    config = default("paper")
    config.update_from_flattened_dict(TINY)
    return config


@pytest.fixture
def tiny_flags():
    """The same, as flags."""
    return [f"--config.{field}={value}" for field, value in TINY.items()]


@pytest.fixture(scope="session")
def workdir(tmp_path_factory):
    """A trained run, as far as synthesis needs it; not to be changed."""
    from helpers.models import tiny, write_run

    return write_run(tmp_path_factory.mktemp("run") / "mrdiff", tiny())


@pytest.fixture(scope="session")
def synthesizer(workdir):
    """Its synthesizer."""
    return mrdiff_jax.Synthesizer.load(workdir)


@pytest.fixture
def pair(tmp_path):
    """Both sources of that model, on one grid, without sidecars."""
    from helpers.heads import TIMES, affine_of, save

    return {name: save(tmp_path / f"{name}.nii.gz", affine_of()) for name in TIMES}


@pytest.fixture
def root(tmp_path):
    """A BIDS folder of three subjects with T1w, T2w and FLAIR."""
    return write_subjects(tmp_path / "scans")


@pytest.fixture
def batch():
    """A batch of two random examples for the tiny network."""
    return make_batch(2)


def make_batch(examples: int, size: int = 16, sources: int = 2, seed: int = 0) -> dict[str, np.ndarray]:
    """Random images and plausible scan parameters."""
    rng = np.random.default_rng(seed)
    return {
        "sources": rng.random((examples, size, size, sources), np.float32),
        "target": rng.random((examples, size, size), np.float32),
        "tr": rng.uniform(400, 5000, (examples, sources)).astype(np.float32),
        "te": rng.uniform(9, 110, (examples, sources)).astype(np.float32),
        "ti": np.full((examples, sources), 1000, np.float32),
    }
