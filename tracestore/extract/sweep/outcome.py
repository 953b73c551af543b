"""Sweep one class: build it, let the engine admit or refuse it, judge what was admitted."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Collection
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Final, Literal

from torch import Tensor

from tracestore.errors import TracestoreError, UnsupportedModelError
from tracestore.extract.attribute import Attributor
from tracestore.extract.identities import check_identities
from tracestore.extract.sweep.build import Built, NotBuildableError, build, class_names, first_line
from tracestore.extract.sweep.judge import judge, worst
from tracestore.extract.sweep.replay import ReplayError, Wide
from tracestore.model import Method

Result = Literal["exact", "refused", "not built", "wrong", "failed"]
"""`wrong`: admitted, and a check failed or could not be made. `failed`: the engine raised something else than a refusal."""

SECANT_IDENTITIES: Final = ("I0", "I6", "I7", "I8", "I9", "I10", "I12")
"""What is checked of `secant`; its edges against explicit vectors in I7. (Not I11: some classes take no positions with padding.)"""

PARTS_IDENTITIES: Final = ("I13",)
"""What is checked of compositions and paths, by either method."""

BAD: Final[frozenset[Result]] = frozenset({"wrong", "failed"})


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one class. `check` and `error` are the worst of the judge's checks, relative to what it allows.

    The last three say of a class that `frozen` decomposes exactly: `exact`, or `refused: ` and the engine's reason, or what is wrong.
    Where compositions are exact and the engine refuses paths they say `compositions alone: ` and its reason.
    """

    model_type: str
    class_name: str
    result: Result
    reason: str = ""
    family: str = ""
    dtype: str = ""
    check: str = ""
    error: float | None = None
    secant: str = ""
    """The method secant."""
    parts_frozen: str = ""
    """Compositions and exact paths by the method frozen."""
    parts_secant: str = ""
    """Compositions and exact paths by the method secant."""
    seconds: float = 0.0


def sweep_one(model_type: str, seed: int = 0) -> Outcome:
    """Sweep one architecture by its model_type."""
    started = time.monotonic()
    found = _outcome(model_type, seed)
    return replace(found, seconds=round(time.monotonic() - started, 2))


def _outcome(model_type: str, seed: int) -> Outcome:
    name = class_names().get(model_type, "")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what transformers' constructors say about tiny configurations
            built = build(model_type, seed)
    except NotBuildableError as error:
        return Outcome(model_type, name, "not built", str(error))
    try:
        attributor = Attributor(built.model)
    except UnsupportedModelError as error:
        return Outcome(model_type, name, "refused", str(error), dtype=built.dtype)
    except Exception as error:  # noqa: BLE001 - anything but a refusal is the finding
        return Outcome(model_type, name, "failed", f"{type(error).__name__}: {first_line(error)}", dtype=built.dtype)
    return judged(Outcome(model_type, name, "exact", family=attributor.family, dtype=built.dtype), built, attributor)


def judged(found: Outcome, built: Built, attributor: Attributor) -> Outcome:
    """Judge an admitted model; give its outcome `found`, completed."""
    try:
        verdicts = judge(built.model, built.input_ids, attributor)
    except (ReplayError, TracestoreError) as error:
        return replace(found, result="wrong", reason=f"admitted, but it could not be judged: {first_line(error)}")
    bad = [v for v in verdicts if not v.ok]
    last = worst(bad or verdicts)
    found = replace(found, check=last.name, error=last.error)
    if bad:
        reason = ", ".join(f"{v.name} {v.error:.1e} (allowed {v.tolerance:.0e})" for v in bad)
        return replace(found, result="wrong", reason=reason)
    ids = built.input_ids[0]
    checks: dict[str, Callable[[Attributor], str]] = {
        "method secant": lambda a: _identities(a, ids, "secant", SECANT_IDENTITIES),
        "compositions and paths by frozen": lambda a: _parts(a, ids, "frozen"),
        "compositions and paths by secant": lambda a: _parts(a, ids, "secant"),
    }
    said, faults = [], []
    for what, check in checks.items():
        text, fault = _said(built, check)
        said.append(text)
        faults += [f"{what}: {text}"] * fault
    found = replace(found, secant=said[0], parts_frozen=said[1], parts_secant=said[2])
    return replace(found, result="wrong", reason="; ".join(faults)) if faults else found


class _OffError(Exception):
    """Identities that do not hold, or were not checked."""


def _said(built: Built, check: Callable[[Attributor], str]) -> tuple[str, bool]:
    """Make one more check of a model that `frozen` decomposes exactly; give what to say, and whether it is a fault."""
    try:
        with Wide() if built.dtype == "float64" else nullcontext():  # type: ignore[no-untyped-call]
            return check(Attributor(built.model)), False
    except UnsupportedModelError as error:
        return f"refused: {error}", False
    except _OffError as error:
        return str(error), True
    except Exception as error:  # noqa: BLE001 - anything but a refusal is the finding
        return f"admitted, but it could not be judged: {type(error).__name__}: {first_line(error)}", True


def _identities(attributor: Attributor, ids: Tensor, method: Method, only: Collection[str]) -> str:
    """Give `exact` when each of the identities was checked on `ids` [T] and holds; raises _OffError."""
    found = check_identities(attributor, ids, method, naive_tokens=4, only=only)
    off = [f"{one.id} {one.error:.1e} (allowed {one.tolerance:.0e})" for one in found if not one.ok]
    off += [f"{name} was not checked" for name in only if name not in {one.id for one in found}]
    if off:
        raise _OffError(", ".join(off))
    return "exact"


def _parts(attributor: Attributor, ids: Tensor, method: Method) -> str:
    """Say whether compositions and paths by a method close on `ids` [T]; raises UnsupportedModelError for a model without compositions."""
    without = attributor.without_compositions(method)
    if without is not None:
        raise UnsupportedModelError(without)
    exact, without = _identities(attributor, ids, method, PARTS_IDENTITIES), attributor.without_paths(method)
    return exact if without is None else f"compositions alone: {without}"
