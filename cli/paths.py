"""`tracestore paths`: by which paths, from which tokens and through which components, an output token came about."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Final

import typer

from tracestore.cli import _options as options
from tracestore.cli import _tracing as tracing
from tracestore.cli._output import write_json
from tracestore.cli.why import stored, trace_now

if TYPE_CHECKING:
    from tracestore.model import Output

_OUTPUT_ID: Final = re.compile(r"[0-9a-f]{32}:[^\s]+")


def paths(
    context: typer.Context,
    what: Annotated[
        str, typer.Argument(help="A stored output's id, or a prompt to trace now; needs --model.", metavar="OUTPUT", show_default=False)
    ],
    model: options.OptionalModel = None,
    archive: options.OptionalArchive = None,
    store: options.OptionalStore = None,
    target_token: tracing.TargetToken = None,
    foil: tracing.Foil = None,
    gauge: tracing.GaugeOption = None,
    method: options.MethodOption = options.DEFAULT_METHOD,
    device: options.Device = "cpu",
    dtype: options.DtypeOption = options.Dtype.float32,
    k: Annotated[int, typer.Option("--k", "-k", min=1, help="Paths shown for an output.")] = 10,
    as_json: options.Json = False,
) -> None:
    """Answer: by which paths, through which heads and MLPs, did this output token come about?"""
    from tracestore.cli._paths import mass_note, paths_json, print_paths

    if _OUTPUT_ID.fullmatch(what):
        _, outputs = stored(None, what, *options.explicit(context, archive, store))
    else:
        most = max(k, tracing.PRUNING.paths)
        chosen = tracing.trace_options(target_token=target_token, foil=foil, gauge=gauge, method=method, compositions=0, paths=most)
        outputs = trace_now(what, model, device, dtype, chosen).outputs
    answers = [paths_json(output, k) for output in outputs]
    if as_json:
        write_json({"trace_id": outputs[0].trace.trace_id, "outputs": answers})
        return
    for output, answer in zip(outputs, answers, strict=True):
        print_paths(output, answer["paths"], title=_title(output))
        typer.echo(mass_note(output))


def _title(output: Output) -> str:
    from tracestore.coloured import shown

    row = output.row
    against = f" against '{shown(row['foil_text'], row['foil_token_id'])}'" if row["gauge"] == "foil" else f" ({row['gauge']})"
    return f"'{shown(row['text'], row['token_id'])}': explained {row['explained']:.3f}{against}, output {output.output_id}"
