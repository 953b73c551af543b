"""The part of `docs/evaluation.md` on generality over model families whose drivers are known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from tracestore.evaluate import evaluation
from tracestore.evaluate.intervals import Interval, mean_interval
from tracestore.evaluate.markdown import table_lines
from tracestore.evaluate.report import column, interval, refusals
from tracestore.evaluate.runner import REFUSED, Row
from tracestore.evaluate.suites.pointer_chase_model import pointer_chase_model
from tracestore.evaluate.suites.pointer_chase_recipe import PARTS, RECIPES

SHOWN: Final = (
    "secant.drive",
    "secant.direct",
    "frozen.drive",
    "frozen.direct",
    "secant_h25.direct",
    "attnlrp.direct",
    "sensitivity.direct",
    "leave_one_out",
    "leave_one_out_mean",
    "ablation_regression",
    "raw_attention",
    "rollout",
    "attention_norm",
    "direct_logit",
    "alti",
    "ifr",
    "gradient_x_input",
    "integrated_gradients",
    "random",
)


def training_rows() -> Iterator[Row]:
    """Say of each family's model how it was trained, and how well it answers held-out sequences."""
    for family, recipe in RECIPES.items():
        trained = pointer_chase_model(recipe=recipe)
        yield {"family": family, "updates": recipe.updates, "accuracy": trained.final.accuracy}


def families_section(rows: Sequence[Row], training: Sequence[Row]) -> str:
    """Write the tables: how the models were made, and each measure by method and family."""
    families = list(dict.fromkeys(row["task"] for row in rows))
    if not families:
        return ""
    sequences = len({_sequence(row["id"]) for row in rows if row["task"] == families[0]})
    lines = [
        "### Model families with known drivers\n",
        f"The pointer chase again, learnt by models of {len(families)} families (suite `chase_families`: 3 layers of 4 heads, width 128; "
        f"the same {sequences} sequences of five look-ups for each). *Held out*: the share of look-ups that the model answers right in "
        "1 000 other sequences.\n",
        *table_lines(
            ["family", "parts", "updates", "held out"],
            [(f"`{row['family']}`", PARTS[row["family"]], row["updates"], f"{row['accuracy']:.3f}") for row in training],
        ),
        "",
    ]
    for title, measure in (
        ("The true entry is first, of all look-ups", _first),
        ("All five look-ups of a sequence have it first", _chains),
        ("Share on the true entry, the first token left out", _share),
    ):
        table = [
            [f"`{method}`", *(measure([row for row in rows if row["task"] == family], method) for family in families)] for method in SHOWN
        ]
        lines += [f"{title}:\n", *table_lines(["method", *(f"`{family}`" for family in families)], table), ""]
    both = "; ".join(f"`{family}` {_where_removal_agrees([row for row in rows if row['task'] == family])}" for family in families)
    lines.append(
        "A model may also answer without the entry (each value stands in the table once, so others can be excluded). Where no token costs "
        f"more to remove than the true entry (`leave_one_out` has it first), `{evaluation.OURS}` has it first too in: {both}.\n"
    )
    for family in families:
        for reason, methods in refusals(row for row in rows if row["task"] == family).items():
            lines.append(f"No number on `{family}` for {', '.join(f'`{method}`' for method in methods)}: {reason}.\n")
    return "\n".join(lines)


def _where_removal_agrees(rows: Sequence[Row]) -> str:
    """Count the look-ups whose entry is first by removal, and those of them whose entry is first by our trace."""
    removed, ours = column(rows, "leave_one_out", "top1"), column(rows, evaluation.OURS, "top1")
    agreed = [case for case, first in removed.items() if first == 1.0]
    return f"{sum(ours.get(case) == 1.0 for case in agreed)} of {len(agreed)}"


def _first(rows: Sequence[Row], method: str) -> Interval:
    return interval(rows, method, "top1")


def _share(rows: Sequence[Row], method: str) -> Interval:
    return interval(rows, method, "share")


def _chains(rows: Sequence[Row], method: str) -> Interval:
    """Give the rate of sequences whose look-ups are all found; a case's own `chain` is of its one look-up."""
    found: dict[str, float] = {}
    for case, first in column([row for row in rows if REFUSED not in row], method, "top1").items():
        found[_sequence(case)] = min(found.get(_sequence(case), 1.0), first)
    return mean_interval(list(found.values()))


def _sequence(case: str) -> str:
    return case.rpartition("-")[0]
