"""The same process to be killed, at a Neo4j server: two writers, and batches so small that a kill falls between them.

`python -m tests.crash.neo4j_child ARCHIVE URL SEED`; credentials from the environment.
"""

from __future__ import annotations

from tests.crash import store_child
from tracestore.store.neo4j import store
from tracestore.store.neo4j.writers import LoadSettings

if __name__ == "__main__":
    store.settings_from_environment = lambda: LoadSettings(batch_rows=200, writers=2)
    store_child.main()
