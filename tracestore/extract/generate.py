"""Continue a prompt, greedily or sampled with a seed, with the model's own cache.

1. One forward over what is known, then one per token over the cache.
2. Greedy: the most probable token (the lowest id among equals). Sampled: logits / temperature, cut to the smallest set of tokens whose
   probability reaches top_p, drawn with a generator of its own, so that nothing else disturbs it.
3. Stop at an end token (it ends the text and is not part of it) or after `max_new_tokens`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tracestore.errors import BadInputError, ModelOutputError
from tracestore.extract.loading import LoadedModel
from tracestore.model import GenerationOptions


def check_options(options: GenerationOptions) -> None:
    """Raise BadInputError for options outside their ranges."""
    if options.max_new_tokens < 0:
        raise BadInputError(f"max_new_tokens is {options.max_new_tokens}: it cannot be negative")
    if not 0 <= options.temperature < float("inf"):
        raise BadInputError(f"temperature is {options.temperature}: 0 is greedy, larger is more random")
    if not 0 < options.top_p <= 1:
        raise BadInputError(f"top_p is {options.top_p}: it lies above 0 and at most at 1")


def continue_tokens(loaded: LoadedModel, token_ids: Sequence[int], options: GenerationOptions) -> list[int]:
    """Generate up to `options.max_new_tokens` token ids after `token_ids`. Raises ModelOutputError for NaN or infinite logits."""
    check_options(options)
    generator = torch.Generator().manual_seed(options.seed)
    new: list[int] = []
    step = torch.tensor([list(token_ids)], device=loaded.device)
    cache = None
    with torch.no_grad():
        while len(new) < options.max_new_tokens:
            result = loaded.model(input_ids=step, past_key_values=cache, use_cache=True)
            token = _choose(result.logits[0, -1].float().cpu(), options, generator)
            if token in loaded.end_ids:
                break
            new.append(token)
            cache = getattr(result, "past_key_values", None)
            step = torch.tensor([[token] if cache is not None else [*token_ids, *new]], device=loaded.device)
    return new


def _choose(logits: torch.Tensor, options: GenerationOptions, generator: torch.Generator) -> int:
    """Choose the next token from `logits` [vocabulary]."""
    if not bool(torch.isfinite(logits.max())) or bool(torch.isnan(logits).any()):
        raise ModelOutputError("the model's logits are not finite: the checkpoint is damaged, or its number format overflows (try float32)")
    if options.temperature == 0:
        return int(logits.argmax())
    probabilities = torch.softmax(logits.double() / options.temperature, dim=-1)
    ordered, ids = probabilities.sort(descending=True, stable=True)
    before = ordered.cumsum(0) - ordered
    ordered = ordered.masked_fill(before >= options.top_p, 0.0)
    return int(ids[torch.multinomial(ordered, 1, generator=generator)])
