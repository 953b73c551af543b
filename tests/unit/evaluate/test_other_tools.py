"""Gradient baselines against captum and inseq, on the numbers that they gave (tests/fixtures/README.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tracestore.evaluate.baselines import gradients
from tracestore.evaluate.case import Case
from tracestore.extract.attribute import Attributor

FIXTURE = Path(__file__).resolve().parents[2] / "fixtures" / "reference_attributions.npz"


@pytest.fixture(scope="module")
def theirs() -> dict[str, Any]:
    with np.load(FIXTURE) as found:
        return {name: found[name] for name in found.files}


@pytest.fixture(scope="module")
def case(theirs: dict[str, Any]) -> Case:
    config = LlamaConfig(
        vocab_size=23,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=32,
    )
    model: Any = LlamaForCausalLM(config).double().eval()
    weights = {name.removeprefix("weight/"): torch.from_numpy(v).double() for name, v in theirs.items() if name.startswith("weight/")}
    model.load_state_dict(weights)
    return Case("reference", "t", Attributor(model), tuple(theirs["ids"].tolist()), int(theirs["token"]))


def test_captum(case: Case, theirs: dict[str, Any]) -> None:
    np.testing.assert_allclose(gradients.saliency(case), theirs["captum_saliency"], rtol=1e-5)
    np.testing.assert_allclose(gradients.gradient_x_input(case), theirs["captum_input_x_gradient"], rtol=1e-5, atol=1e-8)
    integrated = gradients.integrated_gradients(case, int(theirs["steps"]))
    np.testing.assert_allclose(integrated, theirs["captum_integrated_gradients"], rtol=1e-5, atol=1e-8)


def test_inseq(case: Case, theirs: dict[str, Any]) -> None:
    """inseq explains the raw logit; its numbers are float32."""
    np.testing.assert_allclose(gradients.saliency(case, gauge="raw"), theirs["inseq_saliency"], rtol=1e-4)
    np.testing.assert_allclose(gradients.gradient_x_input(case, gauge="raw"), theirs["inseq_input_x_gradient"], rtol=1e-4, atol=1e-6)
