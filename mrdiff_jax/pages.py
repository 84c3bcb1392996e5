"""What the pages that the commands leave share: self-contained HTML in one style, with tables, pictures, data for a script."""

import base64
import io
import json
import math
from collections.abc import Iterable
from html import escape
from importlib import resources
from string import Template
from typing import Any

from PIL import Image

PIXELS_PER_INCH = 160  # of figures for print and page


def fill(name: str, *, title: str, lead: str, footer: str, data: Any, **parts: str) -> str:
    """A page that needs no other file and no network: page/frame.html around the template of a name.

    Args:
      name: of the template, and of its style and script, if any.
      title, lead, footer: plain text.
      data: for the script, as JSON has it.
      parts: HTML for each place of the template.
    """
    files = resources.files("mrdiff_jax") / "page"

    def read(file: str) -> str:
        return (files / file).read_text(encoding="utf-8") if (files / file).is_file() else ""

    texts = {place: escape(text) for place, text in {"title": title, "lead": lead, "footer": footer}.items()}
    files_of_name = {"style": read("page.css") + read(f"{name}.css"), "script": read(f"{name}.js")}
    body = Template(read(f"{name}.html")).substitute(parts).rstrip()
    return Template(read("frame.html")).substitute(texts | files_of_name, body=body, data=_script_safe(data))


def table(head: Iterable[str], rows: Iterable[str], tall: bool = False, dense: bool = False, sortable: bool = True) -> str:
    """A table of rows that are HTML; a click on a heading sorts it where the page's script knows how."""
    button = '<button type="button">{}</button>' if sortable else "{}"
    cells = "".join(f'<th scope="col">{button.format(escape(text))}</th>' for text in head)
    kinds = " ".join(["sortable"] * sortable + ["dense"] * dense)
    return (
        f'<div class="scroll{" tall" * tall}" tabindex="0"><table class="{kinds}"><thead><tr>{cells}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def number(value: float, text: str) -> str:
    """A cell with HTML that is sorted by a number."""
    sortable = value if math.isfinite(value) else math.copysign(1e300, value)
    return f'<td data-value="{sortable:.9g}">{text}</td>'


def picture(png: bytes, title: str, caption: str) -> str:
    """A figure with a heading, from a PNG of PIXELS_PER_INCH."""
    with Image.open(io.BytesIO(png)) as image:
        width = round(image.width * 96 / PIXELS_PER_INCH)
    return (
        f'<figure class="chart"><h3>{escape(title)}</h3><img width="{width}" alt="{escape(title)}"'
        f' src="{data_url(png)}"><figcaption>{escape(caption)}</figcaption></figure>'
    )


def data_url(png: bytes) -> str:
    """A PNG as an address that holds it."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _script_safe(data: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    return json.dumps(data, separators=(",", ":")).replace("<", r"\u003c")
