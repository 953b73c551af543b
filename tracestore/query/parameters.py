"""Parameters of a catalogue query: their types, bounds and choices, and how strings (`-p k=8`) become values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

from tracestore.errors import QueryError

ParameterType = Literal["int", "float", "string", "bool"]
Value = int | float | str | bool | None

PARAMETER_TYPES: Final[tuple[str, ...]] = get_args(ParameterType)
_BOOLS: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_INT64: Final = 2**63


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter. An `optional` one is null unless given, and switches its lines of the query off while it is null."""

    name: str
    type: ParameterType
    doc: str
    optional: bool = False
    default: Value = None
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()

    @property
    def required(self) -> bool:
        """Must the caller give it?"""
        return not self.optional and self.default is None

    @property
    def signature(self) -> str:
        """Spell name, type and default: `k: int = 10`."""
        shown = "|".join(self.choices) if self.choices else self.type
        if self.optional:
            return f"{self.name}: {shown}, optional"
        return f"{self.name}: {shown}" if self.default is None else f"{self.name}: {shown} = {spell(self.default)}"

    def convert(self, value: object) -> Value:
        """Turn a given value (or its spelling) into one of this parameter's type. ValueError says what was expected."""
        if value is None:
            if self.optional:
                return None
            raise ValueError(f"{self.name} must not be null")
        typed = self._typed(value)
        if self.choices and typed not in self.choices:
            raise ValueError(f"{self.name} must be one of {', '.join(self.choices)}")
        if self.low is not None and isinstance(typed, int | float) and typed < self.low:
            raise ValueError(f"{self.name} must be at least {spell(self.low)}")
        if self.high is not None and isinstance(typed, int | float) and typed > self.high:
            raise ValueError(f"{self.name} must be at most {spell(self.high)}")
        return typed

    def _typed(self, value: object) -> int | float | str | bool:
        try:
            match self.type:
                case "string" if isinstance(value, str):
                    return value
                case "bool" if isinstance(value, bool):
                    return value
                case "bool" if isinstance(value, str):
                    return _BOOLS[value.strip().lower()]
                case "int" if isinstance(value, int | str) and not isinstance(value, bool):
                    return _int64(int(value))
                case "float" if isinstance(value, int | float | str) and not isinstance(value, bool):
                    return _finite(float(value))
        except (ValueError, KeyError, OverflowError):
            pass
        raise ValueError(f"{self.name} must be {_article(self.type)}") from None


def bind(
    query: str, parameters: tuple[Parameter, ...], needs: tuple[tuple[str, ...], ...], given: Mapping[str, object]
) -> dict[str, Value]:
    """Check what was given against a query's parameters; give a value to every one of them.

    `needs`: groups of which exactly one must be given. Raises QueryError that names the query's parameters, never a value.
    """
    known = {p.name: p for p in parameters}
    usage = f"parameters of {query}: " + ("; ".join(p.signature for p in parameters) or "none")
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise QueryError(f"Query {query} has no parameter {', '.join(unknown)}; {usage}.")
    values: dict[str, Value] = {}
    for name, parameter in known.items():
        if name not in given:
            if parameter.required:
                raise QueryError(f"Query {query} needs the parameter {name}; {usage}.")
            values[name] = parameter.default
            continue
        try:
            values[name] = parameter.convert(given[name])
        except ValueError as error:
            raise QueryError(f"Query {query}: {error}; {usage}.") from None
    for group in needs:
        if sum(values[name] is not None for name in group) != 1:
            raise QueryError(f"Query {query} needs exactly one of {', '.join(group)}; {usage}.")
    return values


def _int64(value: int) -> int:
    if not -_INT64 <= value < _INT64:
        raise OverflowError
    return value


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError
    return value


def _article(type_name: str) -> str:
    return {"int": "a whole number", "float": "a finite number", "string": "a string", "bool": "true or false"}[type_name]


def spell(value: Value) -> str:
    """Spell a value as it is written in a header or on a command line."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
