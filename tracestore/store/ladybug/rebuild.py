"""Build a store anew beside the old one, then let it take its place.

1. Under the writer's lock, carry over what the archive does not know: EVICTED ids and the highest trace number.
2. Fill `graph.lbug.building`. A crash leaves the old store as it was.
3. Close it, have it on disk, rename it to `graph.lbug.next`: from here on the rebuild counts, whoever opens the store finishes it.
4. Remove the old log and rename `.next` over the database. The old file's bytes are gone with it, deleted text included.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from tracestore.errors import StoreError
from tracestore.store.base import Store
from tracestore.store.ladybug import files as paths
from tracestore.store.ladybug import ledger
from tracestore.store.ladybug.handle import EngineError, Handle


def _carried_over(files: paths.StoreFiles) -> tuple[list[str], int]:
    """Read the EVICTED ids and the highest trace number of the old store; nothing when it cannot be read."""
    if not files.database.exists():
        return [], 0
    try:
        paths.check_versions(files)
        handle = Handle(files, read_only=False)  # for writing: a reader would wait for a killed writer's checkpoint
    except StoreError:
        return [], 0
    try:
        evicted = [entry.trace_id for entry in ledger.records(handle).values() if entry.status == "EVICTED"]
        return evicted, ledger.counter(handle)
    except EngineError:
        return [], 0
    finally:
        handle.close()


@contextmanager
def rebuild_ladybug(url: str) -> Iterator[Store]:
    """Give a fresh store to fill; without an error it replaces the one at `url`. Raises StoreError and its kinds."""
    from tracestore.store.ladybug.store import open_ladybug

    files = paths.locate(url)
    paths.check_place(files, write=True)
    lock = paths.take_lock(files)
    building = files.building
    try:
        paths.finish_swap(files)
        paths.remove_building(files)
        evicted, highest = _carried_over(files)
        store = open_ladybug(str(building.database))
        try:
            store.continue_from(evicted, highest)
            yield store
        finally:
            store.close()
        _publish(files, building)
    finally:
        paths.remove_building(files)
        lock.release()


def _publish(files: paths.StoreFiles, building: paths.StoreFiles) -> None:
    if building.engine_files():
        raise StoreError(f"the engine left an open log beside {building.database}; the store was left as it was, run the rebuild again")
    with building.database.open("rb") as file:
        os.fsync(file.fileno())
    building.database.replace(files.next)
    paths.sync_folder(files.database.parent)
    paths.finish_swap(files)
    paths.write_marker(files)
