"""Known answers of exact paths on the packaged model: which head carried which token to the prediction."""

from __future__ import annotations

import pytest
import torch

from tracestore.extract.attribute import Attributor
from tracestore.extract.attribution import OutputAttribution, TargetSpec
from tracestore.extract.loading import LoadedModel
from tracestore.ingest.demo import load_demo_model


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load_demo_model()


@pytest.fixture(scope="module")
def attributor(loaded: LoadedModel) -> Attributor:
    return Attributor(loaded.model)


def explained(attributor: Attributor, loaded: LoadedModel, prompt: str, answer: str, *, compose: bool = False) -> OutputAttribution:
    ids = loaded.tokenizer(prompt)["input_ids"]
    run = attributor.run(torch.tensor(ids), tap=True)
    return run.attribute(TargetSpec(-1, loaded.tokenizer(answer)["input_ids"][0]), last=True, compose=compose, paths=50)


def test_france_comes_by_the_first_mlp_and_one_head(attributor: Attributor, loaded: LoadedModel) -> None:
    found = explained(attributor, loaded, "The capital of France is", " Paris", compose=True)
    assert found.paths is not None
    first = found.paths.paths[0]
    assert first.hops == ("emb@3", "L0.mlp@3", "L23.h4:V@4", "out@4")
    assert first.weight == pytest.approx(1.780, abs=0.002)
    scale = max(abs(found.explained), found.logit_std)
    assert abs(found.paths.total - found.explained) <= 1e-4 * scale
    assert found.compositions is not None
    assert abs(found.compositions.weight.sum(0) - found.compositions.relevance).max() <= 1e-4 * scale


def test_the_same_motif_comes_first_in_two_hops(attributor: Attributor, loaded: LoadedModel) -> None:
    prompt = "Alice lives in France. The capital of the country where Alice lives is"
    found = explained(attributor, loaded, prompt, " Paris")
    assert found.paths is not None
    assert found.paths.paths[0].motif == "emb>L0.mlp>L23.h4:V>out"
    assert loaded.tokenizer.decode(loaded.tokenizer(prompt)["input_ids"][found.paths.paths[0].source_pos]) == " France"
    assert found.paths.paths[0].weight > 0


def test_name_movers_and_a_negative_one(attributor: Attributor, loaded: LoadedModel) -> None:
    prompt = "When Mary and John went to the store, John gave a drink to"
    found = explained(attributor, loaded, prompt, " Mary")
    assert found.paths is not None
    from_mary = {path.motif: path.weight for path in found.paths.paths if path.source_pos == 1}
    for head in ("L23.h0", "L23.h1", "L23.h2", "L23.h7"):
        assert from_mary[f"emb>L0.mlp>{head}:V>out"] > 0, head
    assert from_mary["emb>L0.mlp>L24.h4:V>out"] < 0
