"""What is removed in one run of the model, and what may not be.

- `columns`: token positions that no later position may read: masked as keys in every layer and head. The softmax is taken over what is
  left, so the other probabilities of a row grow (a learned sink in the softmax stays). The position itself still computes.
- `edges`: single attention edges (layer, head, query, key), masked in that head alone, the rest of the row renormalised.
- `heads`: (layer, head) whose output is zero at every position, before the output projection. Zero, not a mean: it needs no reference
  data, and is the removal that the head's relevance in a trace is about.
- `mean_embeddings`: positions whose embedding is replaced by the mean embedding of the vocabulary (positions and everything else stay).

Everything in one `Removal` is removed together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tracestore.errors import BadInputError
from tracestore.model import Gauge


@dataclass(frozen=True, slots=True)
class Removal:
    """What one run leaves out; an empty one is the model as it is."""

    columns: tuple[int, ...] = ()
    edges: tuple[tuple[int, int, int, int], ...] = ()  # layer, head, query position, key position
    heads: tuple[tuple[int, int], ...] = ()  # layer, head
    mean_embeddings: tuple[int, ...] = ()

    def __or__(self, other: Removal) -> Removal:
        """Remove both together."""
        return Removal(
            tuple(sorted({*self.columns, *other.columns})),
            tuple(sorted({*self.edges, *other.edges})),
            tuple(sorted({*self.heads, *other.heads})),
            tuple(sorted({*self.mean_embeddings, *other.mean_embeddings})),
        )


def together(removals: Iterable[Removal]) -> Removal:
    """Join several removals into one."""
    whole = Removal()
    for removal in removals:
        whole = whole | removal
    return whole


@dataclass(frozen=True, slots=True)
class Target:
    """What is read: the explained quantity of `tokens` [n], predicted from the positions `first_pos` to `pos` (one of them: one token)."""

    pos: int
    tokens: tuple[int, ...]
    gauge: Gauge
    foil: int | None = None

    @property
    def first_pos(self) -> int:
        """First position whose logits are read."""
        return self.pos - len(self.tokens) + 1


def check_removal(removal: Removal, target: Target, shape: tuple[int, int]) -> None:
    """Raise BadInputError for a removal that makes no sense for a target; `shape` is (layers, heads) of the model."""
    pos = target.pos
    for at in removal.columns:
        if at == pos:
            raise BadInputError(
                f"position {at} is the one whose prediction is explained: nothing later reads it, so its column cannot be knocked out; "
                "replace its embedding (mean-embedding) or remove a single edge instead"
            )
        _check_position(at, pos, "knock out")
    for at in removal.mean_embeddings:
        _check_position(at, pos, "replace")
    _refuse_everything(removal.columns, range(pos), "knocking out the columns of")
    _refuse_everything(removal.mean_embeddings, range(pos + 1), "replacing the embeddings of")
    for layer, head, query, key in removal.edges:
        _check_head(layer, head, shape)
        _check_position(query, pos, "remove an edge at")
        if not 0 <= key <= query:
            raise BadInputError(f"there is no attention edge from position {key} to {query}: a key is at its query's position or before it")
    for layer, head in removal.heads:
        _check_head(layer, head, shape)


def _check_position(at: int, pos: int, what: str) -> None:
    if at < 0:
        raise BadInputError(f"cannot {what} position {at}: positions count from 0")
    if at > pos:
        raise BadInputError(f"cannot {what} position {at}: it comes after position {pos}, whose prediction is explained")


def _refuse_everything(chosen: Sequence[int], every: range, what: str) -> None:
    if chosen and set(chosen) >= set(every):
        raise BadInputError(f"{what} every token leaves the model nothing to read: leave at least one")


def _check_head(layer: int, head: int, shape: tuple[int, int]) -> None:
    if not (0 <= layer < shape[0] and 0 <= head < shape[1]):
        raise BadInputError(f"there is no head L{layer}.H{head}: the model has {shape[0]} layers of {shape[1]} heads")
