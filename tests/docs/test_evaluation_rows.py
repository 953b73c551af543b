"""The raw rows of the evaluation come back as they were, and do not overwrite newer ones."""

from __future__ import annotations

from pathlib import Path

from docs.evaluation_rows import pack, unpack


def test_rows_are_kept_and_come_back(tmp_path: Path) -> None:
    output, rows, again = tmp_path / "output", tmp_path / "rows", tmp_path / "again"
    (output / "tuning" / "prompts").mkdir(parents=True)
    (output / "edges.jsonl").write_text('{"a": 1}\n')
    (output / "tuning" / "prompts" / "prompts.jsonl").write_text('{"b": "ü"}\n', encoding="utf-8")
    (output / "tuning" / "prompts" / "plot.png").write_bytes(b"no rows")
    pack(output, rows)
    first = {path: path.read_bytes() for path in rows.rglob("*.gz")}
    assert {str(path.relative_to(rows)) for path in first} == {"edges.jsonl.gz", "tuning/prompts/prompts.jsonl.gz"}
    pack(output, rows)
    assert {path: path.read_bytes() for path in rows.rglob("*.gz")} == first
    again.mkdir()
    (again / "edges.jsonl").write_text("newer\n")
    unpack(again, rows)
    assert (again / "edges.jsonl").read_text() == "newer\n"
    assert (again / "tuning" / "prompts" / "prompts.jsonl").read_text(encoding="utf-8") == '{"b": "ü"}\n'
