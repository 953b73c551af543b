"""Ask a graph store: named queries from the catalogue, and ad-hoc Cypher behind a guard. Importing this loads no engine and no Arrow."""

from tracestore.query.catalogue import CatalogueEntry, catalogue, entry
from tracestore.query.guard import check_read_only
from tracestore.query.run import run_cypher, run_named

__all__ = ["CatalogueEntry", "catalogue", "check_read_only", "entry", "run_cypher", "run_named"]
