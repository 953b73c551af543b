"""Baselines that ask the model itself, with tokens removed: as many forward passes as tokens, or a fixed number of random removals."""

from __future__ import annotations

from typing import Final

import numpy as np

from tracestore.evaluate.case import Case, Scores
from tracestore.evaluate.removing import Perturbation, Removing
from tracestore.ids import content_hash

DRAWS: Final = 32
_RIDGE: Final = 1e-2


def leave_one_out(case: Case, how: Perturbation, removing: Removing | None = None) -> Scores:
    """How much the explained logit falls when a token is removed; 0 where it cannot be (the sink, the explained position itself)."""
    removing = removing or Removing(case)
    places = case.removable
    whole, *without = removing.measure(how, [(), *((place,) for place in places)])
    scores = np.zeros(case.length)
    scores[places] = [whole.explained - one.explained for one in without]
    return scores


def ablation_regression(case: Case, draws: int = DRAWS) -> Scores:
    """Fit the explained logit on random removals of half the tokens, linearly (after ContextCite, Cohen-Wang et al., 2024; ridge here)."""
    places = case.removable
    if not places:
        return np.zeros(case.length)
    rng = np.random.default_rng(int(content_hash(["ablation regression", case.id])[:12], 16))
    kept = rng.random((draws, len(places))) < 0.5
    kept[0] = True
    found = Removing(case).measure("column", [[p for p, stays in zip(places, row, strict=True) if not stays] for row in kept])
    design = kept - kept.mean(0)
    answer = np.array([one.explained for one in found])
    gram = design.T @ design + _RIDGE * draws * np.eye(len(places))
    scores = np.zeros(case.length)
    scores[places] = np.linalg.solve(gram, design.T @ (answer - answer.mean()))
    return scores
