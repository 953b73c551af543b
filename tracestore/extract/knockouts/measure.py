"""Run the model with something removed, many removals in one batch, and read the explained quantity and the log probability.

1. Cut the prompt after the explained position: what comes later cannot matter in a causal model.
2. Batches of rows, one removal each (an empty one is the model as it is): embeddings replaced by a hook, attention by `attend`; norms,
   activations, experts and everything else are the model's own.
3. At the final norm read the explained positions: the same vector as in the trace gives `explained`, the whole row the log probability.

Half-precision weights are raised to float32 where they meet an activation, as in a trace, so that small effects are not rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from tracestore.errors import BadInputError, ModelOutputError, UnsupportedModelError
from tracestore.extract.attention import AttentionState
from tracestore.extract.attribute import Attributor
from tracestore.extract.freeze import frozen, linear, quieten, use_attention
from tracestore.extract.knockouts.attend import RemovingAttention
from tracestore.extract.knockouts.removal import Removal, Target, check_removal
from tracestore.extract.loading import LoadedModel
from tracestore.extract.trace import attributor_for

BATCH_TOKENS: Final = 1024
"""Tokens of one batch: larger ones are no faster on a processor and take more memory."""

Progress = Callable[[int], None]
"""Called with the number of removals that were just measured."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What the model says with something removed.

    `explained` in the target's gauge (logits), `logp` of its tokens (nats), `top_token` its own first choice at the last position.
    """

    explained: float
    logp: float
    top_token: int


def knockout_runner(loaded: LoadedModel) -> KnockoutRunner:
    """Prepare a loaded model. Raises UnsupportedModelError with the reason where it cannot be traced either."""
    return KnockoutRunner(attributor_for(loaded))


class KnockoutRunner:
    """A model prepared for knockouts."""

    def __init__(self, attributor: Attributor) -> None:
        self.attributor = attributor
        self._mean: Tensor | None = None
        self._shape: tuple[int, int] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Layers and query heads of a layer."""
        if self._shape is None:
            attention = RemovingAttention((Removal(),))
            self._final_states(self.attributor.short_prompt()[:, :2], attention, slice(-1, None))
            self._shape = (len(self.attributor.layout.blocks), attention.heads)
        return self._shape

    def measure(
        self, token_ids: Sequence[int], target: Target, removals: Sequence[Removal], *, progress: Progress | None = None
    ) -> list[Measured]:
        """Measure each removal on the prompt `token_ids` [T].

        Raises BadInputError for a removal that makes no sense (check_removal), ModelOutputError when logits are NaN or infinite.
        """
        if not 0 <= target.first_pos <= target.pos < len(token_ids):
            raise BadInputError(f"position {target.pos} is outside the {len(token_ids)} tokens of this prompt")
        for removal in removals:
            check_removal(removal, target, self.shape)
        ids = torch.tensor(token_ids[: target.pos + 1], device=self.attributor.device)
        rows = max(1, BATCH_TOKENS // len(ids))
        found: list[Measured] = []
        for start in range(0, len(removals), rows):
            batch = removals[start : start + rows]
            states = self._final_states(ids.expand(len(batch), -1), RemovingAttention(batch), slice(target.first_pos, target.pos + 1))
            found += self._read(states, target)
            if progress is not None:
                progress(len(batch))
        return found

    def _final_states(self, ids: Tensor, attention: RemovingAttention, where: slice) -> Tensor:
        """Run the model on `ids` [B, T]; give the final normed states [B, n, d] at the positions `where`."""
        attributor = self.attributor
        layer_of = {id(m): i for i, block in enumerate(attributor.layout.blocks) for m in block.layer.modules()}
        state = AttentionState(layer_of=layer_of, instead=attention)
        seen: list[Tensor] = []
        with self._patched(state), ExitStack() as stack, torch.no_grad():
            hook = attributor.layout.final_norm.register_forward_hook(lambda _m, _a, out: seen.append(out))
            stack.callback(hook.remove)
            if any(removal.mean_embeddings for removal in attention.removals):
                embedding = attributor.model.get_input_embeddings()
                stack.callback(embedding.register_forward_hook(self._replace_embeddings(attention.removals)).remove)
            attributor.model.base_model(input_ids=ids, use_cache=False)
        missing = [layer for layer in range(len(attributor.layout.blocks)) if state.called.get(layer, 0) != 1]
        if missing or not seen:
            raise UnsupportedModelError(f"{type(attributor.model).__name__} does not run each attention once: nothing can be knocked out")
        return seen[-1][:, where].reshape(len(ids), -1, seen[-1].shape[-1])

    @contextmanager
    def _patched(self, state: AttentionState) -> Iterator[None]:
        """Let every attention run through `state`; the rest stays the model's own (half-precision weights raised)."""
        model = self.attributor.model
        if self.attributor.half:
            with frozen(model, self.attributor.layout, self.attributor.norms, state):
                yield
            return
        with ExitStack() as stack:
            quieten(model, stack)
            use_attention(model, stack, state)
            yield

    def _replace_embeddings(self, removals: Sequence[Removal]) -> Callable[..., Tensor]:
        mean = self._mean_embedding()

        def hook(_module: Any, _args: Any, out: Tensor) -> Tensor:
            changed = out.clone()
            for row, removal in enumerate(removals):
                changed[row, list(removal.mean_embeddings)] = mean.to(out.dtype)
            return changed

        return hook

    def _mean_embedding(self) -> Tensor:
        """Give the mean [d] of what the embedding module gives for every token of the vocabulary (scaled, where it scales)."""
        if self._mean is None:
            embedding = self.attributor.model.get_input_embeddings()
            total = torch.zeros((), dtype=torch.float64, device=self.attributor.device)
            with torch.no_grad():
                for ids in torch.split(torch.arange(embedding.weight.shape[0], device=self.attributor.device), 8192):
                    total = total + embedding(ids).sum(0, dtype=torch.float64)
            self._mean = total / embedding.weight.shape[0]
        return self._mean

    def _read(self, states: Tensor, target: Target) -> list[Measured]:
        """Read the target in final states [B, n, d]."""
        reader = self.attributor.reader
        explained = torch.zeros(states.shape[0], dtype=torch.float64, device=states.device)
        logp = torch.zeros_like(explained)
        top = torch.zeros_like(explained, dtype=torch.int64)
        for index, token in enumerate(target.tokens):
            h = states[:, index]
            rows = linear(h, reader.weight, reader.bias) * reader.scale
            if not bool(torch.isfinite(rows).all()):
                raise ModelOutputError(
                    f"the model's logits at position {target.first_pos + index} are NaN or infinite: its weights are broken, or it "
                    "cannot run without what was removed"
                )
            vector, bias = reader.direction(target.gauge, token, target.foil, h)
            explained += h.double() @ vector.double() + bias
            shown = reader.capped(rows)
            logp += torch.log_softmax(shown.double(), -1)[:, token]
            top = shown.argmax(-1)
        return [Measured(*row) for row in zip(explained.tolist(), logp.tolist(), top.tolist(), strict=True)]
