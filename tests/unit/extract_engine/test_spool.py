"""Tables that wait in files come back as they were, and leave nothing behind."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pyarrow as pa
import pytest

from tracestore.errors import ResourceError
from tracestore.extract.spool import TableSpool


def part(start: int) -> dict[str, pa.Table]:
    numbers = list(range(start, start + 100))
    return {"a": pa.table({"x": numbers}), "b": pa.table({"y": [str(n) for n in numbers], "z": [[float(n)] for n in numbers]})}


@pytest.mark.parametrize("limit", [10_000_000, 3_000, 0])
def test_every_limit_gives_the_same_tables(limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    spool, whole = TableSpool(limit), TableSpool()
    for start in range(0, 1000, 100):
        spool.add(part(start))
        whole.add(part(start))
    assert list(tmp_path.iterdir()) == []  # unlinked while in use
    assert (spool.spilled, whole.spilled) == (limit < 10_000_000, False)
    found, expected = spool.tables(), whole.tables()
    assert found.keys() == expected.keys()
    assert all(found[name].equals(expected[name]) for name in expected)
    assert found["a"]["x"].to_pylist() == list(range(1000))


def test_a_full_or_missing_folder_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(ResourceError, match="set TMPDIR to a larger disk"):
        TableSpool(0).add(part(0))
