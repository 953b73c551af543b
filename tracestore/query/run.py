"""Run queries: named ones from the catalogue, and ad-hoc Cypher behind the guard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from tracestore.query.catalogue import CatalogueEntry, entry
from tracestore.query.faults import check_faults
from tracestore.query.guard import check_read_only
from tracestore.store.base import Limits, Result, Store

if TYPE_CHECKING:
    import pyarrow as pa

_INT64_MAX: Final = 2**63 - 1
DEFAULT_TIMEOUT_S: Final = 60.0
"""Seconds that a named query may take: those that scan a large store need them."""


def run_named(store: Store, name: str, params: Mapping[str, object] | None = None, *, limits: Limits | None = None) -> Result:
    """Run a query of the catalogue. Strings are accepted for every parameter and typed by the query's header.

    The result has exactly the header's columns, in its types, whatever the engine. Raises QueryError.
    """
    found = entry(name, store.capabilities.dialect)
    values = found.bind(params or {})
    limits = limits or Limits(timeout_s=DEFAULT_TIMEOUT_S, max_rows=found.row_cap(values))
    limits = replace(limits, keep_plan=found.is_about_one_output)
    skipped = 0 if store.capabilities.skips_past_the_end else int(values.get("offset") or 0)
    if skipped:  # read from the first row on, and leave the rows out here
        values = {**values, "offset": 0, found.header.rows: min(found.row_cap(values) + skipped, _INT64_MAX)}
        limits = replace(limits, max_rows=None if limits.max_rows is None else limits.max_rows + skipped)
    statement, used = found.statement(values)
    result = store.run(statement, used, limits)
    return Result(_conform(result.table.slice(skipped), found), result.truncated)


def run_cypher(store: Store, text: str, params: Mapping[str, Any] | None = None, *, limits: Limits | None = None) -> Result:
    """Run one read-only statement that a user wrote.

    Raises QueryError when the guard refuses it, or when the engine is known to answer it wrongly.
    """
    check_read_only(text)
    limits = limits or Limits()
    check_faults(store, text, params or {}, limits)
    return store.run(text, dict(params or {}), limits)


def _conform(table: pa.Table, found: CatalogueEntry) -> pa.Table:
    """Cast to the header's types: engines differ in the width of a sum or a count."""
    import pyarrow as pa

    types = {"int": pa.int64(), "float": pa.float64(), "string": pa.string(), "bool": pa.bool_()}
    target = pa.schema([pa.field(c.name, types[c.type]) for c in found.header.columns])
    return table.select(target.names).cast(target)
