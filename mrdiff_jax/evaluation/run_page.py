"""report.html: one run to look at, from what lies in its workdir."""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from mrdiff_jax import config, pages
from mrdiff_jax.evaluation.results import SUMMARY
from mrdiff_jax.fields import split_names
from mrdiff_jax.log import logger
from mrdiff_jax.metrics.conventions import ERRORS, METRICS
from mrdiff_jax.storage import json_files
from mrdiff_jax.storage.files import write_text
from mrdiff_jax.workdir import CONFIG, LOG, PANELS, SAMPLES

NAME = "report.html"
MOST_PANELS = 24  # pictures of the training
LOSS, VALIDATION = "train/L_", "validation/"  # how the names of such scalars begin

Values = Mapping[str, Any]


def write(workdir: Path) -> bool:
    """Writes the page of the run; where that fails it is said, and no more: numbers and checkpoints are worth more."""
    try:
        write_text(workdir / NAME, page(workdir))
    except Exception as error:
        logger.warning("%s: could not be written (%s)", workdir / NAME, " ".join(str(error).split())[:120])
        return False
    return True


def page(workdir: Path) -> str:
    """The page as HTML that needs no other file and no network; scores are there once the run has been evaluated."""
    settings = json_files.read(workdir / CONFIG, "")
    summary = json_files.read(workdir / SUMMARY, "") if (workdir / SUMMARY).is_file() else {}
    scalars = list(_scalars(workdir / LOG))
    method, data, steps = settings["method"]["name"], settings["data"], settings["train"]["steps"]
    last = scalars[-1]["step"] if scalars else summary.get("step", 0)
    return pages.fill(
        "run",
        title=f"{method}: {' + '.join(split_names(data['sources']))} → {data['target']}",
        lead=f"Step {last} of {steps}; data set “{data['name']}”, {data['image_size']} x {data['image_size']}.",
        footer="Written by mrdiff train. Research use only: synthetic images can mislead.",
        scores=_scores(summary) if summary else "<p>The run has not been evaluated yet.</p>",
        images_lead="Validation slices as the training went on, and in the end slices of the subjects that were scored.",
        curves=_curves(scalars),
        further=_further(workdir, data),
        settings=_settings(settings),
        data=list(_panels(workdir, summary)),
    )


def _scalars(path: Path) -> Iterator[Values]:
    """The lines of the log but for one that a killed process left half written."""
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            yield json.loads(line)
        except ValueError:
            continue


def _scores(summary: Values) -> str:
    """A table of the whole slice, and one of the body where the convention has it, with the references."""
    sample = summary.get("sample") or {}
    how = [f"{summary['subjects']} {summary['split']} subjects", f"{summary['slices']} slices", _step(summary)]
    how += [", ".join(f"{name} {value}" for name, value in sample.items())] if sample else []
    how += [f"seed {summary['seed']}", f"convention “{summary['convention']['name']}”"]
    parts = [f"<p>{escape('; '.join(how))}.</p>"]
    for heading, where, entry in (("Whole slice", "", summary), ("Inside the body", "_body", summary.get("body"))):
        if entry:
            columns = [f"{name}{where}" for name in (*METRICS, *ERRORS)]
            rows = {"synthesis": entry["synthesis"] | summary["errors"]["synthesis"]}
            for name, scores in reversed(entry["references"].items()):
                label = f"copy of {summary['copied']}" if name == "copy" else "linear regression"
                rows[label] = scores | summary["errors"]["references"][name]
            cells = [_row(name, [scores[column] for column in columns]) for name, scores in rows.items()]
            head = [name.upper() for name in (*METRICS, *ERRORS)]
            parts.append(f"<h3>{heading}</h3>{pages.table(['', *head], cells, sortable=False)}")
    return "".join(parts)


def _step(summary: Values) -> str:
    step, trained = summary["step"], summary.get("trained", summary["step"])
    return f"step {step}" if step == trained else f"step {step}, the best by validation of {trained}"


def _row(name: str, values: Sequence[float | None]) -> str:
    texts = ["–" if value is None else f"{value:.2f}" if abs(value) >= 2 else f"{value:.4f}" for value in values]
    kind = "" if name == "synthesis" else ' class="reference"'
    return f"<tr{kind}><td>{escape(name)}</td>{''.join(f'<td>{text}</td>' for text in texts)}</tr>"


def _panels(workdir: Path, summary: Values) -> Iterator[dict[str, str]]:
    """The pictures of the training, evenly spread where there are many, then that of the evaluation."""
    found = sorted((workdir / PANELS).glob("step_*.png"))
    every = -(-len(found) // MOST_PANELS) or 1
    for path in found[::-1][::every][::-1]:  # the last is always among them
        yield {"title": f"validation, step {int(path.stem.removeprefix('step_'))}", "image": pages.data_url(path.read_bytes())}
    if summary and (workdir / SAMPLES).is_file():
        title = f"{summary['split']} subjects, step {summary['step']}"
        yield {"title": title, "image": pages.data_url((workdir / SAMPLES).read_bytes())}


def _curves(scalars: Sequence[Values]) -> str:
    from mrdiff_jax.evaluation import figures  # not above: matplotlib takes a second, for which the first step would wait

    captions = {
        LOSS: ("Losses", "Means since the line before in the log, on a logarithmic scale where they span a factor of three."),
        VALIDATION: ("Validation", "Mean scores of the validation subjects."),
    }
    parts = []
    for prefix, (title, caption) in captions.items():
        names = dict.fromkeys(name for row in scalars for name in row if name.startswith(prefix))
        series = {name.removeprefix("train/").removeprefix(prefix): _series(scalars, name) for name in names}
        if series:
            png = figures.curves(series, logarithmic=prefix == LOSS)
            parts.append(pages.picture(png, title, caption))
    return "".join(parts) or "<p>Nothing has been logged yet.</p>"


def _series(scalars: Sequence[Values], name: str) -> tuple[list[int], list[float]]:
    rows = [row for row in scalars if row.get(name) is not None]
    return [row["step"] for row in rows], [row[name] for row in rows]


def _further(workdir: Path, data: Values) -> str:
    """Commands to paste into a shell."""
    run, target = shlex.quote(str(workdir)), data["target"]
    sources = " ".join(f"--source {shlex.quote(f'{name}=SCAN')}" for name in split_names(data["sources"]))
    output = shlex.quote(f"{target}.nii.gz")
    commands = {
        "Go on from the newest checkpoint, to STEPS steps:": f"mrdiff train --workdir={run} --config.train.steps=STEPS",
        "Score anew by the settings of the training, with all studies; the scores above are replaced:": (
            f"mrdiff train --workdir={run} --mode=eval --config.evaluate.studies=all"
        ),
        "Synthesise from scans:": f"mrdiff synthesize --workdir={run} {sources} --output {output}",
        "Compare with another run on the same test slices:": f"mrdiff compare {run} OTHER --output comparison",
        "Pass the weights on:": f"mrdiff export --workdir={run} --output=model.safetensors",
        "All numbers of the training, in TensorBoard:": f"tensorboard --logdir {run}",
    }
    return "".join(f"<p>{what}</p><pre><code>{escape(code)}</code></pre>" for what, code in commands.items())


def _settings(settings: Values) -> str:
    """A table a section; values that differ from the defaults, of the method's recipe where it has them, are bold.

    How the run was evaluated may differ from what these settings say of it, and stands with the scores.
    """
    usual = json.loads(config.default().to_json())  # JSON has lists for tuples, and so have the settings
    usual |= {part: usual[settings["method"]["name"]].get(part, {}) for part in ("optimizer", "sample")}
    parts = []
    for section, fields in settings.items():
        if section in ("sample", "evaluate"):
            continue
        rows = []
        for name, value in fields.items():
            text = escape(json.dumps(value))
            text = text if usual[section][name] == value else f"<b>{text}</b>"
            rows.append(f"<tr><td>config.{section}.{name}</td><td>{text}</td></tr>")
        table = pages.table(["field", "value"], rows, dense=True, sortable=False)
        parts.append(f"<details><summary>{escape(section)}</summary>{table}</details>")
    return "".join(parts)
