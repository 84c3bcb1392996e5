"""A file imports only files of lower layers."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "mrdiff_jax"

LAYERS = [
    "__init__ errors files paths json_files checksums",
    "wavelets physics diffusion metrics stats significance conventions config",
    "layers unet model losses authors_weights",
    "data.options data.sequence_times data.descriptions data.contrasts data.stacks",
    "data.dicom_headers data.dicom_pixels data.dicom data.air data.nifti data.volumes data.archives data.layouts",
    "data.identity data.registration data.correction data.alignment data.placement",
    "data.phantom data.visits data.preprocessing data.augmentation data.preparation data.builder data.prepared data.pipeline",
    "data.batches",
    "data.slicing data.frames",
    "methods.__init__ methods.*",
    "parallel train_state writer lock checkpoints meter figures references results scoring evaluate studies train",
    "trained synthesizer",
    "comparison tables report prepared_page",
    "inference outputs cohort",
    "cli main compare prepare synthesize export",
]
ORDER = [name for layer in LAYERS for name in layer.split()]
TEXTS = {path: path.read_text() for path in PACKAGE.rglob("*.py")}


def place(module: str) -> int:
    """Where a module of the package, as 'data.volumes', stands in the order."""
    parts = module.split(".")
    for name in (module, f"{module}.__init__", parts[0], f"{parts[0]}.*"):
        if name in ORDER:
            return ORDER.index(name)
    raise AssertionError(f"mrdiff_jax.{module} has no place in the order of layers")


def imported(text: str) -> set[str]:
    """Modules of the package that a file imports, as 'data.volumes'; '' is the package itself."""
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
        if module.endswith(".__init__") and module.split(".")[0] == "data":
            continue
        own = place(module)
        package = module.split(".")[0]
        for other in imported(text) - {""}:
            inside = package == other.split(".")[0] and place(other) == own  # files of one concept, as metrics.*
            if place(other) >= own and not inside:
                wrong.append(f"{module} imports {other}")
    assert not wrong


def test_a_wrong_import_would_be_seen():
    assert imported("from mrdiff_jax import parallel\nfrom mrdiff_jax.data.pipeline import open_dataset") == {
        "parallel",
        "data.pipeline",
    }
    assert place("train") > place("losses") > place("physics")
    with pytest.raises(AssertionError, match="relative"):
        imported("from . import train")


def only_in(name: str, allowed: set[str]) -> bool:
    return {path.stem for path, text in TEXTS.items() if name in text} == allowed


def test_pmap_orbax_and_event_files_are_known_to_one_file_each():
    assert only_in("jax.pmap", {"parallel"})
    assert only_in("pmean", {"parallel"})
    assert only_in("import orbax", {"checkpoints"})
    assert only_in("import SummaryWriter", {"writer"})
