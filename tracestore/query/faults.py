"""Known faults of engines that give wrong rows without an error, or end the process: statements that would meet one are refused, with the
way around it.

LadybugDB 0.21.0 to 0.22.0: a filter on a relationship's property between two hops of one MATCH loses its selection, so the next hop starts
from the wrong rows. Seen in the plan: scan of a relationship, filter on its properties, scan of another relationship. The operators of
a plan are numbered from the leaves up, so what follows in number is the parent.

The same engine reads outside its memory, and may die, when ORDER BY, SKIP and LIMIT together leave out more rows than there are; SKIP
without LIMIT is sound. Any statement with all three words is refused (named queries never skip there: see `run_named`).

1. Ask the engine for the plan (nothing is run).
2. Read its boxes: name and number of each operator, and its text.
3. Refuse when a FILTER on a property of the relationship scanned just below it feeds another scan of relationships.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from tracestore.errors import QueryError
from tracestore.query.tokens import tokens
from tracestore.store.base import Limits, Store

_NAME: Final = re.compile(r"([A-Z_]+)\[(\d+)\]")
_HOPS: Final = ("SCAN_REL_TABLE", "RECURSIVE_EXTEND")


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator of a plan: its name, its number, and the lines of its box."""

    name: str
    number: int
    lines: tuple[str, ...]

    @property
    def aliases(self) -> list[str]:
        """Name the relationships that it scans, as the statement names them; "" for one without a name."""
        return [line.removeprefix("Alias: ") for line in self.lines if line.startswith("Alias: ")] or [""]

    @property
    def text(self) -> str:
        """What it works on; expressions are broken over lines."""
        return "".join(self.lines)


def check_faults(store: Store, statement: str, params: Mapping[str, Any], limits: Limits) -> None:
    """Refuse a statement that this store's engine would answer wrongly. Raises QueryError."""
    check = _CHECKS.get(store.capabilities.dialect)
    if check is not None:
        check(store, statement, params, limits)


def filters_between_hops(plan: str) -> bool:
    """Tell whether a plan filters the properties of one relationship and then goes on by another."""
    operators = {operator.number: operator for operator in read_plan(plan)}
    for number, operator in operators.items():
        if operator.name not in _HOPS:
            continue
        filtered = False
        above = operators.get(number + 1)
        while above is not None and above.name == "FILTER":
            filtered = filtered or any(_names(alias, above.text) for alias in operator.aliases)
            above = operators.get(above.number + 1)
        if filtered and above is not None and above.name in _HOPS:
            return True
    return False


def _names(alias: str, text: str) -> bool:
    """Does an expression use a property of this relationship?"""
    return re.search(rf"(?<!\w){re.escape(alias)}\.[a-z_]", text) is not None


def read_plan(plan: str) -> Iterator[Operator]:
    """Yield the operators of a plan that is drawn as boxes, several of which may stand side by side."""
    boxes: dict[int, tuple[int, list[str]]] = {}
    for line in plan.splitlines():
        for start, (end, lines) in list(boxes.items()):
            if line[start : start + 1] == "└":
                del boxes[start]
                yield from _operator(lines)
            else:
                lines.append(line[start + 1 : end].strip())
        boxes |= {found.start(): (found.end() - 1, []) for found in re.finditer("┌[─┴]+┐", line)}


def _operator(lines: list[str]) -> Iterator[Operator]:
    found = _NAME.fullmatch(lines[0]) if lines else None
    if found is not None:
        yield Operator(found[1], int(found[2]), tuple(lines[1:]))


def _skips(statement: str) -> bool:
    """Has a statement ORDER BY, LIMIT, and SKIP (or OFFSET) with a number, a parameter or an expression in brackets behind it?"""
    found = list(tokens(statement))
    words = {token.text.upper() for token in found if token.kind == "word"}
    skips = any(
        token.kind == "word" and token.text.upper() in ("SKIP", "OFFSET") and (after.kind == "number" or after.text in ("$", "("))
        for token, after in pairwise(found)
    )
    return skips and {"ORDER", "LIMIT"} <= words


def _ladybug(store: Store, statement: str, params: Mapping[str, Any], limits: Limits) -> None:
    if _skips(statement):
        raise QueryError(
            "The embedded engine may die when ORDER BY, SKIP and LIMIT together leave out more rows than there are. Leave LIMIT out (the "
            "number of rows is limited in any case), or go on from the last row seen: WHERE n.pos > $last ... ORDER BY n.pos LIMIT 10."
        )
    first = next(tokens(statement)).text.upper()
    if first in ("CALL", "EXPLAIN", "PROFILE") or "[" not in statement:
        return  # no property of a relationship to filter on, or the plan is what was asked for
    table = store.run("EXPLAIN " + statement, params, limits).table
    if any(filters_between_hops(str(plan)) for column in table.columns for plan in column.to_pylist()):
        raise QueryError(
            "The embedded engine would answer this with wrong rows (it loses a filter on a relationship's property before a further hop). "
            "Put the filter behind a WITH: MATCH (a)-[r:T]->(b) WITH a, r, b WHERE r.weight > ... MATCH (b)-[...]->(c) ..."
        )


_CHECKS: Final[dict[str, Callable[[Store, str, Mapping[str, Any], Limits], None]]] = {"ladybug": _ladybug}
