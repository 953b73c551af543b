"""The values that pass between the stages: what was asked (`Item` and options) and what was computed (`Trace`, `Output`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from tracestore import schema

if TYPE_CHECKING:
    import pyarrow as pa

Method = Literal["frozen", "secant"]
DEFAULT_METHOD: Final[Method] = "secant"
"""Chosen by what the evaluation's report set showed: docs/evaluation.md."""

Gauge = Literal["centred", "foil", "raw"]
Origin = Literal["prompt", "generated", "given"]
SpanKind = Literal["role", "turn", "document", "tool_call", "tool_result", "step", "evidence", "answer"]
Targets = str | Sequence[int]
"""`last`, `generated`, `all`, positions whose predictions are explained, `span:KIND` (each span of a kind as one sum), or
`span:KIND:each` (every token of those spans by itself)."""

StepRule = Literal["sentence", "line"]
"""How an answer is cut into the steps of its reasoning."""

RUNNER_UP = "runner-up"


@dataclass(frozen=True, slots=True)
class SpanRequest:
    """A stretch of an item's text, in characters of the prompt (or of the rendered chat), end excluded."""

    kind: SpanKind
    start: int
    end: int
    ref: str | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """A retrieved document that the prompt contains verbatim."""

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class Item:
    """One input line. Exactly one of `prompt` and `messages` is given."""

    prompt: str | None = None
    messages: tuple[Mapping[str, Any], ...] | None = None
    tools: tuple[Mapping[str, Any], ...] | None = None
    completion: str | None = None
    documents: tuple[Document, ...] = ()
    spans: tuple[SpanRequest, ...] = ()
    evidence: tuple[SpanRequest, ...] = ()
    steps: StepRule | None = None
    id: str | None = None
    targets: Targets | None = None
    target_token: str | int | None = None  # a text, of which the first token is taken, or a vocabulary id
    foil: str | int | None = None  # the same, or `runner-up`
    expected: str | None = None
    rationale: str | None = None  # how a person explains the answer
    dataset: str | None = None
    split: str | None = None
    variant: str | None = None
    tags: tuple[str, ...] = ()
    session_id: str | None = None
    turn: int | None = None
    max_new_tokens: int | None = None
    otel_trace_id: str | None = None
    otel_span_id: str | None = None
    line: int | None = field(default=None, compare=False)  # where it stood in the input, for messages


@dataclass(frozen=True, slots=True)
class GenerationOptions:
    """How a continuation is made. `temperature` 0 is greedy; above it, sampled with `seed`."""

    max_new_tokens: int = 0
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class PruningOptions:
    """How much of an Output is kept: attention edges by a share of their mass and at most a number; compositions and paths by number.

    Without compositions or paths (0) they are not computed either. More than 50 paths are searched for longer.
    """

    keep: float = 0.9
    max_edges: int = 20_000
    compositions: int = 128
    paths: int = 50


@dataclass(frozen=True, slots=True)
class TraceOptions:
    """Everything that a caller may choose for a trace."""

    targets: Targets | None = None  # None: `generated` with a completion, else `last`
    target_token: str | int | None = None
    foil: str | int | None = None
    gauge: Gauge | None = None  # None: `foil` when there is one, else `centred`
    method: Method = DEFAULT_METHOD
    generation: GenerationOptions = field(default_factory=GenerationOptions)
    pruning: PruningOptions = field(default_factory=PruningOptions)
    steps: StepRule | None = None  # None: only the step spans that an item gives
    sensitivity: bool = False  # also estimate, by the plain gradient, what removing each kept edge would take away


@dataclass(frozen=True, slots=True)
class Trace:
    """A finished computation: its tables by name (see `schema.ARCHIVE_TABLES`), each with `schema.arrow_schema(name)`."""

    trace_id: str
    tables: Mapping[str, pa.Table]

    def table(self, name: str) -> pa.Table:
        """Give one table; an empty one where the trace has no such rows."""
        found = self.tables.get(name)
        return schema.arrow_schema(name).empty_table() if found is None else found

    @property
    def header(self) -> dict[str, Any]:
        """The properties of the Trace node."""
        row: dict[str, Any] = self.table("Trace").to_pylist()[0]
        return row

    @property
    def text(self) -> str | None:
        """The whole text, or None when it was not kept."""
        value: str | None = self.header["text"]
        return value

    @property
    def closure(self) -> float:
        """Worst relative closure error of the outputs."""
        return float(self.header["closure"])

    @property
    def outputs(self) -> tuple[Output, ...]:
        """The explained predictions, in order of position."""
        rows = sorted(self.table("Output").to_pylist(), key=lambda row: (row["pos"], row["local"]))
        return tuple(Output(self, row) for row in rows)

    def _repr_html_(self) -> str:
        return "".join(output._repr_html_() for output in self.outputs)


@dataclass(frozen=True, slots=True)
class Output:
    """One explained prediction of a trace."""

    trace: Trace
    row: Mapping[str, Any]

    @property
    def output_id(self) -> str:
        """`trace_id:pos:token_id[-foil_token_id]`; of a span that is explained as one sum, `first..last` in place of `pos`."""
        return str(self.row["output_id"])

    def influences(self) -> pa.Table:
        """Give every token with its scores, largest `drive` first, sinks last.

        Columns: pos, token_id, text, origin, sink, then the properties of INFLUENCES (logits).
        """
        edges = self.trace.table(schema.edge_table("INFLUENCES", "Token", "Output"))
        tokens = self.trace.table("Token").select(["local", "pos", "token_id", "text", "origin", "sink"])
        mine = edges.filter([value == self.row["local"] for value in edges["dst"].to_pylist()])
        joined = tokens.join(mine, keys="local", right_keys="src", join_type="inner")
        names = ["pos", "token_id", "text", "origin", "sink"]
        names += [c.name for c in schema.table_columns(schema.edge_table("INFLUENCES", "Token", "Output"))]
        return joined.sort_by([("rank_drive", "ascending")]).select(names)

    def _repr_html_(self) -> str:
        from tracestore.coloured import influence_html

        return influence_html(dict(self.row), self.influences().to_pylist())
