"""Sensitivities against differences of the untouched model's logits, one edge moved by a little at a time."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.support.tiny_models import tiny_model, tokens
from tracestore.extract.attention import AttentionState, Pattern
from tracestore.extract.attribute import Attributor, ForwardPass
from tracestore.extract.attribution import KEY, QUERY, VALUE, OutputAttribution, TargetSpec
from tracestore.extract.freeze import frozen
from tracestore.extract.sensitivity import attend_plainly
from tracestore.model import Method, PruningOptions

STEP, LENGTH, FEW = 1e-5, 8, PruningOptions(1.0, 60)
Change = Callable[[Tensor, Tensor, Tensor, Pattern], Tensor]


def explained(attributor: Attributor, ids: Tensor, found: OutputAttribution, layer: int, change: Change) -> float:
    """Give the centred logit of the model with one layer's attention output changed."""

    def instead(at: int, pattern: Pattern, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        if at == layer:
            return change(query, key, value, pattern)
        return attend_plainly(query, key, value, pattern, at, state)

    modules = {id(m): i for i, block in enumerate(attributor.layout.blocks) for m in block.layer.modules()}
    state = AttentionState(layer_of=modules, method="gradient", instead=instead)
    seen: list[Tensor] = []
    handle = attributor.layout.final_norm.register_forward_hook(lambda _m, _a, out: seen.append(out))
    with frozen(attributor.model, attributor.layout, attributor.norms, state), torch.no_grad():
        attributor.model.base_model(input_ids=ids[None], use_cache=False)
    handle.remove()
    row = attributor.reader.row(seen[-1][0, found.pos])
    return float(row[found.token_id] - row.mean())


def attend_by(query: Tensor, key: Tensor, value: Tensor, pattern: Pattern, moved: Tensor) -> Tensor:
    """Attend the long way, with `moved` [H, T, T] added to the scores before a softcap."""
    repeat = query.shape[1] // key.shape[1]
    raw = query[0] @ key[0].repeat_interleave(repeat, 0).transpose(1, 2) * pattern.scaling + moved
    if pattern.softcap is not None:
        raw = pattern.softcap * torch.tanh(raw / pattern.softcap)
    allowed = torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril() if pattern.mask is None else pattern.mask[0]
    a = raw.masked_fill(~allowed, -torch.inf).softmax(-1)
    return (a @ value[0].repeat_interleave(repeat, 0)).transpose(0, 1)[None]


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "qwen3"])
def test_sensitivities_are_amounts_times_true_derivatives(name: str) -> None:
    attributor, ids = Attributor(tiny_model(name)), tokens(LENGTH)
    run = attributor.run(ids, method="secant")
    found = run.attribute(TargetSpec(-1), FEW, sensitivity=True)
    edges, estimates = found.graph.edges, found.graph.sensitivity
    assert estimates is not None
    assert np.isnan(estimates[edges.kind == QUERY]).all()
    for kind in (VALUE, KEY):
        for n in np.flatnonzero(edges.kind == kind)[:4].tolist():
            one = edges.take(np.array([n]))
            moved = [explained(attributor, ids, found, int(one.layer[0]), _nudge(run, one, sign * STEP)) for sign in (1, -1)]
            assert estimates[n] == pytest.approx((moved[0] - moved[1]) / (2 * STEP), abs=2e-6)
            assert abs(estimates[n]) > 1e-5


def _nudge(run: ForwardPass, one: object, step: float) -> Change:
    """Grow one edge's amount by the share `step`."""
    layer, head, i, j, kind = (int(getattr(one, field)[0]) for field in ("layer", "head", "query", "key", "kind"))
    state = run.capture.state

    def change(query: Tensor, key: Tensor, value: Tensor, pattern: Pattern) -> Tensor:
        group = head // (query.shape[1] // key.shape[1])
        nothing = torch.zeros(query.shape[1], LENGTH, LENGTH, dtype=query.dtype)
        if kind == KEY:
            bias = state.address_bias.get(layer)
            part = key[0, group, j] if bias is None else key[0, group, j] - bias.key[0, group, j]
            nothing[head, i, j] = step * float(query[0, head, i] @ part) * pattern.scaling
            return attend_by(query, key, value, pattern, nothing)
        out = attend_by(query, key, value, pattern, nothing)
        shift = state.value_bias.get(layer)
        part = value[0, group, j] if shift is None else value[0, group, j] - shift[group]
        alone = torch.zeros_like(value)
        alone[0, :, j] = 1
        a = attend_by(query, key, alone, pattern, nothing)[0, i, head, 0]
        out[0, i, head] += step * a * part
        return out

    return change


def test_they_do_not_change_the_weights_and_are_there_for_frozen_too() -> None:
    attributor, ids = Attributor(tiny_model("mistral")), tokens(LENGTH)
    run = attributor.run(ids)
    with_them, without = (run.attribute(TargetSpec(-1), FEW, sensitivity=asked) for asked in (True, False))
    assert without.graph.sensitivity is None
    np.testing.assert_array_equal(with_them.graph.edges.weight, without.graph.edges.weight)
    first, again = with_them.graph.sensitivity, run.attribute(TargetSpec(-1), FEW, sensitivity=True).graph.sensitivity
    assert first is not None
    assert again is not None
    assert np.isfinite(first).all()
    np.testing.assert_array_equal(again, first)  # a second target from the same pass


@pytest.mark.parametrize("method", ["frozen", "secant"])
def test_bfloat16_weights_have_the_edges_and_sensitivities_of_the_same_weights_in_float32(method: Method) -> None:
    half, ids = tiny_model("llama", torch.bfloat16), tokens(LENGTH)
    found = []
    for model in (half, deepcopy(half).float()):
        given = Attributor(model).run(ids, method=method).attribute(TargetSpec(-1, 40), PruningOptions(1.0, 1 << 30), sensitivity=True)
        edges, estimates = given.graph.edges, given.graph.sensitivity
        assert estimates is not None
        order = np.lexsort((edges.key, edges.query, edges.head, edges.layer, edges.kind))
        found.append(np.stack([edges.kind, edges.layer, edges.head, edges.query, edges.key, edges.weight, estimates])[:, order])
    np.testing.assert_array_equal(found[0][:5], found[1][:5])
    assert {KEY, QUERY} <= set(found[0][0]) or method == "frozen"
    np.testing.assert_allclose(found[0][5:], found[1][5:], rtol=1e-3, atol=1e-6 * float(np.nanmax(np.abs(found[1][5:]))))
    assert np.nanmax(np.abs(found[0][6])) > 1e-3
