"""`tracestore load`: archive to store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracestore.cli import _options as options
from tracestore.cli._errors import resumable, say
from tracestore.cli._output import write_json
from tracestore.cli._progress import progress

if TYPE_CHECKING:
    from tracestore.load import LoadSummary
    from tracestore.store.base import LoadReport


def load(
    archive: options.Archive,
    store: options.Store,
    level: options.LevelOption = None,
    writers: options.Writers = None,
    as_json: options.Json = False,
) -> None:
    """Load what the archive holds and the store does not. Safe to repeat and to interrupt."""
    from tracestore import api
    from tracestore.load import PartialLoadError

    source = api.open_archive(archive)
    failed: PartialLoadError | None = None
    with (
        resumable("traces already loaded are kept; run the same command again to go on"),
        api.open_store(store) as graph,
        progress("loading", "edges") as reporter,
    ):
        try:
            report = graph.load(
                source,
                level=level.value if level else None,
                progress=reporter.advance,
                on_plan=lambda plan: reporter.expect(plan.edges),
                writers=writers,
            )
        except PartialLoadError as error:
            report, failed = error.summary, error
    if as_json:
        write_json(summary_json(report))
    else:
        say(report_text(report))
    if report.message:
        say(report.message)
    if failed is not None:
        raise failed


def summary_json(summary: LoadSummary) -> dict[str, object]:
    """Give a LoadSummary as JSON: the counts, the level, and what became of each package."""
    packages = [
        {"package_id": one.package_id, "wanted": one.wanted, "loaded": one.loaded, "busy": one.busy, "failure": one.failure or None}
        for one in summary.packages
    ]
    return report_json(summary) | {"level": summary.level, "busy": len(summary.busy), "packages": packages}


def report_json(report: LoadReport) -> dict[str, object]:
    """Give a LoadReport as JSON: counts, not the lists of ids."""
    return {
        "loaded": len(report.loaded),
        "skipped": len(report.skipped),
        "nodes": report.nodes,
        "edges": report.edges,
        "seconds": round(report.seconds, 3),
    }


def report_text(report: LoadReport) -> str:
    """Say what was loaded and how fast."""
    counts = f"{len(report.loaded):,} traces loaded, {len(report.skipped):,} there already; {report.nodes:,} nodes, {report.edges:,} edges"
    if not report.edges or report.seconds <= 0:
        return counts
    return f"{counts} in {report.seconds:.1f} s ({report.edges / report.seconds:,.0f} edges/s)"
