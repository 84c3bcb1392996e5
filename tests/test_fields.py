from dataclasses import dataclass

import pytest

from mrdiff_jax import fields
from mrdiff_jax.errors import UserError
from mrdiff_jax.fields import Optimizer, field


@dataclass(frozen=True)
class Inner:
    rate: float = field(0.5, "a rate", least=0, most=1)


@dataclass(frozen=True)
class Outer:
    count: int = field(3, "a count", least=1)
    kind: str = field("a", "a kind", choices=("a", "b"))
    sizes: tuple[int, ...] = field((1, 2), "sizes", least=1)
    inner: Inner = Inner()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"count": 0}, ("--x.count=0", "at least 1")),
        ({"kind": "c"}, ("--x.kind=c", "a, b")),
        ({"sizes": (2, 0)}, ("--x.sizes=(2, 0)", "at least 1")),
        ({"inner": {"rate": 1.5}}, ("--x.inner.rate=1.5", "at most 1")),
        ({"inner": {"rate": float("nan")}}, ("--x.inner.rate=nan", "must be a finite")),
        ({"inner": {"rate": float("inf")}}, ("--x.inner.rate=inf", "finite")),
    ],
)
def test_a_wrong_value_is_refused_with_its_flag_and_what_it_may_be(values, words):
    section = fields.from_values(Outer, values)
    with pytest.raises(UserError) as refusal:
        fields.check(section, "--x.")
    assert all(word in str(refusal.value) for word in words)


def test_defaults_pass_and_json_values_get_their_types():
    fields.check(Outer(), "--x.")
    section = fields.from_values(Outer, {"sizes": [4, 5], "inner": {"rate": 1}})
    assert section == Outer(sizes=(4, 5), inner=Inner(1.0))
    assert type(section.inner.rate) is float
    with pytest.raises(KeyError, match="cuont"):
        fields.from_values(Outer, {"cuont": 1})


def test_what_is_set_overrides_and_the_rest_stays():
    changes = fields.optional(Optimizer, "Changes")
    assert fields.override(Optimizer(b1=0.5), changes()) == Optimizer(b1=0.5)
    assert fields.override(Optimizer(b1=0.5), changes(learning_rate=1.0)) == Optimizer(b1=0.5, learning_rate=1.0)
    with pytest.raises(UserError, match="must be at least 0"):
        fields.check(changes(learning_rate=-1.0), "--config.optimizer.")
