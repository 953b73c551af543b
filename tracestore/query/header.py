"""The header of a catalogue query: comment lines at the top of its `.cypher` file, read strictly.

    // name: drivers
    // question: Which earlier tokens drove this output token?
    // param output_id: string? -- what it means            `?`: null unless given
    // param k: int(1..) = 10 -- rows at most               bounds in brackets, then the default
    // param by: string(direct|total) = direct -- ranking   choices in brackets
    // needs: one of output_id, output_uid
    // column score: float -- meaning, unit                 `?`: may be null
    // order: sink, -|{by} but drive|, pos                  `-` descending, `|x|` by size, `{p}` the column a parameter names;
                                                            `|{p} but x|`: by size, but x itself by its signed value
    // rows: k                                              a parameter, or a number
    // seeks: what it starts from, or that it scans, and the cost
    // merge: how the rows of several stores become one answer

A line of the body that ends in `// when $x` (or `// when $x or $y`) is left out while those parameters are null: the text stays valid
Cypher, and the engine plans only for the filters that are on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, cast, get_args

from tracestore.query.parameters import PARAMETER_TYPES, Parameter, ParameterType, Value

ColumnType = Literal["int", "float", "string", "bool"]

_PARAM: Final = re.compile(
    r"(?P<name>[a-z_]+): (?P<type>\w+)(?:\((?P<inside>[^)]*)\))?(?P<optional>\?)?(?: = (?P<default>\S+))? -- (?P<doc>\S.*)"
)
_COLUMN: Final = re.compile(r"(?P<name>[a-z_]+): (?P<type>\w+)(?P<null>\?)? -- (?P<doc>\S.*)")
_RANGE: Final = re.compile(r"(-?[\d.]+)?\.\.(-?[\d.]+)?")
_ORDER: Final = re.compile(r"(?P<down>-)?(?:\|(?P<size>\{?[a-z_]+\}?)(?: but (?P<signed>[a-z_]+))?\||(?P<name>\{?[a-z_]+\}?))")
_WHEN: Final = re.compile(r"\s*// when (\$\w+(?: or \$\w+)*)$")
_REFERENCE: Final = re.compile(r"\$(\w+)")
_WITHOUT: Final = re.compile(r"without (?P<name>[a-z_]+): (?P<why>\S.*)")
_ONCE: Final = ("name", "question", "order", "rows", "seeks", "merge")

FILTERS: Final = (
    *("model_id", "method", "dataset", "split", "tag", "session_id", "since", "until", "origin", "correct"),
    *("min_share", "sink"),
)
"""What every query over many prompts takes, or says why it does not (`without`)."""


class HeaderError(ValueError):
    """A catalogue file whose header is malformed: a mistake of the package, not of its user."""


@dataclass(frozen=True, slots=True)
class ResultColumn:
    """One column of a query's rows."""

    name: str
    type: ColumnType
    doc: str
    nullable: bool = False


@dataclass(frozen=True, slots=True)
class OrderKey:
    """One key of the promised order. `column` may be `{parameter}`: the column that the parameter names.

    `signed`: the one of those columns that is ordered by its value where the others are ordered by size (`absolute`).
    """

    column: str
    descending: bool = False
    absolute: bool = False
    signed: str | None = None


@dataclass(frozen=True, slots=True)
class Header:
    """What a header says."""

    name: str
    question: str
    parameters: tuple[Parameter, ...]
    needs: tuple[tuple[str, ...], ...]
    columns: tuple[ResultColumn, ...]
    order: tuple[OrderKey, ...]
    rows: str
    seeks: str
    merge: str
    without: tuple[tuple[str, str], ...] = ()  # (filter, why it means nothing here)

    @property
    def across(self) -> bool:
        """Does the query answer over many prompts: can it be asked without naming an Output or a Trace, or does it go on to all of them?"""
        named = any("output_id" in group for group in self.needs) or any(p.name == "trace_id" and p.required for p in self.parameters)
        return not named or "then scans" in self.seeks


def parse(text: str) -> tuple[Header, str]:
    """Split a catalogue file into its header and the Cypher below it. Raises HeaderError."""
    lines = text.splitlines()
    count = next((i for i, line in enumerate(lines) if not line.startswith("// ")), len(lines))
    once: dict[str, str] = {}
    parameters: list[Parameter] = []
    columns: list[ResultColumn] = []
    needs: list[tuple[str, ...]] = []
    without: list[tuple[str, str]] = []
    for line in lines[:count]:
        content = line.removeprefix("// ")
        key, separator, value = content.partition(": ")
        if content.startswith("param "):
            parameters.append(_parameter(content.removeprefix("param ")))
        elif content.startswith("column "):
            columns.append(_column(content.removeprefix("column ")))
        elif key == "needs" and value.startswith("one of "):
            needs.append(tuple(value.removeprefix("one of ").split(", ")))
        elif (found := _WITHOUT.fullmatch(content)) is not None:
            without.append((found["name"], found["why"]))
        elif separator and key in _ONCE and key not in once and value.strip():
            once[key] = value.strip()
        else:
            raise HeaderError(f"cannot read the header line {line!r}")
    missing = [key for key in _ONCE if key not in once]
    if missing:
        raise HeaderError(f"the header lacks {', '.join(missing)}")
    order = tuple(_order_key(part) for part in once.pop("order").split(", "))
    header = Header(parameters=tuple(parameters), needs=tuple(needs), columns=tuple(columns), order=order, without=tuple(without), **once)
    body = "\n".join(lines[count:]).strip() + "\n"
    for problem in _problems(header, body):
        raise HeaderError(f"{header.name}: {problem}")
    return header, body


def render(body: str, values: dict[str, Value]) -> tuple[str, dict[str, Value]]:
    """Drop the lines whose parameters are null; give the statement and the parameters that it still uses."""
    kept = []
    for line in body.splitlines():
        condition = _WHEN.search(line)
        if condition is None:
            kept.append(line)
        elif any(values[name] is not None for name in _REFERENCE.findall(condition.group(1))):
            kept.append(line[: condition.start()])
    statement = "\n".join(kept)
    return statement, {name: values[name] for name in dict.fromkeys(_REFERENCE.findall(statement))}


def _parameter(text: str) -> Parameter:
    found = _PARAM.fullmatch(text)
    if found is None or found["type"] not in PARAMETER_TYPES:
        raise HeaderError(f"cannot read the parameter {text!r}")
    kind = cast(ParameterType, found["type"])
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    if (inside := found["inside"]) is not None:
        if kind == "string":
            choices = tuple(inside.split("|"))
        elif kind in ("int", "float") and (bounds := _RANGE.fullmatch(inside)):
            low, high = (None if bound is None else float(bound) for bound in bounds.groups())
        else:
            raise HeaderError(f"cannot read the bounds of the parameter {text!r}")
    if found["optional"] and found["default"] is not None:
        raise HeaderError(f"the parameter {text!r} is optional and has a default")
    parameter = Parameter(found["name"], kind, found["doc"], bool(found["optional"]), None, low, high, choices)
    if found["default"] is None:
        return parameter
    try:
        default = parameter.convert(found["default"])
    except ValueError as error:
        raise HeaderError(f"the default is not allowed: {error}") from None
    return Parameter(found["name"], kind, found["doc"], False, default, low, high, choices)


def _column(text: str) -> ResultColumn:
    found = _COLUMN.fullmatch(text)
    if found is None or found["type"] not in get_args(ColumnType):
        raise HeaderError(f"cannot read the column {text!r}")
    return ResultColumn(found["name"], cast(ColumnType, found["type"]), found["doc"], bool(found["null"]))


def _order_key(text: str) -> OrderKey:
    found = _ORDER.fullmatch(text.strip())
    if found is None:
        raise HeaderError(f"cannot read the order {text!r}")
    return OrderKey(found["size"] or found["name"], bool(found["down"]), found["size"] is not None, found["signed"])


def _problems(header: Header, body: str) -> Iterator[str]:
    parameters = {p.name: p for p in header.parameters}
    columns = {c.name for c in header.columns}
    if len(parameters) != len(header.parameters) or len(columns) != len(header.columns):
        yield "a parameter or column is described twice"
    if not columns:
        yield "no column is described"
    for name, _ in header.without:
        if name in parameters or name not in FILTERS:
            yield f"without names {name}, which is a parameter here or no filter"
    for name in sorted(set(_REFERENCE.findall(body)) ^ set(parameters)):
        yield f"the parameter {name} is used and not described, or described and not used"
    for key in header.order:
        named = key.column.strip("{}")
        choices = parameters[named].choices if key.column.startswith("{") and named in parameters else (named,)
        if not set(choices) <= columns:
            yield f"the order names {named}, which is no column"
        if key.signed is not None and (named == key.column or key.signed not in choices):
            yield f"the order excepts {key.signed}, which {named} cannot name"
    if not header.rows.isdecimal() and (header.rows not in parameters or parameters[header.rows].type != "int"):
        yield "rows must be a number or an int parameter"
    for name in {name for group in header.needs for name in group}:
        if name not in parameters or not parameters[name].optional:
            yield f"needs names {name}, which is no optional parameter"
    for line in body.splitlines():
        condition = _WHEN.search(line)
        used = set(_REFERENCE.findall(line[: condition.start()] if condition else line))
        guards = set(_REFERENCE.findall(condition.group(1))) if condition else set()
        if any(parameters[name].optional for name in used - guards if name in parameters):
            yield "an optional parameter is used in a line that is not left out when it is null"
        if any(not parameters[name].optional for name in guards if name in parameters):
            yield "a line depends on a parameter that is never null"
