"""Interventions on single edges against an attention written here, and Spearman's correlation against scipy's definition by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.support.tiny_models import tiny_model, tokens
from tracestore.evaluate.case import Case
from tracestore.evaluate.measures.edges import Edge, chosen_edges, edge_effects, rank_correlation
from tracestore.extract.attribute import Attributor


@pytest.fixture(scope="module")
def case() -> Case:
    return Case("case", "t", Attributor(tiny_model("llama")), tuple(tokens(8).tolist()), 11)


def by_hand(case: Case, edge: Edge, channel: str) -> float:
    """Rewrite the head's output at one position with a hook on the output projection's input, from q, k and v hooked out of the model."""
    model: Any = case.attributor.model
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    attention = model.model.layers[edge.layer].self_attn
    seen: dict[str, torch.Tensor] = {}
    handles = [getattr(attention, f"{n}_proj").register_forward_hook(lambda _m, _a, out, n=n: seen.__setitem__(n, out[0])) for n in "qkv"]
    changed = {"on": False}

    def rewrite(_m: Any, args: Any) -> Any:
        if not changed["on"]:
            return None
        length, width = case.length, attention.head_dim
        q = seen["q"].view(length, 4, width).transpose(0, 1)
        k = seen["k"].view(length, 2, width).transpose(0, 1)
        v = seen["v"].view(length, 2, width).transpose(0, 1)
        cos, sin = model.model.rotary_emb(q, torch.arange(length)[None])
        q, k = apply_rotary_pos_emb(q[None], k[None], cos.to(q), sin.to(q))
        scores = (q[0, edge.head, edge.query] @ k[0, edge.head // 2, : edge.query + 1].T) * width**-0.5
        a = scores.softmax(-1)
        values = v[edge.head // 2, : edge.query + 1]
        if channel == "VALUE":
            z = a @ values - a[edge.key] * values[edge.key]
        else:
            scores = scores.clone()
            scores[edge.key] = scores.mean()
            z = scores.softmax(-1) @ values
        x = args[0].clone()
        x[0, edge.query, edge.head * width : (edge.head + 1) * width] = z
        return (x,)

    handles.append(attention.o_proj.register_forward_pre_hook(rewrite))
    with torch.no_grad():
        row = model(case.ids).logits[0, -1]
        changed["on"] = True
        cut = model(case.ids).logits[0, -1]
    for handle in handles:
        handle.remove()
    return float((row[case.token_id] - row.mean()) - (cut[case.token_id] - cut.mean()))


@pytest.mark.parametrize("channel", ["VALUE", "KEY"])
def test_an_intervention_is_the_head_rewritten(case: Case, channel: Any) -> None:
    edges = [Edge(0, 1, 5, 2, 0.0), Edge(1, 3, 7, 0, 0.0), Edge(2, 2, 7, 6, 0.0)]
    found = edge_effects(case, edges, channel)
    for edge, effect in zip(edges, found, strict=True):
        assert effect == pytest.approx(by_hand(case, edge, channel), abs=1e-5)
        assert abs(effect) > 1e-4


def test_the_last_layers_value_edges_at_the_explained_position_predict_their_removal(case: Case) -> None:
    """There only norm and MLP stand between edge and logit: a strong relation must be seen."""
    edges = [edge for edge in chosen_edges(case, "secant", "VALUE") if edge.layer == 2]
    effects = edge_effects(case, edges, "VALUE")
    assert rank_correlation([abs(e.weight) for e in edges], [abs(e) for e in effects]) > 0.5


def test_rank_correlation_by_hand() -> None:
    assert rank_correlation([1, 2, 3, 4], [10, 20, 30, 40]) == pytest.approx(1.0)
    assert rank_correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1.0)
    assert rank_correlation([1, 2, 2, 3], [1, 3, 2, 4]) == pytest.approx(4.5 / np.sqrt(4.5 * 5))
    assert np.isnan(rank_correlation([1, 1, 1], [1, 2, 3]))
