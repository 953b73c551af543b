"""Search for a small set of sources without which one token no longer beats another.

1. Remove each candidate alone.
2. Greedy: begin with the one that lowers the difference most, add whichever lowers it most together with those chosen, until it is
   below zero, nothing lowers it any more, or the set is full.
3. Prune: leave out any member without which the rest still flips it, weakest need first, until none can go.

A smaller set that the greedy walk never met may exist: minimality is not proven.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tracestore.extract.knockouts.removal import Removal, together
from tracestore.knockouts.sources import Source

if TYPE_CHECKING:
    from tracestore.extract.knockouts.measure import Measured

LARGEST_SET: Final = 8
Measure = Callable[[Sequence[Removal]], "list[Measured]"]


@dataclass(frozen=True, slots=True)
class Flip:
    """What the search found: `sources` (removed together), the difference `before` and `after` (logits), `top_token` then chosen first.

    `flipped` is False where no set was found; `sources` then lower the difference most. `runs` counts runs of the model.
    """

    sources: tuple[Source, ...]
    before: float
    after: float
    top_token: int
    runs: int

    @property
    def flipped(self) -> bool:
        """Is the other token ahead without them?"""
        return self.after < 0


def find_flip(candidates: Sequence[Source], measure: Measure, *, largest: int = LARGEST_SET, positions: int | None = None) -> Flip:
    """Search among candidates; `positions` is how many columns there are, never all of which are removed."""
    return _Search(candidates, measure, largest, positions).run()


class _Search:
    def __init__(self, candidates: Sequence[Source], measure: Measure, largest: int, positions: int | None) -> None:
        self._candidates, self._measure, self._largest, self._positions = candidates, measure, largest, positions
        self._runs = 0

    def run(self) -> Flip:
        (whole,) = self._try([()])
        chosen, found = self._grow((), whole)
        if found.explained < 0:
            chosen, found = self._prune(chosen, found)
        return Flip(chosen, whole.explained, found.explained, found.top_token, self._runs)

    def _try(self, sets: Sequence[tuple[Source, ...]]) -> list[Measured]:
        self._runs += len(sets)
        return self._measure([together(source.removal for source in chosen) for chosen in sets])

    def _grow(self, chosen: tuple[Source, ...], best: Measured) -> tuple[tuple[Source, ...], Measured]:
        helpful = list(self._candidates)
        while best.explained >= 0 and len(chosen) < self._largest:
            sets = [(*chosen, source) for source in helpful if source not in chosen and self._leaves_something((*chosen, source))]
            if not sets:
                break
            found = self._try(sets)
            if not chosen:  # what raises it alone is not tried again: every round costs a run for each candidate
                helpful = [one[-1] for one, measured in zip(sets, found, strict=True) if measured.explained < best.explained]
            index = min(range(len(sets)), key=lambda at: found[at].explained)
            if found[index].explained >= best.explained:
                break
            chosen, best = sets[index], found[index]
        return chosen, best

    def _prune(self, chosen: tuple[Source, ...], best: Measured) -> tuple[tuple[Source, ...], Measured]:
        while len(chosen) > 1:
            sets = [tuple(source for source in chosen if source is not left_out) for left_out in chosen]
            found = self._try(sets)
            index = min(range(len(sets)), key=lambda at: found[at].explained)
            if found[index].explained >= 0:
                break
            chosen, best = sets[index], found[index]
        return chosen, best

    def _leaves_something(self, chosen: tuple[Source, ...]) -> bool:
        columns = together(source.removal for source in chosen).columns
        return self._positions is None or len(columns) < self._positions
