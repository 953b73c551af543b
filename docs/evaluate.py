"""Measure everything that `docs/evaluation.md` says, and write it: `make eval` (about an hour of one CPU core; a stopped run goes on).

1. Suites: `tracestore eval` over the report sets, all methods.
2. Single edges against interventions; sanity; both appended case by case as well.
3. Components, from traces of report prompts in a graph store, by Cypher.
4. The page and its pictures.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import torch

from docs.evaluation_text import HEAD, LIMITS, TRIED
from tracestore import api
from tracestore.archive import Archive
from tracestore.evaluate import evaluation, sanity
from tracestore.evaluate.annotated import Annotated
from tracestore.evaluate.intervals import mean_interval
from tracestore.evaluate.measures.edges import Channel, edge_rows
from tracestore.evaluate.methods import find_methods, traced
from tracestore.evaluate.report import REMOVAL, difference
from tracestore.evaluate.runner import Row
from tracestore.evaluate.suites.questions import language_cases
from tracestore.evaluate.suites.registry import SUITES
from tracestore.extract.loading import LoadedModel
from tracestore.ingest import trace_to_archive
from tracestore.model import Method, TraceOptions

DOCS = Path(__file__).parent
LIMITS_BY_SUITE = {"chase": 40, "circuits": 40, "prompts": None, "reasoning": 24, "commonsense": 24}
EDGE_METHODS: tuple[tuple[Method, Channel], ...] = (("frozen", "VALUE"), ("secant", "VALUE"), ("secant", "KEY"))
DUPLICATES = (
    ("The secret word is mango.", "The secret word is"),
    ("The meeting takes place on Thursday.", "The meeting takes place on"),
    ("The lost ring was found in Oslo.", "The lost ring was found in"),
    ("The captain of the ship is called Nadia.", "The captain of the ship is called"),
    ("The painting shows a horse.", "The painting shows a"),
)


def kept(path: Path, name: str, make: Callable[[], Iterable[Row]]) -> list[Row]:
    """Give rows from a file of this run, or make them and keep them there one by one."""
    file = path / f"{name}.done.jsonl"
    if not file.exists():
        partial_file = path / f"{name}.part.jsonl"
        with partial_file.open("w", encoding="utf-8") as out:
            for row in make():
                out.write(json.dumps(row) + "\n")
                out.flush()
        partial_file.rename(file)
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def report_prompts(count: int) -> list[Annotated]:
    """Give the first report prompts, mixed over their tasks."""
    items = SUITES["prompts"].items
    assert items is not None
    return [item for item in items() if item.split == "report"][:count]


def sanity_rows(load: Callable[[], LoadedModel]) -> Iterator[Row]:
    """Run every sanity check."""
    scorer = partial(traced, method="secant", column="direct")
    loaded = load()
    for case in language_cases(loaded, report_prompts(4)):
        yield from sanity.randomised_weights(case, scorer)
    for annotated in report_prompts(24):
        row = sanity.padded(loaded, annotated, scorer)
        if row is not None:
            yield row
    for fact, question in DUPLICATES:
        yield sanity.duplicated(loaded, fact, question, scorer)
    for case in language_cases(loaded, report_prompts(48)):
        yield sanity.reference_agreement(case)


def edges_section(rows: list[Row]) -> str:
    """Report single edges against interventions."""
    lines = ["## Single edges against interventions\n"]
    lines.append(
        "Spearman's rho of |weight| with |change of the logit|, one edge of one head at a time (16 largest and 16 random a prompt).\n"
    )
    lines += ["| edges | all | largest | random | sign agrees (largest) | prompts |", "|---|---|---|---|---|---|"]
    for method in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == method]
        cells = [str(mean_interval([row[name] for row in mine])) for name in ("rho", "rho_top", "rho_random", "sign")]
        lines.append(f"| {method} | " + " | ".join(cells) + f" | {len(mine)} |")
    return "\n".join(lines) + "\n"


def sanity_section(rows: list[Row]) -> str:
    """Report sanity checks."""

    def of(check: str, name: str, **where: object) -> str:
        mine = [row for row in rows if row["check"] == check and all(row.get(key) == value for key, value in where.items())]
        return f"{mean_interval([row[name] for row in mine])} (n = {len(mine)})"

    layers = sorted({row["layers"] for row in rows if row["check"] == "weights"})
    lines = ["## Sanity\n", "| check (`secant.direct`) | measured |", "|---|---|"]
    lines += [f"| top {n} layers randomised: rank correlation with the original | {of('weights', 'rho', layers=n)} |" for n in layers]
    lines.append(f"| irrelevant sentence in front: rank correlation over the other tokens | {of('padding', 'rho')} |")
    lines.append(f"| its share of the mass | {of('padding', 'share')} |")
    lines.append(f"| evidence said once: its share | {of('duplicate', 'once')} |")
    lines.append(f"| said twice: both shares together | {of('duplicate', 'both')} |")
    lines.append(f"| the smaller of the two over the larger | {of('duplicate', 'smaller_over_larger')} |")
    lines.append(f"| leave-one-out by columns against leave-one-out by mean embedding, rank correlation | {of('references', 'rho')} |")
    return "\n".join(lines) + "\n"


def components_section(load: Callable[[], LoadedModel], count: int) -> tuple[str, str]:
    """Trace report prompts, load them, and ask by Cypher for components, what they depend on and where they matter; and bytes stored."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        archive = Archive(folder / "archive")
        items = [annotated.item for annotated in report_prompts(count)]
        trace_to_archive(items, load(), archive, TraceOptions(method="secant"))
        with api.open_store(folder / "graph.lbug") as store:
            store.load(archive, level="summary")
            heads = store.query("heads_across", k=10).to_pylist()
            evidence = store.cypher(
                "MATCH (h:HeadSummary)-[:OF]->(o:Output)-[:OF]->(t:Trace) WHERE t.ready_id IS NOT NULL "
                "MATCH (s:Span)-[:OF]->(t) WHERE s.kind = 'evidence' AND h.top_source_pos >= s.first_pos "
                "AND h.top_source_pos <= s.last_pos "
                "RETURN h.layer AS layer, h.head AS head, count(DISTINCT o.uid) AS outputs"
            ).to_pylist()
            writers = store.cypher(
                "MATCH (c:Composition)-[:OF]->(o:Output)-[:OF]->(t:Trace) WHERE t.ready_id IS NOT NULL "
                "AND c.via <> 'OUT' AND c.via <> 'MLP' "
                "RETURN c.dst AS dst, c.src AS src, sum(abs(c.weight)) AS mass"
            ).to_pylist()
        tokens = sum(archive.read_trace(trace_id).header["n_tokens"] for trace_id in archive.trace_ids())
        size = sum(package.bytes for package in archive.packages())
    on_evidence = {(row["layer"], row["head"]): row["outputs"] for row in evidence}
    lines = [
        f"## Table 1: components ({count} report prompts, by Cypher over the stored traces)\n",
        "| head | predictions it matters in | mean share | kind | depends on (largest writers into it) | its source is marked evidence |",
        "|---|---|---|---|---|---|",
    ]
    for row in heads:
        name = f"L{row['layer']}.h{row['head']}"
        into = sorted((w for w in writers if w["dst"] == name), key=lambda w: -w["mass"])[:3]
        depends = ", ".join(w["src"] for w in into) or "not among the stored compositions"
        found = on_evidence.get((row["layer"], row["head"]), 0)
        offset = f"looks {row['offset_mean']:.1f} tokens back, induction {row['induction_rate']:.0%}"
        lines.append(f"| {name} | {row['outputs']} | {row['share_mean']:.3f} | {offset} | {depends} | {found} of {row['outputs']} |")
    stored = f"{size / tokens:,.0f} bytes a token ({count} traces, {tokens} tokens, mechanism level, pruned as by default)"
    return "\n".join(lines) + "\n", stored


def bars_section(rows: list[Row]) -> str:
    """Say what the bars are, and whether they are met."""
    ours = evaluation.OURS
    lines = ["## The bars\n", f"| `{ours}`, AOPC against | by knockout of columns | by mean embedding |", "|---|---|---|"]
    for other in ("random", "recency", "raw_attention", "rollout", "gradient_x_input", "ifr", "leave_one_out", "leave_one_out_mean"):
        cells = []
        for measure, _ in REMOVAL[:2]:
            found = difference(rows, ours, other, measure)
            word = "above" if found.above_zero else "below" if found.below_zero else "no difference shown"
            cells.append(f"{found}: {word}")
        lines.append(f"| {other} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("evaluation-output"))
    parser.add_argument("--model", default=api.DEMO_MODEL)
    parser.add_argument("--edges", type=int, default=16)
    parser.add_argument("--components", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)  # processor time is what methods are charged
    loaded: list[LoadedModel] = []

    def load() -> LoadedModel:
        if not loaded:
            loaded.append(api.load_model(options.model))
        return loaded[0]

    suites: dict[str, list[Row]] = {}
    parts = []
    for name, limit in LIMITS_BY_SUITE.items():
        sys.stderr.write(f"suite {name}\n")
        found = evaluation.run([SUITES[name]], find_methods(None), options.output / name, model=options.model, load=load, limit=limit)
        suites |= found.suites
        parts.append((options.output / name / "report.md").read_text(encoding="utf-8").removeprefix("# Evaluation\n"))
    sys.stderr.write("edges, sanity, components\n")
    cases = language_cases(load(), report_prompts(options.edges))
    edges = kept(options.output, "edges", lambda: (row for case in islice(cases, options.edges) for row in edge_rows(case, EDGE_METHODS)))
    checks = kept(options.output, "sanity", lambda: sanity_rows(load))
    components, stored = components_section(load, options.components)
    faithful = [row for name in ("prompts", "reasoning", "commonsense") for row in suites[name]]
    page = "\n".join(
        [
            HEAD,
            bars_section(faithful),
            components,
            *parts,
            edges_section(edges),
            sanity_section(checks),
            f"## Overhead\n\nStored: {stored}.\n",
            LIMITS,
            TRIED,
        ]
    )
    pictures = DOCS / "evaluation"
    pictures.mkdir(exist_ok=True)
    for source in [*options.output.glob("*/*.png"), *options.output.glob("commonsense/*.html")]:
        shutil.copy(source, pictures / source.name)
    (DOCS / "evaluation.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
