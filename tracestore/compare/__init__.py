"""Compare stored mechanisms: two traces, two models or checkpoints, or a baseline and a candidate that must not drift from it."""

from __future__ import annotations

from tracestore.compare.asserting import AssertReport, Thresholds, assert_mechanism
from tracestore.compare.comparing import Comparison, compare_models, compare_traces
from tracestore.compare.profiles import Profile, archive_profiles, store_profiles

__all__ = [
    "AssertReport",
    "Comparison",
    "Profile",
    "Thresholds",
    "archive_profiles",
    "assert_mechanism",
    "compare_models",
    "compare_traces",
    "store_profiles",
]
