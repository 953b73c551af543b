"""Give traces away in other forms: `export_archive(format, ...)`.

A format is added in one place, the registry in `formats.py`: name -> the module that writes it.
"""

from tracestore.export.base import ExportReport, ExportRequest
from tracestore.export.formats import FORMATS, export_archive

__all__ = ["FORMATS", "ExportReport", "ExportRequest", "export_archive"]
