"""Both rules of attention on a compiled three-hop look-up whose steps are known: what `frozen` must miss and `secant` must see."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tracestore.extract.attention import AddressBias, AttentionState, Pattern, attend_frozen
from tracestore.extract.edges import EdgeCollector
from tracestore.extract.secant_attention import attend_secant

FIXTURE = Path(__file__).resolve().parents[2] / "fixtures" / "tracr_hop3.npz"
LAYERS, POSITIONS, STEPS, ITEMS = 3, 9, 3, 60
Attend = Callable[..., Tensor]


class Circuit:
    """The compiled model in float64, with attention by one of the two rules."""

    def __init__(self) -> None:
        with np.load(FIXTURE) as found:
            self.arrays = {name: torch.from_numpy(found[name]).double() for name in found.files if found[name].dtype.kind == "f"}
            self.ids = torch.from_numpy(found["ids"])
            self.labels: list[str] = found["res_labels"].tolist()

    def linear(self, x: Tensor, name: str) -> Tensor:
        return x @ self.arrays[f"transformer|{name}#w"] + self.arrays[f"transformer|{name}#b"]

    def embed(self, ids: Tensor) -> Tensor:
        return self.arrays["token_embed#embeddings"][ids] + self.arrays["pos_embed#embeddings"]

    def run(self, x: Tensor, attend: Attend, state: AttentionState) -> Tensor:
        """Give the final residual stream [T, 43]."""
        pattern = Pattern(10**-0.5, False, None, None, None)
        for layer in range(LAYERS):
            at = f"layer_{layer}|attn|"
            query, key, value = (self.linear(x, at + part)[None, None] for part in ("query", "key", "value"))
            bias = {part: self.arrays[f"transformer|{at}{part}#b"] for part in ("query", "key", "value")}
            state.value_bias[layer] = bias["value"][None]
            state.address_bias[layer] = AddressBias(*(bias[part].expand(1, 1, POSITIONS, -1) for part in ("query", "key")))
            x = x + self.linear(attend(query, key, value, pattern, layer, state)[0, :, 0], at + "linear")
            hidden = self.linear(x, f"layer_{layer}|mlp|linear_1")
            x = x + self.linear(hidden * (hidden > 0), f"layer_{layer}|mlp|linear_2")
        return x

    def explain(self, ids: Tensor, at: int, label: str, attend: Attend) -> tuple[Tensor, EdgeCollector]:
        """Explain one residual dimension at a position: token scores [T] and the edges."""
        x = self.embed(ids).requires_grad_(True)
        state = AttentionState(layer_of={})
        out = self.run(x, attend, state)
        state.sink = sink = EdgeCollector((LAYERS, 1, POSITIONS), [at], 10_000, x.detach())
        (gradient,) = torch.autograd.grad(out[at, self.labels.index(label)], x)
        return (gradient * x).sum(-1).detach(), sink


@pytest.fixture(scope="module")
def circuit() -> Circuit:
    return Circuit()


def items(count: int) -> Iterator[tuple[list[int], int, list[int]]]:
    """Draw tables s, a position i and the positions of the three steps, all four of them different."""
    rng = np.random.default_rng(0)
    while count:
        s, place = rng.integers(0, 8, 8).tolist(), int(rng.integers(0, 8))
        steps = [s[place], s[s[place]], s[s[s[place]]]]
        if len({place, *steps}) == 1 + STEPS:
            count -= 1
            yield s, place, steps


def recall(circuit: Circuit, attend: Attend) -> list[float]:
    """Give the share of items whose m-th step is among the three tokens (BOS left out) of largest `total`, for m = 1, 2, 3."""
    found = []
    for s, place, steps in items(ITEMS):
        _, sink = circuit.explain(torch.tensor([8, *s]), place + 1, f"hop3_1:{s[steps[-1]]}", attend)
        total = (sink.value.column_abs + sink.key.column_abs).sum(0)[1:]
        best = total.argsort(descending=True, stable=True)[:STEPS].tolist()
        found.append([step in best for step in steps])
    return [float(share) for share in np.mean(found, 0)]


@pytest.mark.parametrize("attend", [attend_frozen, attend_secant])
def test_the_circuit_computes_what_it_was_compiled_to(circuit: Circuit, attend: Attend) -> None:
    out = circuit.run(circuit.embed(circuit.ids), attend, AttentionState(layer_of={}))
    torch.testing.assert_close(out, circuit.arrays["ref_tr"][0], atol=1e-5, rtol=0)


def test_secant_sees_every_step(circuit: Circuit) -> None:
    assert recall(circuit, attend_secant) == [1.0, 1.0, 1.0]


def test_frozen_sees_the_last_step_alone(circuit: Circuit) -> None:
    first, second, last = recall(circuit, attend_frozen)
    assert last == 1.0
    assert max(first, second) < 0.45  # about what three guesses among eight tokens give


def test_the_largest_edges_of_each_layer_point_at_its_step(circuit: Circuit) -> None:
    for s, place, steps in items(20):
        _, sink = circuit.explain(torch.tensor([8, *s]), place + 1, f"hop3_1:{s[steps[-1]]}", attend_secant)
        largest = (sink.value.column_abs + sink.key.column_abs).argmax(1) - 1
        assert largest.tolist() == steps


def test_the_rule_conserves_at_every_head_of_the_circuit(circuit: Circuit) -> None:
    s, place, steps = next(items(1))
    _, sink = circuit.explain(torch.tensor([8, *s]), place + 1, f"hop3_1:{s[steps[-1]]}", attend_secant)
    arrived = sink.value.row + sink.key.row + sink.query + sink.bias
    torch.testing.assert_close(arrived, sink.relevance, atol=1e-12, rtol=0)
    assert float(sink.key.row_abs.sum()) > 0.3  # a frozen pattern gives these nothing
