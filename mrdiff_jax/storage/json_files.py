"""JSON as every reader takes it: no NaN, no Infinity; files that are there whole or not at all."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mrdiff_jax.errors import UserError
from mrdiff_jax.storage.files import write_text


def text(values: Any, indent: int | None = None) -> str:
    """The JSON of values; numbers that are not finite, which JSON has not, become null."""
    return json.dumps(_finite(values), indent=indent, allow_nan=False)


def write(path: Path, values: Any) -> None:
    """Writes a file for people to read, too."""
    write_text(path, text(values, indent=2) + "\n")


def read(path: Path, otherwise: str) -> dict[str, Any]:
    """The object in a file.

    Raises:
      UserError: there is no such file, or no object in it; the message ends with what to do `otherwise`.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {otherwise}") from None
    except (OSError, ValueError) as error:
        why = "is empty" if path.is_file() and not path.stat().st_size else " ".join(str(error).split())
        raise UserError(f"{path}: not readable as JSON ({why}); {otherwise}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: not a JSON object; {otherwise}")
    return values


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
