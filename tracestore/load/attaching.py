"""Bring the mechanism level of one output from the archive into the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tracestore.archive import PackageGoneError
from tracestore.errors import BadInputError
from tracestore.store.base import LoadReport, Store, TraceBundle

if TYPE_CHECKING:
    from tracestore.archive import Archive

_ALL_ROWS: Final = 1 << 40
_ROUNDS: Final = 5


def attach_output(archive: Archive, store: Store, output_id: str) -> LoadReport:
    """Attach one output; nothing happens when its mechanism is there.

    Raises BadInputError when the archive or the store does not have it, ArchiveError when its package is damaged.
    """
    trace_id = output_id.split(":", 1)[0]
    for attempt in range(_ROUNDS):
        try:
            for package in archive.packages():
                if trace_id in package.trace_ids:
                    for part in archive.bundles(package, trace_ids=[trace_id], max_rows=_ALL_ROWS):
                        return store.attach(TraceBundle(part.trace_ids, part.tables), output_id)
            break
        except PackageGoneError:  # compacted while it was read: look again
            if attempt == _ROUNDS - 1:
                raise
    raise BadInputError(f"the archive does not hold the trace of the output {output_id}; check the id, and the archive with: archive list")
