"""What can be knocked out of an explained prediction, from the tables of its trace: candidates of each kind, the most promising first.

| kind | source | order | estimate |
|---|---|---|---|
| column | tokens before the explained position | `rank_drive`, sinks last | `score` |
| mean-embedding | tokens up to the explained position | the same | `score` |
| edge | stored attention edges of one head | |weight| | VALUE + KEY weight |
| head | every head | |relevance| | relevance |
| motif | the heads of a stored path, all together; one source for each set of heads | |weight| | all stored paths through any of them |
| span, step | spans that end before the explained position (`step`: those of kind step): all columns | `rank_drive` | `score` |

The estimate is what the trace says that the source contributes; what was measured is a change, so the two agree where their signs differ.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from tracestore import schema
from tracestore.archive import appended_local
from tracestore.errors import BadInputError
from tracestore.extract.knockouts.removal import Removal
from tracestore.model import Trace

if TYPE_CHECKING:
    import pyarrow as pa

Kind = Literal["column", "edge", "head", "mean-embedding", "motif", "span", "step"]
KINDS: Final[tuple[Kind, ...]] = ("column", "edge", "head", "mean-embedding", "motif", "span", "step")
_HEAD: Final = re.compile(r"L(\d+)\.h(\d+)", re.IGNORECASE)
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Source:
    """One thing to remove. `stored` is KNOCKOUT's `kind`; `name` is how a user writes it; `made` a HeadSummary that has to be made."""

    stored: str
    label: str
    local: int
    name: str
    estimate: float
    removal: Removal
    text: str | None = None
    layer: int | None = None
    head: int | None = None
    query_pos: int | None = None
    made: Row | None = field(default=None, compare=False)

    @property
    def key(self) -> tuple[Any, ...]:
        """Tell measurements of the same thing (for one Output) by this."""
        return (self.label, self.local, self.stored, self.layer, self.head, self.query_pos)


class Candidates:
    """The sources of one Output of a trace. Nothing is copied before it is asked for."""

    def __init__(self, trace: Trace, output: Row) -> None:
        self._trace, self._output = trace, output
        self._pos: int = output["pos"]
        self._tokens: dict[int, Row] = {row["local"]: row for row in trace.table("Token").to_pylist()}

    def of_kind(self, kind: Kind) -> list[Source]:
        """List what can be removed, the most promising first; empty when there is nothing of that kind."""
        found: dict[Kind, Callable[[], list[Source]]] = {
            "column": lambda: self._token_sources("column"),
            "mean-embedding": lambda: self._token_sources("mean_embedding"),
            "edge": self._edges,
            "head": self._heads,
            "motif": self._motifs,
            "span": lambda: self._spans(None),
            "step": lambda: self._spans("step"),
        }
        if kind not in found:
            raise BadInputError(f"there is no knockout of kind {kind!r}: choose {', '.join(KINDS)}")
        return found[kind]()

    def named(self, kind: Kind, name: str) -> Source:
        """Find a source by its name. Raises BadInputError with the reason where it cannot be removed or is not there."""
        for source in self.of_kind(kind):
            if source.name.casefold() == name.casefold():
                return source
        raise BadInputError(self._refusal(kind, name))

    def _refusal(self, kind: Kind, name: str) -> str:
        end = f"position {self._pos}, whose prediction is explained"
        if kind in ("column", "mean-embedding") and name.isdecimal():
            at = int(name)
            if at > self._pos:
                return f"position {at} cannot be removed: it comes after {end}"
            if at == self._pos:
                return f"nothing later reads {end}: its column cannot be knocked out; try its embedding (mean-embedding) or single edges"
            return f"without position {at} no token is left for {end}: leave at least one"
        if kind in ("span", "step"):
            for row in self._trace.table("Span").to_pylist():
                if _span_name(row).casefold() == name.casefold():
                    if row["last_pos"] >= self._pos:
                        return f"span {name} reaches {end}: a span that covers the target itself cannot be removed"
                    return f"span {name} is every token before {end}: leave at least one"
        forms = {
            "edge": "L1.H2:7->3 (head, key position, query position), one of the stored edges",
            "head": "L1.H2",
            "motif": "as in paths",
        }
        form = forms.get(kind, "a position" if kind in ("column", "mean-embedding") else "kind:ref or kind:ordinal, such as document:doc-1")
        return f"this output has no {kind} {name!r} to remove: write {form}"

    def _rows(self, edge: str, source: str) -> list[dict[str, Any]]:
        """Give the edges of a type from a label into the Output."""
        table = self._trace.table(schema.edge_table(edge, source, "Output"))
        return [row for row in table.to_pylist() if row["dst"] == self._output["local"]]

    def _token_sources(self, stored: str) -> list[Source]:
        column = stored == "column"
        last = self._pos - 1 if column else self._pos
        rows = [row for row in self._rows("INFLUENCES", "Token") if self._tokens[row["src"]]["pos"] <= last]
        if len(rows) <= 1:
            return []  # the only one there is: nothing would be left
        found = []
        for row in sorted(rows, key=lambda row: row["rank_drive"]):
            token = self._tokens[row["src"]]
            at = (token["pos"],)
            removal = Removal(columns=at) if column else Removal(mean_embeddings=at)
            found.append(Source(stored, "Token", row["src"], str(token["pos"]), row["score"], removal, token["text"]))
        return found

    def _edges(self) -> list[Source]:
        heads = {row["local"]: row for row in self._mine("Head").to_pylist()}
        states = {row["local"]: row for row in self._mine("State").to_pylist()}
        weights: dict[tuple[int, int], float] = {}
        for kind in ("VALUE", "KEY"):
            for row in self._trace.table(schema.edge_table(kind, "State", "Head")).select(["src", "dst", "weight"]).to_pylist():
                if row["dst"] in heads:
                    key = row["src"], row["dst"]
                    weights[key] = weights.get(key, 0.0) + row["weight"]
        token_at = {token["pos"]: local for local, token in self._tokens.items()}
        found = []
        for (src, dst), weight in sorted(weights.items(), key=lambda item: (-abs(item[1]), item[0])):
            head, at = heads[dst], states[src]["pos"]
            query = head["pos"]
            if query == 0:
                continue  # all that the first position can read
            place = (head["layer"], head["head"], query, at)
            name = f"L{head['layer']}.H{head['head']}:{at}->{query}"
            local = token_at[at]
            removal = Removal(edges=(place,))
            found.append(Source("edge", "Token", local, name, weight, removal, self._tokens[local]["text"], *place[:3]))
        return found

    def _mine(self, label: str) -> pa.Table:
        """Give the nodes of a label that belong to the Output."""
        import pyarrow.compute as pc

        table = self._trace.table(label)
        return table.filter(pc.equal(table["output_uid"], self._output["local"]))

    def _heads(self) -> list[Source]:
        known = {(row["layer"], row["head"]): row for row in self._mine("HeadSummary").to_pylist()}
        per_layer = self._trace.header["n_heads"]
        relevance: Sequence[float] = self._output["head_vector"]
        found = []
        for flat in sorted(range(len(relevance)), key=lambda flat: (-abs(relevance[flat]), flat)):
            layer, head = divmod(flat, per_layer)
            summary = known.get((layer, head))
            made = None if summary is not None else self._summary(layer, head, relevance[flat])
            local = (summary or made or {})["local"]
            removal = Removal(heads=((layer, head),))
            found.append(
                Source("head", "HeadSummary", local, f"L{layer}.H{head}", relevance[flat], removal, layer=layer, head=head, made=made)
            )
        return found

    def _summary(self, layer: int, head: int, relevance: float) -> Row:
        """Make the summary of a head that is not among the 64 largest: its |relevance| stands for its mass, which it cannot exceed."""
        largest = max((abs(value) for value in self._output["head_vector"]), default=0.0)
        pos = self._pos
        return {
            "local": appended_local(f"{self._output['output_id']} head {layer} {head}"),
            "output_uid": self._output["local"],
            "model_id": self._output["model_id"],
            "layer": layer,
            "head": head,
            "relevance": relevance,
            "abs_relevance": abs(relevance),
            "share": abs(relevance) / self._mass() if largest else 0.0,
            "top_source_pos": pos,
            "top_query_pos": pos,
            "offset": 0,
            "induction": False,
        }

    def _mass(self) -> float:
        """Give the mass that the shares of heads are taken of."""
        rows = [row for row in self._mine("HeadSummary").to_pylist() if row["share"] > 0]
        if rows:
            first = max(rows, key=lambda row: row["share"])
            return float(first["abs_relevance"] / first["share"])
        return sum(abs(value) for value in self._output["head_vector"]) or 1.0

    def _motifs(self) -> list[Source]:
        """Give the sets of heads that stored paths pass, named by the largest path that passes them."""
        paths = sorted(self._mine("Path").to_pylist(), key=lambda row: row["rank"])
        passed = [frozenset((int(layer), int(head)) for layer, head in _HEAD.findall(row["motif"])) for row in paths]
        found: dict[frozenset[tuple[int, int]], Source] = {}
        for row, heads in zip(paths, passed, strict=True):
            if heads and heads not in found:  # removing them breaks every path through any of them
                weight = sum(other["weight"] for other, others in zip(paths, passed, strict=True) if heads & others)
                found[heads] = Source("motif", "Path", row["local"], row["motif"], weight, Removal(heads=tuple(sorted(heads))))
        return sorted(found.values(), key=lambda source: -abs(source.estimate))

    def _spans(self, kind: str | None) -> list[Source]:
        spans = {row["local"]: row for row in self._trace.table("Span").to_pylist()}
        found = []
        for row in sorted(self._rows("INFLUENCES", "Span"), key=lambda row: row["rank_drive"]):
            span = spans[row["src"]]
            covers_all = span["first_pos"] == 0 and span["last_pos"] >= self._pos - 1
            if (kind is not None and span["kind"] != kind) or span["last_pos"] >= self._pos or covers_all:
                continue
            removal = Removal(columns=tuple(range(span["first_pos"], span["last_pos"] + 1)))
            found.append(Source("column", "Span", row["src"], _span_name(span), row["score"], removal, span["text"]))
        return found


def _span_name(span: Row) -> str:
    return f"{span['kind']}:{span['ordinal'] if span['ref'] is None else span['ref']}"
