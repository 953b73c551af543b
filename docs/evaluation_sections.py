"""`docs/evaluation.md` and `docs/evaluation-tables.md` from measured rows: what stands where, and the sections that are short."""

from __future__ import annotations

from dataclasses import dataclass, field

from docs.evaluation_accuracy import accuracy_section
from docs.evaluation_bars import COLUMN, MEAN, bars_section
from docs.evaluation_components import components_section
from docs.evaluation_families import families_section
from docs.evaluation_generality import generality_section, second_section
from docs.evaluation_rules import ranking_section, rules_section, tried_section
from docs.evaluation_text import HEAD, LIMITS, PICTURE, READING, TABLES
from tracestore.evaluate import evaluation
from tracestore.evaluate.intervals import mean_interval, median_interval
from tracestore.evaluate.markdown import table_lines
from tracestore.evaluate.report import difference
from tracestore.evaluate.runner import Row
from tracestore.evaluate.suites.registry import SUITES, suite_items


@dataclass(slots=True)
class Measured:
    """Everything that the page tells: rows, and the reports of the suites."""

    suites: dict[str, list[Row]] = field(default_factory=dict)
    tried: dict[str, list[Row]] = field(default_factory=dict)
    shares: dict[str, list[Row]] = field(default_factory=dict)
    tuning: list[Row] = field(default_factory=list)
    second: list[Row] = field(default_factory=list)
    reports: dict[str, str] = field(default_factory=dict)
    steps: str = ""
    families: list[Row] = field(default_factory=list)
    edges: list[Row] = field(default_factory=list)
    sanity: list[Row] = field(default_factory=list)
    components: list[Row] = field(default_factory=list)
    stored: list[Row] = field(default_factory=list)
    cost: list[Row] = field(default_factory=list)


def page(measured: Measured) -> str:
    """Write the page."""
    judged = measured.suites | {"circuits": [*measured.suites["circuits"], *measured.shares["circuits"]]}
    return "\n".join(
        [
            head(measured.suites),
            reading(measured.suites, measured.second, measured.edges),
            components_section(measured.components),
            accuracy_section(measured.suites),
            PICTURE,
            measured.steps,
            bars_section(judged),
            generality_section(measured.suites, evaluation.OURS),
            second_section(measured.second, evaluation.OURS),
            families_section(measured.suites.get("chase_families", []), measured.families),
            edges_section(measured.edges),
            sanity_section(measured.sanity),
            cost_section(measured.cost, measured.stored),
            LIMITS.replace("LONG_COUNT", str(len({row["id"] for row in measured.suites.get("long", [])}) or "none")),
            ranking_section(measured.tuning),
            rules_section(judged),
            tried_section(measured.suites, measured.tried),
        ]
    )


def reading(suites: dict[str, list[Row]], second: list[Row], edges: list[Row]) -> str:
    """Write what follows, with its numbers: paired differences."""
    fresh, first, long = suites.get("held_out", []), suites["prompts"], suites.get("long", [])
    text = READING
    for mark, rows, ours, other, measure in (
        ("FRESH_LOO", fresh, evaluation.OURS, "leave_one_out", COLUMN),
        ("PROMPTS_LOO", first, evaluation.OURS, "leave_one_out", COLUMN),
        ("PROMPTS_MEAN", first, evaluation.OURS, "leave_one_out", MEAN),
        ("PROMPTS_DIRECT", first, "secant.direct", "leave_one_out", COLUMN),
        ("PROMPTS_DRIVE", first, "secant.drive", "secant.direct", COLUMN),
        ("DRIVE_COLUMN", fresh, "secant.drive", "secant.direct", COLUMN),
        ("DRIVE_MEAN", fresh, "secant.drive", "secant.direct", MEAN),
        ("QUARTER_COLUMN", fresh, "secant_h25.direct", "secant.direct", COLUMN),
        ("FROZEN_COLUMN", [*fresh, *first], "secant.drive", "frozen.drive", COLUMN),
        ("FROZEN_MEAN", [*fresh, *first], "secant.drive", "frozen.drive", MEAN),
        ("LONG_LOO", long, evaluation.OURS, "leave_one_out", COLUMN),
        ("LONG_RAW", long, evaluation.OURS, "raw_attention", COLUMN),
        ("SECOND_LOO", second, evaluation.OURS, "leave_one_out", COLUMN),
        ("SECOND_DIRECT", second, evaluation.OURS, "secant.direct", MEAN),
        ("SECOND_FROZEN", second, evaluation.OURS, "frozen.drive", COLUMN),
        ("EDGES_LARGEST", edges, "sensitivity VALUE", "secant VALUE", "rho_top"),
        ("EDGES_KEY", edges, "sensitivity KEY", "secant KEY", "rho_top"),
        ("ABLATION_COLUMN", [*fresh, *first], evaluation.OURS, "ablation_regression", COLUMN),
        ("ABLATION_MEAN", [*fresh, *first], evaluation.OURS, "ablation_regression", MEAN),
    ):
        text = text.replace(mark, str(difference(rows, ours, other, measure)))
    return text


def tables(measured: Measured) -> str:
    """Write the page of all tables, suite by suite."""
    return "\n".join([TABLES, *(measured.reports[name] for name in SUITES if name in measured.reports)])


def head(suites: dict[str, list[Row]]) -> str:
    """Write the head, with how many items of each suite of prompts were measured, of how many."""
    counts = []
    for name, rows in suites.items():
        whole = len(suite_items(SUITES[name], "report"))
        if whole:
            counts.append(f"`{name}` {len({row['id'] for row in rows})} of {whole}")
    return HEAD.replace("LANGUAGE_COUNTS", ", ".join(counts))


def cost_section(cost: list[Row], stored: list[Row]) -> str:
    """Report processor time and memory of methods, and what traces store."""
    lengths = sorted({row["n_tokens"] for row in cost})
    about = (
        "One prompt of each length; `forwards`: processor time over that of a forward pass that gives the last logits alone, the two run "
        "in turn at least three times (median of the pairs with its interval); memory is what torch held at most beyond the model, the "
        "same in every run.\n"
    )
    heads = ["method", *(f"{what}, {n} tokens" for n in lengths for what in ("forwards", "MB"))]
    table = []
    for method in dict.fromkeys(row["method"] for row in cost):
        mine = {row["n_tokens"]: row for row in cost if row["method"] == method}
        pairs = [
            (f"{median_interval(mine[n]['ratios']):.1f}", f"{mine[n]['peak'] / 1e6:.0f}") if n in mine else ("-", "-") for n in lengths
        ]
        table.append([method, *(cell for pair in pairs for cell in pair)])
    lines = ["## Overhead\n", about, *table_lines(heads, table), ""]
    lines += [
        f"Stored by `{row['method']}`: {row['bytes'] / row['tokens']:,.0f} bytes a token ({row['traces']} traces).\n" for row in stored
    ]
    return "\n".join(lines)


def edges_section(rows: list[Row]) -> str:
    """Report single edges against interventions."""
    lines = ["## Single edges against interventions\n"]
    lines.append(
        "Spearman's rho of |weight| with |change of the logit|, one edge of one head at a time (16 largest and 16 random a prompt).\n"
    )
    table = []
    for method in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == method]
        cells = [mean_interval([row[name] for row in mine]) for name in ("rho", "rho_top", "rho_random", "sign")]
        table.append([method, *cells, len(mine)])
    heads = ["edges", "all", "largest", "random", "sign agrees (largest)", "prompts"]
    return "\n".join([*lines, *table_lines(heads, table)]) + "\n"


def sanity_section(rows: list[Row]) -> str:
    """Report sanity checks."""

    def of(check: str, name: str, **where: object) -> str:
        mine = [row for row in rows if row["check"] == check and all(row.get(key) == value for key, value in where.items())]
        return f"{mean_interval([row[name] for row in mine])} (n = {len(mine)})"

    layers = sorted({row["layers"] for row in rows if row["check"] == "weights"})
    table = [
        *((f"top {n} layers randomised: rank correlation with the original", of("weights", "rho", layers=n)) for n in layers),
        ("irrelevant sentence in front: rank correlation over the other tokens", of("padding", "rho")),
        ("its share of the mass", of("padding", "share")),
        ("evidence said once: its share", of("duplicate", "once")),
        ("said twice: both shares together", of("duplicate", "both")),
        ("the smaller of the two over the larger", of("duplicate", "smaller_over_larger")),
        ("leave-one-out by columns against leave-one-out by mean embedding, rank correlation", of("references", "rho")),
    ]
    return "\n".join(["## Sanity\n", *table_lines([f"check (`{evaluation.OURS}`)", "measured"], table)]) + "\n"
