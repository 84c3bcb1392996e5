"""results.json and results.md: what the parts of a measurement find, each in a process of its own."""

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mrdiff_jax.measuring.timing import Record
from mrdiff_jax.storage import json_files
from mrdiff_jax.storage.files import commit, write_text

Results = dict[str, dict[str, Record]]  # by part and by measurement
Save = Callable[[str, Record], None]
PROCESS = "process"  # how a part's process ended


@dataclass(frozen=True)
class Report:
    """A folder with results.json and results.md, which are written anew with every measurement.

    Attributes:
      folder: where they are.
      markdown: from the results to the text of results.md.
    """

    folder: Path
    markdown: Callable[[Results], str]

    def begin(self, keep: bool = False) -> None:
        """Makes the folder; what was measured into it before goes, or stays until its part is measured again.

        Raises:
          UserError: results to keep are not readable.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write(self.read() if keep else {})

    def read(self) -> Results:
        """All that was found until now."""
        path = self.folder / "results.json"
        return json_files.read(path, "remove it") if path.exists() else {}

    def add(self, part: str, name: str, record: Record) -> None:
        """Writes a measurement of a part, in the place of an earlier one of its name."""
        results = self.read()
        results.setdefault(part, {})[name] = record
        self._write(results)
        print(f"  {name}: {brief(record)}", flush=True)

    def has(self, part: str) -> bool:
        """Whether a part was measured to its end, by the commit of now."""
        process = self.read().get(part, {}).get(PROCESS, {})
        return process.get("ended") == "finished" and process.get("commit") == commit()

    def run(self, part: str, command: Sequence[Any], limit: float | None = None) -> bool:
        """Runs the process of a part, which adds what it finds, for at most `limit` seconds; whether it did not fail."""
        self._write({name: found for name, found in self.read().items() if name != part})
        begun = time.monotonic()
        ended = wait(command, limit)
        self.add(part, PROCESS, {"ended": ended, "seconds": time.monotonic() - begun, "commit": commit()})
        return not ended.startswith("failed")

    def _write(self, results: Results) -> None:
        json_files.write(self.folder / "results.json", results)
        write_text(self.folder / "results.md", self.markdown(results))


def wait(command: Sequence[Any], limit: float | None = None) -> str:
    """How a process ended that has that many seconds: 'finished', 'out of time' or 'failed', with the end of what it said."""
    environment = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.95"} | os.environ | {"PYTHONUNBUFFERED": "1"}
    with tempfile.TemporaryFile("w+") as errors:
        try:
            code = subprocess.run(command, env=environment, timeout=limit, stderr=errors, check=False).returncode
        except subprocess.TimeoutExpired:
            return "out of time"
        errors.seek(0)
        said = errors.read()
    if code:
        print(said[-3000:], flush=True)
    return "finished" if not code else f"failed ({code}): {said.strip()[-300:]}"


def measurements(found: Mapping[str, Record]) -> dict[str, Record]:
    """What a part found, without how its process ended."""
    return {name: record for name, record in found.items() if name != PROCESS}


def ends(results: Results) -> list[str]:
    """A table of how the parts ended."""
    return table("How each part ended", {part: found[PROCESS] for part, found in results.items() if PROCESS in found})


def brief(record: Mapping[str, Any]) -> str:
    """A record in one line."""
    return ", ".join(f"{key} {_cell(value)}" for key, value in record.items())


def table(title: str, rows: Mapping[str, Record], columns: Sequence[str] | None = None) -> list[str]:
    """A Markdown table, a line each, of the columns that some row has; of all where none are named."""
    if not rows:
        return []
    there = list(dict.fromkeys(column for row in rows.values() for column in row))
    columns = there if columns is None else [column for column in columns if column in there]
    if not columns:
        return ["", f"## {title}", "", *(f"- {name}: {brief(row)}" for name, row in rows.items())]
    lines = ["", f"## {title}", "", f"| | {' | '.join(columns)} |", "|---|" + "---|" * len(columns)]
    return lines + [
        f"| {name} | {' | '.join(_cell(row.get(column, '')) for column in columns)} |" for name, row in rows.items()
    ]


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("\n", " ").replace("|", "/")
