"""Sweep one class: build it, let the engine admit or refuse it, judge what was admitted."""

from __future__ import annotations

import time
import warnings
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Final, Literal

from tracestore.errors import TracestoreError, UnsupportedModelError
from tracestore.extract.attribute import Attributor
from tracestore.extract.identities import check_identities
from tracestore.extract.sweep.build import Built, NotBuildableError, build, class_names, first_line
from tracestore.extract.sweep.judge import judge, worst
from tracestore.extract.sweep.replay import ReplayError, Wide

Result = Literal["exact", "refused", "not built", "wrong", "failed"]
"""`wrong`: admitted, and a check failed or could not be made. `failed`: the engine raised something else than a refusal."""

SECANT_IDENTITIES: Final = ("I0", "I6", "I7", "I8", "I9", "I10", "I12")
"""What is checked of `secant`; its edges against explicit vectors in I7. (Not I11: some classes take no positions with padding.)"""

BAD: Final[frozenset[Result]] = frozenset({"wrong", "failed"})


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one class. `check` and `error` are the worst of the judge's checks, relative to what it allows."""

    model_type: str
    class_name: str
    result: Result
    reason: str = ""
    family: str = ""
    dtype: str = ""
    check: str = ""
    error: float | None = None
    secant: str = ""
    """`exact`, or why the method secant is refused for a class that frozen decomposes exactly, or what is wrong with it."""
    seconds: float = 0.0


def sweep_one(model_type: str, seed: int = 0) -> Outcome:
    """Sweep one architecture by its model_type."""
    started = time.monotonic()
    result, reason, family, dtype, check, error, secant = _outcome(model_type, seed)
    name = class_names().get(model_type, "")
    return Outcome(model_type, name, result, reason, family, dtype, check, error, secant, round(time.monotonic() - started, 2))


_Found = tuple[Result, str, str, str, str, float | None, str]


def _outcome(model_type: str, seed: int) -> _Found:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what transformers' constructors say about tiny configurations
            built = build(model_type, seed)
    except NotBuildableError as error:
        return "not built", str(error), "", "", "", None, ""
    try:
        attributor = Attributor(built.model)
    except UnsupportedModelError as error:
        return "refused", str(error), "", built.dtype, "", None, ""
    except Exception as error:  # noqa: BLE001 - anything but a refusal is the finding
        return "failed", f"{type(error).__name__}: {first_line(error)}", "", built.dtype, "", None, ""
    return judged(built, attributor)


def judged(built: Built, attributor: Attributor) -> _Found:
    """Judge an admitted model."""
    family = attributor.family
    try:
        verdicts = judge(built.model, built.input_ids, attributor)
    except (ReplayError, TracestoreError) as error:
        return "wrong", f"admitted, but it could not be judged: {first_line(error)}", family, built.dtype, "", None, ""
    bad = [v for v in verdicts if not v.ok]
    last = worst(bad or verdicts)
    reason = ", ".join(f"{v.name} {v.error:.1e} (allowed {v.tolerance:.0e})" for v in bad)
    if bad:
        return "wrong", reason, family, built.dtype, last.name, last.error, ""
    secant, fault = judged_secant(built)
    result: Result = "wrong" if fault else "exact"
    return result, f"method secant: {secant}" if fault else "", family, built.dtype, last.name, last.error, secant


def judged_secant(built: Built) -> tuple[str, bool]:
    """Check the identities of `secant` on a model that `frozen` decomposes exactly; give what to say, and whether it is a fault."""
    try:
        with Wide() if built.dtype == "float64" else nullcontext():  # type: ignore[no-untyped-call]
            found = check_identities(Attributor(built.model), built.input_ids[0], "secant", naive_tokens=4, only=SECANT_IDENTITIES)
    except UnsupportedModelError as error:
        return f"refused: {error}", False
    except Exception as error:  # noqa: BLE001 - anything but a refusal is the finding
        return f"admitted, but it could not be judged: {type(error).__name__}: {first_line(error)}", True
    bad = [f"{one.id} {one.error:.1e} (allowed {one.tolerance:.0e})" for one in found if not one.ok]
    return ", ".join(bad) or "exact", bool(bad)
