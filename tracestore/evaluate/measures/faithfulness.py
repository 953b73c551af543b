"""Does removing the first tokens of an order change the prediction, and does keeping them hold it?

For an order of the removable tokens (neither the sink nor the explained position) and cuts k = 1 .. n:

    comprehensiveness   mean over k of  z - z(first k removed)        higher is better   (AOPC; ERASER, DeYoung et al., 2020)
    sufficiency         mean over k of  z - z(all but the first k removed)     lower is better
    deletion, insertion area under the probability of the token along the same two curves

What is kept alone is measured by knockout of columns only: mean embeddings but for a few tokens are no text. z is the explained logit. At
most `CUTS` cuts are measured, the first three among them, the others evenly spaced.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from tracestore.evaluate.case import Case
from tracestore.evaluate.removing import Perturbation, Removing

CUTS: Final = 6


@dataclass(frozen=True, slots=True)
class Faithfulness:
    """The numbers of one order under one perturbation: logits for the first two, probability for the others; None: not measured."""

    comprehensiveness: float
    deletion: float
    sufficiency: float | None = None
    insertion: float | None = None


def cuts_of(count: int) -> list[int]:
    """Choose where to cut an order of `count` tokens."""
    if count <= CUTS:
        return list(range(1, count + 1))
    rest = np.linspace(4, count, CUTS - 3).round().astype(int).tolist()
    return sorted({1, 2, 3, *rest})


def asked_sets(case: Case, ranked: Sequence[int], how: Perturbation) -> list[Sequence[int]]:
    """Give the sets of positions that an order is judged by, as they are removed: none, the first k at every cut, all but the first k.

    The last ones for columns only.
    """
    places = set(case.removable)
    ranked = [place for place in ranked if place in places]
    cuts = cuts_of(len(ranked))
    return [(), *(ranked[:k] for k in cuts), *(ranked[k:] for k in cuts if how == "column")]


def faithfulness(removing: Removing, ranked: Sequence[int], how: Perturbation) -> Faithfulness | None:
    """Measure an order of positions; None when there is nothing to remove."""
    cuts = cuts_of(len(removing.case.removable))
    if not cuts:
        return None
    whole, *found = removing.measure(how, asked_sets(removing.case, ranked, how))
    removed, kept = found[: len(cuts)], found[len(cuts) :]
    return Faithfulness(
        comprehensiveness=whole.explained - _area(cuts, [one.explained for one in removed]),
        deletion=_area(cuts, [float(np.exp(one.logp)) for one in removed]),
        sufficiency=whole.explained - _area(cuts, [one.explained for one in kept]) if kept else None,
        insertion=_area(cuts, [float(np.exp(one.logp)) for one in kept]) if kept else None,
    )


def _area(cuts: Sequence[int], values: Sequence[float]) -> float:
    """Mean of a curve over all cuts 1 .. n, linear between those that were measured."""
    return float(np.interp(np.arange(1, cuts[-1] + 1), cuts, values).mean())
