"""`tracestore trace`: prompts to archive."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tracestore.cli import _options as options
from tracestore.cli import _tracing as tracing
from tracestore.cli._errors import resumable
from tracestore.cli._output import write_json
from tracestore.cli._progress import progress

NoText = Annotated[bool, typer.Option("--no-text", help="Keep neither text nor token ids, only keyed hashes of them.")]
KeyFile = Annotated[
    Path | None,
    typer.Option("--key-file", help="Key of --no-text, made when missing [default: in the archive's folder].", show_default=False),
]
Errors = Annotated[
    Path | None, typer.Option("--errors", help="Write failed items here [default: a file in ARCHIVE/errors].", show_default=False)
]
RESUME = "what is traced is kept in the archive; run the same command again to go on"


def trace(
    model: options.Model,
    archive: options.Archive,
    prompt: tracing.Prompt = None,
    items: tracing.ItemsFile = None,
    from_otel: Annotated[
        Path | None,
        typer.Option(
            "--from-otel", help="Replay the language model calls of a file of OpenTelemetry spans (OTLP JSON).", show_default=False
        ),
    ] = None,
    targets: tracing.TargetsOption = None,
    target_token: tracing.TargetToken = None,
    foil: tracing.Foil = None,
    gauge: tracing.GaugeOption = None,
    steps: tracing.Steps = None,
    max_new_tokens: tracing.MaxNewTokens = tracing.GENERATION.max_new_tokens,
    temperature: tracing.Temperature = tracing.GENERATION.temperature,
    top_p: tracing.TopP = tracing.GENERATION.top_p,
    seed: tracing.Seed = tracing.GENERATION.seed,
    method: options.MethodOption = options.DEFAULT_METHOD,
    keep: tracing.Keep = tracing.PRUNING.keep,
    max_edges: tracing.MaxEdges = tracing.PRUNING.max_edges,
    compositions: tracing.Compositions = tracing.PRUNING.compositions,
    paths: tracing.Paths = tracing.PRUNING.paths,
    sensitivity: tracing.Sensitivity = False,
    device: options.Device = "cpu",
    dtype: options.DtypeOption = options.Dtype.float32,
    no_text: NoText = False,
    key_file: KeyFile = None,
    errors: Errors = None,
    as_json: options.Json = False,
) -> None:
    """Trace a prompt or a file of items into the archive. What the archive holds already is not computed again."""
    chosen = tracing.trace_options(
        targets=targets,
        target_token=target_token,
        foil=foil,
        gauge=gauge,
        steps=steps,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        method=method,
        keep=keep,
        max_edges=max_edges,
        compositions=compositions,
        paths=paths,
        sensitivity=sensitivity,
    )
    from tracestore import api

    if from_otel is None:
        source, total = tracing.items_of(prompt, items)
    elif prompt is None and items is None:
        source, total = api.read_otel(from_otel), None
    else:
        raise typer.BadParameter("give a prompt, --items or --from-otel, one of the three", param_hint="'--from-otel'")
    from tracestore.ingest import trace_to_archive

    target = api.open_archive(archive, create=True)
    key = target.redaction_key(key_file) if no_text else None
    with resumable(RESUME):
        loaded = tracing.load(model, device, dtype)
        with progress("tracing", "items", total) as reporter:
            summary = trace_to_archive(
                source,
                loaded,
                target,
                chosen,
                progress=reporter.advance,
                errors_path=errors,
                strict=prompt is not None,
                text_key=key,
            )
    if as_json:
        write_json(tracing.summary_json(summary))
    tracing.say_summary(summary)
    summary.raise_for_failures()
