"""The registry of formats, under the names that users type. A format's module is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Final

from tracestore.errors import BadInputError
from tracestore.export.base import Exporter, ExportReport, ExportRequest


def _lazy(module: str, function: str) -> Callable[[], Exporter]:
    def load() -> Exporter:
        found: Exporter = getattr(import_module(f"tracestore.export.{module}"), function)
        return found

    return load


FORMATS: Final[dict[str, Callable[[], Exporter]]] = {
    "csv": _lazy("tables", "export_csv"),
    "graphml": _lazy("graphs", "export_graphml"),
    "ndjson": _lazy("predictions", "export_ndjson"),
    "neo4j-import": _lazy("neo4j_import", "export_neo4j_import"),
    "neuronpedia": _lazy("neuronpedia", "export_neuronpedia"),
    "node-link": _lazy("graphs", "export_node_link"),
    "parquet": _lazy("tables", "export_parquet"),
    "span-annotations": _lazy("predictions", "export_span_annotations"),
}


def export_archive(format: str, request: ExportRequest) -> ExportReport:
    """Write what the archive holds in a format. What is at `request.target` afterwards is complete, or nothing is.

    Raises BadInputError (an unknown format, a target that is there, data that the format cannot carry), ArchiveError, ResourceError.
    """
    if format not in FORMATS:
        raise BadInputError(f"there is no export format of this name; there are {', '.join(sorted(FORMATS))}")
    return FORMATS[format]()(request)
