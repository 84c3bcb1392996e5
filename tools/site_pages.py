"""Pages of the documentation that are made from what they describe: a hook of mkdocs.

mkdocs build          # mkdocs.yml names this file
"""

import dataclasses
from base64 import b64decode
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from nbconvert import MarkdownExporter

from mrdiff_jax import methods
from mrdiff_jax.config import SHARED
from mrdiff_jax.fields import Optimizer, Sampling

ROOT = Path(__file__).resolve().parents[1]
LEAD = """# Configuration

Every field of the configuration, with its default. `--config.data.image_size=128` sets one on the command line; what a file in
`configs/` changes of the defaults stands there. A field whose default is *recipe* has the value that the chosen method's own
section gives it, unless it is set.

The first tables are of the sections that all methods share; after them comes each method's own, with its published recipe. Of
optimiser and sampling it lists what differs from those of `mrdiff`: Adam, 2e-4, an average of 0.9999, 50 steps of DDIM, eta 1.
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages."""
    pages = {"configuration.md": configuration(), "contributing.md": (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        pages |= notebook(path)
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    return files


def notebook(path: Path) -> Mapping[str, str | bytes]:
    """A notebook with its outputs as a page, and its pictures."""
    cells, name, pictures = nbformat.read(path, as_version=4), path.stem, {}
    for output in (output for cell in cells.cells for output in cell.get("outputs", ())):
        if gif := output.get("data", {}).pop("image/gif", None):  # the exporter knows still pictures alone
            file = f"{name}_files/{len(pictures)}.gif"
            output["data"] = {"text/markdown": f"![animation]({file})"}
            pictures[file] = b64decode(gif)
    resources = {"unique_key": name, "output_files_dir": f"{name}_files"}
    text, found = MarkdownExporter().from_notebook_node(cells, resources)
    text = text.replace("![png]", "![output]")
    return {f"{name}.md": text} | pictures | found["outputs"]


def configuration() -> str:
    """The tables of all sections."""
    sections = SHARED | {name: methods.settings(name) for name in methods.NAMES}
    return LEAD + "".join(section(name, kind) for name, kind in sections.items())


def section(name: str, kind: type) -> str:
    """The table of a section."""
    doc = " ".join((kind.__doc__ or "").split())
    rows = "".join(f"| `{field}` | {default} | {meaning} |\n" for field, default, meaning in fields(kind()))
    return f"\n## config.{name}\n\n{doc}\n\n| field | default | meaning |\n|---|---|---|\n{rows}"


def fields(values: Any, path: str = "") -> Iterator[tuple[str, str, str]]:
    """Name, default and meaning of each field; of a nested section those that differ from what its kind has."""
    for entry in dataclasses.fields(values):
        value = getattr(values, entry.name)
        if dataclasses.is_dataclass(value):
            usual = {Optimizer: Optimizer(), Sampling: Sampling()}[type(value)]
            own = fields(value, f"{entry.name}.")
            differ = [getattr(value, f.name) != getattr(usual, f.name) for f in dataclasses.fields(value)]
            yield from (row for row, other in zip(own, differ, strict=True) if other)
            continue
        rule = entry.metadata
        limits = [f"one of {', '.join(rule['choices'])}"] if rule["choices"] else []
        limits += [f"from {rule['least']:g}"] if rule["least"] is not None else []
        limits += [f"to {rule['most']:g}"] if rule["most"] is not None else []
        meaning = rule["doc"] + (f" ({' '.join(limits)})" if limits else "")
        default = "*recipe*" if value is None else f"`{value!r}`"
        yield f"{path}{entry.name}", default, meaning.replace("|", "\\|")
