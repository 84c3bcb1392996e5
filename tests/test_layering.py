"""A file imports only files of lower layers."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "mrdiff_jax"

LAYERS = [
    "__init__ errors log fields streams plotting pages host",
    "storage.files storage.paths storage.json_files storage.checksums storage.lock storage.scores storage.checkpoints",
    "scans.scan_path scans.wrap_around scans.air",
    "wavelets physics metrics.* metrics.conventions parallel",
    "diffusion.schedules diffusion.process diffusion.samplers diffusion.*",
    "networks.initializers networks.normalization networks.kernel_gradients networks.attention",
    "networks.convolutions networks.*",
    "methods.contract methods.distances methods.packing methods.optimizers methods.reading methods.transfer",
    "methods.cdpm.attention methods.cdpm.network methods.cdpm.method",
    "methods.mrdiff.settings methods.mrdiff.network methods.mrdiff.losses methods.mrdiff.*",
    "methods.conditional_gan methods.mrdiff methods.regression methods.pix2pix methods.hinet methods.resvit",
    "methods.blochgan methods.cm methods.cdpm methods.m2dn methods.__init__",
    "data.__init__ config",
    "preparation.options scans.sequence_times scans.vocabulary scans.spellings scans.descriptions scans.image_types",
    "scans.contrasts scans.header_evidence scans.dicom_stack scans.visits scans.same_patient",
    "scans.dicom_headers scans.dicom_pixels scans.dicom scans.nifti scans.itk_files",
    "scans.exam_files scans.exam scans.volumes scans.bids",
    "scans.archives scans.candidates scans.series_choice scans.layouts scans.nifti_frame",
    "preparation.registration preparation.bias_field preparation.alignment preparation.records",
    "preparation.placement preparation.common_grid",
    "preparation.intensity preparation.splits preparation.slicing preparation.slices data.augmentation",
    "preparation.example_files preparation.slice_set preparation.exam_task preparation.prepared_set",
    "data.identity data.study data.phantom data.bids data.datasets",
    "data.training_data data.batches",
    "preparation.checks preparation.manifest preparation.page preparation.workers preparation.cohort",
    "preparation.tasks preparation.report",
    "workdir settings_of_run synthesis.sampling",
    "evaluation.averages evaluation.baselines evaluation.results evaluation.scoring evaluation.figures",
    "evaluation.run_page evaluation.evaluator evaluation.studies.* evaluation.studies.__init__ evaluation.run",
    "training.meter training.writer training.time_limit training.step training.loop training.speed",
    "measuring.timing measuring.reports measuring.programs measuring.device measuring.networks measuring.pipeline",
    "measuring.start measuring.growth measuring.reading measuring.scores measuring.alternatives measuring.peers",
    "synthesis.model_files synthesis.synthesizer synthesis.from_scans synthesis.nifti_output",
    "synthesis.acquired synthesis.cohort synthesis.demonstration",
    "comparison.significance comparison.comparable comparison.seeds comparison.runs comparison.tables comparison.report",
    "comparison.output",
    "cli experiments.__init__ experiments.plan experiments.ablation experiments.runs experiments.command",
    "main compare prepare synthesize export __main__",
]
ORDER = [name for layer in LAYERS for name in layer.split()]
TEXTS = {path: path.read_text() for path in PACKAGE.rglob("*.py")}


def place(module: str) -> int:
    """Where a module of the package, as 'scans.volumes', stands in the order."""
    parts = module.split(".")
    for end in range(len(parts), 0, -1):
        prefix = ".".join(parts[:end])
        for name in (prefix, f"{prefix}.__init__", f"{prefix}.*"):
            if name in ORDER:
                return ORDER.index(name)
    raise AssertionError(f"mrdiff_jax.{module} has no place in the order of layers")


def imported(text: str) -> set[str]:
    """Modules of the package that a file imports, as 'scans.volumes'; '' is the package itself."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.level:
            raise AssertionError(f"line {node.lineno}: a relative import; name the module in full")
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "mrdiff_jax":
            base = node.module.partition(".")[2]
            folder = PACKAGE.joinpath(*base.split("."))
            for alias in node.names:
                is_module = (folder / f"{alias.name}.py").exists() or (folder / alias.name / "__init__.py").exists()
                found.add(f"{base}.{alias.name}".strip(".") if is_module else base)
        elif isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[2] for alias in node.names if alias.name.split(".")[0] == "mrdiff_jax"}
    return found


def test_imports_point_downwards():
    wrong = []
    for path, text in TEXTS.items():
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        if module.endswith(".__init__") and not imported(text):
            continue  # a room that says no more than its name
        own = place(module)
        package = module.split(".")[0]
        for other in imported(text) - {""}:
            inside = package == other.split(".")[0] and place(other) == own  # files of one concept, as metrics.*
            if place(other) >= own and not inside:
                wrong.append(f"{module} imports {other}")
    assert not wrong


def test_a_wrong_import_would_be_seen():
    assert imported("from mrdiff_jax import parallel\nfrom mrdiff_jax.data.datasets import open_dataset") == {
        "parallel",
        "data.datasets",
    }
    assert place("training.loop") > place("methods.mrdiff.losses") > place("physics")
    with pytest.raises(AssertionError, match="relative"):
        imported("from . import train")


def only_in(name: str, allowed: set[str]) -> bool:
    return {path.stem for path, text in TEXTS.items() if name in text} == allowed


def test_devices_orbax_and_event_files_are_known_to_one_file_each():
    assert only_in("jax.shard_map", {"parallel"})
    assert only_in("pmean", {"parallel"})
    assert only_in("import orbax", {"checkpoints"})
    assert only_in("import SummaryWriter", {"writer"})


PREPARING = {"SimpleITK", "nibabel", "nilearn", "pydicom"}
COMMANDS = ("__main__", "main", "prepare", "compare", "export", "synthesize")
READING_SLICES = {"tensorflow_datasets", "grain"}
SCORING = {"scipy.ndimage", "scipy.stats", "matplotlib"}  # what evaluations need, and a first step would wait for


@pytest.mark.parametrize(
    ("module", "heavy"),
    {
        **{name: {"jax", "matplotlib", "SimpleITK"} for name in COMMANDS},
        "training.loop": PREPARING | SCORING | {"tensorboardX"},
        "evaluation.run": PREPARING | SCORING | {"tensorboardX"},
        "comparison.output": PREPARING | READING_SLICES | {"tensorboardX", "orbax"},
        "synthesis.model_files": PREPARING | READING_SLICES | {"tensorboardX", "orbax", "matplotlib"},
        "synthesis.cohort": READING_SLICES | {"tensorboardX", "orbax", "matplotlib", "nilearn"},
        "data.training_data": PREPARING | READING_SLICES,
        "evaluation.results": PREPARING | READING_SLICES | {"flax", "orbax", "matplotlib"},
    }.items(),
)
def test_what_a_module_may_do_without_is_not_imported_with_it(module, heavy):
    code = f"import sys, mrdiff_jax.{module}; print(*{heavy} & sys.modules.keys())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (found.stdout.strip(), found.stderr) == ("", "")
