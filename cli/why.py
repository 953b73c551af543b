"""`tracestore why`: which earlier tokens drove this output token, for a prompt or a stored trace."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tracestore.cli import _options as options
from tracestore.cli import _tracing as tracing
from tracestore.cli._errors import say
from tracestore.cli._output import write_json

if TYPE_CHECKING:
    from tracestore.model import Output, Trace, TraceOptions


class By(StrEnum):
    """What drivers are ordered by."""

    drive = "drive"
    direct = "direct"
    total = "total"
    score = "score"


def why(
    context: typer.Context,
    prompt: Annotated[str | None, typer.Argument(help="A prompt to trace now; needs --model.", show_default=False)] = None,
    model: options.OptionalModel = None,
    trace_id: Annotated[str | None, typer.Option("--trace", help="A stored trace: all its outputs.", show_default=False)] = None,
    output_id: Annotated[str | None, typer.Option("--output", help="One stored output.", show_default=False)] = None,
    archive: options.OptionalArchive = None,
    store: options.OptionalStore = None,
    targets: tracing.TargetsOption = None,
    target_token: tracing.TargetToken = None,
    foil: tracing.Foil = None,
    gauge: tracing.GaugeOption = None,
    steps: tracing.Steps = None,
    max_new_tokens: tracing.MaxNewTokens = tracing.GENERATION.max_new_tokens,
    method: options.MethodOption = options.DEFAULT_METHOD,
    keep: tracing.Keep = tracing.PRUNING.keep,
    max_edges: tracing.MaxEdges = tracing.PRUNING.max_edges,
    compositions: tracing.Compositions = tracing.PRUNING.compositions,
    paths: tracing.Paths = tracing.PRUNING.paths,
    sensitivity: tracing.Sensitivity = False,
    device: options.Device = "cpu",
    dtype: options.DtypeOption = options.Dtype.float32,
    by: Annotated[By, typer.Option("--by", help="Order of the drivers: drive, direct, total or score.")] = By.drive,
    k: Annotated[int, typer.Option("--k", "-k", min=1, help="Drivers shown for an output.")] = 10,
    all_tokens: Annotated[bool, typer.Option("--all-tokens", help="Every token: scores and bias add up to what is explained.")] = False,
    html: Annotated[Path | None, typer.Option("--html", help="Also write the coloured text to this file.", show_default=False)] = None,
    as_json: options.Json = False,
) -> None:
    """Answer: which earlier tokens drove this output token?"""
    from tracestore.cli._answers import print_why, why_json

    if sum(value is not None for value in (prompt, trace_id, output_id)) != 1:
        raise typer.BadParameter("give a prompt, --trace or --output, one of the three", param_hint="'PROMPT'")
    if prompt is not None:
        chosen = tracing.trace_options(
            targets=targets,
            target_token=target_token,
            foil=foil,
            gauge=gauge,
            steps=steps,
            max_new_tokens=max_new_tokens,
            method=method,
            keep=keep,
            max_edges=max_edges,
            compositions=compositions,
            paths=paths,
            sensitivity=sensitivity,
        )
        found = trace_now(prompt, model, device, dtype, chosen)
        outputs = found.outputs
    else:
        found, outputs = stored(trace_id, output_id, *options.explicit(context, archive, store))
    count = None if all_tokens else k
    if as_json:
        write_json(why_json(found, outputs, k=count, by=by.value))
    else:
        print_why(found, outputs, k=count, by=by.value)
    if html is not None:
        _write_html(html, outputs)


def trace_now(prompt: str, model: str | None, device: str, dtype: options.Dtype, chosen: TraceOptions) -> Trace:
    """Trace a prompt in memory, with the options that the commands for one prompt have."""
    from tracestore import api

    if model is None:
        raise typer.BadParameter("a prompt needs a model: a folder, a hub id, or demo", param_hint="'--model'")
    return api.trace(
        tracing.load(model, device, dtype),
        prompt,
        targets=chosen.targets,
        target_token=chosen.target_token,
        foil=chosen.foil,
        gauge=chosen.gauge,
        steps=chosen.steps,
        max_new_tokens=chosen.generation.max_new_tokens,
        method=chosen.method,
        keep=chosen.pruning.keep,
        max_edges=chosen.pruning.max_edges,
        compositions=chosen.pruning.compositions,
        paths=chosen.pruning.paths,
        sensitivity=chosen.sensitivity,
    )


def stored(trace_id: str | None, output_id: str | None, archive: str | None, store: str | None) -> tuple[Trace, tuple[Output, ...]]:
    """Read what was asked for from the archive, or else from the store."""
    from tracestore import api
    from tracestore.errors import BadInputError

    if archive is not None:
        found = api.open_archive(archive).read_trace(trace_id or str(output_id).partition(":")[0])
        outputs = tuple(o for o in found.outputs if output_id in (None, o.output_id))
        if not outputs:
            raise BadInputError(f"trace {found.trace_id} has no output {output_id}")
        return found, outputs
    if store is None:
        raise typer.BadParameter("a stored trace is read from --archive or --store", param_hint="'--store'")
    with api.open_store(store, read_only=True) as graph:
        if output_id is not None:
            ids = [output_id]
        else:
            ids = [str(row["output_id"]) for row in graph.query("list_outputs", trace_id=trace_id, k=100_000).to_pylist()]
        if not ids:
            raise BadInputError(f"the store has no complete trace {trace_id}: see `tracestore query list_traces`")
        traces = [graph.read_trace(one) for one in ids]
    return traces[0], tuple(output for trace in traces for output in trace.outputs)


def _write_html(path: Path, outputs: tuple[Output, ...]) -> None:
    body = "".join(output._repr_html_() for output in outputs)
    path.write_text(f'<!doctype html><meta charset="utf-8"><title>tracestore why</title>{body}', encoding="utf-8")
    say(f"wrote {path}")
