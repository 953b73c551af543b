"""Trace what a language model's attention did: exact, signed attribution graphs, kept in an archive, asked in Cypher.

Everything public is listed in `__all__` and loaded when it is first used: `import tracestore` alone imports neither pyarrow nor torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tracestore._version import __version__ as __version__
    from tracestore.api import GraphStore, ingest_items, load_model, open_store, read_items, rebuild_store, trace, validate, verify
    from tracestore.archive import Archive
    from tracestore.errors import (
        ArchiveError,
        BadInputError,
        ConservationError,
        IntegrityError,
        ItemError,
        MechanismShiftError,
        ModelOutputError,
        PartialSuccessError,
        QueryError,
        QueryTimeoutError,
        ResourceError,
        ShortCountError,
        StoreError,
        StoreLockedError,
        StoreUnavailableError,
        StoreVersionError,
        TracestoreError,
        UnsupportedModelError,
    )
    from tracestore.ingest import trace_to_archive
    from tracestore.model import Document, GenerationOptions, Item, Output, PruningOptions, SpanRequest, Trace, TraceOptions

_HOME = {
    "tracestore._version": ("__version__",),
    "tracestore.api": (
        "GraphStore",
        "ingest_items",
        "load_model",
        "open_store",
        "read_items",
        "rebuild_store",
        "trace",
        "validate",
        "verify",
    ),
    "tracestore.ingest": ("trace_to_archive",),
    "tracestore.archive": ("Archive",),
    "tracestore.errors": (
        "ArchiveError",
        "BadInputError",
        "ConservationError",
        "IntegrityError",
        "ItemError",
        "ModelOutputError",
        "PartialSuccessError",
        "QueryError",
        "QueryTimeoutError",
        "ResourceError",
        "MechanismShiftError",
        "ShortCountError",
        "StoreError",
        "StoreLockedError",
        "StoreUnavailableError",
        "StoreVersionError",
        "TracestoreError",
        "UnsupportedModelError",
    ),
    "tracestore.model": ("Document", "GenerationOptions", "Item", "Output", "PruningOptions", "SpanRequest", "Trace", "TraceOptions"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "Archive",
    "ArchiveError",
    "BadInputError",
    "ConservationError",
    "Document",
    "GenerationOptions",
    "GraphStore",
    "IntegrityError",
    "Item",
    "ItemError",
    "MechanismShiftError",
    "ModelOutputError",
    "Output",
    "PartialSuccessError",
    "PruningOptions",
    "QueryError",
    "QueryTimeoutError",
    "ResourceError",
    "ShortCountError",
    "SpanRequest",
    "StoreError",
    "StoreLockedError",
    "StoreUnavailableError",
    "StoreVersionError",
    "Trace",
    "TraceOptions",
    "TracestoreError",
    "UnsupportedModelError",
    "__version__",
    "ingest_items",
    "load_model",
    "open_store",
    "read_items",
    "rebuild_store",
    "trace",
    "trace_to_archive",
    "validate",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
