"""Knockouts of archived predictions: choose what to remove, measure it on the model, append what was found to the archive."""

from __future__ import annotations

from tracestore.knockouts.debugging import DebugReport, debug
from tracestore.knockouts.effects import Agreement, agreement
from tracestore.knockouts.report import KnockoutReport, OutputKnockouts
from tracestore.knockouts.run import Choice, PartialVerifyError, verify, verify_all
from tracestore.knockouts.sources import KINDS, Kind

__all__ = [
    "KINDS",
    "Agreement",
    "Choice",
    "DebugReport",
    "Kind",
    "KnockoutReport",
    "OutputKnockouts",
    "PartialVerifyError",
    "agreement",
    "debug",
    "verify",
    "verify_all",
]
