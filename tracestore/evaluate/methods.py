"""The methods by the names that users type: ours, and the baselines. Each gives one number for every token of a case."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal, TypeAlias

import numpy as np
import torch

from tracestore.errors import BadInputError
from tracestore.evaluate.baselines import ablation, attention, gradients, rules, simple
from tracestore.evaluate.case import Case, Scores
from tracestore.extract.attribution import TargetSpec
from tracestore.model import Method as TraceMethod

Column = Literal["drive", "direct", "total", "removal", "score", "edge", "mixed"]

Found: TypeAlias = Mapping[str, Scores | float]
"""What one computation gives: columns [T] by name, and, where it is known, `closure`: how far the scores miss the explained quantity."""


@dataclass(frozen=True, slots=True)
class Method:
    """A way to rank tokens: a column of a computation, which other methods may share.

    `passes`: what it costs by construction, T the number of tokens; what it did cost is measured. `longest`: prompts of more tokens are
    not asked, since the cost grows with the square of T.
    """

    name: str
    ours: bool
    about: str
    passes: str
    compute: Callable[[Case], Found]
    column: str
    longest: int | None = None

    def suits(self, case: Case) -> bool:
        """Tell whether the case is short enough."""
        return self.longest is None or case.length <= self.longest

    def run(self, case: Case) -> Scores:
        """Give the scores of a case."""
        return self.read(self.compute(case))

    def read(self, found: Found) -> Scores:
        """Take the scores out of what the computation gave."""
        scores = found[self.column]
        assert not isinstance(scores, float)
        return scores


def traced(case: Case, method: TraceMethod) -> Found:
    """Give the columns of our own trace: `direct`, `total` (unsigned), `drive`, `removal`, `score` (signed), `mixed`."""
    found = case.attributor.run(torch.tensor(case.token_ids), method=method).attribute(TargetSpec(case.pos, case.token_id), last=True)
    direct = found.direct
    return {
        "drive": found.drive,
        "direct": direct,
        "total": found.total,
        "removal": found.removal,
        "score": found.scores,
        "mixed": direct / max(direct.sum(), _TINY) + found.scores / max(2 * np.abs(found.scores).sum(), _TINY),
        "closure": found.closure,
    }


_ABOUT: Final[Mapping[Column, str]] = {
    "drive": "mean of the shares of `direct`, `total` and `removal`",
    "direct": "attention edges into the explained position",
    "total": "attention edges into all positions",
    "removal": "what hiding the token would take away, to first order, signed",
    "score": "signed, adds up",
    "edge": "attention edges into the explained position, both channels of an edge added up first",
    "mixed": "share of `direct` plus half the signed share of `score`",
}
_TINY: Final = 1e-30
_LONGEST: Final = 300  # tokens, for a method with a forward pass for every token


def _columns(name: str, ours: bool, about: str | None, compute: Callable[[Case], Found], columns: tuple[Column, ...]) -> list[Method]:
    return [Method(f"{name}.{column}", ours, about or _ABOUT[column], "2 to 3", compute, column) for column in columns]


_OURS: Final[tuple[Column, ...]] = ("drive", "direct", "total", "removal", "score")


def _ours() -> list[Method]:
    names: tuple[TraceMethod, ...] = ("frozen", "secant")
    return [method for name in names for method in _columns(name, True, None, partial(traced, method=name), _OURS)]


def _by_rule(case: Case, rule: rules.Rule) -> Found:
    found = rules.by_rule(case, rule)
    return {"direct": found.direct, "total": found.total, "score": found.score, "edge": found.edge}


_RULES: Final[tuple[tuple[str, rules.Rule, str, tuple[Column, ...]], ...]] = (
    ("attnlrp", rules.attnlrp, "AttnLRP's rules", ("direct", "score")),
    ("gradient_rule", rules.gradient, "the softmax's gradient in full", ("direct",)),
    ("linear", rules.linear, "secant without concentration", ("direct", "total")),
    ("ratio", rules.ratio, "ratio weights, not linear in the gradient", ("direct", "total")),
    ("secant_h25", rules.secant_share(0.25), "secant, a quarter to the scores", ("direct",)),
    ("secant_h75", rules.secant_share(0.75), "secant, three quarters to the scores", ("direct",)),
)


def _variants() -> list[Method]:
    found = [
        method for name, rule, about, columns in _RULES for method in _columns(name, False, about, partial(_by_rule, rule=rule), columns)
    ]
    return [*found, *_columns("sensitivity", False, "true gradient of each value and score", gradients.sensitivity, ("direct", "total"))]


def _baseline(name: str, about: str, passes: str, run: Callable[[Case], Scores], longest: int | None = None) -> Method:
    return Method(name, False, about, passes, lambda case: {"scores": run(case)}, "scores", longest)


_BASELINES: Final[tuple[Method, ...]] = (
    _baseline("random", "no model", "0", simple.random_order),
    _baseline("recency", "no model", "0", simple.recency),
    _baseline("first_token", "no model", "0", simple.first_token),
    _baseline("raw_attention", "mean attention of the explained position", "1", attention.raw_attention),
    _baseline("rollout", "attention rollout", "1", attention.rollout),
    _baseline("attention_norm", "norm of what is moved", "1", attention.attention_norm),
    _baseline("direct_logit", "direct logit attribution", "1", attention.direct_logit),
    _baseline("alti", "proximity, heads together", "1", attention.alti),
    _baseline("ifr", "information flow routes: proximity, head by head", "1", attention.ifr),
    _baseline("saliency", "norm of the plain gradient", "2", gradients.saliency),
    _baseline("gradient_x_input", "plain gradient times embedding", "2", gradients.gradient_x_input),
    _baseline("integrated_gradients", f"{gradients.STEPS} points from a zero embedding", "40", gradients.integrated_gradients),
    _baseline("ablation_regression", f"linear fit to {ablation.DRAWS} random removals", "32", ablation.ablation_regression),
    _baseline("leave_one_out", "each token's column knocked out", "T", partial(ablation.leave_one_out, how="column"), _LONGEST),
    _baseline(
        "leave_one_out_mean", "each token's embedding replaced by the mean", "T", partial(ablation.leave_one_out, how="mean"), _LONGEST
    ),
)

_TRIED: Final[tuple[Method, ...]] = (
    *_columns("frozen", True, None, partial(traced, method="frozen"), ("mixed",)),
    *_columns("secant", True, None, partial(_by_rule, rule=rules.secant_share(0.5)), ("edge",)),
    *_columns("linear_h25", False, None, partial(_by_rule, rule=rules.linear_share(0.25)), ("edge",)),
)

TRIED: Final = tuple(method.name for method in _TRIED)
"""Columns that did best on the tuning set, of about a hundred: run by name only."""

_SHARES: Final = tuple(
    method
    for name, share in (("secant_h25", 0.25), ("secant_h75", 0.75))
    for method in _columns(name, False, None, partial(_by_rule, rule=rules.secant_share(share)), ("total",))
)

SHARES: Final = tuple(method.name for method in _SHARES)
"""For compiled circuits, likewise by name only."""

METHODS: Final[dict[str, Method]] = {method.name: method for method in (*_ours(), *_variants(), *_BASELINES, *_TRIED, *_SHARES)}


def find_methods(names: list[str] | None) -> list[Method]:
    """Give methods by name; None gives all but TRIED and SHARES. Raises BadInputError for an unknown one."""
    unknown = [name for name in names or [] if name not in METHODS]
    if unknown:
        raise BadInputError(f"there is no method {unknown[0]!r}: choose from {', '.join(METHODS)}")
    chosen = [name for name in METHODS if name not in (*TRIED, *SHARES)] if names is None else names
    return [METHODS[name] for name in chosen]
