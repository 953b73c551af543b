"""The registry of formats, under the names that users type. A format's module is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tracestore.errors import BadInputError
from tracestore.export.base import Exporter, ExportReport, ExportRequest


def _neo4j_import() -> Exporter:
    from tracestore.export.neo4j_import import export_neo4j_import

    return export_neo4j_import


FORMATS: Final[dict[str, Callable[[], Exporter]]] = {"neo4j-import": _neo4j_import}


def export_archive(format: str, request: ExportRequest) -> ExportReport:
    """Write what the archive holds in a format. What is at `request.target` afterwards is complete, or nothing is.

    Raises BadInputError (an unknown format, a target that is there, data that the format cannot carry), ArchiveError, ResourceError.
    """
    if format not in FORMATS:
        raise BadInputError(f"there is no export format of this name; there are {', '.join(sorted(FORMATS))}")
    return FORMATS[format]()(request)
