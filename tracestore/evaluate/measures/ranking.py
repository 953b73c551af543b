"""An order of tokens against marked evidence: recall of steps, precision, reciprocal rank, share, and the rationale measures of ERASER.

`scores` [T] say how much each position drove the prediction, larger is more; `evidence` are positions. Positions in `left_out` (the first
token, usually an attention sink) take no part. A tie counts as the mean over the orders that it allows where that is simple, else the
earlier position comes first.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def order(scores: Floats, left_out: Collection[int] = ()) -> list[int]:
    """Rank positions, largest score first; among equals the earlier first."""
    found: list[int] = np.argsort(-scores, kind="stable").tolist()
    return [position for position in found if position not in left_out]


def precision_at(ranked: Sequence[int], evidence: Collection[int], k: int) -> float:
    """Give the share of the first `k` positions that is evidence."""
    return sum(position in evidence for position in ranked[:k]) / min(k, len(ranked)) if ranked else float("nan")


def reciprocal_rank(ranked: Sequence[int], evidence: Collection[int]) -> float:
    """Give 1 over the rank of the first piece of evidence; 0 when none is ranked."""
    return next((1.0 / rank for rank, position in enumerate(ranked, start=1) if position in evidence), 0.0)


def share_on(scores: Floats, evidence: Collection[int], left_out: Collection[int] = ()) -> float:
    """Give the share of |score| that lies on the evidence; NaN when there is none at all."""
    mass = np.abs(scores).copy()
    mass[list(left_out)] = 0.0
    total = mass.sum()
    return float(mass[list(evidence)].sum() / total) if total > 0 else float("nan")


def step_recalls(ranked: Sequence[int], steps: Sequence[Collection[int]]) -> list[float]:
    """For each step, 1 when one of its true positions is among the first n of the ranking, n the number of steps."""
    first = set(ranked[: len(steps)])
    return [float(any(position in first for position in step)) for step in steps]


def token_f1(ranked: Sequence[int], evidence: Collection[int]) -> float:
    """F1 of the first |evidence| positions, the measure of ERASER (DeYoung et al., 2020) at the human rationale's own length.

    As many positions are predicted as are marked, so precision, recall and F1 are one number.
    """
    return precision_at(ranked, evidence, len(evidence)) if evidence else float("nan")


def token_iou(ranked: Sequence[int], evidence: Collection[int]) -> float:
    """Intersection over union of the first |evidence| positions and the evidence."""
    if not evidence:
        return float("nan")
    first = set(ranked[: len(evidence)])
    return len(first & set(evidence)) / len(first | set(evidence))


def average_precision(ranked: Sequence[int], evidence: Collection[int]) -> float:
    """Area under the precision-recall curve of the ranking (AUPRC), as the sum of precision at every piece of evidence."""
    if not evidence:
        return float("nan")
    hits, total = 0, 0.0
    for rank, position in enumerate(ranked, start=1):
        if position in evidence:
            hits += 1
            total += hits / rank
    return total / len(evidence)
