"""Llama and its close relatives: RMSNorm before each part, gated MLP. They differ inside the attention pattern only."""

from tracestore.extract.families.base import Family

LLAMA = Family(name="llama", model_types=("llama",), mlp="gated")
MISTRAL = Family(name="mistral", model_types=("mistral",), mlp="gated")
QWEN2 = Family(name="qwen2", model_types=("qwen2",), mlp="gated")  # biases on q, k, v
QWEN3 = Family(name="qwen3", model_types=("qwen3",), mlp="gated")  # q and k normalised per head: inside the pattern
SMOLLM3 = Family(name="smollm3", model_types=("smollm3",), mlp="gated")  # some layers without RoPE: inside the pattern

FAMILIES = (LLAMA, MISTRAL, QWEN2, QWEN3, SMOLLM3)
