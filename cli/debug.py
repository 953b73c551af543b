"""`tracestore debug`: why did the model say this and not what was expected, and what turns it round?"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from tracestore.cli import _options as options
from tracestore.cli import _tracing as tracing
from tracestore.cli._errors import say
from tracestore.cli._output import print_table, write_json
from tracestore.cli._progress import progress

if TYPE_CHECKING:
    from tracestore.knockouts import DebugReport

PLURAL = {"column": "tokens", "head": "heads"}


def debug(
    prompt: Annotated[str, typer.Argument(help="The prompt.", show_default=False)],
    expected: Annotated[str, typer.Option("--expected", help="What it should say, leading space included.", show_default=False)],
    model: options.Model,
    answer: Annotated[
        str | None, typer.Option("--answer", help="Explain this answer instead of the model's first choice.", show_default=False)
    ] = None,
    method: options.MethodOption = options.DEFAULT_METHOD,
    k: Annotated[int, typer.Option("--k", "-k", min=1, help="Drivers shown.")] = 10,
    candidates: Annotated[int, typer.Option("--candidates", min=1, help="Sources of each kind that the search may remove.")] = 24,
    largest: Annotated[int, typer.Option("--largest", min=1, help="Sources removed together at most.")] = 8,
    device: options.Device = "cpu",
    dtype: options.DtypeOption = options.Dtype.float32,
    as_json: options.Json = False,
) -> None:
    """Explain a wrong answer against the right one: tokens, heads, paths, and the smallest knockouts found that turn it round."""
    from tracestore.cli._answers import print_why, why_json
    from tracestore.knockouts import debug as run

    loaded = tracing.load(model, device, dtype)
    with progress("searching", "runs") as shown:
        found = run(
            loaded,
            prompt,
            expected,
            answer=answer,
            method=method.value,
            candidates=candidates,
            largest=largest,
            progress=shown.advance,
        )
    if found.expected.note is not None:
        say(f"note: {found.expected.note}")
    if as_json:
        write_json(found.to_dict() | why_json(found.trace, found.trace.outputs, k=k))
        return
    _print_verdict(found)
    print_why(found.trace, found.trace.outputs, k=k)
    _print_paths(found)
    _print_flips(found)


def _print_verdict(found: DebugReport) -> None:
    from tracestore.coloured import shown

    answer, other = (shown(choice.text, choice.token_id) for choice in (found.answer, found.other))
    lead = found.output.row["explained"]
    if found.right:
        sys.stdout.write(f"the model is right already: it says '{answer}'. Explained here: why not '{other}', its runner-up.\n")
    if lead < 0:
        text = f"'{other}' is ahead of '{answer}' as it is, by {-lead:.3f} logits"
    else:
        text = f"'{answer}' is ahead of '{other}' by {lead:.3f} logits; positive scores speak for '{answer}', negative ones for '{other}'"
    sys.stdout.write(f"{text}\n\n")


def _print_paths(found: DebugReport) -> None:
    rows = [{**row, "share": f"{row['share']:.1%}", "path": " > ".join(row["hops"])} for row in found.paths()]
    if rows:
        print_table(["path", "weight", "share"], rows, title="paths")


def _print_flips(found: DebugReport) -> None:
    from tracestore.coloured import shown

    other = shown(found.other.text, found.other.token_id)
    sys.stdout.write("\n")
    for kind, flip in found.flips.items():
        names = ", ".join(source.name if source.text is None else f"{source.name} '{shown(source.text, 0)}'" for source in flip.sources)
        first = shown(found.first_choices[flip.top_token], flip.top_token)
        change = f"the difference goes from {flip.before:.3f} to {flip.after:.3f}, the first choice is then '{first}'"
        if flip.before < 0:
            text = f"'{other}' is ahead as it is"
        elif flip.flipped:
            text = f"without {names}: '{other}' gets ahead; {change}"
        elif flip.sources:
            text = f"no set was found that puts '{other}' ahead; the best, without {names}: {change}"
        else:
            text = "none lowers the difference"
        sys.stdout.write(f"{PLURAL[kind]}: {text}\n")
    sys.stdout.write("the smallest sets found, greedily and then pruned: that no smaller one exists is not proven\n")
