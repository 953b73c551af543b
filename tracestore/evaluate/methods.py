"""The methods by the names that users type: ours, and the baselines. Each gives one number for every token of a case."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

import torch

from tracestore.errors import BadInputError
from tracestore.evaluate.baselines import ablation, attention, gradients, rules, simple
from tracestore.evaluate.case import Case, Scores
from tracestore.extract.attribution import TargetSpec
from tracestore.model import Method as TraceMethod

Column = Literal["direct", "total", "score"]


@dataclass(frozen=True, slots=True)
class Method:
    """A way to rank tokens. `passes`: what it costs by construction, T the number of tokens; what it did cost is measured."""

    name: str
    ours: bool
    about: str
    passes: str
    run: Callable[[Case], Scores]


def traced(case: Case, method: TraceMethod, column: Column) -> Scores:
    """Rank by a column of our own trace: `direct` or `total` (unsigned), or `score` (signed)."""
    found = case.attributor.run(torch.tensor(case.token_ids), method=method).attribute(TargetSpec(case.pos, case.token_id), last=True)
    if column == "score":
        return found.scores
    if column == "direct":
        return found.direct_value + found.direct_address
    return found.total_value + found.total_address


def _ours() -> list[Method]:
    about = {
        "direct": "attention edges into the explained position",
        "total": "attention edges into all positions",
        "score": "signed, adds up",
    }
    return [
        Method(f"{method}.{column}", True, about[column], "2 to 3", partial(traced, method=method, column=column))
        for method in ("frozen", "secant")
        for column in ("direct", "total", "score")
    ]


def _by_rule(case: Case, rule: rules.Rule, column: Column) -> Scores:
    found: Scores = getattr(rules.by_rule(case, rule), column)
    return found


_RULES: Final[tuple[tuple[str, rules.Rule, str], ...]] = (
    ("attnlrp", rules.attnlrp, "AttnLRP's rules"),
    ("gradient_rule", rules.gradient, "the softmax's gradient in full"),
    ("linear", rules.linear, "secant without concentration"),
    ("ratio", rules.ratio, "ratio weights, not linear in the gradient"),
    ("secant_h25", rules.secant_share(0.25), "secant, a quarter to the scores"),
    ("secant_h75", rules.secant_share(0.75), "secant, three quarters to the scores"),
)


def _variants() -> list[Method]:
    columns: dict[str, tuple[Column, ...]] = {"attnlrp": ("direct", "score")}
    return [
        Method(f"{name}.{column}", False, about, "2 to 3", partial(_by_rule, rule=rule, column=column))
        for name, rule, about in _RULES
        for column in columns.get(name, ("direct",))
    ]


_BASELINES: Final[tuple[Method, ...]] = (
    Method("random", False, "no model", "0", simple.random_order),
    Method("recency", False, "no model", "0", simple.recency),
    Method("first_token", False, "no model", "0", simple.first_token),
    Method("raw_attention", False, "mean attention of the explained position", "1", attention.raw_attention),
    Method("rollout", False, "attention rollout", "1", attention.rollout),
    Method("attention_norm", False, "norm of what is moved", "1", attention.attention_norm),
    Method("direct_logit", False, "direct logit attribution", "1", attention.direct_logit),
    Method("alti", False, "proximity, heads together", "1", attention.alti),
    Method("ifr", False, "information flow routes: proximity, head by head", "1", attention.ifr),
    Method("saliency", False, "norm of the plain gradient", "2", gradients.saliency),
    Method("gradient_x_input", False, "plain gradient times embedding", "2", gradients.gradient_x_input),
    Method("integrated_gradients", False, f"{gradients.STEPS} points from a zero embedding", "40", gradients.integrated_gradients),
    Method("ablation_regression", False, f"linear fit to {ablation.DRAWS} random removals", "32", ablation.ablation_regression),
    Method("leave_one_out", False, "each token's column knocked out", "T", partial(ablation.leave_one_out, how="column")),
    Method("leave_one_out_mean", False, "each token's embedding replaced by the mean", "T", partial(ablation.leave_one_out, how="mean")),
)

METHODS: Final[dict[str, Method]] = {method.name: method for method in (*_ours(), *_variants(), *_BASELINES)}


def find_methods(names: list[str] | None) -> list[Method]:
    """Give methods by name; None gives all. Raises BadInputError for an unknown one."""
    unknown = [name for name in names or [] if name not in METHODS]
    if unknown:
        raise BadInputError(f"there is no method {unknown[0]!r}: choose from {', '.join(METHODS)}")
    return list(METHODS.values()) if names is None else [METHODS[name] for name in names]
