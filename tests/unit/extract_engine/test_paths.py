"""Exact paths and compositions: against every path enumerated by hand, and conserving in every family."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from tests.support import attribution_oracle as oracle
from tests.support.path_oracle import PathOracle, compose
from tests.support.secant_path_oracle import SecantPathOracle
from tests.support.tiny_models import CONFIGS, GROUPED, randomised, tiny_model, tokens
from tracestore.errors import ConservationError, UnsupportedModelError
from tracestore.extract import paths as search
from tracestore.extract.attribute import Attributor, ForwardPass
from tracestore.extract.attribution import OutputAttribution, SpanSpec, TargetSpec
from tracestore.extract.sweep.build import build
from tracestore.model import Method, PruningOptions

EVERYTHING = 1 << 40


def two_layers(name: str) -> Any:
    if name == "llama":
        return transformers.LlamaConfig(**{**GROUPED, "num_hidden_layers": 2}, attention_bias=True, mlp_bias=True)
    return transformers.GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=1, eos_token_id=2)


def by_hops(found: OutputAttribution) -> dict[tuple[str, ...], float]:
    weights: dict[tuple[str, ...], float] = defaultdict(float)
    assert found.paths is not None
    for path in found.paths.paths:
        weights[path.hops] += path.weight
    return weights


@pytest.mark.parametrize(("name", "method", "length"), [("llama", "frozen", 4), ("gpt2", "frozen", 4), ("llama", "secant", 3)])
def test_every_path_and_composition_is_that_of_the_enumeration_by_hand(
    name: str, method: Method, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "SWEEP", 0.0)  # one sweep for everything
    ids, model = tokens(length), randomised(two_layers(name))
    run = Attributor(model).run(ids, tap=True, method=method)
    found = run.attribute(TargetSpec(-1, 40, 50), compose=True, paths=EVERYTHING)
    given = ids.tolist()
    by_hand = SecantPathOracle(model, given) if method == "secant" else PathOracle(getattr(oracle, name)(model, given))
    wanted = by_hand.walk(length - 1, 40, 50)
    weights = by_hops(found)
    assert found.paths is not None
    assert (found.paths.open, found.paths.largest_open) == (0.0, 0.0)
    assert set(weights) <= set(wanted)  # no path of weight zero is given
    # transformers computes norms and RoPE in float32
    assert max(abs(weights.get(hops, 0.0) - weight) for hops, weight in wanted.items()) < 1e-6
    assert sum(weights.values()) == pytest.approx(found.explained, abs=1e-12)
    assert len(wanted) > 200
    composed, pairs = found.compositions, compose(wanted)
    assert composed is not None
    weight_of = {
        (writer, reader if via in {"MLP", "OUT"} else f"{reader}:{via}"): composed.weight[a, b]
        for a, writer in enumerate(composed.writers)
        for b, (reader, via) in enumerate(composed.readers)
        if composed.weight[a, b] != 0
    }
    assert set(weight_of) == {pair for pair, weight in pairs.items() if weight != 0}
    assert max(abs(weight_of[pair] - pairs[pair]) for pair in weight_of) < 1e-6


BY_SECANT: dict[str, Callable[[], Any]] = {
    **{name: config for name, config in CONFIGS.items() if name != "phi"},  # its norm of queries and keys takes the mean off
    "bloom": lambda: transformers.BloomConfig(vocab_size=97, hidden_size=32, n_layer=3, n_head=4),
    "gpt_oss": lambda: transformers.GptOssConfig(
        **GROUPED, head_dim=8, num_local_experts=4, num_experts_per_tok=2, rope_parameters={"rope_type": "default", "rope_theta": 1e4}
    ),
}


@pytest.fixture(scope="module", params=[("frozen", name) for name in CONFIGS] + [("secant", name) for name in BY_SECANT], ids="-".join)
def run(request: pytest.FixtureRequest) -> ForwardPass:
    method, name = request.param
    config = (BY_SECANT | CONFIGS)[name]()
    return Attributor(randomised(config)).run(tokens(9), tap=True, method=method)


def test_compositions_of_a_reader_add_up_to_its_relevance(run: ForwardPass) -> None:
    for target in (TargetSpec(-2), SpanSpec((TargetSpec(3), TargetSpec(4)))):
        composed = run.attribute(target, compose=True).compositions
        assert composed is not None
        np.testing.assert_allclose(composed.weight.sum(0), composed.relevance, rtol=0, atol=1e-10)
        assert np.count_nonzero(np.abs(composed.weight) > 1e-6) > 100


def test_children_of_a_path_add_up_to_it_and_leaves_to_what_is_explained(run: ForwardPass, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    result = search._Search.result
    secant = run.capture.state.method == "secant"
    monkeypatch.setattr(search, "EXPANSIONS_PER_PATH", 12 if secant else 3)
    if secant:
        monkeypatch.setattr(search, "SWEEP", 0.0)  # the small edges of keys and queries too

    def watched(self: Any, wanted: int) -> Any:
        seen.append(self)
        return result(self, wanted)

    monkeypatch.setattr(search._Search, "result", watched)
    for target in (TargetSpec(-2), SpanSpec((TargetSpec(3), TargetSpec(4)))):
        found = run.attribute(target, paths=10)
        assert found.paths is not None
        assert found.paths.total == pytest.approx(found.explained, abs=1e-12)
        assert found.paths.expansions > 10
        assert len(found.paths.paths) == 10
        tree = seen[-1]
        channels = {column // tree.steps.length for kind, _, column in tree.site_from if kind == search.EDGE}
        assert channels == ({0, 1, 2} if secant else {0})
        for site in range(tree.sites.count):
            kind, row, column = tree.site_from[site]
            if kind != search.OUT:
                parent = (tree.heads if kind == search.EDGE else tree.sites).weight[row, column]
                assert tree.sites.weight[site].sum() + tree.site_bias[site] == pytest.approx(parent, abs=1e-12)
        for head in range(tree.heads.count):
            row, column = tree.head_from[head]
            assert tree.heads.weight[head].sum() + tree.head_bias.weight[head].sum() == pytest.approx(
                tree.sites.weight[row, column], abs=1e-12
            )


def test_fewer_paths_are_the_first_of_more() -> None:
    run = Attributor(tiny_model("gemma2")).run(tokens(9), tap=True)
    few, many = (run.attribute(TargetSpec(-1), paths=n).paths for n in (5, 40))
    assert few is not None
    assert many is not None
    sizes = [abs(p.weight) for p in many.paths]
    assert sizes == sorted(sizes, reverse=True)
    assert few.paths == many.paths[:5]
    assert all(p.source_pos == int(p.hops[0].split("@")[1]) for p in many.paths)
    assert many.finished == few.finished >= sum(sizes)


@pytest.mark.parametrize("method", ["frozen", "secant"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_in_float32_and_half_precision(dtype: torch.dtype, method: Method) -> None:
    run = Attributor(tiny_model("gemma2", dtype)).run(tokens(9), tap=True, method=method)
    found = run.attribute(TargetSpec(-1), PruningOptions(), compose=True, paths=10)
    assert found.compositions is not None
    assert found.paths is not None
    assert np.abs(found.compositions.weight.sum(0) - found.compositions.relevance).max() < 1e-5
    assert found.paths.total == pytest.approx(found.explained, abs=1e-5)


def test_a_mixture_of_experts_and_constants_of_the_residual_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "EXPANSIONS_PER_PATH", 3)
    shared = {**GROUPED, "embedding_multiplier": 3.0, "residual_multiplier": 0.4, "logits_scaling": 2.5, "attention_multiplier": 0.3}
    experts = transformers.MixtralConfig(**GROUPED, num_local_experts=4, num_experts_per_tok=2)
    bloom = transformers.BloomConfig(vocab_size=97, hidden_size=32, n_layer=3, n_head=4)
    for config in (transformers.GraniteConfig(**shared), experts, bloom):
        found = Attributor(randomised(config)).run(tokens(9), tap=True).attribute(TargetSpec(-1), compose=True, paths=10)
        assert found.compositions is not None
        assert found.paths is not None
        assert np.abs(found.compositions.weight.sum(0) - found.compositions.relevance).max() < 1e-10
        assert found.paths.total == pytest.approx(found.explained, abs=1e-12)


def test_a_router_that_gives_both_scores_and_logits_does_not_hinder_paths() -> None:
    built = build("llama4_text")
    found = Attributor(built.model).run(built.input_ids, tap=True).attribute(TargetSpec(-1), paths=10).paths
    assert found is not None
    assert len(found.paths) == 10
    assert any(".mlp" in hop for path in found.paths for hop in path.hops)
    assert found.split_error < 1e-6  # transformers computes norms in float32


def test_what_is_refused_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "EXPANSIONS_PER_PATH", 3)
    sizes = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    opt = Attributor(randomised(transformers.OPTConfig(**sizes, ffn_dim=48, max_position_embeddings=64, word_embed_proj_dim=32)))
    assert opt.without_compositions() is None
    composed = opt.run(tokens(9), tap=True).attribute(TargetSpec(-1), compose=True).compositions  # it flattens batch and positions
    assert composed is not None
    assert np.abs(composed.weight.sum(0) - composed.relevance).max() < 1e-10
    with pytest.raises(UnsupportedModelError, match="no paths: the MLP is no module of its own in layer 0"):
        opt.run(tokens(9), tap=True).attribute(TargetSpec(-1), paths=5)
    latent = Attributor(build("deepseek_v3").model)
    with pytest.raises(UnsupportedModelError, match="no compositions and paths: values are not made of the normed residual stream"):
        latent.run(tokens(9), tap=True).attribute(TargetSpec(-1), compose=True)
    falcon = Attributor(randomised(transformers.FalconConfig(**sizes)))
    with pytest.raises(UnsupportedModelError, match="no compositions and paths: values are no slice of one linear layer's output"):
        falcon.run(tokens(9), tap=True).attribute(TargetSpec(-1), compose=True)


def test_secant_refuses_a_norm_of_queries_and_keys_that_takes_the_mean_off() -> None:
    phi = Attributor(tiny_model("phi"))
    assert phi.without_paths("frozen") is None
    with pytest.raises(UnsupportedModelError, match="no compositions and paths by the method secant: its queries or keys in layer 0"):
        phi.run(tokens(9), tap=True, method="secant").attribute(TargetSpec(-1), paths=5)


@pytest.mark.parametrize("left", [True, False])
def test_secant_paths_beside_a_padded_row_are_those_of_the_prompt_alone(left: bool) -> None:
    attributor, ids, pad = Attributor(tiny_model("qwen3")), tokens(6), 3
    alone = attributor.run(ids, tap=True, method="secant").attribute(TargetSpec(-1), compose=True, paths=30)
    row = torch.cat([tokens(pad, seed=1), ids] if left else [ids, tokens(pad, seed=1)])
    mask = torch.ones(2, 9, dtype=torch.long)
    mask[1, :pad] = 0 if left else 1
    mask[1, 6:] = 1 if left else 0
    run = attributor.run(
        torch.stack([tokens(9, seed=2), row]),
        attention_mask=mask,
        position_ids=(mask.cumsum(1) - 1).clamp_min(0),
        tap=True,
        method="secant",
    )
    found = run.attribute(TargetSpec(8 if left else 5), batch=1, compose=True, paths=30)
    assert alone.paths is not None
    assert found.paths is not None
    assert [p.motif for p in found.paths.paths] == [p.motif for p in alone.paths.paths]
    np.testing.assert_allclose([p.weight for p in found.paths.paths], [p.weight for p in alone.paths.paths], atol=1e-6)
    assert alone.compositions is not None
    assert found.compositions is not None
    np.testing.assert_allclose(found.compositions.weight, alone.compositions.weight, atol=1e-6)


def test_sums_that_fail_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Attributor(tiny_model("llama")).run(tokens(8), tap=True)
    monkeypatch.setattr(type(run.steps().writers), "biases", lambda self, rows: None)
    with pytest.raises(ConservationError, match=r"compositions add up .* I13"):
        run.attribute(TargetSpec(-1), compose=True)


def test_long_prompts_meet_positions_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "EXPANSIONS_PER_PATH", 3)
    run = Attributor(tiny_model("gpt2")).run(tokens(12), tap=True)
    whole = run.attribute(TargetSpec(-1), paths=20).paths
    monkeypatch.setattr("tracestore.extract.writers.KEPT_POSITIONS", 4)
    lazy = run.attributor.run(tokens(12), tap=True).attribute(TargetSpec(-1), paths=20).paths
    assert whole is not None
    assert lazy is not None
    assert [p.hops for p in whole.paths] == [p.hops for p in lazy.paths]
