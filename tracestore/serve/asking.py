"""How the routes ask the store: every request has one deadline, every answer a largest number of rows."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from fastapi import Request

from tracestore.errors import QueryError, QueryTimeoutError
from tracestore.query.catalogue import CatalogueEntry, entry
from tracestore.query.traces import OutputPlace, find_output
from tracestore.serve.problems import not_found
from tracestore.serve.settings import ServeSettings
from tracestore.store.base import Limits, Result

if TYPE_CHECKING:
    from tracestore.api import GraphStore
    from tracestore.archive import Archive

_DEEPEST: Final = 8
_INT64: Final = 2**63


class Asker:
    """One request's way to the store. Usable wherever statements are run."""

    def __init__(self, graph: GraphStore, settings: ServeSettings, archive: Archive | None = None) -> None:
        self.graph = graph
        self.settings = settings
        self.archive = archive
        self._deadline = time.monotonic() + settings.timeout_s

    @property
    def remaining_s(self) -> float:
        """Seconds that are left. Raises QueryTimeoutError when there are none."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise QueryTimeoutError(f"the request took longer than {self.settings.timeout_s:g} s; ask for less")
        return left

    def run(self, cypher: str, params: Mapping[str, Any], limits: Limits) -> Result:
        """Run a statement of this package in the time that is left."""
        return self.graph.engine.run(cypher, params, Limits(min(limits.timeout_s, self.remaining_s), limits.max_rows))

    @property
    def everything(self) -> Limits:
        """Bounds for what belongs to one trace or output: its size is the bound."""
        return Limits(self.settings.timeout_s, None)

    def output(self, output_id: str) -> OutputPlace:
        """Find an output. Raises ProblemError 404."""
        place = find_output(self, sound(output_id), self.everything)
        if place is None:
            raise not_found("output")
        return place

    def named(self, name: str, params: Mapping[str, object], *, limit: int | None = None) -> Result:
        """Run a named query, with at most `limit` rows and never more than the server gives."""
        found = entry(name, self.graph.engine.capabilities.dialect)
        values: dict[str, object] = {key: sound(value) for key, value in params.items()}
        if limit is not None:
            values[found.header.rows] = limit
        most = self.settings.max_rows
        if _asks_for_more(found, values, most):
            values[found.header.rows] = most + 1  # one more than is given, which says that there are more
        return self.graph.run_named(name, values, max_rows=most, timeout_s=self.remaining_s)


def _asks_for_more(found: CatalogueEntry, values: Mapping[str, object], most: int) -> bool:
    return not found.header.rows.isdecimal() and found.row_cap(found.bind(values)) > most


def sound(value: Any, depth: int = 0) -> Any:
    """Refuse what no engine can take as a parameter: broken text, numbers beyond 64 bits, deep nesting. Raises QueryError."""
    if isinstance(value, str):
        if "\x00" in value or (not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value)):
            raise QueryError("A text parameter holds a NUL or half a surrogate pair.")
    elif isinstance(value, int) and not isinstance(value, bool):
        if not -_INT64 <= value < _INT64:
            raise QueryError("A whole number must fit 64 bits.")
    elif isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            raise QueryError("A number must be finite.")
    elif isinstance(value, list | dict):
        if depth >= _DEEPEST:
            raise QueryError("A parameter is nested too deeply.")
        if isinstance(value, dict):
            return {sound(key): sound(part, depth + 1) for key, part in value.items()}
        return [sound(part, depth + 1) for part in value]
    return value


def asker(request: Request) -> Asker:
    """Give a request its way to the store (a FastAPI dependency)."""
    state = request.app.state
    return Asker(state.graph, state.settings, state.archive)
