"""The one definition of every node, edge, property and unit.

Parquet schemas (`arrow_schema`), the embedded engine's DDL, Neo4j's constraints and the schema page of the docs are all derived from
the tables here; nothing else may spell a column.

In a trace (and in an archive package) a node has a number `local`, unique over *all* labels of its trace; edges refer to it by `src`
and `dst`. In a store the same node is `uid = trace_no << 32 | local`. A column of kind `ref` holds a local number in the archive and
the uid in the store, under a name that ends in `_uid` in both.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION: Final = 3
"""Version of everything in this module. A package with another number is refused by this code."""

UID_BITS: Final = 32
"""A store's `uid` is `trace_no << UID_BITS | local`."""

Kind = Literal["int", "float", "string", "bool", "strings", "floats", "ref"]
Level = Literal["summary", "mechanism"]


@dataclass(frozen=True, slots=True)
class Column:
    """One property: its name, kind, meaning with unit, and whether it may be null or lives in stores only."""

    name: str
    kind: Kind
    doc: str
    nullable: bool = False
    store_only: bool = False


@dataclass(frozen=True, slots=True)
class Node:
    """A node label and its properties (beside `local` in the archive, `uid` and `trace_no` in a store)."""

    label: str
    one_per: str
    columns: tuple[Column, ...]
    level: Level = "summary"
    of: str | None = None  # label of the node its OF edge points to; the local number is in `of_column`
    of_column: str | None = None  # None with `of` set: the trace's own node (local 0)


@dataclass(frozen=True, slots=True)
class Edge:
    """A relationship type, the label pairs it joins and its properties. `archived` is False where it follows from the nodes."""

    type: str
    pairs: tuple[tuple[str, str], ...]
    columns: tuple[Column, ...]
    doc: str
    level: Level = "summary"
    archived: bool = True


def _i(name: str, doc: str, *, nullable: bool = False) -> Column:
    return Column(name, "int", doc, nullable)


def _f(name: str, doc: str, *, nullable: bool = False) -> Column:
    return Column(name, "float", doc, nullable)


def _s(name: str, doc: str, *, nullable: bool = False) -> Column:
    return Column(name, "string", doc, nullable)


_OUTPUT = Column("output_uid", "ref", "the Output that this node belongs to")
_MODEL = _s("model_id", "model as the user named it")
_FLOW = (
    _f("relevance", "signed share of the explained quantity that passes here, logits"),
    _f("bias", "what biases add here, logits"),
    _f("dropped_in", "signed weight of incoming edges that were not kept, logits"),
    _f("dropped_out", "signed weight of outgoing edges that were not kept, logits"),
    _f("dropped_in_abs", "absolute weight of incoming edges that were not kept, logits"),
    _f("dropped_out_abs", "absolute weight of outgoing edges that were not kept, logits"),
)
_LAYER = _i("layer", "layer, from 0")
_HEAD = _i("head", "query head, from 0")
_POS = _i("pos", "position of the token, from 0")
_WEIGHT = _f("weight", "signed contribution to the explained quantity, logits")
_RANK = _i("rank", "1 is the largest |weight| among the kept edges that enter the same node")
_SENSITIVITY = _f(
    "sensitivity",
    "first-order estimate, by the plain gradient, of what removing the edge takes away, logits; null unless asked for",
    nullable=True,
)

NODES: Final[tuple[Node, ...]] = (
    Node(
        "Trace",
        "computation",
        (
            _s("trace_id", "hash of everything that determines the computation"),
            Column("ready_id", "string", "equals trace_id once the trace is complete in this store; null before and after", True, True),
            _MODEL,
            _s("model_fingerprint", "hash of the model's weights and configuration"),
            _i("checkpoint_step", "training step of the checkpoint, when known", nullable=True),
            _s("run_id", "one run of the extractor"),
            _s("prompt_hash", "hash of the text (keyed when text is not kept): joins models and methods"),
            _s("text", "the whole text: prompt, then what was generated or given; null under --no-text", nullable=True),
            _i("n_tokens", "tokens in the trace"),
            _i("n_prompt_tokens", "of them in the prompt"),
            _i("n_layers", "decoder layers of the model"),
            _i("n_heads", "query heads of a layer"),
            _s("generation", "how the continuation was made: options and seed, JSON"),
            _s("method", "attribution method: frozen or secant"),
            _f("keep", "share of attention-edge mass asked for, 0 to 1"),
            _i("max_edges", "largest number of attention edges kept for an Output"),
            _s("dtype", "number format of the weights"),
            _s("device", "device of the model"),
            _s("versions", "versions of the libraries that computed it, JSON"),
            _i("created_at", "milliseconds since 1970-01-01 UTC"),
            _f("closure", "largest relative closure error of its Outputs"),
            _f("replay_gap", "largest |logit - the model's own logit| seen, logits"),
            Column("status", "string", "LOADING, READY, RETIRED", False, True),
        ),
    ),
    Node(
        "Item",
        "input line that asked for the trace",
        (
            _s("item_id", "the line's own id, or a hash of its content"),
            _s("dataset", "data set", nullable=True),
            _s("split", "split of the data set", nullable=True),
            _s("variant", "variant of the prompt, such as clean or corrupt", nullable=True),
            Column("tags", "strings", "free labels"),
            _s("session_id", "conversation", nullable=True),
            _i("turn", "turn of the conversation", nullable=True),
            _s("expected", "expected answer; null under --no-text", nullable=True),
            _s("rationale", "how a person explains the answer; null under --no-text", nullable=True),
            Column("correct", "bool", "does the answer begin with what was expected", True),
            _s("otel_trace_id", "OpenTelemetry trace the item came from", nullable=True),
            _s("otel_span_id", "OpenTelemetry span the item came from", nullable=True),
        ),
        of="Trace",
    ),
    Node(
        "Token",
        "position",
        (
            _MODEL,
            _POS,
            _i("token_id", "vocabulary id (a keyed hash under --no-text)"),
            _s("text", "the token's text; null under --no-text", nullable=True),
            _i("char_from", "first character in the trace's text"),
            _i("char_to", "one past the last character in the trace's text"),
            _s("origin", "prompt, generated or given"),
            Column("sink", "bool", "an attention sink (usually position 0)"),
        ),
        of="Trace",
    ),
    Node(
        "Span",
        "stretch of the text",
        (
            _s("kind", "role, turn, document, tool_call, tool_result, step, evidence or answer"),
            _s("ref", "its name, such as the document's id", nullable=True),
            _i("ordinal", "place among the spans of its kind, from 0"),
            _i("first_pos", "position of its first token"),
            _i("last_pos", "position of its last token"),
            _s("text", "its text; null under --no-text", nullable=True),
            _f("explained", "sum of `explained` over the Outputs that predict its tokens, where there are any, logits", nullable=True),
            _f("bias", "sum of their biases, logits", nullable=True),
            _f("own", "score that they got from tokens of this very span, logits", nullable=True),
            _f("unassigned", "score that they got from tokens that lie in no span of SUPPORTS, logits", nullable=True),
        ),
        of="Trace",
    ),
    Node(
        "Output",
        "explained prediction",
        (
            _s("output_id", "trace_id:pos:token_id[-foil_token_id]; first_pos..pos in place of pos for a span"),
            _MODEL,
            _i("pos", "position whose logits are read (the last of them for a span)"),
            _i("first_pos", "first position whose logits are read, for a span that is explained as one sum", nullable=True),
            _i("token_id", "explained token"),
            _s("text", "text of the explained token; null under --no-text", nullable=True),
            _i("foil_token_id", "token it is explained against", nullable=True),
            _s("foil_text", "text of that token; null under --no-text", nullable=True),
            _s("gauge", "what is explained: centred (logit less the vocabulary's mean), foil (difference) or raw"),
            _f("logit", "the model's logit of the token, after a final softcap if there is one, logits"),
            _f("explained", "the quantity decomposed (before a final softcap), logits"),
            _f("logit_std", "standard deviation of the logits over the vocabulary, logits"),
            _f("prob", "probability of the token"),
            _i("vocab_rank", "1 is the most probable token"),
            Column("correct", "bool", "is the explained token the start of what was expected", True),
            _f("closure", "|sum of scores + bias - explained| / max(|explained|, logit_std)"),
            _f("bias", "sum of all bias contributions, logits"),
            _f("sink_mass", "share of `direct` on the sink, 0 to 1"),
            _f("attention_kept", "share of attention-edge mass that was kept, 0 to 1"),
            _f("mlp_share", "share of |weight| written by MLPs among all writes, 0 to 1"),
            Column("head_vector", "floats", "relevance of every head, [layer * n_heads + head], logits"),
            _f("compositions_rest", "signed weight of the compositions that were not stored, logits", nullable=True),
            _f("compositions_rest_abs", "absolute weight of the compositions that were not stored, logits", nullable=True),
            _f("path_mass_finished", "sum of |weight| of finished paths, logits", nullable=True),
            _f("path_mass_open", "sum of |weight| of unfinished paths, logits", nullable=True),
            _f("path_largest_open", "largest |weight| of an unfinished path, logits", nullable=True),
            Column("mechanism", "bool", "are its State, Head and Mlp nodes in this store", False, True),
        ),
        of="Trace",
    ),
    Node(
        "HeadSummary",
        "(output, layer, head), the 64 largest",
        (
            _OUTPUT,
            _MODEL,
            _LAYER,
            _HEAD,
            _f("relevance", "sum over positions of what the head writes, logits"),
            _f("abs_relevance", "sum of |weight| of its VALUE edges, logits"),
            _f("share", "abs_relevance over that of all heads, 0 to 1"),
            _i("top_source_pos", "source of its largest |VALUE| edge, an attention sink only where the head has no other"),
            _i("top_query_pos", "query position of that edge"),
            _i("offset", "top_query_pos - top_source_pos"),
            Column("induction", "bool", "does that source follow an earlier copy of the query token"),
        ),
        of="Output",
        of_column="output_uid",
    ),
    Node(
        "Composition",
        "(output, writer, reader, via), the 128 largest",
        (
            _OUTPUT,
            _MODEL,
            _s("src", "writer: emb, L5.h1, L0.mlp"),
            _s("dst", "reader: L5.h1, L0.mlp, out"),
            _s("via", "V, K, Q, MLP or OUT"),
            _f("weight", "< write, gradient into the reader >, summed over positions, logits"),
        ),
        of="Output",
        of_column="output_uid",
    ),
    Node(
        "Path",
        "the 50 largest exact paths of an output",
        (
            _OUTPUT,
            _MODEL,
            _s(
                "motif", "the path without positions: emb>L0.mlp>L23.h4:V>out; a head is entered by its values (V), keys (K) or queries (Q)"
            ),
            Column("hops", "strings", "its nodes with positions, source first"),
            _i("source_pos", "position of the token it starts at"),
            _f("weight", "exact signed contribution, logits"),
            _f("share", "|weight| over that of the stored paths, 0 to 1"),
            _i("rank", "1 is the largest |weight|"),
        ),
        of="Output",
        of_column="output_uid",
    ),
    Node(
        "State",
        "(output, layer, pos, site)",
        (
            _OUTPUT,
            _LAYER,
            _POS,
            _s("site", "pre: the residual stream entering a layer (layer = n_layers is the final one); mid: between attention and MLP"),
            *_FLOW,
        ),
        level="mechanism",
    ),
    Node("Head", "(output, layer, head, pos)", (_OUTPUT, _LAYER, _HEAD, _POS, *_FLOW), level="mechanism"),
    Node("Mlp", "(output, layer, pos)", (_OUTPUT, _LAYER, _POS, *_FLOW), level="mechanism"),
)

EDGES: Final[tuple[Edge, ...]] = (
    Edge(
        "INFLUENCES",
        (("Token", "Output"), ("Span", "Output")),
        (
            _f("score", "signed contribution; with the Output's bias they add up to `explained`, logits"),
            _f("direct_value", "sum of |VALUE| into the explained position, logits"),
            _f("direct_address", "sum of |KEY| into the explained position, logits; 0 for frozen"),
            _f("total_value", "sum of |VALUE| into all positions, logits"),
            _f("total_address", "sum of |KEY| into all positions, logits; 0 for frozen"),
            _f("direct", "direct_value + direct_address, logits"),
            _f("total", "total_value + total_address, logits"),
            _f("removal", "what hiding it from every later position would take away, to first order: an estimate, signed, logits"),
            _f("drive", "mean of its shares of `direct`, `total` and |`removal`|, the last with its sign; sinks left out of a span's"),
            _i("rank_drive", "1 is the largest `drive` (signed); sinks last"),
            _i("rank_direct", "1 is the largest `direct`, sinks left out of a span's; sinks last"),
            _i("rank_total", "1 is the largest `total`, sinks left out of a span's; sinks last"),
            _f("share", "share of `direct`, sinks left out (0 for a sink), 0 to 1"),
        ),
        "how much a token (or a span of them) contributed to an explained prediction",
    ),
    Edge(
        "KNOCKOUT",
        (("Token", "Output"), ("Span", "Output"), ("HeadSummary", "Output"), ("Path", "Output")),
        (
            _s("kind", "column, edge, head, motif or mean_embedding"),
            _i("layer", "layer, where it applies", nullable=True),
            _i("head", "head, where it applies", nullable=True),
            _i("query_pos", "query position, where it applies", nullable=True),
            _f("estimate", "what the trace says that the removed source contributes, logits", nullable=True),
            _f("effect", "measured change of `explained`, logits"),
            _f("effect_logp", "measured change of the token's log probability, nats"),
            _i("created_at", "milliseconds since 1970-01-01 UTC"),
        ),
        "what removing the source did when it was tried on the model",
    ),
    Edge(
        "SUPPORTS",
        (("Span", "Span"),),
        (
            _f(
                "score",
                "signed contribution to the later span, logits: exact, they add up with its bias, own, unassigned",
            ),
            _f(
                "direct",
                "sum over the later span's Outputs of `direct` of the tokens that belong to the earlier one, attention sinks left out, "
                "logits: a ranking",
            ),
            _f("total", "`score` with generated tokens in between followed back to what drove them, logits: conserving, a ranking"),
            _i("rank", "1 is the largest `direct`"),
        ),
        "a span that carried a later one",
    ),
    Edge("EMITS", (("Output", "Token"),), (), "the explained token is the one that follows in the text"),
    Edge("EMBEDS", (("Token", "State"),), (_WEIGHT, _RANK), "the embedding enters the residual stream", "mechanism"),
    Edge(
        "VALUE",
        (("State", "Head"),),
        (_WEIGHT, _RANK, _f("attention", "attention probability, 0 to 1"), _SENSITIVITY),
        "what a head copied",
        "mechanism",
    ),
    Edge("KEY", (("State", "Head"),), (_WEIGHT, _RANK, _SENSITIVITY), "why the head looked there: the key's side", "mechanism"),
    Edge("QUERY", (("State", "Head"),), (_WEIGHT, _RANK), "why the head looked there: the query's side", "mechanism"),
    Edge("WRITES", (("Head", "State"), ("Mlp", "State")), (_WEIGHT, _RANK), "a component writes to the residual stream", "mechanism"),
    Edge("READS", (("State", "Mlp"),), (_WEIGHT, _RANK), "an MLP reads the residual stream", "mechanism"),
    Edge("RESIDUAL", (("State", "State"),), (_WEIGHT, _RANK), "the residual stream passes on", "mechanism"),
    Edge("UNEMBEDS", (("State", "Output"),), (_WEIGHT, _RANK), "the final state is read as logits", "mechanism"),
    Edge(
        "OF",
        tuple((n.label, n.of) for n in NODES if n.of is not None),
        (),
        "belongs to; follows from the nodes and is made when loading",
        archived=False,
    ),
)

NODE_BY_LABEL: Final = {node.label: node for node in NODES}
EDGE_BY_TYPE: Final = {edge.type: edge for edge in EDGES}


def edge_table(edge_type: str, src_label: str, dst_label: str) -> str:
    """Name the table of one relationship type between two labels: `VALUE.State.Head`."""
    if (src_label, dst_label) not in EDGE_BY_TYPE[edge_type].pairs:
        raise KeyError(f"{edge_type} does not join {src_label} to {dst_label}")
    return f"{edge_type}.{src_label}.{dst_label}"


def _edge_tables() -> dict[str, tuple[Edge, str, str]]:
    return {edge_table(e.type, a, b): (e, a, b) for e in EDGES for a, b in e.pairs}


EDGE_TABLES: Final = _edge_tables()
"""Table name -> (edge, source label, target label), for every relationship between every pair of labels."""

ARCHIVE_TABLES: Final[tuple[str, ...]] = tuple(NODE_BY_LABEL) + tuple(t for t, (e, _, _) in EDGE_TABLES.items() if e.archived)
"""Every table of a trace, nodes first. A table without rows has no file."""


def table_columns(table: str, *, store: bool = False) -> tuple[Column, ...]:
    """List the properties of a table (node label or edge table name); with `store`, those that only stores have as well."""
    columns = NODE_BY_LABEL[table].columns if table in NODE_BY_LABEL else EDGE_TABLES[table][0].columns
    return columns if store else tuple(c for c in columns if not c.store_only)


def table_level(table: str) -> Level:
    """Tell whether a table belongs to the summary or to the mechanism level."""
    return NODE_BY_LABEL[table].level if table in NODE_BY_LABEL else EDGE_TABLES[table][0].level


@cache
def arrow_type(kind: Kind) -> pa.DataType:
    """Give the Arrow type of a kind of property."""
    import pyarrow as pa

    types: dict[Kind, pa.DataType] = {
        "int": pa.int64(),
        "float": pa.float32(),
        "string": pa.string(),
        "bool": pa.bool_(),
        "strings": pa.list_(pa.string()),
        "floats": pa.list_(pa.float32()),
        "ref": pa.int64(),
    }
    return types[kind]


@cache
def arrow_schema(table: str) -> pa.Schema:
    """Give the Arrow schema of a table inside one trace: `local` (nodes) or `src`, `dst` (edges), then the properties."""
    import pyarrow as pa

    keys = ["local"] if table in NODE_BY_LABEL else ["src", "dst"]
    fields: list[pa.Field[pa.DataType]] = [pa.field(key, pa.int64(), nullable=False) for key in keys]
    fields += [pa.field(c.name, arrow_type(c.kind), nullable=c.nullable) for c in table_columns(table)]
    return pa.schema(fields)


@cache
def package_schema(table: str) -> pa.Schema:
    """Give the Arrow schema of a table in an archive package: `trace` (the trace's ordinal in the package), then `arrow_schema`."""
    import pyarrow as pa

    ordinal: pa.Field[pa.DataType] = pa.field("trace", pa.int64(), nullable=False)
    return pa.schema([ordinal, *arrow_schema(table)])
