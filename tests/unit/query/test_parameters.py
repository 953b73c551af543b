"""Typing and checking of query parameters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracestore.errors import QueryError
from tracestore.query.parameters import Parameter, Value, bind

COUNT = Parameter("k", "int", "rows", default=10, low=1, high=100)
SHARE = Parameter("share", "float", "share", optional=True, low=0, high=1)
NAME = Parameter("name", "string", "name")
BY = Parameter("by", "string", "what", default="direct", choices=("direct", "total"))
SINK = Parameter("sink", "bool", "sinks", default=False)
LEFT = Parameter("left", "int", "one side", optional=True)
RIGHT = Parameter("right", "string", "other side", optional=True)


@pytest.mark.parametrize(
    ("parameter", "given_value", "value"),
    [
        (COUNT, "8", 8),
        (COUNT, 8, 8),
        (COUNT, " 8 ", 8),
        (SHARE, "0.25", 0.25),
        (SHARE, 1, 1.0),
        (SHARE, None, None),
        (NAME, "", ""),
        (NAME, " Paris", " Paris"),
        (BY, "total", "total"),
        (SINK, "TRUE", True),
        (SINK, "no", False),
        (SINK, "0", False),
        (SINK, True, True),
        (LEFT, str(2**63 - 1), 2**63 - 1),
    ],
)
def test_values_and_their_spellings(parameter: Parameter, given_value: object, value: Value) -> None:
    converted = parameter.convert(given_value)
    assert (converted, type(converted)) == (value, type(value))


@pytest.mark.parametrize(
    ("parameter", "given_value"),
    [
        (COUNT, "eight"),
        (COUNT, "8.5"),
        (COUNT, 8.0),
        (COUNT, True),
        (COUNT, 0),
        (COUNT, "101"),
        (COUNT, None),
        (SHARE, "nan"),
        (SHARE, "inf"),
        (SHARE, "1e999"),
        (SHARE, -0.1),
        (SHARE, False),
        (NAME, 7),
        (NAME, None),
        (BY, "score"),
        (SINK, "maybe"),
        (SINK, 1),
        (LEFT, 2**63),
        (LEFT, [1]),
    ],
)
def test_what_does_not_fit_is_refused(parameter: Parameter, given_value: object) -> None:
    with pytest.raises(ValueError, match=parameter.name):
        parameter.convert(given_value)


def test_bind_fills_defaults_and_nulls() -> None:
    assert bind("q", (COUNT, SHARE, NAME), (), {"name": "x"}) == {"k": 10, "share": None, "name": "x"}


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "needs the parameter name"),
        ({"name": "secret", "kk": 1, "aa": 2}, "has no parameter aa, kk"),
        ({"name": "secret", "k": "hush"}, "k must be a whole number"),
        ({"name": "secret", "left": 1, "right": "x"}, "exactly one of left, right"),
        ({"name": "secret"}, "exactly one of left, right"),
    ],
)
def test_errors_name_the_parameters_and_never_a_value(params: dict[str, object], message: str) -> None:
    with pytest.raises(QueryError, match=message) as caught:
        bind("q", (NAME, COUNT, LEFT, RIGHT), (("left", "right"),), params)
    assert "parameters of q: name: string; k: int = 10; left: int, optional; right: string, optional" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "hush" not in str(caught.value)


@given(st.integers(-(2**63), 2**63 - 1))
def test_every_whole_number_survives_its_spelling(number: int) -> None:
    assert LEFT.convert(str(number)) == number


@given(st.floats(0, 1))
def test_every_share_survives_its_spelling(number: float) -> None:
    assert SHARE.convert(repr(number)) == number
