"""The description of training slices, as it is kept."""

import json

import pytest
from helpers.heads import DATA

from mrdiff_jax.data.training_data import TrainingData


def test_json_gives_back_what_was_described():
    assert TrainingData.from_json(json.loads(json.dumps(DATA.to_json()))) == DATA


@pytest.mark.parametrize(
    ("part", "value", "words"),
    [
        ("target", {"name": "T1w", "factor": 1.0}, "no 'offset'"),
        ("sources", {"T2w": {"tr": 1.0, "te": 1.0}}, "no 'ti'"),
        ("sources", ["T2w"], "items"),
        ("pixel_mm", 2.0, "unpack"),
        ("pixel_mm", [2.0, "wide"], "wide"),
        ("preparation", {"plane": "axial"}, "no 'percentiles'"),
        ("preparation", DATA.to_json()["preparation"] | {"colour": "red"}, "colour"),
    ],
)
def test_damage_is_said_in_a_few_words(part, value, words):
    with pytest.raises(ValueError, match=words):
        TrainingData.from_json(DATA.to_json() | {part: value})
