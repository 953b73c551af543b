"""Run a case with tokens taken away, and remember the answers: many methods ask for the same removals.

Two perturbations: `column`, no later position may read the token; `mean`, its embedding is the vocabulary's mean. Neither is called the
truth: on real prompts their orders of single removals agree at a rank correlation of about one half only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from tracestore.evaluate.case import Case
from tracestore.extract.knockouts.measure import KnockoutRunner, Measured
from tracestore.extract.knockouts.removal import Removal, Target

Perturbation = Literal["column", "mean"]
PERTURBATIONS: Final[tuple[Perturbation, ...]] = ("column", "mean")


@dataclass(slots=True)
class Removing:
    """The model with sets of positions removed, each set measured once."""

    case: Case
    _runner: KnockoutRunner = field(init=False)
    _known: dict[tuple[Perturbation, frozenset[int]], Measured] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._runner = KnockoutRunner(self.case.attributor)

    @property
    def measured(self) -> int:
        """How many different sets were run."""
        return len(self._known)

    def measure(self, how: Perturbation, sets: Iterable[Iterable[int]]) -> list[Measured]:
        """Give what the model says with each set of positions removed, in order."""
        wanted = [(how, frozenset(chosen)) for chosen in sets]
        new = list(dict.fromkeys(key for key in wanted if key not in self._known))
        removals = [_removal(how, sorted(chosen)) for how, chosen in new]
        target = Target(self.case.pos, (self.case.token_id,), "centred")
        self._known.update(zip(new, self._runner.measure(self.case.token_ids, target, removals), strict=True))
        return [self._known[key] for key in wanted]


def _removal(how: Perturbation, chosen: Sequence[int]) -> Removal:
    return Removal(columns=tuple(chosen)) if how == "column" else Removal(mean_embeddings=tuple(chosen))
