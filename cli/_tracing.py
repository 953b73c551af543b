"""What `trace`, `ingest` and `why` share: the options of a trace, items from the command line, the summary of a run."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from tracestore.cli import _options as options
from tracestore.cli._errors import say
from tracestore.errors import BadInputError
from tracestore.model import GenerationOptions, Item, PruningOptions, Targets, TraceOptions

if TYPE_CHECKING:
    from tracestore.extract.items import ItemFailure
    from tracestore.extract.loading import LoadedModel
    from tracestore.ingest import TraceSummary

PRUNING = PruningOptions()
GENERATION = GenerationOptions()

Prompt = Annotated[str | None, typer.Argument(help="A prompt; or give a file with --items.", show_default=False)]
ItemsFile = Annotated[
    str | None, typer.Option("--items", "-i", help="Items: .jsonl, .txt (a prompt a line), .parquet, or - for stdin.", show_default=False)
]
TargetsOption = Annotated[
    str | None,
    typer.Option(
        "--targets",
        "-t",
        help="What to explain: last, generated, all, span:KIND (its sum), span:KIND:each, or positions as 3,5.",
        show_default=False,
    ),
]
TargetToken = Annotated[
    str | None, typer.Option("--target-token", help="Explain this token instead of the one the model emits.", show_default=False)
]
Foil = Annotated[str | None, typer.Option("--foil", help="Explain the difference to this token, or to runner-up.", show_default=False)]
Steps = Annotated[
    options.Steps | None,
    typer.Option("--steps", help="Cut answers into steps, by sentence or line, and say what supports each.", show_default=False),
]
GaugeOption = Annotated[
    options.Gauge | None,
    typer.Option("--gauge", help="What is decomposed [default: foil when there is one, else centred].", show_default=False),
]
MaxNewTokens = Annotated[int, typer.Option("--max-new-tokens", min=0, help="Continue the prompt by up to so many tokens first.")]
Temperature = Annotated[float, typer.Option("--temperature", min=0.0, help="0 continues greedily, above it samples.")]
TopP = Annotated[float, typer.Option("--top-p", min=0.0, max=1.0, help="Nucleus of the sampling.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of the sampling.")]
Keep = Annotated[float, typer.Option("--keep", min=0.0, max=1.0, help="Share of attention-edge mass to keep.")]
MaxEdges = Annotated[int, typer.Option("--max-edges", min=0, help="Attention edges kept for an output at most.")]
Sensitivity = Annotated[
    bool, typer.Option("--sensitivity", help="Also estimate, by the plain gradient, what removing each kept edge would take away.")
]

Compositions = Annotated[int, typer.Option("--compositions", min=0, help="Compositions kept for an output; 0: none are computed.")]
Paths = Annotated[int, typer.Option("--paths", min=0, help="Exact paths kept for an output; 0: none are searched for.")]


def trace_options(
    *,
    targets: str | None = None,
    target_token: str | None = None,
    foil: str | None = None,
    gauge: options.Gauge | None = None,
    max_new_tokens: int = GENERATION.max_new_tokens,
    temperature: float = GENERATION.temperature,
    top_p: float = GENERATION.top_p,
    seed: int = GENERATION.seed,
    method: options.Method = options.DEFAULT_METHOD,
    keep: float = PRUNING.keep,
    max_edges: int = PRUNING.max_edges,
    compositions: int = PRUNING.compositions,
    paths: int = PRUNING.paths,
    sensitivity: bool = False,
    steps: options.Steps | None = None,
) -> TraceOptions:
    """Gather the options of a trace."""
    return TraceOptions(
        targets=parse_targets(targets),
        target_token=target_token,
        foil=foil,
        gauge=gauge.value if gauge else None,
        method=method.value,
        generation=GenerationOptions(max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, seed=seed),
        pruning=PruningOptions(keep=keep, max_edges=max_edges, compositions=compositions, paths=paths),
        sensitivity=sensitivity,
        steps=steps.value if steps else None,
    )


def parse_targets(text: str | None) -> Targets | None:
    """Read `last`, `generated`, `all`, `span:KIND`, `span:KIND:each` or positions such as `3,5`."""
    if text is None or text in ("last", "generated", "all") or text.startswith("span:"):
        return text
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(
            "use last, generated, all, span:KIND, span:KIND:each or positions such as 3,5", param_hint="'--targets'"
        ) from None


def items_of(prompt: str | None, items: str | None) -> tuple[Iterable[Item | ItemFailure], int | None]:
    """Give the items that the command line names, one prompt or a file, and how many they are where that is known."""
    if (prompt is None) == (items is None):
        raise typer.BadParameter("give a prompt or --items FILE, one of the two", param_hint="'PROMPT'")
    if prompt is not None:
        return (Item(prompt=prompt),), 1
    from tracestore import api

    if items != "-" and not Path(str(items)).is_file():
        raise BadInputError(f"there is no file of items {items}: check the path")
    return api.read_items(str(items)), count_items(str(items))


def count_items(source: str) -> int | None:
    """Count the lines (or the rows) of a file of items; None for what is no file."""
    path = Path(source)
    if not path.is_file():
        return None
    if path.suffix.lower() == ".parquet":
        return None  # read soon enough, and damage is reported there
    with path.open("rb") as file:
        return sum(1 for line in file if line.strip())


def load(model: str, device: str, dtype: options.Dtype) -> LoadedModel:
    """Load a model without the chatter of the libraries below."""
    prepare_libraries()
    from tracestore import api

    return api.load_model(model, device=device, dtype=dtype.value)


WAITING: Final = {"GOMP_SPINCOUNT": "1000"}
"""How threads of torch wait for each other, in the environment: see `prepare_libraries`."""


def prepare_libraries() -> None:
    """Set what must stand in the environment before the libraries below are imported; whoever set these already is obeyed.

    transformers, tokenizers and the hub client keep silent. Threads of torch that wait for each other spin briefly and then sleep.
    Spinning on (the default) made a trace up to ten times slower beside another busy process or our own loader; sleeping at once
    (OMP_WAIT_POLICY=passive) made it 1.2 to 1.6 times slower on an idle machine, most by `secant`, whose steps are many and short.
    """
    chosen = {
        "TRANSFORMERS_VERBOSITY": "error",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        **WAITING,
    }
    for name, value in chosen.items():
        os.environ.setdefault(name, value)


def summary_json(summary: TraceSummary) -> dict[str, object]:
    """Give the summary of a run as JSON."""
    return {
        "items": summary.items,
        "traced": summary.traced,
        "known": summary.known,
        "joined": summary.joined,
        "failed": summary.failed,
        "outputs": summary.outputs,
        "edges": summary.edges,
        "worst_closure": summary.worst_closure,
        "seconds": round(summary.seconds, 3),
        "errors": None if summary.errors_path is None else str(summary.errors_path),
        "trace_ids": list(summary.trace_ids),
    }


def say_summary(summary: TraceSummary) -> None:
    """Say what a run did."""
    parts = [f"{summary.traced:,} traced", f"{summary.known:,} known already"]
    if summary.joined:
        parts.append(f"{summary.joined:,} items added to known traces")
    if summary.failed:
        parts.append(f"{summary.failed:,} failed (see {summary.errors_path})")
    say(f"{', '.join(parts)}; {summary.outputs:,} outputs, {summary.edges:,} edges in {summary.seconds:.1f} s")
    if summary.worst_closure is not None:
        say(f"worst closure error: {summary.worst_closure:.1e}")
