"""Options that several commands share, each spelt once."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

import typer

from tracestore import model

MODEL_HELP = "Folder or hub id of a causal language model; `demo` is the packaged SmolLM2-135M."


class Level(StrEnum):
    """How much of a trace goes into the store."""

    summary = "summary"
    mechanism = "mechanism"


class Format(StrEnum):
    """How rows are written."""

    table = "table"
    json = "json"
    ndjson = "ndjson"
    csv = "csv"
    parquet = "parquet"


class Gauge(StrEnum):
    """What is decomposed."""

    centred = "centred"
    foil = "foil"
    raw = "raw"


class Method(StrEnum):
    """How relevance passes through attention."""

    frozen = "frozen"
    secant = "secant"


DEFAULT_METHOD: Final = Method(model.DEFAULT_METHOD)


class Steps(StrEnum):
    """How an answer is cut into the steps of its reasoning."""

    sentence = "sentence"
    line = "line"


class Dtype(StrEnum):
    """Number format in which the weights are held; the decomposition is float32 or better."""

    float32 = "float32"
    float64 = "float64"
    bfloat16 = "bfloat16"
    float16 = "float16"


Model = Annotated[str, typer.Option("--model", "-m", envvar="TRACESTORE_MODEL", help=MODEL_HELP, show_default=False)]
OptionalModel = Annotated[str | None, typer.Option("--model", "-m", envvar="TRACESTORE_MODEL", help=MODEL_HELP, show_default=False)]
Device = Annotated[str, typer.Option("--device", help="torch device: cpu, cuda, cuda:1, mps.")]
DtypeOption = Annotated[Dtype, typer.Option("--dtype", help="Number format of the weights.")]
Archive = Annotated[str, typer.Option("--archive", "-a", envvar="TRACESTORE_ARCHIVE", help="Folder of the archive.", show_default=False)]
OptionalArchive = Annotated[
    str | None, typer.Option("--archive", "-a", envvar="TRACESTORE_ARCHIVE", help="Folder of the archive.", show_default=False)
]
Store = Annotated[
    str,
    typer.Option("--store", "-s", envvar="TRACESTORE_STORE", help="Graph store: a file such as graph.lbug, or a URL.", show_default=False),
]
OptionalStore = Annotated[
    str | None,
    typer.Option("--store", "-s", envvar="TRACESTORE_STORE", help="Graph store: a file such as graph.lbug, or a URL.", show_default=False),
]
MethodOption = Annotated[
    Method, typer.Option("--method", help="frozen: what attention copied; secant: also why it looked there (KEY and QUERY edges).")
]
Writers = Annotated[
    int | None,
    typer.Option(
        "--writers",
        envvar="TRACESTORE_WRITERS",
        min=1,
        max=64,
        help="Writers side by side, on disjoint traces; a file has one whatever this says [default: 1].",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout instead of text.")]
LevelOption = Annotated[
    Level | None,
    typer.Option(
        "--level", help="summary, or mechanism with every kept edge [default: mechanism up to 1 000 outputs].", show_default=False
    ),
]


def came_from(context: typer.Context, name: str) -> str:
    """Say where a parameter's value is from: COMMANDLINE, ENVIRONMENT, DEFAULT, or nothing for none."""
    source = context.get_parameter_source(name)
    return "" if source is None else source.name


def explicit(context: typer.Context, archive: str | None, store: str | None) -> tuple[str | None, str | None]:
    """Of an archive and a store give those of the command line, where there are any: a variable of the environment is only a default."""
    given = {name for name in ("archive", "store") if came_from(context, name) == "COMMANDLINE"}
    if not given:
        return archive, store
    return archive if "archive" in given else None, store if "store" in given else None
