"""`--no-text`: keep the numbers of a trace and nothing of its words.

Token ids are the text as surely as letters are, and so are hashes that anybody could compute from a guess. What is done to a trace:

- `text` of Trace, Token, Span and Output, `foil_text`, `expected` and `rationale` become null;
- token ids become keyed hashes (equal tokens stay equal, within one key);
- `char_from` and `char_to` become 0: the lengths of the words give them away;
- `trace_id`, `output_id`, `prompt_hash` and item ids that are hashes of content become keyed hashes;
- what the user named (own item ids, data set, split, variant, tags, session, span names) stays: choose such names without text.

The key is 32 random bytes. Who has the archive *and* the key can test guesses: keep it in a file of your own to separate the two.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tracestore import ids, schema
from tracestore.archive.layout import TEMPORARY, make_private_folder, storage_errors, sync_folder, write_private
from tracestore.errors import BadInputError
from tracestore.model import Trace

if TYPE_CHECKING:
    import pyarrow as pa

KEY_BYTES: Final = 32
_CONTENT_HASH: Final = re.compile(rf"[0-9a-f]{{{ids.ID_CHARS}}}")

DROPPED: Final[Mapping[str, tuple[str, ...]]] = {
    "Trace": ("text",),
    "Item": ("expected", "rationale"),
    "Token": ("text",),
    "Span": ("text",),
    "Output": ("text", "foil_text"),
}
"""Columns that become null."""


def redact(trace: Trace, key: bytes) -> Trace:
    """Give the trace without text and token ids; the same trace and key give the same result."""
    _check_key(key)
    name = redacted_trace_id(trace.trace_id, key)
    tables = dict(trace.tables)
    for table, columns in DROPPED.items():
        if table in tables:
            for column in columns:
                tables[table] = _replace(tables[table], table, column, [None] * tables[table].num_rows)
    if "Trace" in tables:
        tables["Trace"] = _replace(tables["Trace"], "Trace", "trace_id", [name])
        hashes = [ids.content_hash(["prompt hash", old], key=key) for old in tables["Trace"]["prompt_hash"].to_pylist()]
        tables["Trace"] = _replace(tables["Trace"], "Trace", "prompt_hash", hashes)
    if "Item" in tables:
        names = [redacted_item_id(str(old), key) for old in tables["Item"]["item_id"].to_pylist()]
        tables["Item"] = _replace(tables["Item"], "Item", "item_id", names)
    if "Token" in tables:
        tokens = _replace(tables["Token"], "Token", "token_id", _keyed(tables["Token"]["token_id"].to_pylist(), key))
        for column in ("char_from", "char_to"):
            tokens = _replace(tokens, "Token", column, [0] * tokens.num_rows)
        tables["Token"] = tokens
    if "Output" in tables:
        tables["Output"] = _redact_outputs(tables["Output"], name, key)
    return Trace(name, tables)


def redact_item(item: Mapping[str, Any], key: bytes) -> dict[str, Any]:
    """Do to the properties of an appended Item what `redact` does to the Items of a trace."""
    _check_key(key)
    return {**item, "expected": None, "rationale": None, "item_id": redacted_item_id(str(item["item_id"]), key)}


def redacted_trace_id(trace_id: str, key: bytes) -> str:
    """Give the id that a trace will have once redacted: known before the work, as the plain one is."""
    return ids.content_hash(["trace", trace_id], key=key)


def redacted_item_id(item_id: str, key: bytes) -> str:
    """Key an item id that looks like a hash of content; keep one that the user chose."""
    return ids.content_hash(["item", item_id], key=key) if _CONTENT_HASH.fullmatch(item_id) else item_id


def load_key(path: Path) -> bytes:
    """Read a key file, or make one with a new random key. Raises BadInputError when others may read it or it is no key."""
    with storage_errors("the key file of --no-text"):
        if not path.exists():
            _make_key(path)
        if path.stat().st_mode & 0o077:
            raise BadInputError(f"Other users may read the key file {path}: run chmod 600 on it (and make a new key if that matters).")
        text = path.read_text(encoding="ascii", errors="replace").strip()
    if re.fullmatch(rf"[0-9a-f]{{{2 * KEY_BYTES}}}", text) is None:
        raise BadInputError(
            f"{path} is not a key file: it must hold {2 * KEY_BYTES} hexadecimal digits. Name another file, or none to have one made."
        )
    return bytes.fromhex(text)


def _make_key(path: Path) -> None:
    """Write a new key under its final name at once, whole; a key that another process made meanwhile stays."""
    make_private_folder(path.parent)
    temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(8)}")
    try:
        write_private(temporary, secrets.token_hex(KEY_BYTES).encode() + b"\n")
        try:
            os.link(temporary, path)
        except FileExistsError:
            return
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _check_key(key: bytes) -> None:
    if len(key) != KEY_BYTES:
        raise BadInputError(f"The key of --no-text must have {KEY_BYTES} bytes.")


def _redact_outputs(outputs: pa.Table, trace_id: str, key: bytes) -> pa.Table:
    tokens = _keyed(outputs["token_id"].to_pylist(), key)
    foils = _keyed(outputs["foil_token_id"].to_pylist(), key)
    positions: list[Any] = outputs["pos"].to_pylist()
    firsts: list[Any] = outputs["first_pos"].to_pylist()
    names = [
        ids.output_id(trace_id, pos, token, foil, first_pos=first)
        for pos, first, token, foil in zip(positions, firsts, tokens, foils, strict=True)
    ]
    for column, values in (("token_id", tokens), ("foil_token_id", foils), ("output_id", names)):
        outputs = _replace(outputs, "Output", column, values)
    return outputs


def _keyed(token_ids: Iterable[Any], key: bytes) -> list[Any]:
    return [None if token is None else ids.keyed_token(token, key) for token in token_ids]


def _replace(table: pa.Table, name: str, column: str, values: list[Any]) -> pa.Table:
    import pyarrow as pa

    field = schema.arrow_schema(name).field(column)
    return table.set_column(table.column_names.index(column), field, pa.array(values, type=field.type))
