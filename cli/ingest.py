"""`tracestore ingest`: prompts to archive and store in one overlapped run."""

from __future__ import annotations

from tracestore.cli import _options as options
from tracestore.cli import _tracing as tracing
from tracestore.cli._errors import resumable, say
from tracestore.cli._output import write_json
from tracestore.cli._progress import progress
from tracestore.cli.load import report_text, summary_json
from tracestore.cli.trace import RESUME, Errors, KeyFile, NoText


def ingest(
    model: options.Model,
    archive: options.Archive,
    store: options.Store,
    prompt: tracing.Prompt = None,
    items: tracing.ItemsFile = None,
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
    level: options.LevelOption = None,
    writers: options.Writers = None,
    device: options.Device = "cpu",
    dtype: options.DtypeOption = options.Dtype.float32,
    no_text: NoText = False,
    key_file: KeyFile = None,
    errors: Errors = None,
    as_json: options.Json = False,
) -> None:
    """Trace into the archive and load into the store at the same time; the same as `trace`, then `load`, in less time."""
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
    source, total = tracing.items_of(prompt, items)
    from tracestore import api

    target = api.open_archive(archive, create=True)
    key = target.redaction_key(key_file) if no_text else None
    with resumable(RESUME):
        loaded = tracing.load(model, device, dtype)
        with api.open_store(store) as graph, progress("tracing", "items", total) as reporter:
            summary = api.ingest_items(
                source,
                loaded,
                target,
                graph,
                chosen,
                level=level.value if level else None,
                expected_items=total,
                writers=writers,
                progress=reporter.advance,
                errors_path=errors,
                strict=prompt is not None,
                text_key=key,
            )
    if as_json:
        write_json(tracing.summary_json(summary.traced) | {"load": summary_json(summary.loaded), "seconds": round(summary.seconds, 3)})
    tracing.say_summary(summary.traced)
    say(report_text(summary.loaded))
    if summary.loaded.message:
        say(summary.loaded.message)
    summary.raise_for_failures()
