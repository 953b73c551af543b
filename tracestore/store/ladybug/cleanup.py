"""Deletion by uid range: what is not visible (yet, or any longer). Each step can be repeated, so a crash in between does no harm."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from tracestore import schema
from tracestore.store.ladybug import ledger
from tracestore.store.ladybug.handle import EngineError, Handle
from tracestore.store.staging import uid_range

_MECHANISM_LABELS: Final = tuple(node.label for node in schema.NODES if node.level == "mechanism")


def _delete_traces(handle: Handle, first_no: int, last_no: int) -> None:
    low, high = uid_range(first_no, last_no)
    for node in reversed(schema.NODES):
        handle.change(f"MATCH (n:{node.label}) WHERE n.uid >= $low AND n.uid < $high DETACH DELETE n", {"low": low, "high": high})


def _delete_mechanism(handle: Handle, trace_no: int, output_uid: int) -> None:
    low, high = uid_range(trace_no)
    for label in _MECHANISM_LABELS:
        handle.change(
            f"MATCH (n:{label}) WHERE n.uid >= $low AND n.uid < $high AND n.output_uid = $output DETACH DELETE n",
            {"low": low, "high": high, "output": output_uid},
        )


def clean(handle: Handle, work: ledger.Work) -> None:
    """Delete what one piece of work names, then cross it off. Nothing happens when it was crossed off already (its traces may be READY)."""
    if all(piece.id != work.id for piece in ledger.open_work(handle)):
        return
    if work.kind == "attach":
        _delete_mechanism(handle, work.first_no, work.output_uid)
    else:
        _delete_traces(handle, work.first_no, work.last_no)
    ledger.end_work(handle, work)


def clean_all(handle: Handle) -> int:
    """Delete everything that is neither visible nor on its way; give how many pieces of work there were. Call under the lock."""
    work = ledger.open_work(handle)
    for piece in work:
        clean(handle, piece)
    return len(work)


@contextmanager
def cleaned_on_failure(handle: Handle, work: ledger.Work) -> Iterator[None]:
    """Delete what a piece of work has left when the block fails; what cannot be deleted now is deleted on the next opening."""
    try:
        yield
    except Exception:
        if not handle.broken:
            with suppress(EngineError):
                clean(handle, work)
        raise
