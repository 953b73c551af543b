"""Ids: stable, sensitive to what counts, keyed when text must not be guessed back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracestore import ids

TRACE_ID = "034eb698a5cf592e4ad2cee4ab25f692"

BASE: dict[str, Any] = {
    "model_fingerprint": "f",
    "token_ids": [1, 2, 3],
    "n_prompt_tokens": 2,
    "targets": "last",
    "generation": {"max_new_tokens": 0, "seed": 0},
    "method": "frozen",
    "method_version": 1,
    "pruning": {"keep": 0.9, "max_edges": 20000},
}


def test_trace_id_is_what_it_was() -> None:
    assert ids.trace_id(**BASE) == TRACE_ID, "a changed trace_id makes every archive be traced again: was that meant?"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model_fingerprint", "g"),
        ("token_ids", [1, 2, 4]),
        ("n_prompt_tokens", 3),
        ("targets", "all"),
        ("generation", {"max_new_tokens": 1, "seed": 0}),
        ("method", "secant"),
        ("method_version", 2),
        ("pruning", {"keep": 0.5, "max_edges": 20000}),
        ("key", b"secret"),
    ],
)
def test_trace_id_depends_on_everything_that_determines_the_numbers(name: str, value: object) -> None:
    assert ids.trace_id(**{**BASE, name: value}) != ids.trace_id(**BASE)


def test_order_of_keys_does_not_matter() -> None:
    assert ids.content_hash({"a": 1, "b": 2}) == ids.content_hash({"b": 2, "a": 1})


def test_output_id_names_position_token_and_foil() -> None:
    assert ids.output_id("t", 4, 253) == "t:4:253"
    assert ids.output_id("t", 4, 253, 7) == "t:4:253-7"


@given(st.integers(0, 2**20), st.binary(min_size=1))
def test_keyed_tokens_fit_a_store_integer_and_depend_on_the_key(token: int, key: bytes) -> None:
    value = ids.keyed_token(token, key)
    assert 0 <= value < 2**62
    assert value == ids.keyed_token(token, key)
    assert value != ids.keyed_token(token, key + b"x")
