"""One prediction to explain, and what is known of its drivers: what every method and every measure of the evaluation works on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tracestore.extract.attribute import Attributor

Scores: TypeAlias = npt.NDArray[np.float64]
"""How much each position drove the prediction [T], larger is more."""

Method: TypeAlias = "Callable[[Case], Scores]"


def as_scores(tensor: Tensor) -> Scores:
    """Turn a tensor [T] into scores."""
    found: Scores = tensor.detach().double().cpu().numpy()
    return found


SINK: Final = 0
"""The first position: usually an attention sink; every measure is taken with and without it."""


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """Tokens up to the explained position (the last one), the explained token, and its true drivers.

    `evidence` are positions that a person marked or a program reads; `steps` the same in the order of reasoning, each step a set of
    positions of which one is enough. The explained quantity is the token's logit less the vocabulary's mean logit.
    """

    id: str
    task: str
    attributor: Attributor
    token_ids: tuple[int, ...]
    token_id: int
    evidence: frozenset[int] = frozenset()
    steps: tuple[frozenset[int], ...] = field(default=())
    correct: bool | None = None

    @property
    def length(self) -> int:
        """Positions T, the explained one included."""
        return len(self.token_ids)

    @property
    def pos(self) -> int:
        """The position whose logits are read."""
        return len(self.token_ids) - 1

    @property
    def ids(self) -> Tensor:
        """Token ids [1, T]."""
        return torch.tensor([self.token_ids], device=self.attributor.device)

    @property
    def removable(self) -> list[int]:
        """Positions that can be taken away: neither the sink nor the explained position itself."""
        return list(range(SINK + 1, self.pos))


@dataclass(frozen=True, slots=True)
class Pending:
    """A case by its id, made when it is asked for: the first of a suite may have a model to train."""

    id: str
    make: Callable[[], Case]
