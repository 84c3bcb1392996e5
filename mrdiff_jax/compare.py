"""Compares runs on the same test slices: mrdiff compare runs/mrdiff runs/regression --output comparison.

Each argument is a row of the tables: the workdir of a run, or those of several seeds, joined by commas.
"""

import re
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

from absl import flags

from mrdiff_jax import cli
from mrdiff_jax.errors import UserError
from mrdiff_jax.storage.paths import check_writable, local_path

_OUTPUT = flags.DEFINE_string("output", None, "Folder for the tables, the figures and the page.")
_NAMES = flags.DEFINE_list("names", None, "What to call the rows, comma-separated; default: the names of their folders.")
_SLICES = flags.DEFINE_integer("slices", 120, "Most slices to leaf through on the page; 0 is all.", lower_bound=0)
flags.mark_flag_as_required("output")


def main(arguments: Sequence[str]) -> None:
    """Reads the runs, writes the comparison and prints where it is."""
    from mrdiff_jax.comparison import output, seeds, tables
    from mrdiff_jax.comparison.runs import Comparison

    if not arguments:
        raise UserError("no run given; name the workdirs of one or more evaluated runs")
    folder, rows = local_path(_OUTPUT.value, "--output"), [_workdirs(argument) for argument in arguments]
    check_writable(folder)
    comparison = Comparison({name: seeds.read(workdirs) for name, workdirs in zip(_names(rows), rows, strict=True)})
    output.write(comparison, folder, _SLICES.value)
    print(tables.markdown(comparison))
    print(f"{folder / 'index.html'} holds the whole comparison; tables and figures lie beside it")


def _workdirs(argument: str) -> list[Path]:
    """The workdirs of a row; a folder that is there is one, commas in its name or not."""
    whole, parts = local_path(argument, "run"), argument.split(",")
    if whole.exists():
        return [whole]
    if not all(parts):
        raise UserError(f"{argument}: give the seeds of a row as RUN-0,RUN-1, without a space")
    return [local_path(part, "run") for part in parts]


def _names(rows: Sequence[Sequence[Path]]) -> list[str]:
    """What the rows are called: as stated, else after their folders, else, where those are equal, their paths."""
    names, workdirs = (
        _NAMES.value or [_folder_name(row) for row in rows],
        [workdir.resolve() for row in rows for workdir in row],
    )
    if not _NAMES.value and len(set(names)) < len(names):
        names = [",".join(map(str, row)) for row in rows]
    if len(set(workdirs)) < len(workdirs) or len(names) != len(rows) or len(set(names)) < len(names):
        raise UserError(f"--names={','.join(names)}: give each of the {len(rows)} rows a name of its own, and each run once")
    return names


def _folder_name(row: Sequence[Path]) -> str:
    """What the folders of a row begin with alike, without a number and separators at its end; else the first's name."""
    names = [workdir.resolve().name for workdir in row]
    if len(set(names)) == 1:
        return names[0]
    alike = takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    return re.sub(r"\d*$", "", "".join(letters[0] for letters in alike)).rstrip("-_. ") or names[0]


if __name__ == "__main__":
    cli.run(main, __doc__)
