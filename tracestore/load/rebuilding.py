"""Build a store anew from the archive. The old one stays until the new one is whole; then its file is gone, deleted bytes included."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from tracestore.errors import StoreError
from tracestore.load.attaching import attach_output
from tracestore.load.loading import LoadSummary, load_archive
from tracestore.load.planning import LoadPlan
from tracestore.store import open_engine, rebuild_engine
from tracestore.store.base import Limits, LoadLevel, Progress, Store

if TYPE_CHECKING:
    from tracestore.archive import Archive

_MECHANISM: Final = (
    "MATCH (o:Output)-[:OF]->(t:Trace) WHERE t.ready_id IS NOT NULL AND o.mechanism = $there RETURN o.output_id AS output_id"
)
_LIMITS: Final = Limits(timeout_s=600.0, max_rows=None)


def _outputs(store: Store, *, mechanism: bool) -> set[str]:
    found = store.run(_MECHANISM, {"there": mechanism}, _LIMITS).table
    return {str(value) for value in found.column("output_id").to_pylist()}


def _attached_before(url: str) -> set[str]:
    """List the outputs whose mechanism the old store has; none when it cannot be read."""
    try:
        with open_engine(url, read_only=True, create=False) as store:
            return _outputs(store, mechanism=True)
    except StoreError:
        return set()


def rebuild_store(
    archive: Archive,
    url: str,
    *,
    level: LoadLevel | None = None,
    progress: Progress | None = None,
    on_plan: Callable[[LoadPlan], None] | None = None,
    writers: int | None = None,
) -> LoadSummary:
    """Rebuild the store at `url`. Unless a level is asked for, outputs whose mechanism was there get it again.

    Raises PartialLoadError when a package is damaged (the old store stays), StoreError and its kinds.
    """
    attached = _attached_before(url) if level is None else set()
    with rebuild_engine(url) as fresh:
        summary = load_archive(archive, fresh, level=level, progress=progress, on_plan=on_plan, writers=writers)
        for output_id in sorted(attached & _outputs(fresh, mechanism=False)):
            attach_output(archive, fresh, output_id)
    return summary
