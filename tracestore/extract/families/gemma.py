"""Gemma 1, 2, 3 (gain 1 + weight, scaled embedding; 2 and 3 with post-norms) and OLMo 2 (post-norms only)."""

from tracestore.extract.families.base import Family

GEMMA = Family(name="gemma", model_types=("gemma",), mlp="gated")

_SANDWICH = ("post_attention_layernorm", "post_feedforward_layernorm")

GEMMA2 = Family(
    name="gemma2",
    model_types=("gemma2",),
    mlp="gated",
    feed_forward_norm="pre_feedforward_layernorm",
    post_norms=_SANDWICH,
)

GEMMA3 = Family(
    name="gemma3",
    model_types=("gemma3_text",),
    mlp="gated",
    feed_forward_norm="pre_feedforward_layernorm",
    post_norms=_SANDWICH,
)

OLMO2 = Family(
    name="olmo2",
    model_types=("olmo2",),
    mlp="gated",
    attention_norm=None,
    feed_forward_norm=None,
    post_norms=_SANDWICH,
)

FAMILIES = (GEMMA, GEMMA2, GEMMA3, OLMO2)
