"""From the archive to a store: idempotent, resumable, batch by batch."""

from __future__ import annotations

from tracestore.load.attaching import attach_output
from tracestore.load.loading import LoadSummary, PackageLoad, PartialLoadError, load_archive, load_packages
from tracestore.load.planning import LoadPlan, outputs_in, plan_empty, plan_load
from tracestore.load.rebuilding import rebuild_store
from tracestore.load.retention import PrunePlan, RetentionReport, Rule, delete_traces, plan_prune

__all__ = [
    "LoadPlan",
    "LoadSummary",
    "PackageLoad",
    "PartialLoadError",
    "PrunePlan",
    "RetentionReport",
    "Rule",
    "attach_output",
    "delete_traces",
    "load_archive",
    "load_packages",
    "outputs_in",
    "plan_empty",
    "plan_load",
    "plan_prune",
    "rebuild_store",
]
