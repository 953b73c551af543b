"""Constraints and indexes of a Neo4j store, derived from `schema.py`; and the engine's own bookkeeping.

StoreMigration  what was applied, with checksum and time
StoreCounter    the highest trace_no ever given out; whoever claims traces locks it
StoreTrace      one per trace id: READY or EVICTED, its trace_no and its row counts
StoreLease      one per writer of a load that is at work: who, on which machine, until when (the server's clock)
StoreClaim      one per trace number that a lease holds: what to delete when the lease is dead
StoreBatch      one per batch that arrived, written in the batch's own transaction
"""

from __future__ import annotations

from typing import Final

from tracestore import schema

_KEYS: Final = {
    "StoreCounter": "name",
    "StoreTrace": "trace_id",
    "StoreLease": "load_id",
    "StoreClaim": "claim_id",
    "StoreBatch": "batch_id",
}

_BOOKKEEPING_INDEXES: Final = (
    ("StoreClaim", ("trace_id",)),
    ("StoreClaim", ("load_id",)),
    ("StoreBatch", ("load_id",)),
    ("StoreTrace", ("status",)),
)

_SEEKS: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("Trace", ("trace_id",)),
    ("Trace", ("model_id",)),
    ("Trace", ("prompt_hash",)),
    ("Trace", ("status",)),
    ("Item", ("item_id",)),
    ("Item", ("dataset",)),
    ("Item", ("session_id",)),
    ("Token", ("token_id",)),
    ("Token", ("text",)),
    ("Output", ("output_id",)),
    ("Output", ("token_id",)),
    ("Output", ("text",)),
    ("HeadSummary", ("model_id", "layer", "head")),
    ("Path", ("motif",)),
)
"""What queries begin from, beside the uid of every label and the output that a node belongs to."""

FIRST: Final = "CREATE CONSTRAINT storemigration_version IF NOT EXISTS FOR (n:StoreMigration) REQUIRE n.version IS UNIQUE"
"""Stands before every migration: what records them."""


def _unique(label: str, name: str) -> str:
    return f"CREATE CONSTRAINT {label.lower()}_{name} IF NOT EXISTS FOR (n:{label}) REQUIRE n.{name} IS UNIQUE"


def _index(label: str, names: tuple[str, ...]) -> str:
    properties = ", ".join(f"n.{name}" for name in names)
    return f"CREATE INDEX {label.lower()}_{'_'.join(names)} IF NOT EXISTS FOR (n:{label}) ON ({properties})"


def schema_statements() -> list[str]:
    """Give every constraint and index: bookkeeping, uid of every label, ready_id, what queries seek on."""
    statements = [_unique(label, key) for label, key in _KEYS.items()]
    statements += [_unique(node.label, "uid") for node in schema.NODES]
    statements.append(_unique("Trace", "ready_id"))  # nullable: set when the trace is complete, which makes a second READY impossible
    owned = [(node.label, ("output_uid",)) for node in schema.NODES if any(column.name == "output_uid" for column in node.columns)]
    return statements + [_index(label, names) for label, names in (*_SEEKS, *owned, *_BOOKKEEPING_INDEXES)]


def schema_script() -> str:
    """Give the text of the first migration."""
    head = f"// Made from schema.py (schema version {schema.SCHEMA_VERSION}). Applied once and never edited afterwards.\n\n"
    return head + ";\n".join(schema_statements()) + ";\n"


def schema_names() -> frozenset[str]:
    """Name every constraint and index that a sound store has."""
    return frozenset(statement.split()[2] for statement in (FIRST, *schema_statements()))
