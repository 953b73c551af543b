"""Compute saliency, input x gradient and integrated gradients with captum and inseq on a tiny random Llama, as fixtures for our baselines.

    python3 -m venv /tmp/other && /tmp/other/bin/pip install captum==0.9.0 inseq==0.7.1
    /tmp/other/bin/python tools/reference_attributions.py tests/fixtures/reference_attributions.npz

The model's weights go into the file, so that the test needs neither tool and no particular version of anything.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from captum.attr import InputXGradient, IntegratedGradients, Saliency
from transformers import LlamaConfig, LlamaForCausalLM

SIZES = {
    "vocab_size": 23,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
}
IDS = [3, 7, 11, 2, 19, 5, 13]
TOKEN, STEPS = 17, 20


def main(path: Path) -> None:
    torch.manual_seed(5)
    model: Any = LlamaForCausalLM(LlamaConfig(**SIZES)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_((parameter + 0.15 * torch.randn_like(parameter)).float())  # stored as float32, used as float64
    embedded = model.get_input_embeddings()(torch.tensor([IDS])).detach()

    def centred(x: torch.Tensor) -> torch.Tensor:
        row = model(inputs_embeds=x).logits[:, -1]
        return row[:, TOKEN] - row.mean(-1)

    found = {
        "captum_saliency": Saliency(centred).attribute(embedded, abs=False)[0].norm(dim=-1),
        "captum_input_x_gradient": InputXGradient(centred).attribute(embedded)[0].sum(-1),
        "captum_integrated_gradients": IntegratedGradients(centred)
        .attribute(embedded, baselines=torch.zeros_like(embedded), n_steps=STEPS, method="gausslegendre")[0]
        .sum(-1),
    }
    found |= inseq_attributions(model)
    arrays = {name: value.detach().numpy() for name, value in found.items()}
    weights = {f"weight/{name}": value.detach().float().numpy() for name, value in model.state_dict().items()}
    np.savez_compressed(path, ids=np.array(IDS), token=TOKEN, steps=STEPS, **arrays, **weights)
    sys.stderr.write(f"{path}: {', '.join(sorted(found))}\n")


def inseq_attributions(model: Any) -> dict[str, torch.Tensor]:
    """Let inseq attribute the plain logit of the token (it has no centred one): saliency and input x gradient, per token."""
    import inseq
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = ["<u>", "<e>", *(f"t{index}" for index in range(2, SIZES["vocab_size"]))]  # no special token begins another one's name
    raw = Tokenizer(models.WordLevel({name: index for index, name in enumerate(names)}, unk_token="<u>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<u>", pad_token="<e>", eos_token="<e>", bos_token="<e>")
    text = " ".join(f"t{index}" for index in IDS)
    found = {}
    for name in ("saliency", "input_x_gradient"):
        explainer = inseq.load_model(model, name, tokenizer=tokenizer)
        out = explainer.attribute(text, f"{text} t{TOKEN}", attributed_fn="logit", show_progress=False)
        tokens = [str(t.token) for t in out.sequence_attributions[0].target]
        if tokens != [*text.split(), f"t{TOKEN}"]:
            raise SystemExit(f"unexpected tokens: {tokens}")
        scores = out.sequence_attributions[0].target_attributions[: len(IDS), 0].double()  # [T, d]
        found[f"inseq_{name}"] = scores.norm(dim=-1) if name == "saliency" else scores.sum(-1)
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]))
