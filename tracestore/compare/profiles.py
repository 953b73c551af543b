"""What a comparison needs to know of a prediction: who drove it, by which heads and motifs, and what the model said.

Read from an archive (the tables of the summary alone) or from a store (five plain queries that both engines understand).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tracestore import schema
from tracestore.archive.reader import split_traces
from tracestore.store.base import Limits

if TYPE_CHECKING:
    from tracestore.archive import Archive
    from tracestore.model import Trace
    from tracestore.store.base import Store

Head = tuple[int, int]

TABLES: Final = ("Trace", "Item", "Token", "Output", "HeadSummary", "Path", "INFLUENCES.Token.Output")
_NO_LIMITS: Final = Limits(timeout_s=600.0, max_rows=None)


@dataclass(frozen=True, slots=True)
class Profile:
    """One explained prediction. Shares are those that the trace stores: of `direct` without the sink, of heads, of the stored paths.

    `answer_pos` counts from the last position of the prompt, `width` is the number of tokens that are explained as one sum (0: a single
    prediction).
    """

    output_id: str
    trace_id: str
    model_id: str
    checkpoint_step: int | None
    method: str
    prompt_hash: str
    items: tuple[tuple[str, str | None], ...]  # (item_id, variant)
    n_prompt: int
    answer_pos: int
    width: int
    said: str
    own_choice: bool  # is what is explained also what the model ranks first
    correct: bool | None
    tokens: Mapping[int, float]
    texts: Mapping[int, str]
    heads: Mapping[Head, float]
    motifs: Mapping[str, float]

    @property
    def name(self) -> str:
        """The item's id where there is one, else the prompt's hash; with the place in the answer."""
        item = min((f"{item_id}/{variant}" if variant else item_id for item_id, variant in self.items), default=self.prompt_hash[:12])
        return f"{item} +{self.answer_pos}" + (f" ({self.width} tokens)" if self.width else "")


def archive_profiles(archive: Archive, *, trace_id: str | None = None, model_id: str | None = None) -> Iterator[Profile]:
    """Read the predictions of an archive, or of one of its traces or models. Raises ArchiveError for damage."""
    from tracestore.model import Trace

    if trace_id is not None:
        yield from trace_profiles(archive.read_trace(trace_id))
        return
    for package in archive.packages():
        for bundle in archive.bundles(package, tables=TABLES):
            for found, tables in split_traces(bundle, package):
                trace = Trace(found, tables)
                if model_id is None or trace.header["model_id"] == model_id:
                    yield from trace_profiles(trace)


def trace_profiles(trace: Trace) -> Iterator[Profile]:
    """Give the predictions of one trace."""
    header = trace.header
    tokens = {row["local"]: row for row in trace.table("Token").select(["local", "pos", "token_id", "text", "sink"]).to_pylist()}
    texts = {row["pos"]: str(row["token_id"]) if row["text"] is None else row["text"] for row in tokens.values()}
    shares: dict[int, dict[int, float]] = defaultdict(dict)
    influences = trace.table(schema.edge_table("INFLUENCES", "Token", "Output")).select(["src", "dst", "share"])
    for row in influences.to_pylist():
        token = tokens[row["src"]]
        if not token["sink"]:
            shares[row["dst"]][token["pos"]] = row["share"]
    heads: dict[int, dict[Head, float]] = defaultdict(dict)
    for row in trace.table("HeadSummary").to_pylist():
        heads[row["output_uid"]][row["layer"], row["head"]] = row["share"]
    motifs: dict[int, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for row in trace.table("Path").to_pylist():
        motifs[row["output_uid"]][row["motif"]] += row["share"]
    items = tuple((row["item_id"], row["variant"]) for row in trace.table("Item").select(["item_id", "variant"]).to_pylist())
    for output in trace.outputs:
        local = output.row["local"]
        yield _profile(header, output.row, items, shares[local], texts, heads[local], motifs[local])


def _profile(
    trace: Mapping[str, Any],
    output: Mapping[str, Any],
    items: tuple[tuple[str, str | None], ...],
    tokens: Mapping[int, float],
    texts: Mapping[int, str],
    heads: Mapping[Head, float],
    motifs: Mapping[str, float],
) -> Profile:
    pos, first = output["pos"], output["first_pos"]
    return Profile(
        output_id=output["output_id"],
        trace_id=trace["trace_id"],
        model_id=trace["model_id"],
        checkpoint_step=trace["checkpoint_step"],
        method=trace["method"],
        prompt_hash=trace["prompt_hash"],
        items=items,
        n_prompt=trace["n_prompt_tokens"],
        answer_pos=(pos if first is None else first) - trace["n_prompt_tokens"] + 1,
        width=0 if first is None else pos - first + 1,
        said=str(output["token_id"]) if output["text"] is None else output["text"],
        own_choice=output["vocab_rank"] == 1,
        correct=output["correct"],
        tokens=dict(tokens),
        texts=dict(texts),
        heads=dict(heads),
        motifs=dict(motifs),
    )


_OUTPUT: Final = ("output_id", "pos", "first_pos", "token_id", "text", "vocab_rank", "correct")
_TRACE: Final = ("trace_id", "model_id", "checkpoint_step", "method", "prompt_hash", "n_prompt_tokens")


def store_profiles(store: Store, *, trace_id: str | None = None, model_id: str | None = None) -> Iterator[Profile]:
    """Read the predictions of a store, or of one of its traces or models. Raises StoreError and its kinds."""
    filters, params = "", dict[str, Any]()
    for name, value in (("trace_id", trace_id), ("model_id", model_id)):
        if value is not None:
            filters, params[name] = filters + f" AND tr.{name} = ${name}", value
    match = f"MATCH (o:Output)-[:OF]->(tr:Trace) WHERE tr.ready_id IS NOT NULL{filters} "

    def rows(statement: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = store.run(statement, params, _NO_LIMITS).table.to_pylist()
        return found

    columns = [f"o.{name} AS {name}" for name in _OUTPUT] + [f"tr.{name} AS {name}" for name in _TRACE]
    outputs = rows(f"{match}RETURN o.uid AS uid, tr.uid AS trace_uid, {', '.join(columns)}")
    items: dict[int, list[tuple[str, str | None]]] = defaultdict(list)
    of_items = f"MATCH (x:Item)-[:OF]->(tr:Trace) WHERE tr.ready_id IS NOT NULL{filters} "
    for row in rows(f"{of_items}RETURN tr.uid AS uid, x.item_id AS id, x.variant AS variant"):
        items[row["uid"]].append((row["id"], row["variant"]))
    shares: dict[int, dict[int, float]] = defaultdict(dict)
    texts: dict[int, dict[int, str]] = defaultdict(dict)
    for row in rows(
        f"{match}MATCH (t:Token)-[i:INFLUENCES]->(o) "
        "RETURN o.uid AS uid, t.pos AS pos, t.token_id AS token_id, t.text AS text, t.sink AS sink, i.share AS share"
    ):
        texts[row["uid"]][row["pos"]] = str(row["token_id"]) if row["text"] is None else row["text"]
        if not row["sink"]:
            shares[row["uid"]][row["pos"]] = row["share"]
    heads: dict[int, dict[Head, float]] = defaultdict(dict)
    for row in rows(f"{match}MATCH (h:HeadSummary)-[:OF]->(o) RETURN o.uid AS uid, h.layer AS layer, h.head AS head, h.share AS share"):
        heads[row["uid"]][row["layer"], row["head"]] = row["share"]
    motifs: dict[int, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for row in rows(f"{match}MATCH (p:Path)-[:OF]->(o) RETURN o.uid AS uid, p.motif AS motif, p.share AS share"):
        motifs[row["uid"]][row["motif"]] += row["share"]
    for row in sorted(outputs, key=lambda row: row["uid"]):
        uid = row["uid"]
        yield _profile(row, row, tuple(items[row["trace_uid"]]), shares[uid], texts[uid], heads[uid], motifs[uid])
