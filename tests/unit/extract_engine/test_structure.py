"""The generic path agrees with the tables where there are some, and refuses by name and reason what it cannot do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import transformers

from tests.support.tiny_models import CONFIGS, GROUPED, SIZES, randomised, tiny_model, tokens
from tracestore.errors import UnsupportedModelError
from tracestore.extract import layout as layouts
from tracestore.extract.attribute import Attributor
from tracestore.extract.attribution import TargetSpec
from tracestore.extract.families import find_family
from tracestore.extract.identities import EVERY_EDGE, dense_edges
from tracestore.extract.layout import family_layout
from tracestore.extract.structure import generic_layouts


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_found_by_structure_is_what_the_table_says(name: str) -> None:
    model = tiny_model(name)
    family = find_family(model.config.model_type)
    assert family is not None
    table, found = family_layout(model, family), generic_layouts(model)
    readings = {layout.blocks[0].mlp: layout for layout in found}
    assert set(readings) == {"gated", "plain"}
    generic = readings[table.blocks[0].mlp]
    assert (generic.final_norm, generic.head, generic.width) == (table.final_norm, table.head, table.width)
    assert generic.blocks == table.blocks


def test_only_the_right_reading_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = tokens(8)
    for name in ("gpt2", "gemma2"):
        known = Attributor(tiny_model(name)).run(ids).attribute(TargetSpec(-1), EVERY_EDGE)
        with monkeypatch.context() as patch:
            patch.setattr(layouts, "find_family", lambda _: None)
            attributor = Attributor(tiny_model(name))
        assert attributor.family == "generic"
        found = attributor.run(ids).attribute(TargetSpec(-1), EVERY_EDGE)
        np.testing.assert_allclose(found.scores, known.scores, atol=1e-12)
        np.testing.assert_allclose(dense_edges(found), dense_edges(known), atol=1e-12)


@pytest.mark.parametrize(
    "config",
    [
        transformers.MixtralConfig(**GROUPED, num_local_experts=4, num_experts_per_tok=2),
        transformers.CohereConfig(**GROUPED, use_qk_norm=True),
        transformers.StableLmConfig(**GROUPED, use_parallel_residual=False, use_qkv_bias=True),
        transformers.Starcoder2Config(**GROUPED),
        transformers.OPTConfig(**{**SIZES, "ffn_dim": 48}),
    ],
    ids=lambda config: str(config.model_type),
)
def test_architectures_without_a_table_close(config: Any) -> None:
    attributor = Attributor(randomised(config))
    assert attributor.family == "generic"
    found = attributor.run(tokens(9)).attribute(TargetSpec(-1))
    assert max(found.closure, found.node_error) < 1e-10


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (transformers.BertConfig(**SIZES, is_decoder=True), "post-LN"),
        (transformers.MambaConfig(vocab_size=97, hidden_size=32, num_hidden_layers=2, state_size=4), "attention interface"),
        (transformers.RwkvConfig(vocab_size=97, hidden_size=32, num_hidden_layers=2, attention_hidden_size=32), "attention interface"),
        (transformers.XLNetConfig(vocab_size=97, d_model=32, n_layer=2, n_head=4, d_inner=48), "attention interface"),
    ],
    ids=["post-ln", "mamba", "rwkv", "xlnet"],
)
def test_what_cannot_be_decomposed_is_refused_with_the_reason(config: Any, reason: str) -> None:
    with pytest.raises(UnsupportedModelError, match=reason):
        Attributor(randomised(config))


def test_a_model_that_looks_like_its_family_but_is_not_is_refused() -> None:
    model = tiny_model("llama")
    del model.model.layers[1].post_attention_layernorm
    with pytest.raises(UnsupportedModelError, match="does not look like its family 'llama'"):
        Attributor(model)
