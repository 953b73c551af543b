"""The headline answer: which earlier tokens drove an output, as JSON (a stable contract) and as coloured text."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

from tracestore.cli._output import print_table
from tracestore.cli._paths import TOP_PATHS, open_note, print_paths, stored_paths
from tracestore.cli._sensitive_edges import edge_table, sensitive_edges

if TYPE_CHECKING:
    from tracestore.model import Output, Trace

By = Literal["drive", "direct", "total", "score"]

OUTPUT_KEYS: Final = ("output_id", "pos", "token_id", "text", "logit", "explained", "gauge", "prob", "closure", "bias")
DRIVER_KEYS: Final = (
    *("pos", "token_id", "text", "score", "direct", "total", "share", "rank_direct", "rank_total", "sink"),
    *("removal", "drive", "rank_drive"),
)
HEAD_KEYS: Final = ("layer", "head", "relevance", "share", "top_source_pos", "top_query_pos", "induction")
MORE_KEYS: Final = ("foil_token_id", "foil_text", "vocab_rank", "correct", "sink_mass", "attention_kept", "mlp_share")
TOP_HEADS: Final = 5
TOP_EDGES: Final = 10
LITTLE_KEPT: Final = 0.05
"""Below this share of the attention-edge mass the stored edges say nothing reliable about the way through the model."""


def why_json(trace: Trace, outputs: Sequence[Output], *, k: int | None, by: By = "drive") -> dict[str, Any]:
    """Give the answer as one object; `k` drivers of each output, None: all of them, whose scores then add up with the bias."""
    header = trace.header
    return {
        "trace_id": trace.trace_id,
        "model_id": header["model_id"],
        "method": header["method"],
        "outputs": [_output_json(output, k, by) for output in outputs],
    }


def print_why(trace: Trace, outputs: Sequence[Output], *, k: int | None, by: By = "drive") -> None:
    """Print the answer for a reader: coloured text, drivers, heads, and what the numbers leave out."""
    header = trace.header
    _line(f"{header['model_id']}, method {header['method']}, trace {trace.trace_id}")
    for output in outputs:
        _line("")
        _print_output(output, k, by)


def ranked(rows: Sequence[Mapping[str, Any]], by: By) -> list[Mapping[str, Any]]:
    """Order drivers, largest first (`drive` by its value, the others by size), sinks last."""

    def size(row: Mapping[str, Any]) -> float:
        value = float(row[by])
        return value if by == "drive" else abs(value)

    return sorted(rows, key=lambda row: (row["sink"], -size(row), row["pos"]))


def _output_json(output: Output, k: int | None, by: By) -> dict[str, Any]:
    rows = ranked(output.influences().to_pylist(), by)
    return {
        **{key: output.row[key] for key in OUTPUT_KEYS},
        "drivers": [{key: row[key] for key in DRIVER_KEYS} for row in (rows if k is None else rows[:k])],
        "heads": [{key: row[key] for key in HEAD_KEYS} for row in _heads(output)],
        **{key: output.row.get(key) for key in MORE_KEYS},
        "paths": stored_paths(output, TOP_PATHS),
        "sensitive_edges": sensitive_edges(output, TOP_EDGES),
        "knockouts": _knockouts_json(output),
    }


def _knockouts_json(output: Output) -> dict[str, Any] | None:
    """Say how many sources were removed on the model, and of how many it confirms the direction; None where none was."""
    from tracestore.knockouts import agreement

    found = agreement(output.trace, output.row["local"])
    return None if found is None else {"tried": found.tried, "agree": found.agree}


def _heads(output: Output) -> list[dict[str, Any]]:
    """List the largest heads; those whose largest edge starts at a sink come last, as sinks do among tokens."""
    sinks = {row["pos"] for row in output.trace.table("Token").to_pylist() if row["sink"]}
    rows = [row for row in output.trace.table("HeadSummary").to_pylist() if row["output_uid"] == output.row["local"]]
    return sorted(rows, key=lambda row: (row["top_source_pos"] in sinks, -row["abs_relevance"]))[:TOP_HEADS]


def _print_output(output: Output, k: int | None, by: By) -> None:
    from rich.console import Console

    from tracestore.coloured import influence_text, legend_text, shown
    from tracestore.knockouts import agreement

    row = output.row
    measured = agreement(output.trace, row["local"])
    influences = output.influences().to_pylist()
    rows = ranked(influences, by)
    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    console.print(influence_text(row, influences))
    console.print(legend_text(influences))
    target = shown(row["text"], row["token_id"])
    against = f" against '{shown(row['foil_text'], row['foil_token_id'])}'" if row["gauge"] == "foil" else f" ({row['gauge']})"
    _line(f"'{target}': probability {row['prob']:.1%}, logit {row['logit']:.3f}; explained {row['explained']:.3f}{against}")
    chosen = rows if k is None else rows[:k]
    table = [{**driver, "text": shown(driver["text"], driver["token_id"]), "drive": f"{driver['drive']:+.1%}"} for driver in chosen]
    columns = ["pos", "text", "drive", "score", "direct", "total", "removal", "sink"]
    if measured is not None and measured.columns:
        effects = {token["pos"]: measured.columns.get(token["local"]) for token in output.trace.table("Token").to_pylist()}
        table = [{**driver, "without it": effects[driver["pos"]]} for driver in table]
        columns.append("without it")
    print_table(columns, table, title=f"drivers, by {by}")
    at = {token["pos"]: f"{token['pos']} {shown(token['text'], token['token_id'])}" for token in influences}
    heads = [
        {
            "head": f"L{head['layer']}.H{head['head']}",
            "relevance": head["relevance"],
            "share": f"{head['share']:.1%}",
            "from": at[head["top_source_pos"]],
            "to": at[head["top_query_pos"]],
            "induction": head["induction"],
        }
        for head in _heads(output)
    ]
    print_table(["head", "relevance", "share", "from", "to", "induction"], heads, title="heads (those that read the sink most come last)")
    paths = stored_paths(output, TOP_PATHS)
    certain = [path for path in paths if path["certain"]]
    if certain:
        print_paths(output, certain, title="exact paths (more: tracestore paths)")
    edges = edge_table(output, sensitive_edges(output, TOP_EDGES))
    if edges:
        print_table(list(edges[0]), edges, title="edges whose removal is estimated to take most away (plain gradient: these do not add up)")
    for note in _notes(row, rows, len(chosen)):
        _line(note)
    if len(certain) < len(paths):
        _line(open_note(output, len(paths) - len(certain)))
    if measured is not None:
        _line(measured.sentence())


def _notes(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], shown_rows: int) -> list[str]:
    rest = sum(r["score"] for r in rows[shown_rows:])
    total = sum(r["score"] for r in rows)
    notes = [
        f"tokens {total:+.3f} and biases {row['bias']:+.3f} add up to {row['explained']:.3f}; closure error {row['closure']:.1e}"
        + (f"; tokens not shown carry {rest:+.3f}" if shown_rows < len(rows) else ""),
        "drive: mean of a token's shares of direct, total and removal (what hiding it is estimated to take away), attention sinks left out",
        f"attention sink: {row['sink_mass']:.0%} of the direct mass; MLPs wrote {row['mlp_share']:.0%} of what was written",
    ]
    if row["attention_kept"] < LITTLE_KEPT:
        notes.append(
            f"not enough kept: the stored edges hold {row['attention_kept']:.1%} of the attention mass, too little to follow them through "
            "the model (token scores and heads are complete). Trace again with a larger --max-edges or --keep"
        )
    else:
        notes.append(f"kept: {row['attention_kept']:.0%} of the attention-edge mass; token scores above are complete")
    return notes


def _line(text: str) -> None:
    sys.stdout.write(text + "\n")
