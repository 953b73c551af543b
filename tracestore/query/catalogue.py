"""The catalogue of named queries: one `.cypher` file each, an override of the same name in the folder of a dialect."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from tracestore.errors import QueryError
from tracestore.query.header import Header, HeaderError, parse, render
from tracestore.query.parameters import Value, bind

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

_SUFFIX: Final = ".cypher"


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """One named query: what its header says, and its Cypher in one dialect."""

    header: Header
    cypher: str
    dialect: str | None = None  # None: the portable text

    @property
    def name(self) -> str:
        """The name that users type."""
        return self.header.name

    @property
    def is_about_one_output(self) -> bool:
        """Does it start from a single explained prediction, so that it is small and asked often?"""
        return any("output_id" in group for group in self.header.needs)

    def bind(self, params: Mapping[str, object]) -> dict[str, Value]:
        """Type and check parameters, strings included. Raises QueryError."""
        return bind(self.name, self.header.parameters, self.header.needs, params)

    def statement(self, values: dict[str, Value]) -> tuple[str, dict[str, Value]]:
        """Give the statement for bound parameters, and those of them that it uses."""
        return render(self.cypher, values)

    def row_cap(self, values: Mapping[str, Value]) -> int:
        """Give the largest number of rows that the query returns with these parameters."""
        rows = self.header.rows
        return int(rows if rows.isdecimal() else str(values[rows]))

    def order(self, values: Mapping[str, Value]) -> tuple[tuple[str, bool, bool], ...]:
        """Give the promised order as (column, descending, by absolute value), parameters filled in."""
        named = ((str(values[key.column.strip("{}")]) if key.column.startswith("{") else key.column, key) for key in self.header.order)
        return tuple((column, key.descending, key.absolute and column != key.signed) for column, key in named)


def catalogue(dialect: str | None = None) -> dict[str, CatalogueEntry]:
    """Give every named query in one dialect (None: the portable text), by name in alphabetical order."""
    return {name: entry(name, dialect) for name in _names()}


@cache
def entry(name: str, dialect: str | None = None) -> CatalogueEntry:
    """Look up one named query. Raises QueryError for an unknown name, and for a package whose file is malformed."""
    if name not in _names():
        close = difflib.get_close_matches(name, _names(), n=3)
        hint = f"did you mean {', '.join(close)}?" if close else f"there are {', '.join(_names())}."
        raise QueryError(f"There is no query of this name; {hint}")
    portable = _read(name, None)
    if dialect is None:
        return portable
    override = _read(name, dialect) if _file(name, dialect).is_file() else portable
    if override.header != portable.header:
        raise QueryError(f"Query {name}: the headers of the portable text and of the override for {dialect} differ; reinstall tracestore.")
    return override


@cache
def _names() -> tuple[str, ...]:
    found = (f.name for f in files("tracestore.cypher").iterdir() if f.name.endswith(_SUFFIX))
    return tuple(sorted(name.removesuffix(_SUFFIX) for name in found))


def _file(name: str, dialect: str | None) -> Traversable:
    folder = files("tracestore.cypher")
    return (folder if dialect is None else folder / dialect) / f"{name}{_SUFFIX}"


def _read(name: str, dialect: str | None) -> CatalogueEntry:
    try:
        header, body = parse(_file(name, dialect).read_text(encoding="utf-8"))
    except HeaderError as error:
        raise QueryError(f"Query {name} of this installation cannot be read ({error}); reinstall tracestore.") from error
    if header.name != name:
        raise QueryError(f"Query {name} of this installation calls itself {header.name}; reinstall tracestore.")
    return CatalogueEntry(header, body, dialect)
