"""Conservation, node by node, by Cypher: sum(in) + bias + dropped_in = relevance = sum(out) + dropped_out for State, Head and Mlp;
sum(INFLUENCES from tokens) + bias = explained, and UNEMBEDS = explained where the mechanism is there, for Output.

1. Take the READY traces in windows, so that memory stays bounded.
2. For each relationship type let the engine add the weights up by the node they enter, and by the node they leave.
3. Compare; the tolerance is relative to the sum of the absolute terms (weights are stored in single precision).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tracestore import schema
from tracestore.store.base import Limits
from tracestore.store.ladybug.reading import Reader

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RELATIVE_TOLERANCE: Final = 1e-4
_ABSOLUTE: Final = 1e-6
_WINDOW_ROWS: Final = 1_000_000
_LIMITS: Final = Limits(timeout_s=3600.0, max_rows=None)


@dataclass(frozen=True, slots=True)
class _Window:
    first: int
    last: int


def _windows(reader: Reader) -> Iterator[_Window]:
    """Group neighbouring trace numbers up to a number of mechanism nodes."""
    query = "MATCH (o:Output) RETURN o.trace_no AS number, count(*) AS outputs"
    outputs = sorted((int(row["number"]), int(row["outputs"])) for row in reader.run(query, {}, _LIMITS).table.to_pylist())
    states = "MATCH (s:State) RETURN s.trace_no AS number, count(*) AS found"
    sizes = {int(row["number"]): int(row["found"]) for row in reader.run(states, {}, _LIMITS).table.to_pylist()}
    first, size, last = None, 0, 0
    for number, count in outputs:
        weight = count + sizes.get(number, 0)
        if first is not None and size + weight > _WINDOW_ROWS:
            yield _Window(first, last)
            first, size = None, 0
        first = number if first is None else first
        last, size = number, size + weight
    if first is not None:
        yield _Window(first, last)


def _run(reader: Reader, window: _Window, query: str) -> Any:
    return reader.run(query, {"first": window.first, "last": window.last}, _LIMITS).table


class _Sums:
    """Weights added up by node: signed and absolute."""

    def __init__(self, uids: NDArray[np.int64]) -> None:
        import numpy as np

        self._order = np.argsort(uids)
        self._sorted = uids[self._order]
        self.signed = np.zeros(len(uids))
        self.absolute = np.zeros(len(uids))

    def add(self, table: Any) -> None:
        import numpy as np

        if table.num_rows == 0 or len(self._sorted) == 0:
            return
        uids = table.column("uid").to_numpy()
        at = np.minimum(np.searchsorted(self._sorted, uids), len(self._sorted) - 1)
        known = self._sorted[at] == uids
        rows = self._order[at[known]]
        self.signed[rows] += table.column("signed").to_numpy()[known]
        self.absolute[rows] += table.column("absolute").to_numpy()[known]


def _edge_sums(reader: Reader, window: _Window, label: str, uids: NDArray[np.int64], *, incoming: bool, types: frozenset[str]) -> _Sums:
    sums = _Sums(uids)
    column = "score" if types == {"INFLUENCES"} else "weight"
    for edge, source, target in schema.EDGE_TABLES.values():
        if edge.type not in types or (target if incoming else source) != label:
            continue
        pattern = f"(n:{label})<-[r:{edge.type}]-(:{source})" if incoming else f"(n:{label})-[r:{edge.type}]->(:{target})"
        query = (
            f"MATCH {pattern} WHERE n.trace_no >= $first AND n.trace_no <= $last "
            f"RETURN n.uid AS uid, sum(CAST(r.{column} AS DOUBLE)) AS signed, sum(abs(CAST(r.{column} AS DOUBLE))) AS absolute"
        )
        if edge.type == "INFLUENCES" and source != "Token":
            continue  # spans repeat what their tokens say
        sums.add(_run(reader, window, query))
    return sums


_FLOW_TYPES: Final = frozenset(edge.type for edge in schema.EDGES if edge.level == "mechanism")


def _broken(label: str, uids: Any, error: Any, scale: Any, what: str) -> list[str]:
    import numpy as np

    bad = np.flatnonzero(~(error <= RELATIVE_TOLERANCE * scale + _ABSOLUTE))  # also true for NaN
    return [f"{label} {int(uids[row])}: {what} differ by {float(error[row]):.3g} logits" for row in bad]


def _check_flow(reader: Reader, window: _Window, label: str) -> tuple[list[str], int]:
    import numpy as np

    query = (
        f"MATCH (n:{label}) WHERE n.trace_no >= $first AND n.trace_no <= $last RETURN n.uid AS uid, n.relevance AS relevance, "
        "n.bias AS bias, n.dropped_in AS dropped_in, n.dropped_out AS dropped_out"
    )
    table = _run(reader, window, query)
    uids = table.column("uid").to_numpy()
    relevance, bias, lost_in, lost_out = (
        table.column(name).to_numpy().astype(np.float64) for name in ("relevance", "bias", "dropped_in", "dropped_out")
    )
    entering = _edge_sums(reader, window, label, uids, incoming=True, types=_FLOW_TYPES)
    leaving = _edge_sums(reader, window, label, uids, incoming=False, types=_FLOW_TYPES)
    error_in = np.abs(entering.signed + bias + lost_in - relevance)
    scale_in = entering.absolute + np.abs(bias) + np.abs(lost_in) + np.abs(relevance)
    error_out = np.abs(leaving.signed + lost_out - relevance)
    scale_out = leaving.absolute + np.abs(lost_out) + np.abs(relevance)
    problems = _broken(label, uids, error_in, scale_in, "sum(in) + bias + dropped_in and relevance")
    problems += _broken(label, uids, error_out, scale_out, "sum(out) + dropped_out and relevance")
    return problems, len(uids)


def _check_outputs(reader: Reader, window: _Window) -> tuple[list[str], int]:
    import numpy as np

    query = (
        "MATCH (n:Output) WHERE n.trace_no >= $first AND n.trace_no <= $last "
        "RETURN n.uid AS uid, n.explained AS explained, n.bias AS bias, n.mechanism AS mechanism"
    )
    table = _run(reader, window, query)
    uids = table.column("uid").to_numpy()
    explained, bias = (table.column(name).to_numpy().astype(np.float64) for name in ("explained", "bias"))
    scores = _edge_sums(reader, window, "Output", uids, incoming=True, types=frozenset({"INFLUENCES"}))
    read = _edge_sums(reader, window, "Output", uids, incoming=True, types=frozenset({"UNEMBEDS"}))
    there = np.array(table.column("mechanism").to_pylist(), dtype=bool)
    scale = scores.absolute + np.abs(bias) + np.abs(explained)
    problems = _broken("Output", uids, np.abs(scores.signed + bias - explained), scale, "sum(score) + bias and explained")
    error = np.where(there, np.abs(read.signed - explained), 0.0)
    problems += _broken("Output", uids, error, read.absolute + np.abs(explained), "UNEMBEDS and explained")
    return problems, len(uids)


def conservation_problems(reader: Reader) -> tuple[list[str], int]:
    """Check every node; give the sentences and how many nodes were looked at."""
    problems: list[str] = []
    looked = 0
    for window in _windows(reader):
        for label in ("State", "Head", "Mlp"):
            found, count = _check_flow(reader, window, label)
            problems += found
            looked += count
        found, count = _check_outputs(reader, window)
        problems += found
        looked += count
    return problems, looked
