"""The catalogue's queries over paths and compositions, in plain Python (see `oracle`)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.support.oracle import Oracle

Row = dict[str, Any]
Params = Mapping[str, Any]


def driver_paths(g: Oracle, p: Params) -> Iterator[Row]:
    """Give the paths of an Output."""
    for output, _ in g.outputs(p):
        texts = {token["pos"]: token["text"] for token, _ in g.entering(output, "INFLUENCES", "Token")}
        for path, _ in g.entering(output, "OF", "Path"):
            row = {name: path[name] for name in ("rank", "weight", "share", "source_pos", "motif")}
            yield row | {"source_text": texts.get(path["source_pos"]), "hops": ">".join(path["hops"]), "output_id": output["output_id"]}


def motifs_across(g: Oracle, p: Params) -> Iterator[Row]:
    """Group paths by motif, each prediction counted once."""
    groups: dict[tuple[str, str], list[tuple[float, float, str]]] = defaultdict(list)
    for output, trace in g.predicted(p):
        motifs: dict[str, list[Row]] = defaultdict(list)
        for path, _ in g.entering(output, "OF", "Path"):
            begins = p["sink"] in (None, g.is_sink(output, path["source_pos"]))
            if begins and p["motif"] in (None, path["motif"]):
                motifs[path["motif"]].append(path)
        for motif, paths in motifs.items():
            share = sum(path["share"] for path in paths)
            if share >= p["min_share"]:
                groups[trace["model_id"], motif].append((share, sum(path["weight"] for path in paths), output["output_id"]))
    for (model, motif), members in groups.items():
        shares = [share for share, _, _ in members]
        yield {
            "model_id": model,
            "motif": motif,
            "outputs": len(members),
            "share_mean": sum(shares) / len(shares),
            "share_max": max(shares),
            "share_sum": sum(shares),
            "weight_mean": sum(weight for _, weight, _ in members) / len(members),
            "example": min(name for _, _, name in members),
        }


def compositions_across(g: Oracle, p: Params) -> Iterator[Row]:
    """Group compositions by writer, reader and input."""
    groups: dict[tuple[str, str, str, str], list[float]] = defaultdict(list)
    for output, trace in g.predicted(p):
        for pair, _ in g.entering(output, "OF", "Composition"):
            wanted = all(p[name] in (None, pair[name]) for name in ("src", "dst", "via"))
            if wanted and abs(pair["weight"]) >= p["min_weight"]:
                groups[trace["model_id"], pair["src"], pair["dst"], pair["via"]].append(pair["weight"])
    for (model, src, dst, via), weights in groups.items():
        sizes = [abs(weight) for weight in weights]
        row = {"model_id": model, "src": src, "dst": dst, "via": via, "outputs": len(weights), "size_max": max(sizes)}
        mean = {"weight_mean": sum(weights) / len(weights), "size_mean": sum(sizes) / len(sizes)}
        yield row | mean | {"size_sum": sum(sizes)}


QUERIES: dict[str, Callable[[Oracle, Params], Iterator[Row]]] = {
    "compositions_across": compositions_across,
    "driver_paths": driver_paths,
    "motifs_across": motifs_across,
}
