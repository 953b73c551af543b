"""Read-only statements: in a read session, bounded in time and rows, their errors in our words, their rows as an Arrow table."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from tracestore.errors import QueryError, QueryTimeoutError, TracestoreError
from tracestore.store.base import Limits, Result
from tracestore.store.neo4j.connection import load_driver, translate, translated
from tracestore.store.neo4j.database import Database

if TYPE_CHECKING:
    import neo4j
    import pyarrow as pa

_FETCH: Final = 2_000
_TIMED_OUT: Final = ("TransactionTimedOut", "TransactionTimedOutClientConfiguration", "LockClientStopped")
_WITH_TEXT: Final = ("Neo.ClientError.Statement.SyntaxError", "Neo.ClientError.Statement.SemanticError")
"""Errors that speak of the statement. The others can quote values, and so are not passed on."""


def query_error(error: neo4j.exceptions.Neo4jError, params: Mapping[str, Any], limits: Limits) -> TracestoreError:
    """Say what was wrong with a query. Never quotes a parameter's value."""
    code = error.code or ""
    if code.endswith(_TIMED_OUT):
        return QueryTimeoutError(f"the query took longer than {limits.timeout_s:g} s; narrow it or allow more time")
    if code == "Neo.ClientError.Statement.AccessMode":
        return QueryError("the statement would change the store; queries only read")
    if code in _WITH_TEXT:
        message = (error.message or "").splitlines()[0]
        for value in params.values():
            if isinstance(value, str) and value:
                message = message.replace(value, "...")
        return QueryError(f"the server refused the query: {message}")
    if code == "Neo.ClientError.Statement.ParameterMissing":
        return QueryError("the query names a parameter that was not given")
    if code.startswith(("Neo.ClientError.Statement", "Neo.ClientError.Procedure")):
        return QueryError(f"the query failed while it ran ({code.rpartition('.')[2]}); check the types of its parameters")
    return translate(error, "a query")


def run(database: Database, cypher: str, params: Mapping[str, Any], limits: Limits) -> Result:
    """Run one statement. Raises QueryError (the statement, its parameters' types, the time limit), StoreUnavailableError."""
    library = load_driver()
    bound = None if limits.max_rows is None else limits.max_rows + 1
    fetch = _FETCH if bound is None else max(1, min(_FETCH, bound))
    with (
        translated("a query"),
        database.driver.session(database=database.name, default_access_mode="READ", fetch_size=fetch) as session,
    ):
        try:
            transaction = session.begin_transaction(timeout=limits.timeout_s)
            try:
                result = transaction.run(cypher, dict(params))
                names = list(result.keys())
                records = list(result) if bound is None else result.fetch(bound)
            finally:
                with suppress(library.exceptions.Neo4jError):  # PROFILE cannot be left before its last row; nothing was written anyway
                    transaction.close()
        except library.exceptions.Neo4jError as error:
            raise query_error(error, params, limits) from error
    truncated = limits.max_rows is not None and len(records) > limits.max_rows
    return Result(to_table(names, [record.values() for record in records[: limits.max_rows]]), truncated)


def to_table(names: list[str], found: list[list[Any]]) -> pa.Table:
    """Make an Arrow table of rows; nodes, relationships and paths become maps of their properties.

    Raises QueryError when a column's values are of several kinds.
    """
    import pyarrow as pa

    arrays = []
    for index, name in enumerate(names):
        values = [_plain(row[index]) for row in found]
        try:
            arrays.append(pa.array(values))
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            raise QueryError(f"the values of column {name} are of several kinds; return them apart, or as text by toString()") from None
    return pa.table(arrays, names=names)


def _plain(value: Any) -> Any:
    """Turn what only the driver knows into plain values: maps for nodes and relationships, text for times and points."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, bytes | bytearray):
        return base64.b64encode(value).decode()
    graph = load_driver().graph
    if isinstance(value, graph.Node):
        return {"labels": sorted(value.labels), **{name: _plain(one) for name, one in value.items()}}
    if isinstance(value, graph.Relationship):
        return {"type": value.type, **{name: _plain(one) for name, one in value.items()}}
    if isinstance(value, graph.Path):
        return {"nodes": [_plain(node) for node in value.nodes], "relationships": [_plain(edge) for edge in value.relationships]}
    return value.iso_format() if hasattr(value, "iso_format") else str(value)
