"""CSV as `neo4j-admin database import` reads it: a header file for each table, values typed so that the store gets what a load gives it.

- Floats are written as the double that a load sends, with all digits; NaN and infinity as Java spells them.
- Lists are joined with the unit separator, which no text should hold. CSV cannot say "a list without elements": that becomes null, and
  opening the store makes it a list again (`store.neo4j.importing`).
- An empty text is quoted, null is nothing at all.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from tracestore import schema
from tracestore.archive.layout import open_private
from tracestore.errors import BadInputError
from tracestore.store.staging import node_columns

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.csv import CSVWriter

LIST_SEPARATOR: Final = "\x1f"
_TYPES: Final[Mapping[schema.Kind, str]] = {
    "int": "long",
    "float": "double",
    "string": "string",
    "bool": "boolean",
    "strings": "string[]",
    "floats": "double[]",
    "ref": "long",
}


def import_header(table: str) -> str:
    """Give the header of a node table (label) or edge table, as the import tool wants it."""
    kinds = {column.name: _TYPES[column.kind] for column in schema.table_columns(table, store=True)}
    if table in schema.NODE_BY_LABEL:
        return ",".join(["uid:ID{id-type:long}", "trace_no:long", *(f"{name}:{kinds[name]}" for name in node_columns(table)[2:])])
    return ",".join([":START_ID", ":END_ID", *(f"{name}:{kind}" for name, kind in kinds.items())])


def has_text(table: str) -> bool:
    """May a table hold text of users, and so line ends inside a value?"""
    return table in schema.NODE_BY_LABEL and any(column.kind in ("string", "strings") for column in schema.table_columns(table))


class CsvFolder:
    """CSV files of one folder, one for each table, open side by side; a table's files are made with its first row."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writers: dict[str, CSVWriter] = {}
        self._files: list[Any] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for writer in self._writers.values():
            writer.close()
        for file in self._files:
            file.close()

    @property
    def names(self) -> tuple[str, ...]:
        """Tables that have rows, in the order of their first ones."""
        return tuple(self._writers)

    def write(self, name: str, header: str, table: pa.Table) -> None:
        """Append rows. Raises BadInputError for lists that CSV cannot carry."""
        import pyarrow as pa
        import pyarrow.csv as csv

        plain = pa.table([_plain(name, table.column(column)) for column in table.column_names], names=table.column_names)
        if name not in self._writers:
            with os.fdopen(open_private(self._folder / f"{name}.header.csv"), "w", encoding="utf-8") as file:
                file.write(header + "\n")
            opened = os.fdopen(open_private(self._folder / f"{name}.csv"), "wb")
            self._files.append(opened)
            self._writers[name] = csv.CSVWriter(opened, plain.schema, write_options=csv.WriteOptions(include_header=False))
        self._writers[name].write_table(plain)


def _plain(name: str, column: pa.ChunkedArray[Any]) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_list(column.type):
        return _joined(name, column)
    if pa.types.is_floating(column.type):
        wide = column.cast(pa.float64())
        return wide if pc.all(pc.is_finite(wide)).as_py() is not False else _java_spelling(wide)
    return column


def _java_spelling(column: Any) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    text = pc.cast(column, pa.string())
    for ours, theirs in (("nan", "NaN"), ("inf", "Infinity")):
        text = pc.replace_substring(text, ours, theirs)
    return text


def _joined(name: str, column: pa.ChunkedArray[Any]) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    lists: Any = column.combine_chunks()
    if not pa.types.is_string(lists.type.value_type):
        lengths = pc.fill_null(pc.list_value_length(lists), 0)
        offsets = pa.concat_arrays([pa.array([0], pa.int64()), pc.cumulative_sum(lengths.cast(pa.int64()))]).cast(pa.int32())
        lists = pa.ListArray.from_arrays(offsets, _java_spelling(lists.flatten().cast(pa.float64())))
        return pc.binary_join(lists, LIST_SEPARATOR)
    elements = lists.flatten()
    if pc.any(pc.match_substring(elements, LIST_SEPARATOR)).as_py():
        raise BadInputError(f"a list of {name} holds a text with a unit separator (U+001F), which CSV cannot carry; use `tracestore load`")
    joined = pc.binary_join(lists, LIST_SEPARATOR)
    if pc.any(pc.and_(pc.equal(joined, pa.scalar("")), pc.greater(pc.list_value_length(lists), pa.scalar(0)))).as_py():
        raise BadInputError(f"a list of {name} holds nothing but one empty text, which CSV cannot carry; use `tracestore load`")
    return joined
