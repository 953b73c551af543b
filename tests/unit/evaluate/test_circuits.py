"""Compiled circuits as GPT-2: they answer as the compiler's own model did, and the extractor's sums close on them."""

from __future__ import annotations

import pytest
import torch

from tracestore.evaluate.suites.circuits import NAMES, Circuit
from tracestore.extract.attribute import Attributor
from tracestore.extract.attribution import TargetSpec


@pytest.mark.parametrize("name", NAMES)
def test_answers_are_those_of_the_compiled_model_and_of_the_program(name: str) -> None:
    circuit = Circuit(name)
    model = circuit.model()

    def answer(tokens: list[str]) -> str:
        ids = torch.tensor([[circuit.vocabulary.index(token) for token in ("BOS", *tokens)]])
        with torch.no_grad():
            return circuit.vocabulary[int(model(ids).logits[0, -1].argmax())]

    samples = [text.split() for text in circuit.arrays["samples"].tolist()]
    assert [answer(tokens) for tokens in samples] == circuit.arrays["answers"].tolist()
    items = list(circuit.items(60, seed=1))
    assert [answer(list(item.tokens)) for item in items] == [item.answer for item in items]
    assert all(len(item.steps) >= 2 for item in items)


def test_the_driving_positions_of_three_hops_are_the_tokens_read() -> None:
    circuit = Circuit("hop3")
    for item in circuit.items(20):
        s = [int(token) for token in item.tokens]
        first = s[-1]
        assert item.steps == (frozenset({first + 1}), frozenset({s[first] + 1}), frozenset({s[s[first]] + 1}))
        assert item.answer == str(s[s[s[first]]])


def test_the_largest_paths_and_compositions_by_secant_are_the_three_hops_themselves() -> None:
    circuit = Circuit("hop3")
    attributor = Attributor(circuit.model())
    for item in circuit.items(12):
        ids = torch.tensor(circuit.token_ids(item))
        run = attributor.run(ids, tap=True, method="secant")
        found = run.attribute(TargetSpec(len(ids) - 1), compose=True, paths=50)
        first, second, third = (next(iter(step)) for step in item.steps)
        assert found.paths is not None
        assert found.paths.open == 0.0
        assert found.paths.total == pytest.approx(found.explained, abs=1e-9)
        assert [(path.motif, path.source_pos) for path in found.paths.paths[:5]] == [
            ("emb>L2.h0:V>out", third),
            ("emb>L2.h0:K>out", third),
            ("emb>L1.h0:V>L2.h0:Q>out", second),
            ("emb>L1.h0:K>L2.h0:Q>out", second),
            ("emb>L0.h0:V>L1.h0:Q>L2.h0:Q>out", first),
        ]
        assert all(path.weight > 0 for path in found.paths.paths[:5])
        composed = found.compositions
        assert composed is not None
        for reader, writer in (("L2.h0", "L1.h0"), ("L1.h0", "L0.h0")):
            into = composed.weight[:, composed.readers.index((reader, "Q"))]
            assert composed.writers[int(abs(into).argmax())] == writer


@pytest.mark.parametrize("name", NAMES)
def test_the_decomposition_closes_on_a_circuit(name: str) -> None:
    circuit = Circuit(name)
    attributor = Attributor(circuit.model())
    item = next(iter(circuit.items(1)))
    ids = torch.tensor(circuit.token_ids(item))
    found = attributor.run(ids).attribute(TargetSpec(len(ids) - 1))
    assert circuit.vocabulary[found.token_id] == item.answer
    assert found.closure < 1e-4
