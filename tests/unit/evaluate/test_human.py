"""Step graphs beside proofs: the item that replays a chain, and the agreement of orders with a proof, by hand."""

from __future__ import annotations

import pytest

from tracestore.evaluate.annotated import Annotated, packaged
from tracestore.evaluate.human import ORDERS, StepGraph, agreement, chain_item
from tracestore.model import Item, Trace

CHAIN = Annotated(
    Item(prompt="Ice melts. It is hot.", id="x"), "t", "report", ("A.", "B.", "C."), (("p1", "s1"), ("s1", "s2"), ("s2", "s3"))
)


def test_the_chain_is_replayed_with_a_span_for_every_sentence() -> None:
    item = chain_item(CHAIN)
    text = f"{item.prompt}{item.completion}"
    assert [(s.ref, text[s.start : s.end]) for s in item.spans] == [
        ("p1", "Ice melts."),
        ("p2", "It is hot."),
        ("s1", "A."),
        ("s2", "B."),
        ("s3", "C."),
    ]


def test_every_packaged_chain_has_the_sentences_that_its_proof_names() -> None:
    for annotated in packaged("commonsense"):
        names = {span.ref for span in chain_item(annotated).spans}
        assert {node for edge in annotated.proof for node in edge} <= names, annotated.id


def test_agreement_by_hand() -> None:
    nodes = {name: name for name in ("p1", "p2", "s1", "s2", "s3")}
    score = {"s1": {"p1": 2.0, "p2": -3.0}, "s2": {"p1": 0.1, "s1": -1.0}, "s3": {"p1": 5.0, "s2": 4.0}}
    direct = {"s1": {"p1": 4.0, "p2": 3.0}, "s2": {"p1": 3.0, "s1": 2.0}, "s3": {"p1": 5.0, "s2": 6.0}}
    rows = {row["order"]: row for row in agreement(StepGraph(CHAIN, nodes, direct, score, Trace("t", {})))}
    assert tuple(rows) == ORDERS
    assert rows["supports"]["top1"] == pytest.approx((1 + 0 + 1) / 3)
    assert rows["supports"]["auprc"] == pytest.approx((1 + 1 / 2 + 1) / 3)
    assert rows["signed score"]["top1"] == pytest.approx((0 + 1 + 0) / 3)
    assert rows["signed score"]["auprc"] == pytest.approx((1 / 2 + 1 + 1 / 2) / 3)
    assert rows["nearest first"]["top1"] == pytest.approx((0 + 1 + 1) / 3)
    assert rows["supports"]["steps"] == 3
