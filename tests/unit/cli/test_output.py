"""How rows are written."""

from __future__ import annotations

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.command_line import _Captured
from tracestore.cli._options import Format
from tracestore.cli._output import cell_text, print_table, write_json, write_rows

TABLE = pa.table({"name": ["a\nb", None], "value": [1.5, float("nan")], "tags": [["x", "y"], []]})


def test_json_knows_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    write_json({"value": float("inf"), "rows": [float("nan"), 2.0]})
    assert json.loads(capsys.readouterr().out) == {"value": None, "rows": [None, 2.0]}


def test_ndjson_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(TABLE, Format.ndjson)
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line) for line in lines] == [
        {"name": "a\nb", "value": 1.5, "tags": ["x", "y"]},
        {"name": None, "value": None, "tags": []},
    ]


def test_csv_quotes_and_spells_lists_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(TABLE, Format.csv)
    assert capsys.readouterr().out == 'name,value,tags\n"a\nb",1.5,"[""x"", ""y""]"\n,nan,[]\n'


def test_parquet_goes_to_a_stream_byte_for_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    captured = _Captured()
    monkeypatch.setattr("sys.stdout", captured)
    write_rows(TABLE.select(["name"]), Format.parquet)
    captured.flush()
    assert pq.read_table(io.BytesIO(captured.buffer.getvalue())).to_pylist() == [{"name": "a\nb"}, {"name": None}]  # type: ignore[attr-defined]


def test_a_table_shows_control_characters_instead_of_obeying_them(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["text"], [{"text": "a\x1b[31mb\nc"}])
    assert "a\\x1b[31mb\\nc" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("value", "text"), [(None, ""), (True, "yes"), (0.123456, "0.1235"), (7, "7"), (["a", "b"], "a, b"), (float("inf"), "inf")]
)
def test_cells(value: object, text: str) -> None:
    assert cell_text(value) == text
