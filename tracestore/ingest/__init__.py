"""Items through the extractor into an archive, and (overlapped) into a graph store."""

from tracestore.ingest.pipeline import IngestSummary, ingest_items
from tracestore.ingest.runner import trace_to_archive
from tracestore.ingest.summary import TraceSummary

__all__ = ["IngestSummary", "TraceSummary", "ingest_items", "trace_to_archive"]
