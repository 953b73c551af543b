"""The sections of `docs/evaluation.md` that compare rules and rankings: what was chosen, on what, and what was tried without success."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from docs.evaluation_bars import COLUMN, MEAN, verdict
from docs.evaluation_text import CHOOSING, TRIED
from tracestore.evaluate.markdown import table_lines
from tracestore.evaluate.report import difference, interval, methods_of
from tracestore.evaluate.runner import Row

RULES: Final = (
    ("frozen", "yes"),
    ("secant", "yes"),
    ("ratio", "yes, not linear"),
    ("linear", "yes"),
    ("secant_h25", "yes"),
    ("secant_h75", "yes"),
    ("gradient_rule", "no"),
    ("attnlrp", "no"),
    ("sensitivity", "no"),
)


def rules_section(suites: Mapping[str, list[Row]]) -> str:
    """Compare the rules with each other on all report sets."""
    chase, circuits, prompts = suites["chase"], suites["circuits"], suites["prompts"]
    tasks = list(dict.fromkeys(row["task"] for row in circuits))
    lines = [
        "## Choosing the rule\n",
        "`direct` on the chase and on `prompts`, `total` on circuits (all steps found). Differences are paired, over report prompts.\n",
    ]
    heads = ["rule", "adds up", "chase: first, share", *(f"`{task}`" for task in tasks), "AOPC column", "AOPC mean"]
    heads += ["column, less leave-one-out", "column, less frozen", "mean, less frozen", "MRR on evidence"]
    table = []
    for rule, conserves in RULES:
        direct, total = f"{rule}.direct", f"{rule}.total"
        cells = [rule, conserves, f"{interval(chase, direct, 'top1')}, {interval(chase, direct, 'share')}"]
        cells += [str(interval([row for row in circuits if row["task"] == task], total, "chain")) for task in tasks]
        cells += [str(interval(prompts, direct, measure)) for measure in (COLUMN, MEAN)]
        cells.append(verdict(difference(prompts, direct, "leave_one_out", COLUMN)))
        cells += ["" if rule == "frozen" else verdict(difference(prompts, direct, "frozen.direct", measure)) for measure in (COLUMN, MEAN)]
        cells.append(str(interval(prompts, direct, "mrr")))
        table.append(cells)
    return "\n".join([*lines, *table_lines(heads, table)]) + "\n"


def ranking_section(tuning: Sequence[Row]) -> str:
    """Tell on which numbers the default ranking was chosen: all tuning items."""
    cases = len({row["id"] for row in tuning})
    heads = ["ranking", "AOPC column", "less leave-one-out", "AOPC mean", "less leave-one-out", "MRR on evidence"]
    table = []
    for method in methods_of(tuning):
        cells = [f"`{method}`"]
        for measure in (COLUMN, MEAN):
            own = "" if method == "leave_one_out" else verdict(difference(tuning, method, "leave_one_out", measure))
            cells += [str(interval(tuning, method, measure)), own]
        table.append([*cells, str(interval(tuning, method, "mrr"))])
    return "\n".join([CHOOSING.replace("TUNING_CASES", str(cases)), *table_lines(heads, table)]) + "\n"


def tried_section(suites: Mapping[str, list[Row]], tried: Mapping[str, list[Row]]) -> str:
    """Judge the columns that were first chosen on the tuning set by the report set."""
    rows = [*suites["prompts"], *tried["prompts"]]
    others = ("leave_one_out", "frozen.direct", "secant.direct")
    heads = ["column", "chase: first", "hop3: all steps", "", *(f"less `{other}`" for other in others), "AOPC"]
    table = []
    for method in dict.fromkeys(row["method"] for row in tried["prompts"]):
        hop3 = [row for row in tried["circuits"] if row["task"] == "hop3"]
        known = (f"`{method}`", interval(tried["chase"], method, "top1"), interval(hop3, method, "chain"))
        for measure, how in ((COLUMN, "column"), (MEAN, "mean")):
            cells = [verdict(difference(rows, method, other, measure)) for other in others]
            table.append([*known, how, *cells, interval(rows, method, measure)])
    about = TRIED.replace("TRIED_PROMPTS", str(len({row["id"] for row in tried["prompts"]})))
    return "\n".join([about, *table_lines(heads, table)]) + "\n"
