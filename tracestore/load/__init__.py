"""From the archive to a store: idempotent, resumable, batch by batch."""

from __future__ import annotations

from tracestore.load.attaching import attach_output
from tracestore.load.loading import LoadSummary, PartialLoadError, load_archive
from tracestore.load.planning import LoadPlan, plan_empty, plan_load
from tracestore.load.rebuilding import rebuild_store

__all__ = ["LoadPlan", "LoadSummary", "PartialLoadError", "attach_output", "load_archive", "plan_empty", "plan_load", "rebuild_store"]
