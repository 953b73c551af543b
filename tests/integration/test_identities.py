"""I0 to I13 on every family, float64, random biases and gains; and what a broken decomposition does to them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.support.tiny_models import CONFIGS, tiny_model, tokens
from tracestore.errors import ConservationError
from tracestore.extract import capture
from tracestore.extract.attribute import Attributor
from tracestore.extract.attribution import OutputAttribution, TargetSpec
from tracestore.extract.identities import check_identities
from tracestore.extract.sweep.build import build
from tracestore.extract.writers import Writers
from tracestore.model import Method, PruningOptions

EXACT = 1e-10
ROUNDED = {"I0": 1e-6, "I12": 1e-6}  # transformers computes norms and RoPE in float32; tables hold float32


METHODS = ("frozen", "secant")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", CONFIGS)
def test_every_identity_holds_in_every_family(name: str, method: Method) -> None:
    attributor = Attributor(tiny_model(name))
    assert attributor.family == name.split("-")[0].removesuffix("_text")
    results = check_identities(attributor, tokens(9), method)
    composed = attributor.without_compositions(method) is None
    assert composed == ((name, method) != ("phi", "secant"))
    assert [r.id for r in results] == [f"I{n}" for n in range(14 if composed else 13)]
    errors = {r.id: r.error for r in results}
    assert {i: e for i, e in errors.items() if not e <= ROUNDED.get(i, EXACT)} == {}
    assert all(r.ok for r in results)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", CONFIGS)
def test_pruned_graphs_conserve_at_every_node(name: str, method: Method) -> None:
    run = Attributor(tiny_model(name)).run(tokens(10), method=method)
    for keep, most in ((0.3, 1 << 20), (0.9, 1 << 20), (1.0, 1 << 20), (0.9, 7)):
        found = run.attribute(TargetSpec(-2), PruningOptions(keep, most))
        assert graph_error(found) < EXACT
        assert len(found.graph.edges) <= most
        assert found.graph.attention_kept <= 1 + 1e-12
    assert found.graph.attention_kept < 0.5


def graph_error(found: OutputAttribution) -> float:
    """Worst error of in + bias + dropped_in = relevance = out + dropped_out over live nodes, by loops over what is stored."""
    flows, graph = found.flows, found.graph
    layers, heads, length = flows.head_relevance.shape
    value_in, value_out = np.zeros((layers, heads, length)), np.zeros((layers + 1, length))
    for k in range(len(graph.edges)):
        e = graph.edges
        value_in[e.layer[k], e.head[k], e.query[k]] += e.weight[k]
        value_out[e.layer[k], e.key[k]] += e.weight[k]
    errors = []
    for layer in range(layers + 1):
        for i in range(length):
            if graph.pre_live[layer, i]:
                below = layer - 1
                into = out = 0.0
                if layer == 0:
                    into = flows.pre_relevance[0, i]
                elif graph.mid_live[below, i]:
                    into = flows.residual_out[below, i] + flows.mlp_relevance[below, i]
                    if flows.parallel:
                        into += sum(flows.head_relevance[below, h, i] for h in range(heads) if graph.head_live[below, h, i])
                if layer == layers:
                    out = found.explained
                else:
                    out = value_out[layer, i]
                    if graph.mid_live[layer, i]:
                        out += flows.residual_out[layer, i] + flows.reads[layer, i] if flows.parallel else flows.residual_in[layer, i]
                errors.append(into + flows.pre_bias[layer, i] + graph.pre_dropped_in[layer, i] - flows.pre_relevance[layer, i])
                errors.append(out + graph.pre_dropped_out[layer, i] - flows.pre_relevance[layer, i])
            if layer < layers and graph.mid_live[layer, i]:
                written = sum(flows.head_relevance[layer, h, i] for h in range(heads) if graph.head_live[layer, h, i])
                errors.append(flows.reads[layer, i] + flows.mlp_bias[layer, i] - flows.mlp_relevance[layer, i])
                if not flows.parallel:
                    into = flows.residual_in[layer, i] + written + flows.mid_bias[layer, i] + graph.mid_dropped_in[layer, i]
                    errors.append(into - flows.mid_relevance[layer, i])
                    errors.append(flows.residual_out[layer, i] + flows.reads[layer, i] - flows.mid_relevance[layer, i])
            for h in range(heads):
                if layer < layers and graph.head_live[layer, h, i]:
                    into = value_in[layer, h, i] + flows.head_bias[layer, h, i] + graph.head_dropped_in[layer, h, i]
                    errors.append(into - flows.head_relevance[layer, h, i])
    balance = flows.pre_relevance[0][graph.pre_live[0]].sum() - found.explained
    balance += flows.pre_bias[graph.pre_live].sum() + flows.head_bias[graph.head_live].sum() + flows.mlp_bias[graph.mid_live].sum()
    balance += graph.pre_dropped_in.sum() + graph.mid_dropped_in.sum() + graph.head_dropped_in[graph.head_live].sum()
    if not flows.parallel:
        balance += flows.mid_bias[graph.mid_live].sum()
    errors.append(balance - graph.pre_dropped_out.sum())
    return float(np.abs(errors).max())


def test_a_bias_that_is_left_out_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Attributor(tiny_model("gpt2")).run(tokens(8))
    monkeypatch.setattr(capture.Capture, "_along", lambda self, g, bias: torch.zeros_like(self._row(g)[:, 0]))
    with pytest.raises(ConservationError, match="I8"):
        run.attribute(TargetSpec(-1))


def test_values_that_keep_their_bias_are_noticed() -> None:
    attributor = Attributor(tiny_model("llama"))
    run = attributor.run(tokens(8))
    run.capture.state.value_bias.clear()  # the bias now counts as if it came from the source tokens
    with pytest.raises(ConservationError, match="pre out"):
        run.attribute(TargetSpec(-1))


def test_a_model_that_counts_padding_as_text_is_compared_where_it_can_be() -> None:
    built = build("whisper")
    results = check_identities(Attributor(built.model), built.input_ids)
    assert [r.id for r in results if not r.ok] == []


@pytest.mark.parametrize("method", METHODS)
def test_writes_that_lose_their_biases_are_noticed_by_the_sums_of_compositions_and_paths(
    method: Method, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Writers, "biases", lambda self, rows: None)
    (found,) = check_identities(Attributor(tiny_model("llama")), tokens(8), method, only=("I13",))
    assert (found.id, found.ok) == ("I13", False)
