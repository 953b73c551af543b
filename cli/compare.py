"""`tracestore compare` and `tracestore assert`: what changed between two traces, models or runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tracestore.cli import _options as options
from tracestore.cli._errors import say
from tracestore.cli._output import print_table, write_json

if TYPE_CHECKING:
    from tracestore.compare import AssertReport, Comparison, Profile

Side = Annotated[str, typer.Argument(help="A trace id, or a model id with its training step where there are several: MODEL@500.")]
SourceOption = Annotated[str, typer.Option(help="An archive, or a graph store (a file such as graph.lbug, or a URL).", show_default=False)]
ModelOf = Annotated[str | None, typer.Option(help="Only this model, with @STEP for one checkpoint.", show_default=False)]
Threshold = Annotated[float, typer.Option(min=0.0, max=1.0, help="Share that may move, 0 to 1.")]


def compare(
    context: typer.Context,
    a: Side,
    b: Side,
    archive: options.OptionalArchive = None,
    store: options.OptionalStore = None,
    method: Annotated[str | None, typer.Option("--method", help="Only traces made by this method.", show_default=False)] = None,
    k: Annotated[int, typer.Option("--k", "-k", min=1, help="Rows shown of each kind.")] = 10,
    as_json: options.Json = False,
) -> None:
    """What was gained and lost between two traces, or two models or checkpoints on the prompts that both have: tokens, heads, motifs."""
    from tracestore import compare as library

    archive, store = options.explicit(context, archive, store)
    if (archive is None) == (store is None):
        raise typer.BadParameter("give --archive or --store, one of the two", param_hint="'--archive'")
    with _source(str(archive if store is None else store)) as source:
        if _is_trace(source, a) and _is_trace(source, b):
            found = library.compare_traces(source(trace_id=a), source(trace_id=b), names=(a, b))
        else:
            found = library.compare_models(_of_model(source, a, method), _of_model(source, b, method), names=(a, b))
    if as_json:
        write_json(found.to_dict())
    else:
        _print_comparison(found, k)


def assert_(
    baseline: Annotated[str, typer.Option("--baseline", help="Archive or store of the runs that are right.", show_default=False)],
    candidate: Annotated[str, typer.Option("--candidate", help="Archive or store of the runs to test.", show_default=False)],
    baseline_model: ModelOf = None,
    candidate_model: ModelOf = None,
    method: Annotated[str | None, typer.Option("--method", help="Only traces made by this method.", show_default=False)] = None,
    max_token_shift: Threshold = 0.25,
    max_head_shift: Threshold = 0.25,
    max_motif_shift: Threshold = 0.25,
    min_overlap: Annotated[float, typer.Option(min=0.0, max=1.0, help="Smallest rank-biased overlap of the driving tokens.")] = 0.0,
    junit: Annotated[Path | None, typer.Option("--junit", help="Also write JUnit XML to this file.", show_default=False)] = None,
    as_json: options.Json = False,
) -> None:
    """Fail (exit 7) when drivers, heads or motifs shift beyond a threshold though the answers stay the same."""
    from tracestore.compare import Thresholds, assert_mechanism
    from tracestore.errors import MechanismShiftError

    thresholds = Thresholds(max_token_shift, max_head_shift, max_motif_shift, min_overlap)
    with _source(baseline) as first:
        right = list(_of_model(first, baseline_model, method))
    with _source(candidate) as second:
        tested = list(_of_model(second, candidate_model, method))
    report = assert_mechanism(right, tested, thresholds, names=(baseline, candidate))
    if junit is not None:
        junit.write_text(report.to_junit(), encoding="utf-8")
    if as_json:
        write_json(report.to_dict())
    else:
        _print_cases(report)
    changed, missing = report.count("answer changed"), report.only_baseline
    say(f"{len(report.cases)} matched: {report.count('ok')} as before, {report.count('shifted')} shifted, {changed} with other answers")
    if missing or report.only_candidate:
        say(f"without a counterpart: {missing} in {baseline}, {report.only_candidate} in {candidate}")
    if not report.passed:
        raise MechanismShiftError(f"{report.count('shifted')} predictions have the same answer by another mechanism")


class _Source:
    """An archive or a store, read as profiles."""

    def __init__(self, name: str) -> None:
        from tracestore import api

        self._archive = api.open_archive(name) if (Path(name).expanduser() / "packages").is_dir() else None
        if self._archive is None and "://" not in name and not Path(name).expanduser().exists():
            from tracestore.errors import BadInputError

            raise BadInputError(f"there is neither an archive nor a store at {name}: check the path")
        self._graph = api.open_store(name, read_only=True) if self._archive is None else None

    def __call__(self, *, trace_id: str | None = None, model_id: str | None = None) -> Iterator[Profile]:
        from tracestore.compare import archive_profiles, store_profiles

        if self._archive is not None:
            return archive_profiles(self._archive, trace_id=trace_id, model_id=model_id)
        assert self._graph is not None
        return store_profiles(self._graph.engine, trace_id=trace_id, model_id=model_id)

    def has(self, trace_id: str) -> bool:
        if self._archive is not None:
            return trace_id in self._archive
        assert self._graph is not None
        return self._graph.query("list_outputs", trace_id=trace_id, k=1).num_rows > 0

    def close(self) -> None:
        if self._graph is not None:
            self._graph.close()


@contextmanager
def _source(name: str) -> Iterator[_Source]:
    source = _Source(name)
    try:
        yield source
    finally:
        source.close()


def _is_trace(source: _Source, name: str) -> bool:
    return source.has(name)


def _of_model(source: _Source, name: str | None, method: str | None) -> Iterator[Profile]:
    """Read the predictions of MODEL or MODEL@STEP (None: all)."""
    model, at, step = (name or "").rpartition("@")
    if not (at and step.isdecimal()):
        model, step = name or "", ""
    for profile in source(model_id=model or None):
        if (not step or profile.checkpoint_step == int(step)) and method in (None, profile.method):
            yield profile


def _print_comparison(found: Comparison, k: int) -> None:
    say(f"{found.pairs} predictions matched ({found.unmatched_a} and {found.unmatched_b} have no counterpart)")
    summary = {name: getattr(found, name) for name in ("same_answers", "correct_a", "correct_b")}
    summary |= {name: getattr(found, name) for name in ("token_shift", "driver_overlap", "head_shift", "motif_shift")}
    print_table(["measure", "value"], [{"measure": name, "value": value} for name, value in summary.items()])
    for kind, columns in (("heads", ()), ("motifs", ()), ("tokens", ("output",))):
        rows = [change for change in getattr(found, kind) if change.change != "kept"][:k]
        if rows:
            names = [*columns, "name", "share_a", "share_b", "difference", "change"]
            print_table(names, [{name: getattr(row, name) for name in names} for row in rows], title=f"{kind} gained and lost")


def _print_cases(report: AssertReport) -> None:
    rows = [
        {
            "prediction": case.name,
            "verdict": case.verdict,
            "tokens": case.token_shift,
            "heads": case.head_shift,
            "motifs": case.motif_shift,
            "overlap": case.driver_overlap,
            "why": "; ".join(case.reasons) if case.verdict == "shifted" else _said(case.baseline_said, case.candidate_said),
        }
        for case in report.cases
        if case.verdict != "ok"
    ]
    if rows:
        print_table(list(rows[0]), rows)


def _said(before: str, after: str) -> str:
    return f"{before!r} became {after!r}" if before != after else "no longer, or now, the model's own choice"
