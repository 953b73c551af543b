"""Read items from JSONL, plain text (a prompt a line), Parquet or standard input, in constant memory.

1. Split the bytes into lines, dropping a byte-order mark, CRLF and blank lines; a line beyond the limit is skipped, not held.
2. Decode UTF-8 strictly and parse; refuse repeated keys and NaN.
3. Validate (item_format.py). What fails becomes an ItemFailure with its line number; reading goes on.
4. Report an id that came before with the same variant (eight bytes are remembered for each).
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Final, Literal

from tracestore.errors import BadInputError, ItemError
from tracestore.extract.item_format import KEYS, parse_item
from tracestore.model import Item

ItemFormat = Literal["jsonl", "txt", "parquet"]

MAX_LINE_BYTES: Final = 64 << 20
"""A longer line is reported and skipped: no context is that long."""

_BOM: Final = b"\xef\xbb\xbf"
_UTF16: Final = (b"\xff\xfe", b"\xfe\xff")
_SUFFIXES: Final[dict[str, ItemFormat]] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".txt": "txt", ".parquet": "parquet"}
_PARQUET_ROWS: Final = 256


@dataclass(frozen=True, slots=True)
class ItemFailure:
    """A line that is no item: its number from 1 (or that of the Parquet row), the reason without prompt text, its id if it has one."""

    line: int
    reason: str
    item_id: str | None = None


_Numbered = tuple[int, Item | ItemFailure]


def read_items(
    source: str | Path | IO[bytes], *, format: ItemFormat | None = None, text_key: bytes | None = None, max_line_bytes: int = MAX_LINE_BYTES
) -> Iterator[Item | ItemFailure]:
    """Yield the items of a file, of `-` (standard input) or of an open binary stream, in order, with the failures between them.

    The format follows from the file's suffix; a stream is JSONL when its first line opens with a brace, else plain text. `text_key`
    keys the hashes that stand in for missing ids. Raises BadInputError when the source as a whole cannot be read.
    """
    if isinstance(source, str | Path) and str(source) != "-":
        path = Path(source)
        chosen = format or _format_of(path)
        if chosen == "parquet":
            return _unique(_read_parquet(path, text_key))
        return _unique(_read_file(path, chosen, text_key, max_line_bytes))
    if format == "parquet":
        raise BadInputError("Parquet is read from a file, not from a stream: give its path")
    stream = sys.stdin.buffer if isinstance(source, str | Path) else source
    return _unique(_read_lines(stream, format, text_key, max_line_bytes))


def _format_of(path: Path) -> ItemFormat:
    try:
        return _SUFFIXES[path.suffix.lower()]
    except KeyError:
        raise BadInputError(f"{path.name}: items are read from {', '.join(_SUFFIXES)}; rename the file or name its format") from None


def _read_file(path: Path, format: ItemFormat, text_key: bytes | None, limit: int) -> Iterator[_Numbered]:
    try:
        stream = path.open("rb")
    except OSError as error:
        raise BadInputError(f"cannot read the items file {path}: {error.strerror}") from None
    with stream:
        yield from _read_lines(stream, format, text_key, limit)


def _lines(stream: IO[bytes], limit: int) -> Iterator[tuple[int, bytes | None]]:
    """Yield (number, line without its end); None for a line over `limit` bytes."""
    number = 0
    while raw := stream.readline(limit + 2):
        number += 1
        if number == 1 and raw.startswith(_UTF16):
            raise BadInputError("the items are in UTF-16: convert them to UTF-8")
        line = raw.removeprefix(_BOM) if number == 1 else raw
        if not line.endswith(b"\n") and len(raw) > limit:
            while (rest := stream.readline(1 << 20)) and not rest.endswith(b"\n"):
                pass
            yield number, None
        else:
            yield number, line.rstrip(b"\r\n")


def _read_lines(stream: IO[bytes], format: ItemFormat | None, text_key: bytes | None, limit: int) -> Iterator[_Numbered]:
    for number, line in _lines(stream, limit):
        if line is None:
            yield number, ItemFailure(number, f"the line is longer than {limit} bytes")
            continue
        if not line.strip():
            continue
        if format is None:
            format = "jsonl" if line.lstrip().startswith(b"{") else "txt"
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            yield number, ItemFailure(number, f"not valid UTF-8 at byte {error.start} of the line")
            continue
        record: object = None
        try:
            record = _decode(text) if format == "jsonl" else {"prompt": text}
            yield number, replace(parse_item(record, text_key=text_key), line=number)
        except ItemError as error:
            yield number, ItemFailure(number, str(error), _id_of(record))


def _decode(line: str) -> object:
    try:
        return json.loads(line, object_pairs_hook=_no_repeats, parse_constant=_no_constants)
    except json.JSONDecodeError as error:
        raise ItemError(f"not valid JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise ItemError("not valid JSON: nested too deeply") from None
    except ValueError:
        raise ItemError("not valid JSON: a number is too long") from None


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) != len(pairs):
        names = [key for key, _ in pairs]
        raise ItemError(f"the key {next(k for k in names if names.count(k) > 1)[:40]!r} stands twice")
    return record


def _no_constants(name: str) -> object:
    raise ItemError(f"{name} is not valid JSON")


def _id_of(record: object) -> str | None:
    found = record.get("id") if isinstance(record, dict) else None
    return found if isinstance(found, str) else None


def _read_parquet(path: Path, text_key: bytes | None) -> Iterator[_Numbered]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        why = "no valid Parquet file" if isinstance(error, pa.ArrowException) else (error.strerror or "it cannot be opened")
        raise BadInputError(f"cannot read the items file {path}: {why}") from None
    with file:
        unknown = [name for name in file.schema_arrow.names if name not in KEYS]
        if unknown:
            raise BadInputError(f"{path.name} has columns that no item knows: {', '.join(unknown)}; known are {', '.join(KEYS)}")
        number = 0
        for batch in file.iter_batches(batch_size=_PARQUET_ROWS):
            for row in batch.to_pylist():
                number += 1
                record = _without_nulls(row)
                try:
                    yield number, replace(parse_item(record, text_key=text_key), line=number)
                except ItemError as error:
                    yield number, ItemFailure(number, str(error), _id_of(record))


def _without_nulls(value: Any) -> Any:
    """Drop the nulls that Parquet's fixed columns put where JSON would have no key."""
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list) else value


def _unique(entries: Iterator[_Numbered]) -> Iterator[Item | ItemFailure]:
    """Turn an item whose id came before (with the same variant) into a failure that says where."""
    first: dict[bytes, int] = {}
    for line, entry in entries:
        if isinstance(entry, ItemFailure) or entry.id is None:
            yield entry
            continue
        short = hashlib.sha256(f"{entry.id}\0{entry.variant or ''}".encode()).digest()[:8]
        if short in first:
            yield ItemFailure(line, f"the same id (without ids: the same content) as line {first[short]}", entry.id)
        else:
            first[short] = line
            yield entry
