"""Formats `ndjson` and `span-annotations`: one JSON object a line for each explained prediction.

ndjson            the prediction with its trace, its items, its drivers (every token) and its largest heads and paths: what a log
                  pipeline or a dashboard takes
span-annotations  the same answer in short for the tracing tool that an item came from: an annotation of the OpenTelemetry span, with the
                  fields of OpenInference's tools (span_id, name, annotator_kind CODE, result with score, label and explanation, metadata).
                  Predictions whose items name no span are left out.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from tracestore import schema
from tracestore.export.base import ExportReport, ExportRequest
from tracestore.export.each import edge_count, node_count, text_file, traces_of
from tracestore.export.folder import export_folder
from tracestore.load import LoadPlan
from tracestore.model import Output, Trace

HEADS: Final = 10
PATHS: Final = 10
_HEADER: Final = ("trace_id", "model_id", "method", "checkpoint_step", "prompt_hash", "text", "n_tokens", "created_at", "closure")
_OUTPUT: Final = tuple(c.name for c in schema.table_columns("Output") if c.name not in ("head_vector", "model_id"))


def export_ndjson(request: ExportRequest) -> ExportReport:
    """Write `predictions.ndjson`. See `formats.export_archive`."""
    return export_folder("ndjson", request, _write_predictions)


def export_span_annotations(request: ExportRequest) -> ExportReport:
    """Write `annotations.ndjson`. See `formats.export_archive`."""
    return export_folder("span-annotations", request, _write_annotations)


def _write_predictions(request: ExportRequest, _plan: LoadPlan, folder: Path) -> tuple[int, int, int]:
    return _write_lines(request, folder / "predictions.ndjson", predictions)


def _write_annotations(request: ExportRequest, _plan: LoadPlan, folder: Path) -> tuple[int, int, int]:
    return _write_lines(request, folder / "annotations.ndjson", span_annotations)


def _write_lines(request: ExportRequest, path: Path, lines: Any) -> tuple[int, int, int]:
    traces = nodes = edges = 0
    with text_file(path) as file:
        for trace in traces_of(request):
            file.writelines(json_lines(lines(trace)))
            traces, nodes, edges = traces + 1, nodes + node_count(trace), edges + edge_count(trace)
    return traces, nodes, edges


def json_lines(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Spell objects as lines of JSON."""
    return (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)


def predictions(trace: Trace) -> Iterator[dict[str, Any]]:
    """Give a trace's predictions as JSON objects."""
    header = {name: trace.header[name] for name in _HEADER}
    items = [{k: v for k, v in row.items() if k != "local" and v is not None} for row in trace.table("Item").to_pylist()]
    heads, paths = _owned(trace, "HeadSummary", "share", HEADS), _owned(trace, "Path", "share", PATHS)
    for output in trace.outputs:
        local = output.row["local"]
        yield {
            **header,
            **{name: output.row[name] for name in _OUTPUT},
            "items": items,
            "drivers": output.influences().to_pylist(),
            "heads": heads[local],
            "paths": paths[local],
        }


def _owned(trace: Trace, label: str, by: str, count: int) -> Mapping[int, list[dict[str, Any]]]:
    """Group the largest nodes of a label by the Output that they belong to."""
    found: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in sorted(trace.table(label).to_pylist(), key=lambda row: -row[by]):
        mine = found[row["output_uid"]]
        if len(mine) < count:
            mine.append({k: v for k, v in row.items() if k not in ("local", "output_uid", "model_id")})
    return found


def span_annotations(trace: Trace) -> Iterator[dict[str, Any]]:
    """Give one annotation for each prediction and OpenTelemetry span that asked for it."""
    spans = [(row["otel_trace_id"], row["otel_span_id"]) for row in trace.table("Item").to_pylist() if row["otel_span_id"]]
    for output in trace.outputs if spans else ():
        best = _first_driver(output)
        for otel_trace_id, otel_span_id in dict.fromkeys(spans):
            yield {
                "span_id": otel_span_id,
                "name": "tracestore.driver",
                "annotator_kind": "CODE",
                "result": {
                    "label": best["text"],
                    "score": best["share"],
                    "explanation": f"position {best['pos']} holds {best['share']:.0%} of the attention-edge mass that drove the prediction "
                    f"at position {output.row['pos']}",
                },
                "metadata": {
                    "trace_id": otel_trace_id,
                    "output_id": output.output_id,
                    "method": trace.header["method"],
                    "score": best["score"],
                    "closure": output.row["closure"],
                },
                "identifier": output.output_id,
            }


def _first_driver(output: Output) -> dict[str, Any]:
    row: dict[str, Any] = output.influences().slice(0, 1).to_pylist()[0]
    return row
