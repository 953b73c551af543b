"""The export command and the folder it writes: whole or not at all, refused where the format cannot carry the data."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from tests.support.command_line import ROOT, ok, run
from tests.support.synthetic import make_trace, make_traces
from tracestore import schema
from tracestore.archive import Archive
from tracestore.errors import BadInputError
from tracestore.export.folder import new_folder
from tracestore.export.import_csv import CsvFolder, import_header


def export(archive: Archive, target: Path, *more: object) -> list[object]:
    archive_path: object = archive.path
    return ["export", "--archive", archive_path, "--format", "neo4j-import", "--output", target, *more]


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    found = Archive(tmp_path / "archive")
    found.write(make_traces(2))
    return found


def test_headers_say_what_the_schema_says() -> None:
    assert import_header("EMITS.Output.Token") == ":START_ID,:END_ID"
    assert import_header("WRITES.Mlp.State") == ":START_ID,:END_ID,weight:double,rank:long"
    assert import_header("Item").startswith(
        "uid:ID{id-type:long},trace_no:long,item_id:string,dataset:string,split:string,variant:string,tags:string[]"
    )
    for name in (*schema.NODE_BY_LABEL, *schema.EDGE_TABLES):
        assert len(import_header(name).split(",")) == 2 + len(schema.table_columns(name, store=True))


def test_the_level_leaves_the_mechanism_out(archive: Archive, tmp_path: Path) -> None:
    whole = ok(*export(archive, tmp_path / "whole", "--json")).json
    summary = ok(*export(archive, tmp_path / "summary", "--level", "summary", "--json")).json
    assert whole["level"] == "mechanism"
    assert summary["edges"] < whole["edges"]
    assert (tmp_path / "whole" / "VALUE.State.Head.csv").exists()
    assert not (tmp_path / "summary" / "VALUE.State.Head.csv").exists()
    records = (tmp_path / "summary" / "StoreTrace.csv").read_text(encoding="utf-8")
    assert "VALUE.State.Head" not in records
    assert records.count("READY") == 2
    assert all(line.endswith("false") for line in (tmp_path / "summary" / "Output.csv").read_text(encoding="utf-8").splitlines())


def test_a_target_that_is_there_is_left_alone(archive: Archive, tmp_path: Path) -> None:
    target = tmp_path / "made"
    target.mkdir()
    ok(*export(archive, target))  # an empty folder may be there
    before = sorted((path.name, path.stat().st_mtime_ns) for path in target.iterdir())
    again = run(*export(archive, target))
    assert again.code == 3
    assert "is there already" in again.err
    assert sorted((path.name, path.stat().st_mtime_ns) for path in target.iterdir()) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive", "made"]


def test_unknown_formats_and_empty_archives_are_refused(archive: Archive, tmp_path: Path) -> None:
    unknown = run("export", "--archive", archive.path, "--format", "gexf", "--output", tmp_path / "x")
    assert unknown.code == 2
    assert "neo4j-import" in unknown.err
    empty = run(*export(Archive(tmp_path / "empty"), tmp_path / "x"))
    assert empty.code == 3
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(("tags", "reason"), [(["a\x1fb"], "unit separator"), ([""], "one empty text")])
def test_lists_that_csv_cannot_carry_are_refused_and_nothing_is_left(tmp_path: Path, tags: list[str], reason: str) -> None:
    archive = Archive(tmp_path / "archive")
    archive.write([make_trace(1, items=[{"item_id": "x", "tags": tags}])])
    refused = run(*export(archive, tmp_path / "made"))
    assert refused.code == 3
    assert reason in refused.err
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]


def test_numbers_are_the_doubles_that_a_load_sends(tmp_path: Path) -> None:
    values = [0.1, -1e-30, math.nan, math.inf, -math.inf, None]
    rows = pa.table(
        {"a": pa.array(values, pa.float32()), "b": pa.array([[0.1, math.nan], [], [1.5], [2.0], [3.0], [4.0]], pa.list_(pa.float32()))}
    )
    with CsvFolder(tmp_path) as files:
        files.write("x", "a:double,b:double[]", rows)
    lines = [line.replace('"', "").split(",") for line in (tmp_path / "x.csv").read_text(encoding="utf-8").splitlines()]
    single = [pa.scalar(0.1, pa.float32()).as_py(), pa.scalar(-1e-30, pa.float32()).as_py()]
    assert [float(line[0]) for line in lines[:2]] == single
    assert [line[0] for line in lines[2:]] == ["NaN", "Infinity", "-Infinity", ""]
    assert lines[0][1].split("\x1f") == [repr(single[0]), "NaN"]
    assert lines[1][1] == ""


def test_traces_that_were_forgotten_stay_out(archive: Archive, tmp_path: Path) -> None:
    first, second = archive.trace_ids()
    archive.forget([first])
    assert ok(*export(archive, tmp_path / "made", "--json")).json["traces"] == 1
    for path in (tmp_path / "made").iterdir():
        assert first not in path.read_text(encoding="utf-8"), path.name
    assert second in (tmp_path / "made" / "Trace.csv").read_text(encoding="utf-8")


def test_a_second_export_of_the_same_archive_is_the_same(archive: Archive, tmp_path: Path) -> None:
    for name in ("one", "two"):
        ok(*export(archive, tmp_path / name))
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "two").iterdir())
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in names)


KILLED = """
import os, signal, sys
from pathlib import Path
from tracestore.export.folder import new_folder
with new_folder(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_export_left_is_removed_by_the_next_and_a_running_one_is_not(tmp_path: Path) -> None:
    target = tmp_path / "made"
    done = subprocess.run([sys.executable, "-c", KILLED, str(target)], env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".made.partial-")
    with new_folder(target) as first:
        assert not left.exists()
        (first / "x").write_text("1")
        with pytest.raises(BadInputError, match="somebody else"):
            taken_meanwhile(target, first)
        (target / "theirs").unlink()
    assert [path.name for path in target.iterdir()] == ["x"]


def taken_meanwhile(target: Path, running: Path) -> None:
    with new_folder(target):
        assert running.is_dir()  # not taken for a leftover
        target.mkdir()
        (target / "theirs").write_text("1")


def fail_half_way(target: Path) -> None:
    with new_folder(target) as folder:
        (folder / "half").write_text("half")
        raise RuntimeError


def test_an_error_inside_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        fail_half_way(tmp_path / "made")
    assert list(tmp_path.iterdir()) == []


def test_the_report_is_json_with_the_command(archive: Archive, tmp_path: Path) -> None:
    done = ok(*export(archive, tmp_path / "a b", "--json"))
    (command,) = json.loads(done.out)["commands"]
    assert command == f"cd '{tmp_path / 'a b'}' && neo4j-admin database import full neo4j @import.args"
    assert command in ok(*export(archive, tmp_path / "c d")).out.replace("c d", "a b")
