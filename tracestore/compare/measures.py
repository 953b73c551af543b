"""How far two distributions, or two rankings, are apart."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Final, TypeVar

Key = TypeVar("Key", bound=Hashable)

PERSISTENCE: Final = 0.9
"""Of rank-biased overlap: the first ten ranks carry 86 % of the weight."""
DEPTH: Final = 50


def total_variation(one: Mapping[Key, float], other: Mapping[Key, float]) -> float:
    """Give the share of mass that would have to move to make one of the other, 0 to 1; what is not listed counts as one more entry."""
    apart = sum(abs(one.get(key, 0.0) - other.get(key, 0.0)) for key in one.keys() | other.keys())
    return min(1.0, (apart + abs(sum(one.values()) - sum(other.values()))) / 2)


def rank_biased_overlap(one: Sequence[Key], other: Sequence[Key], *, persistence: float = PERSISTENCE) -> float:
    """Give the agreement of two rankings, best first, 0 to 1: the extrapolated form of Webber, Moffat and Zobel (2010), equation 23."""
    depth = min(len(one), len(other), DEPTH)
    if depth == 0:
        return 1.0 if len(one) == len(other) else 0.0
    seen_one: set[Key] = set()
    seen_other: set[Key] = set()
    overlap, total = 0, 0.0
    for rank in range(1, depth + 1):
        a, b = one[rank - 1], other[rank - 1]
        overlap += (a == b) + (a != b and a in seen_other) + (a != b and b in seen_one)
        seen_one.add(a)
        seen_other.add(b)
        total += persistence**rank * overlap / rank
    return total * (1 - persistence) / persistence + persistence**depth * overlap / depth


def ranked(shares: Mapping[Key, float]) -> list[Key]:
    """Order keys by share, largest first; ties by key."""
    return sorted(shares, key=lambda key: (-shares[key], str(key)))
