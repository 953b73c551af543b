"""Bootstrap intervals of means and medians, and of paired differences: no number of an evaluation stands without one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

RESAMPLES: Final = 2_000
LEVEL: Final = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean (or median) with its percentile bootstrap interval (95 %) over `n` items."""

    centre: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return format(self, "")

    def __format__(self, spec: str) -> str:
        """Write all three numbers in the format of one (.2f where none is given)."""
        spec = spec or ".2f"
        return "-" if self.n == 0 else f"{self.centre:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"

    @property
    def above_zero(self) -> bool:
        """Does the interval lie above 0?"""
        return self.n > 0 and self.low > 0

    @property
    def below_zero(self) -> bool:
        """Does it lie below 0?"""
        return self.n > 0 and self.high < 0


def mean_interval(values: Sequence[float], *, seed: int = 0) -> Interval:
    """Resample items with replacement (Efron's percentile interval); NaN values are left out."""
    return _interval(values, np.mean, seed)


def median_interval(values: Sequence[float], *, seed: int = 0) -> Interval:
    """Give the median with its interval, likewise: for costs, which have a long tail."""
    return _interval(values, np.median, seed)


def _interval(values: Sequence[float], centre: Callable[..., Any], seed: int) -> Interval:
    sample = np.asarray(values, dtype=np.float64)
    sample = sample[~np.isnan(sample)]
    if len(sample) == 0:
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    rng = np.random.default_rng(seed)
    resampled = centre(sample[rng.integers(0, len(sample), (RESAMPLES, len(sample)))], axis=1)
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(centre(sample)), float(low), float(high), len(sample))


def paired_interval(ours: Sequence[float], theirs: Sequence[float], *, seed: int = 0) -> Interval:
    """Give the interval of the mean difference ours - theirs over the items that both have (same order, NaN where one is missing)."""
    return mean_interval(np.asarray(ours, dtype=np.float64) - np.asarray(theirs, dtype=np.float64), seed=seed)  # type: ignore[arg-type]
