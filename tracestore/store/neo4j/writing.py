"""What a batch is: rows of one or several tables, and the statements that create them.

One parameterised UNWIND + CREATE for each table; rows are lists; both ends of an edge are found by label and uid, hence by index.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tracestore import schema
from tracestore.store.staging import Staged, node_columns

if TYPE_CHECKING:
    import pyarrow as pa


def node_statement(label: str) -> str:
    """Create nodes of a label: one row is (uid, trace_no, properties...)."""
    properties = ", ".join(f"{name}: r[{index}]" for index, name in enumerate(node_columns(label)))
    return f"UNWIND $rows AS r CREATE (:{label} {{{properties}}})"


def edge_statement(table: str) -> str:
    """Create relationships of one type between two labels: one row is (source uid, target uid, properties...)."""
    edge, source, target = schema.EDGE_TABLES[table]
    properties = ", ".join(f"{column.name}: r[{index + 2}]" for index, column in enumerate(edge.columns))
    held = f" {{{properties}}}" if properties else ""
    return f"UNWIND $rows AS r MATCH (a:{source} {{uid: r[0]}}) MATCH (b:{target} {{uid: r[1]}}) CREATE (a)-[:{edge.type}{held}]->(b)"


def to_rows(table: pa.Table) -> list[tuple[Any, ...]]:
    """Turn a table into rows of Python values, numbers without nulls by the short way."""
    import pyarrow.types as kinds

    columns: list[list[Any]] = []
    for column in table.columns:
        number = kinds.is_integer(column.type) or kinds.is_floating(column.type)
        columns.append(column.to_numpy().tolist() if number and column.null_count == 0 else column.to_pylist())
    return list(zip(*columns, strict=True))


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows of one table."""

    table: str
    rows: list[tuple[Any, ...]]

    @property
    def edges(self) -> bool:
        """Are they relationships."""
        return self.table in schema.EDGE_TABLES

    @property
    def statement(self) -> str:
        """What creates them."""
        return edge_statement(self.table) if self.edges else node_statement(self.table)


def halves(pieces: Sequence[Piece]) -> tuple[list[Piece], list[Piece]]:
    """Split a batch in two of about the same number of rows, in order."""
    left: list[Piece] = []
    right: list[Piece] = []
    room = sum(len(piece.rows) for piece in pieces) // 2
    for piece in pieces:
        if piece.rows[:room]:
            left.append(Piece(piece.table, piece.rows[:room]))
        if piece.rows[room:]:
            right.append(Piece(piece.table, piece.rows[room:]))
        room = max(0, room - len(piece.rows))
    return left, right


def cut_batches(staged: Staged, room_now: Callable[[], int]) -> Iterator[list[Piece]]:
    """Cut tables into batches, nodes first; small tables share one. Only one batch at a time is held as Python values.

    `room_now` gives the rows of the next batch: it may change on the way.
    """
    batch: list[Piece] = []
    room = room_now()
    for name, table in (*staged.nodes.items(), *staged.edges.items()):
        first = 0
        while first < table.num_rows:
            part = table.slice(first, room)
            first += part.num_rows
            room -= part.num_rows
            batch.append(Piece(name, to_rows(part)))
            if room == 0:
                yield batch
                batch, room = [], room_now()
    if batch:
        yield batch
