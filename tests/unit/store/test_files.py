"""What is refused before the engine sees it: other files, other versions, places that cannot be written, a second writer."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.store_graph import bundle_of
from tests.support.synthetic import make_traces
from tracestore.errors import StoreError, StoreLockedError, StoreUnavailableError, StoreVersionError
from tracestore.store import open_engine


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store with one trace."""
    with open_engine(str(tmp_path / "graph.lbug")) as store:
        store.load(bundle_of(make_traces(1)))
    return tmp_path / "graph.lbug"


@pytest.mark.parametrize("read_only", [True, False])
@pytest.mark.parametrize("content", [b"hello, this is no graph", b"LBUG", b"PK\x03\x04" * 100])
def test_a_file_of_something_else_is_refused_and_kept(tmp_path: Path, content: bytes, read_only: bool) -> None:
    other = tmp_path / "notes.txt"
    other.write_bytes(content)
    with pytest.raises(StoreError, match=r"not a store"):
        open_engine(str(other), read_only=read_only)
    assert other.read_bytes() == content
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is a directory"):
        open_engine(str(tmp_path))


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="does not exist"):
        open_engine(str(tmp_path / "nowhere" / "graph.lbug"))


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs /proc, where even root may not make files")
def test_a_place_that_cannot_be_written_is_refused() -> None:
    with pytest.raises(StoreError, match=r"cannot be (locked|written)"):
        open_engine("/proc/graph.lbug")


def test_files_are_private(path: Path) -> None:
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file.name


@pytest.mark.parametrize("read_only", [True, False])
def test_a_file_of_another_storage_version_is_not_opened(path: Path, read_only: bool) -> None:
    with path.open("r+b") as file:
        file.seek(4)
        version = file.read(1)[0]
        file.seek(4)
        file.write(bytes([version - 1]))
    before = path.read_bytes()
    with pytest.raises(StoreVersionError, match=r"tracestore store rebuild --archive DIR --store .*graph\.lbug"):
        open_engine(str(path), read_only=read_only)
    assert path.read_bytes() == before


@pytest.mark.parametrize("read_only", [True, False])
@pytest.mark.parametrize("record", ['{"engine": "ladybug", "engine_version": "0.1.0", "storage_version": 7}', "{}", "not JSON"])
def test_the_record_of_another_engine_is_believed(path: Path, record: str, read_only: bool) -> None:
    marker = path.with_name("graph.lbug.engine.json")
    marker.write_text(record)
    with pytest.raises(StoreVersionError, match="tracestore store rebuild"):
        open_engine(str(path), read_only=read_only)


def test_the_engine_version_is_recorded(path: Path) -> None:
    record = json.loads(path.with_name("graph.lbug.engine.json").read_text())
    assert record == {"engine": "ladybug", "engine_version": "0.22.0", "storage_version": 49}


def test_a_lost_record_is_written_again(path: Path) -> None:
    marker = path.with_name("graph.lbug.engine.json")
    marker.unlink()
    with open_engine(str(path)) as store:
        assert len(store.ready()) == 1
    assert json.loads(marker.read_text())["storage_version"] == 49


def test_a_second_writer_is_turned_away_and_a_reader_is_not(path: Path) -> None:
    with open_engine(str(path)):
        with pytest.raises(StoreLockedError, match="written by another process"):
            open_engine(str(path))
        command = "import sys; from tracestore.store import open_engine; from tracestore.errors import *\n"
        writer = command + "try: open_engine(sys.argv[1])\nexcept StoreLockedError as e: print(e.exit_code, e.retryable)"
        reader = command + "with open_engine(sys.argv[1], read_only=True) as s: print(len(s.ready()))"
        for code, said in ((writer, "5 True"), (reader, "1")):
            done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
            assert done.stdout.strip() == said
    with open_engine(str(path)) as again:
        assert len(again.ready()) == 1


def test_a_damaged_log_says_rebuild(path: Path) -> None:
    path.with_name("graph.lbug.wal").write_bytes(b"\xff" * 300)
    with pytest.raises(StoreError, match="tracestore store rebuild"):
        open_engine(str(path))


def test_a_finished_rebuild_is_put_in_place_by_whoever_comes_next(path: Path, tmp_path: Path) -> None:
    with open_engine(str(tmp_path / "other.lbug")) as store:
        store.load(bundle_of(make_traces(3, first_seed=10)))
    for read_only in (True, False):
        (tmp_path / "graph.lbug.next").write_bytes((tmp_path / "other.lbug").read_bytes())
        path.with_name("graph.lbug.wal").write_bytes(b"the old log, which must not be applied to the new file")
        with open_engine(str(path), read_only=read_only) as store:
            assert len(store.ready()) == 3
        assert not (tmp_path / "graph.lbug.next").exists()


def test_a_reader_says_so_while_a_rebuild_is_put_in_place(path: Path, tmp_path: Path) -> None:
    with open_engine(str(path)):
        (tmp_path / "graph.lbug.next").write_bytes(path.read_bytes())
        with pytest.raises(StoreUnavailableError, match="try again"):
            open_engine(str(path), read_only=True)
