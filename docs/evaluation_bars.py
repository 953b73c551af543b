"""The sections of `docs/evaluation.md` that judge: the bars line by line, the choice of the rule, and tasks and lengths one by one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from docs.evaluation_text import TRIED
from tracestore.evaluate.intervals import Interval
from tracestore.evaluate.report import REMOVAL, column, difference, interval
from tracestore.evaluate.runner import Row

CANDIDATES: Final = ("frozen", "secant", "secant_h25")
BELOW: Final = ("random", "recency", "raw_attention", "rollout", "gradient_x_input", "ifr")
REFERENCES: Final = ("leave_one_out", "leave_one_out_mean")
FURTHER: Final = ("saliency", "integrated_gradients", "direct_logit", "attention_norm", "alti", "ablation_regression")
FORWARDS: Final = 3.0
FEWEST: Final = 5
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
TUNED: Final = frozenset({"facts", "arithmetic", "indirect_object", "two_hop", "leg_counting"})
LENGTHS: Final = ((1, 12), (13, 30), (31, 60), (61, 10_000))
_COLUMN, _MEAN = (name for name, _ in REMOVAL[:2])


def verdict(found: Interval) -> str:
    """Write a paired difference with what it shows."""
    if found.n < FEWEST:
        return "-" if found.n == 0 else f"{found} too few"
    return f"{found} {'above' if found.above_zero else '**below**' if found.below_zero else 'no difference shown'}"


def bars_section(suites: Mapping[str, list[Row]]) -> str:
    """Say what the bars are, and whether they are met, for each candidate of the default method."""
    lines = [
        "## The bars\n",
        "AOPC: paired differences on all report prompts; *above* and *below* where the interval excludes 0.\n",
        "| | " + " | ".join(f"`{method}`" for method in CANDIDATES) + " |",
        "|---" * (1 + len(CANDIDATES)) + "|",
    ]
    told = [list(_bars(suites, method)) for method in CANDIDATES]
    for cells in zip(*told, strict=True):
        lines.append(f"| {cells[0][0]} | " + " | ".join(text for _, text in cells) + " |")
    return "\n".join(lines) + "\n"


def _bars(suites: Mapping[str, list[Row]], method: str) -> Iterator[tuple[str, str]]:
    chase, circuits, prompts = suites["chase"], suites["circuits"], suites["prompts"]
    direct = f"{method}.direct"
    for measure, name in (("top1", "the true entry is first"), ("chain", "whole chains")):
        yield f"pointer chase, `direct`: {name} (bar: 1.00)", _met(interval(chase, direct, measure))
    for task in dict.fromkeys(row["task"] for row in circuits):
        mine = [row for row in circuits if row["task"] == task]
        steps = [f"step{n}" for n in (1, 2, 3) if any(row.get(f"step{n}") is not None for row in mine)]
        bar = " (bar: 1.00)" if task == "hop3" else ""
        yield f"circuit `{task}`, `total`: recall of each step{bar}", "; ".join(str(interval(mine, f"{method}.total", s)) for s in steps)
    closures = [v for rows in (chase, circuits) for v in column(rows, direct, "closure").values() if v == v]
    yield (
        "conserves: largest miss relative to the explained quantity (chase, circuits)",
        f"{max(closures):.0e}" if closures else "row by row (tests)",
    )
    for names, bar in (
        (BELOW, "bar: above"),
        (REFERENCES[:1], "bar: not below"),
        (REFERENCES[1:], "the other reference"),
        (FURTHER, "no bar"),
    ):
        for other in names:
            for measure, how in ((_COLUMN, "column"), (_MEAN, "mean embedding")):
                yield f"AOPC, {how}: less `{other}` ({bar})", verdict(difference(prompts, direct, other, measure))
    costs = sorted(column(prompts, direct, "forwards").values())
    cost = costs[len(costs) // 2]
    yield f"forwards, median (bar: {FORWARDS:.0f})", f"{cost:.1f}: {'met' if cost <= FORWARDS else 'missed'}"


def _met(found: Interval) -> str:
    return f"{found}: {'met' if found.mean == 1.0 else 'missed'}"


def rules_section(suites: Mapping[str, list[Row]]) -> str:
    """Compare the rules with each other on all report sets."""
    chase, circuits, prompts = suites["chase"], suites["circuits"], suites["prompts"]
    tasks = list(dict.fromkeys(row["task"] for row in circuits))
    lines = [
        "## Choosing the rule\n",
        "`direct` on the chase and on prompts, `total` on circuits (all steps found). Differences are paired, over report prompts.\n",
        "| rule | adds up | chase: first, share | "
        + " | ".join(f"`{task}`" for task in tasks)
        + " | AOPC column | AOPC mean | column, less leave-one-out | column, less frozen | mean, less frozen | MRR on evidence |",
        "|---" * (9 + len(tasks)) + "|",
    ]
    for rule, conserves in RULES:
        direct, total = f"{rule}.direct", f"{rule}.total"
        cells = [rule, conserves, f"{interval(chase, direct, 'top1')}, {interval(chase, direct, 'share')}"]
        cells += [str(interval([row for row in circuits if row["task"] == task], total, "chain")) for task in tasks]
        cells += [str(interval(prompts, direct, measure)) for measure in (_COLUMN, _MEAN)]
        cells.append(verdict(difference(prompts, direct, "leave_one_out", _COLUMN)))
        cells += [
            "" if rule == "frozen" else verdict(difference(prompts, direct, "frozen.direct", measure)) for measure in (_COLUMN, _MEAN)
        ]
        cells.append(str(interval(prompts, direct, "mrr")))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def tried_section(suites: Mapping[str, list[Row]], tried: Mapping[str, list[Row]]) -> str:
    """Judge the columns that were chosen on the tuning set by the report set."""
    rows = [*suites["prompts"], *tried["prompts"]]
    lines = [
        TRIED.replace("TRIED_PROMPTS", str(len({row["id"] for row in tried["prompts"]}))),
        "| column | chase: first | hop3: all steps | | less leave-one-out | less `frozen.direct` | less `secant.direct` | AOPC |",
    ]
    lines.append("|---" * 8 + "|")
    for method in dict.fromkeys(row["method"] for row in tried["prompts"]):
        hop3 = [row for row in tried["circuits"] if row["task"] == "hop3"]
        known = f"{interval(tried['chase'], method, 'top1')} | {interval(hop3, method, 'chain')}"
        for measure, how in ((_COLUMN, "column"), (_MEAN, "mean")):
            others = ("leave_one_out", "frozen.direct", "secant.direct")
            cells = [verdict(difference(rows, method, other, measure)) for other in others]
            lines.append(f"| `{method}` | {known} | {how} | " + " | ".join(cells) + f" | {interval(rows, method, measure)} |")
    return "\n".join(lines) + "\n"


def generality_section(suites: Mapping[str, list[Row]], ours: str) -> str:
    """Tell tasks and lengths apart: what was never tuned on, and what is long."""
    rows = [*suites["prompts"], *suites.get("reasoning", ()), *({**row, "task": "commonsense"} for row in suites.get("commonsense", ()))]
    groups = [(f"{task}{'' if task in TUNED else ' (never tuned on)'}", [r for r in rows if r["task"] == task]) for task in _tasks(rows)]
    groups += [
        (f"{low} to {high} tokens" if high < 1_000 else f"{low} tokens or more", [r for r in rows if low <= r["n_tokens"] <= high])
        for low, high in LENGTHS
    ]
    lines = [
        "## Generality\n",
        f"`{ours}` by task and by length of the prompt, over all language suites; AOPC by knockout of columns, paired.\n",
        "| | cases, right | AOPC | less random | less raw attention | less leave-one-out | MRR on evidence |",
        "|---" * 7 + "|",
    ]
    for name, mine in groups:
        cases = {row["id"]: row["correct"] for row in mine}
        if not cases:
            continue
        cells = [name, f"{len(cases)}, {sum(right is True for right in cases.values())}", str(interval(mine, ours, _COLUMN))]
        cells += [verdict(difference(mine, ours, other, _COLUMN)) for other in ("random", "raw_attention", "leave_one_out")]
        cells.append(str(interval(mine, ours, "mrr")))
        lines.append("| " + " | ".join(cells) + " |")
    lines.append(
        "\nModels: the chase is a Llama trained on the spot, the circuits are GPT-2, the rest is SmolLM2-135M. That the sums close on "
        "other families is shown in [Model families](families.md); how right the rankings are was measured on those below, on one task.\n"
    )
    return "\n".join(lines)


def _tasks(rows: Sequence[Row]) -> list[str]:
    return sorted({row["task"] for row in rows}, key=lambda task: (task not in TUNED, task))
