"""Orders that do not look at the model."""

from __future__ import annotations

import numpy as np

from tracestore.evaluate.case import Case, Scores
from tracestore.ids import content_hash


def random_order(case: Case) -> Scores:
    """Random scores, the same for a case whenever it is asked."""
    return np.random.default_rng(int(content_hash(["random order", case.id])[:12], 16)).random(case.length)


def recency(case: Case) -> Scores:
    """The later the token, the higher."""
    return np.arange(case.length, dtype=np.float64)


def first_token(case: Case) -> Scores:
    """The earlier the token, the higher."""
    return -np.arange(case.length, dtype=np.float64)
