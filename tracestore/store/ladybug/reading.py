"""Read-only statements: bounded in time and rows, their errors in our words, repeated when another process changed the pages meanwhile."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from tracestore.errors import QueryError, QueryTimeoutError, StoreUnavailableError
from tracestore.store.base import Limits, Result
from tracestore.store.ladybug.files import StoreFiles
from tracestore.store.ladybug.handle import EngineError, Handle, rows

if TYPE_CHECKING:
    import ladybug
    import pyarrow as pa

_PLANNED_CONNECTIONS: Final = 4
_PLANS_PER_CONNECTION: Final = 6
"""The engine's Python binding keeps every statement that a connection was given with parameters, and its plan the memory that it ran in:
3 to 8 MB where one output is looked up, up to 200 MB for a sum over everything. So only statements of the first kind meet a connection
twice (planning takes three quarters of their time), and few of them; the others get one of their own, which costs 0.2 ms.
"""

_PATIENCE_S: Final = 20.0
_WITH_TEXT: Final = ("Parser exception", "Binder exception", "Catalog exception")
"""Errors that speak of the statement. The others can quote values, and so are not passed on."""


_QUOTED: Final = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|`[^`]*`|//[^\n]*|/\*.*?\*/""", re.DOTALL)


_COUNT: Final = re.compile(rf"""({_QUOTED.pattern})|\b(LIMIT|SKIP)(\s+)\$(\w+)""", re.DOTALL | re.IGNORECASE)


def with_literal_counts(cypher: str, params: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Spell the whole numbers behind LIMIT and SKIP out. The engine keeps the plan of a statement that a connection ran before, unless a
    parameter stands there: then it plans anew each time, which takes longer than most answers.
    """
    spelt: set[str] = set()

    def spell(found: re.Match[str]) -> str:
        value = None if found[1] else params.get(found[4])
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            return found[0]
        spelt.add(found[4])
        return f"{found[2]}{found[3]}{value}"

    text = _COUNT.sub(spell, cypher)
    rest = _QUOTED.sub(" ", text)
    gone = {name for name in spelt if re.search(rf"\${name}\b", rest) is None}
    return text, {name: value for name, value in params.items() if name not in gone}


def _require_one_statement(cypher: str) -> None:
    """Refuse several statements before any runs: the first could end the read-only transaction. Raises QueryError."""
    if ";" in _QUOTED.sub(" ", cypher).rstrip().removesuffix(";"):
        raise QueryError("one statement at a time, please")


def _query_error(message: str, params: Mapping[str, Any], limits: Limits) -> QueryError:
    if message.startswith("Interrupted"):
        return QueryTimeoutError(f"the query took longer than {limits.timeout_s:g} s; narrow it or allow more time")
    if "read-only" in message:
        return QueryError("the statement would change the store; queries only read")
    if message.startswith(_WITH_TEXT):
        for value in params.values():
            if isinstance(value, str) and value:
                message = message.replace(value, "...")
        return QueryError(f"the engine refused the query: {message}")
    kind = message.split(":", 1)[0] if ":" in message else "error"
    return QueryError(f"the query failed while it ran ({kind}); check the types of its parameters")


@dataclass(slots=True)
class _Planned:
    """A connection and the statements (with the widths of their values) whose plans it keeps."""

    connection: ladybug.Connection
    plans: set[object] = field(default_factory=set)


def _plan_key(cypher: str, params: Mapping[str, Any]) -> object:
    """Tell apart what the binding keeps apart: the text, and the types of the values, whole numbers by their bytes."""
    widths = ((name, type(v), (v.bit_length() + 8) // 8 if isinstance(v, int) else 0) for name, v in params.items())
    return cypher, frozenset(widths)


class Reader:
    """Runs read-only statements on an open database, from any thread."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self._guard = threading.Condition()
        self._idle: list[_Planned] = []
        self._planned = 0  # connections that keep plans, idle or not
        self._busy = 0

    @property
    def files(self) -> StoreFiles:
        """The files that are read."""
        return self._handle.files

    def close(self) -> None:
        """Close the idle connections."""
        with self._guard:
            self._close_idle()

    @contextmanager
    def _connection(self, plan: object | None) -> Iterator[ladybug.Connection]:
        """Lend a connection, one that may have met the plan before. A reader whose files have changed is reopened first, once nobody
        uses it.
        """
        with self._guard:
            while self._handle.is_stale() and self._busy:
                self._guard.wait()  # whoever comes now waits too, so the last one out lets us reopen
            if self._handle.is_stale():
                self._close_idle()
                self._handle.reopen()
            lent, keep = self._lend(plan)
            self._busy += 1
        sound = False
        try:
            yield lent.connection
            sound = True
        finally:
            with self._guard:
                self._busy -= 1
                if keep and sound and len(lent.plans) <= _PLANS_PER_CONNECTION:
                    self._idle.append(lent)
                else:
                    self._planned -= keep
                    lent.connection.close()
                self._guard.notify_all()

    def _lend(self, plan: object | None) -> tuple[_Planned, bool]:
        """Choose a connection; True: it may be kept."""
        import ladybug

        keep = plan is not None and (bool(self._idle) or self._planned < _PLANNED_CONNECTIONS)
        if not keep:
            return _Planned(ladybug.Connection(self._handle.database)), False
        met = next((each for each in self._idle if plan in each.plans), None)
        if met is not None:
            self._idle.remove(met)
        elif self._idle:
            met = self._idle.pop()
        else:
            met = _Planned(ladybug.Connection(self._handle.database))
            self._planned += 1
        met.plans.add(plan)
        return met, True

    def _close_idle(self) -> None:
        for each in self._idle:
            each.connection.close()
        self._planned -= len(self._idle)
        self._idle.clear()

    def run(self, cypher: str, params: Mapping[str, Any], limits: Limits) -> Result:
        """Run one statement. Raises QueryError, StoreUnavailableError."""
        _require_one_statement(cypher)
        plan: object | None = None
        if limits.keep_plan:
            cypher, params = with_literal_counts(cypher, params)
            plan = _plan_key(cypher, params)
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            failure: QueryError | None = None
            with self._handle.gate.reading(), self._connection(plan) as connection:
                try:
                    result = self._once(connection, cypher, params, limits)
                except EngineError as error:
                    failure = _query_error(str(error), params, limits)
                sound = self._handle.pages_unchanged()
            if sound and failure is not None:
                raise failure
            if sound:
                return result
            if time.monotonic() > deadline:
                raise StoreUnavailableError(f"{self._handle.files.database} is being written all the time; try again when the load is done")

    def _once(self, connection: ladybug.Connection, cypher: str, params: Mapping[str, Any], limits: Limits) -> Result:
        connection.set_query_timeout(max(1, round(limits.timeout_s * 1000)))
        rows(connection, "BEGIN TRANSACTION READ ONLY")
        try:
            table = _table(connection, cypher, params)
        finally:
            with suppress(EngineError):  # after an error the engine has already ended it
                rows(connection, "ROLLBACK")
        if limits.max_rows is not None and table.num_rows > limits.max_rows:
            return Result(table.slice(0, limits.max_rows), truncated=True)
        return Result(table)


def _table(connection: ladybug.Connection, cypher: str, params: Mapping[str, Any]) -> pa.Table:
    try:
        result = connection.execute(cypher, dict(params))
        try:
            table: pa.Table = result.get_as_arrow(chunk_size=-1)  # one chunk: the default makes room for ten million elements first
        finally:
            result.close()
    except RuntimeError as error:
        raise EngineError(str(error)) from None
    return table
