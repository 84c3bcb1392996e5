"""TR, TE and TI of scans: from sidecars, flags and tables, in milliseconds, and whether they can be true."""

import csv
import functools
import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mrdiff_jax.errors import UserError
from mrdiff_jax.scans.scan_path import ScanPath

# Times in seconds that are taken for milliseconds, or the other way round, fall outside of these.
PLAUSIBLE_MS = {"tr": (2.0, 60_000.0), "te": (1.0, 1000.0), "ti": (10.0, 10_000.0)}
SIDECAR_FIELDS = {"tr": "RepetitionTime", "te": "EchoTime", "ti": "InversionTime"}
CSV_COLUMNS = ("subject", "session", "contrast", "tr", "te", "ti")


class SequenceTimes(NamedTuple):
    """Sequence times in milliseconds; None where unknown."""

    tr: float | None = None
    te: float | None = None
    ti: float | None = None

    def or_else(self, other: "SequenceTimes") -> "SequenceTimes":
        """These times, and the other's where these are unknown."""
        return SequenceTimes(*(b if a is None else a for a, b in zip(self, other, strict=True)))


Stated = Mapping[str, SequenceTimes]  # by contrast
Overrides = Mapping[tuple[str, str, str], SequenceTimes]  # by subject, session and contrast; session '' is every session


def sidecar_path(path: Path) -> Path:
    """The JSON file that BIDS puts beside a scan."""
    return path.with_name(re.sub(r"(?i)\.(nii|nii\.gz|gz|mha|nrrd)$", "", path.name) + ".json")


def sidecars(path: Path) -> list[Path]:
    """The JSON files that describe a scan, the one whose word counts most first.

    The one beside it, and in BIDS folders those that it inherits: in the folders above, up to that of all subjects, files of
    the same suffix that name no entity which the scan lacks, as sub-01/sub-01_T1w.json and T1w.json.
    """
    own = sidecar_path(Path(os.path.abspath(path)))  # not resolved: a link's own folder counts
    *entities, suffix = own.stem.split("_")
    places = [own.parent]
    while places[-1].name == "anat" or places[-1].name.startswith(("ses-", "sub-")):
        places.append(places[-1].parent)
    inherited = (
        sidecar
        for place in places[1:]
        for sidecar in sorted(place.glob(f"*{suffix}.json"), key=lambda file: (-file.name.count("_"), file.name))
        if {*sidecar.stem.split("_")} <= {*entities, suffix} and sidecar.stem.split("_")[-1] == suffix
    )
    return [sidecar for sidecar in (own, *inherited) if sidecar.is_file()]


def read_sidecars(path: Path) -> SequenceTimes:
    """The times in the JSON sidecars (seconds) of the scan at `path`; None where it has none, or says 0.

    Raises:
      UserError: a sidecar is not JSON, or a time in it is not a number.
    """
    return functools.reduce(SequenceTimes.or_else, map(_read_sidecar, sidecars(Path(path))), SequenceTimes())


def sidecar_fields(path: Path) -> dict[str, Any]:
    """What the JSON sidecars of the scan at `path` say, the one whose word counts most before others.

    Raises UserError as `read_sidecars` does.
    """
    fields: dict[str, Any] = {}
    for sidecar in sidecars(Path(path)):
        fields = _fields(sidecar) | fields
    return fields


def _fields(sidecar: Path) -> dict[str, Any]:
    try:
        text = sidecar.read_bytes().decode("utf-8-sig")
        if "\0" in text:
            raise UnicodeError
        fields = json.loads(text)
    except UnicodeError:
        raise UserError(f"{sidecar}: its encoding is not UTF-8; save it as UTF-8, or remove it") from None
    except RecursionError:
        raise UserError(f"{sidecar}: its JSON is nested too deeply; fix or remove it") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{sidecar}: not valid JSON ({' '.join(str(error).split())}); fix or remove it") from None
    if not isinstance(fields, dict):
        raise UserError(f"{sidecar}: not a JSON object; fix or remove it")
    return fields


def _read_sidecar(sidecar: Path) -> SequenceTimes:
    fields = _fields(sidecar)

    def milliseconds(field: str) -> float | None:
        seconds = fields.get(field)
        if seconds is not None and (isinstance(seconds, bool) or not isinstance(seconds, int | float)):
            raise UserError(f"{sidecar}: {field} is {seconds!r}, not a number of seconds; fix it")
        return 1000.0 * seconds if seconds else None

    return SequenceTimes(*map(milliseconds, SIDECAR_FIELDS.values()))


def parse_stated(tr: str, te: str, ti: str, flag: str) -> dict[str, SequenceTimes]:
    """Times by contrast from texts such as 'T1w=500,FLAIR=9000' (ms).

    Raises:
      UserError: a text that cannot be read, with its flag: `flag` and 'tr', 'te' or 'ti'.
    """
    stated: dict[str, SequenceTimes] = {}
    for field, text in {"tr": tr, "te": te, "ti": ti}.items():
        for part in filter(str.strip, text.split(",")):
            contrast, _, milliseconds = part.partition("=")
            try:
                time = SequenceTimes(**{field: _number(milliseconds)})
            except ValueError:
                raise UserError(f"{flag}{field}: cannot read {text!r}; write it as T1w=500,FLAIR=9000 (ms)") from None
            stated[contrast.strip()] = time.or_else(stated.get(contrast.strip(), SequenceTimes()))
    return stated


def _number(text: str) -> float:
    """The number that a text says. Raises ValueError where it says none, NaN or infinity."""
    if not math.isfinite(number := float(text)):
        raise ValueError
    return number


def read_overrides(path: Path) -> Overrides:
    """Times from a CSV with the columns subject, [session,] contrast, tr, te, ti (ms); an empty cell is unknown.

    Raises:
      UserError: the table is missing, lacks a column, names a scan twice, or holds what is not a number.
    """
    path = Path(path)
    overrides: dict[tuple[str, str, str], SequenceTimes] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            if not {*CSV_COLUMNS} - {"session"} <= {*(rows.fieldnames or ())} <= {*CSV_COLUMNS}:
                raise UserError(f"{path}: needs the columns {', '.join(CSV_COLUMNS)} (session may be left out)")
            for row in rows:
                where = f"{path}, line {rows.line_num}"
                cells = {column: (row.get(column) or "").strip() for column in CSV_COLUMNS}
                scan = cells["subject"], cells["session"], cells["contrast"]
                if not (cells["subject"] and cells["contrast"]) or scan in overrides:
                    raise UserError(f"{where}: each row must name a subject and a contrast, once")
                try:
                    overrides[scan] = SequenceTimes(
                        *(_number(cells[field]) if cells[field] else None for field in SIDECAR_FIELDS)
                    )
                except ValueError:
                    raise UserError(f"{where}: tr, te and ti must be numbers (ms) or empty") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a readable CSV table ({error})") from None
    return overrides


def overrides_of(overrides: Overrides, subject: str, session: str) -> dict[str, SequenceTimes]:
    """The times that a table states for a subject's session, by contrast; rows of that session before those of all."""
    return merged(
        *(
            {contrast: times for (*exam, contrast), times in overrides.items() if exam == [subject, chosen]}
            for chosen in dict.fromkeys((session, ""))
        )
    )


def merged(*stated: Stated) -> dict[str, SequenceTimes]:
    """Times by contrast from several sources, the most trusted first."""
    result: dict[str, SequenceTimes] = {}
    for source in stated:
        for contrast, times in source.items():
            result[contrast] = result.get(contrast, SequenceTimes()).or_else(times)
    return result


def complete(
    recorded: SequenceTimes, stated: SequenceTimes, scan: Path | ScanPath, contrast: str, *, required: bool = True, flag: str
) -> SequenceTimes:
    """TR, TE and TI in ms of a scan: as recorded with it, else as stated; an unknown TI is 0.

    Where TR or TE is in neither, it is 0, or, if they are required, UserError is raised as by `require`; as it is, naming the
    scan, for implausible times.
    """
    times = recorded.or_else(stated)
    check(times, scan)
    if required:
        require([(scan, contrast, times)], flag)
    return SequenceTimes(*(time or 0.0 for time in times))


def require(scans: Iterable[tuple[Path | ScanPath, str, SequenceTimes]], flag: str) -> None:
    """Raises UserError for scans (path, contrast, times) without TR or TE, and says with which flags to state all of them.

    A flag is `flag` and 'tr' or 'te'.
    """
    lacking = [
        (path, contrast, field) for path, contrast, times in scans for field in ("tr", "te") if not getattr(times, field)
    ]
    if not lacking:
        return
    first = lacking[0][0]
    fields = ", ".join(f"no {SIDECAR_FIELDS[field]}" for path, _, field in lacking if path == first)
    more = len({path for path, _, _ in lacking}) - 1
    others = f" (and {more} more {'scan' if more == 1 else 'scans'})" if more else ""
    flags = []
    for wanted in ("tr", "te"):
        contrasts = dict.fromkeys(contrast for _, contrast, field in lacking if field == wanted)
        if contrasts:
            flags.append(f"{flag}{wanted}={','.join(f'{contrast}=MILLISECONDS' for contrast in contrasts)}")
    raise UserError(f"{first}{others}: {fields} in header or sidecar; give {' '.join(flags)}")


def check(times: SequenceTimes, scan: Path | ScanPath | str) -> None:
    """Raises UserError, naming the scan or the contrast, for known times that no pulse sequence has: mostly a mistaken unit."""
    fix = "fix what its header or sidecar (seconds) says, or what is stated for it (milliseconds)"
    for field, (low, high) in PLAUSIBLE_MS.items():
        value = getattr(times, field)
        if value is None or low <= value < high or (field == "ti" and value == 0):
            continue
        guess = (
            "; seconds taken for milliseconds?" if 0 < value < low else "; milliseconds taken for seconds?" if value > 0 else ""
        )
        raise UserError(f"{scan}: {field.upper()} {value:g} ms is implausible, not {low:g} to {high:g}{guess}; {fix}")
    if times.tr is not None and times.te is not None and times.te >= times.tr:
        raise UserError(f"{scan}: TE {times.te:g} ms in a TR of {times.tr:g} ms is implausible; {fix}")
