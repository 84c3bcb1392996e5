"""JSON that every reader takes."""

import json

import numpy as np
import pytest

from mrdiff_jax.errors import UserError
from mrdiff_jax.storage import json_files


def strict(text):
    def refuse(constant):
        raise AssertionError(constant)

    return json.loads(text, parse_constant=refuse)


def test_what_is_not_finite_becomes_null(tmp_path):
    values = {"a": [np.inf, -np.inf, 1.5], "b": {"c": (float("nan"), 2)}, "d": np.float64("inf"), "e": "Infinity", "f": True}
    json_files.write(tmp_path / "x.json", values)
    assert strict((tmp_path / "x.json").read_text()) == {
        "a": [None, None, 1.5],
        "b": {"c": [None, 2]},
        "d": None,
        "e": "Infinity",
        "f": True,
    }


@pytest.mark.parametrize(
    ("text", "why"), [("", "is empty"), ("{", "Expecting"), ("[1]", "not a JSON object"), (None, "no such")]
)
def test_a_file_without_an_object_is_told_with_the_way_out(text, why, tmp_path):
    path = tmp_path / "x.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=rf"^{path}: .*{why}.*; call again$"):
        json_files.read(path, "call again")
