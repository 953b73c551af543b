"""`tracestore demo`: the main job, from a prompt to an answer, on a small real model."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tracestore.cli import _options as options
from tracestore.cli import _tracing as tracing
from tracestore.cli._errors import resumable, say
from tracestore.cli._output import print_table, write_json
from tracestore.cli._progress import progress
from tracestore.errors import ConservationError

if TYPE_CHECKING:
    from tracestore.api import GraphStore
    from tracestore.archive import Archive

RESUME = "what is finished is kept; run the same command again to go on"
DRIVERS = 6


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for archive, store and report.")] = Path("demo-output"),
    prebuilt: Annotated[bool, typer.Option("--prebuilt", help="From the archive that ships with the package, without torch.")] = False,
    store: Annotated[
        str | None,
        typer.Option("--store", "-s", help="Load into this store instead: a URL such as bolt://127.0.0.1:7687.", show_default=False),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Trace some prompts through a small real model, load the graph, and ask it. Safe to repeat."""
    from tracestore.ingest import demo as parts

    output.mkdir(parents=True, exist_ok=True)
    stages = Stages()
    with resumable(RESUME):
        archive = _prebuilt_archive(parts.PREBUILT) if prebuilt else _traced_archive(parts.ITEMS, output / "archive", stages)
        url = store or str(output / ("prebuilt.lbug" if prebuilt else "graph.lbug"))
        answer = _load_and_ask(archive, url, output / "report.html", stages, quiet=as_json)
    if as_json:
        write_json({"archive": str(archive.path), "store": url, "stages": stages.seconds, **answer})
        return
    typer.echo(f"worst closure error: {answer['worst_closure']:.1e} (sums of token scores against the model's own logits)")
    typer.echo(f"report: {output / 'report.html'}; archive: {archive.path}; store: {url}")
    typer.echo(f"ask on: tracestore query drivers -p output_id={answer['output_id']} --store {url}")
    typer.echo(f"look at it in a browser: {_command()} serve --store {url}")


def _command() -> str:
    """Spell the command so that it can be typed: as it was called where it is not on the search path."""
    called = sys.argv[0]
    return called if Path(called).name == "tracestore" and shutil.which("tracestore") is None else "tracestore"


@dataclass
class Stages:
    """Seconds of each stage, said as they end."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[dict[str, str]]:
        """Time a block; what it puts under `note` is said with the time."""
        notes: dict[str, str] = {}
        start = time.monotonic()
        yield notes
        taken = time.monotonic() - start
        self.seconds[name] = round(taken, 3)
        say(f"[{taken:6.2f} s] {name}" + (f": {notes['note']}" if notes else ""))


def _prebuilt_archive(path: Path) -> Archive:
    from tracestore import api

    return api.open_archive(path)


def _traced_archive(items: Path, path: Path, stages: Stages) -> Archive:
    """Trace the demo's prompts; those that are there from an earlier run are not traced again."""
    from tracestore import api
    from tracestore.ingest import trace_to_archive

    with stages.stage("load the model") as notes:
        model = tracing.load(api.DEMO_MODEL, "cpu", options.Dtype.float32)
        notes["note"] = model.model_id
    archive = api.open_archive(path, create=True)
    source, total = tracing.items_of(None, str(items))
    with stages.stage("trace") as notes, progress("tracing", "prompts", total) as reporter:
        summary = trace_to_archive(source, model, archive, progress=reporter.advance, strict=True)
        rate = f", {summary.edges / summary.seconds:,.0f} edges/s" if summary.traced else ""
        notes["note"] = (
            f"{summary.traced} prompts traced, {summary.known} known already; {summary.outputs} outputs, {summary.edges:,} edges{rate}"
        )
    return archive


def _load_and_ask(archive: Archive, url: str, report: Path, stages: Stages, *, quiet: bool) -> dict[str, Any]:
    """Load the archive, answer the headline and a cross-prompt question, check conservation, write the report."""
    from tracestore import api
    from tracestore.ingest import demo as parts

    with api.open_store(url) as graph:
        with stages.stage("load the graph") as notes, progress("loading", "edges") as reporter:
            found = graph.load(archive, level="mechanism", progress=reporter.advance, on_plan=lambda plan: reporter.expect(plan.edges))
            rate = f", {found.edges / found.seconds:,.0f} edges/s" if found.edges else ""
            notes["note"] = f"{len(found.loaded)} traces loaded, {len(found.skipped)} there already; {found.edges:,} edges{rate}"
        with stages.stage("answer"):
            output_id = _headline(graph, parts.HEADLINE_ITEM, quiet=quiet)
            _across(graph, parts.HEADLINE_TEXT, quiet=quiet)
        with stages.stage("check conservation by Cypher") as notes:
            nodes, worst = _conservation(graph)
            notes["note"] = f"{nodes:,} nodes, what flows in is what flows out; largest relative error {worst:.1e}"
        with stages.stage("write the report"):
            _report(graph, output_id, report)
        closure = graph.cypher("MATCH (t:Trace) WHERE t.ready_id IS NOT NULL RETURN max(t.closure) AS worst")
    return {"output_id": output_id, "nodes_checked": nodes, "worst_conservation": worst, "worst_closure": closure["worst"][0].as_py()}


def _headline(graph: GraphStore, item_id: str, *, quiet: bool) -> str:
    from tracestore.cli._answers import print_why

    statement = (
        "MATCH (i:Item)-[:OF]->(t:Trace)<-[:OF]-(o:Output) WHERE t.ready_id IS NOT NULL AND i.item_id = $item "
        "RETURN o.output_id AS output_id ORDER BY o.pos LIMIT 1"
    )
    output_id = str(graph.cypher(statement, item=item_id)["output_id"][0].as_py())
    if not quiet:
        trace = graph.read_trace(output_id)
        typer.echo("\nWhich earlier tokens drove this output token?\n")
        print_why(trace, trace.outputs, k=DRIVERS)
    return output_id


def _across(graph: GraphStore, text: str, *, quiet: bool) -> None:
    if quiet:
        return
    drivers = graph.query("drivers_across", text=text, k=DRIVERS).to_pylist()
    typer.echo(f"\nWhenever the model says '{text}': which earlier tokens drive it, over all prompts?\n")
    print_table(["text", "traces", "share_mean", "score_mean"], drivers)
    heads = graph.query("heads_across", text=text, k=DRIVERS).to_pylist()
    typer.echo("and through which heads?\n")
    named = [{**row, "head": f"L{row['layer']}.H{row['head']}"} for row in heads]
    print_table(["head", "outputs", "share_mean", "relevance_mean", "induction_rate"], named)


def _conservation(graph: GraphStore) -> tuple[int, float]:
    """Check every State, Head and Mlp of the store. Raises ConservationError when one does not conserve."""
    rows = graph.query("conservation_summary").to_pylist()
    offenders = sum(row["offenders"] for row in rows)
    if offenders:
        raise ConservationError(f"{offenders} nodes of the demo's graph do not conserve: `tracestore query check_conservation` lists them")
    return sum(row["checked"] for row in rows), max(row["error_max"] for row in rows)


def _report(graph: GraphStore, output_id: str, path: Path) -> None:
    from tracestore.query.report import write_report

    write_report(graph.engine, path, output_id)
