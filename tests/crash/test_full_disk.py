"""A disk that is full to the last byte, for the archive's writer and the embedded store: said clearly, nothing lost, done once there is
room.

The disk is a tmpfs; where none can be mounted the tests are skipped (TRACESTORE_REQUIRE=mount makes that a failure).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.small_disk import fill, small_disk
from tests.support.store_graph import bundle_of, differences, expected_graph, stored_graph
from tests.support.synthetic import make_traces
from tracestore.archive import Archive
from tracestore.errors import ResourceError
from tracestore.store import open_engine

CHILD = """
import sys
from tests.support.store_graph import bundle_of
from tests.support.synthetic import make_traces
from tracestore.errors import TracestoreError
from tracestore.store import open_engine
from tracestore.store.ladybug import files, ingest
if sys.argv[2] == "estimated too low":
    files.require_room.__code__ = (lambda files, needed: None).__code__
    ingest.OWN_STATEMENT_ROWS = 0
try:
    with open_engine(sys.argv[1]) as store:
        store.load(bundle_of(make_traces(4, n_tokens=8)), level="mechanism")
except TracestoreError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


@pytest.mark.parametrize("leave", [0, 20_000])
def test_an_archive_on_a_full_disk_keeps_what_it_has_and_goes_on_later(tmp_path: Path, leave: int) -> None:
    traces = make_traces(3, n_tokens=8)
    with small_disk(tmp_path / "disk", 8) as disk:
        archive = Archive(disk / "archive")
        archive.write(traces[:1])
        fill(disk / "ballast", leave)
        with pytest.raises(ResourceError, match="room"):
            archive.write(traces[1:])
        again = Archive(disk / "archive")
        assert list(again.trace_ids()) == [traces[0].trace_id]
        assert again.verify(deep=True).problems == ()
        (disk / "ballast").unlink()
        again.write(traces[1:])
        assert {trace.trace_id: trace.tables["Output"] for trace in again.read_traces()} == {
            trace.trace_id: trace.tables["Output"] for trace in traces
        }
        assert again.verify(deep=True).problems == ()


@pytest.mark.parametrize(("leave", "how"), [(0, "estimated"), (3_000_000, "estimated"), (400_000, "estimated too low")])
def test_a_store_on_a_full_disk_keeps_what_it_has_and_goes_on_later(tmp_path: Path, leave: int, how: str) -> None:
    traces = make_traces(4, n_tokens=8)
    with small_disk(tmp_path / "disk", 48) as disk:
        url = str(disk / "graph.lbug")
        with open_engine(url) as store:
            store.load(bundle_of(traces[:1]), level="mechanism")
        fill(disk / "ballast", leave)
        done = subprocess.run([sys.executable, "-c", CHILD, url, how], capture_output=True, text=True, check=False, timeout=300)
        if how == "estimated":
            assert done.stderr.startswith("ResourceError")
            assert "make room" in done.stderr
            with open_engine(url, read_only=True) as store:
                assert store.ready() == {traces[0].trace_id}
        assert done.returncode != 0  # beyond the estimate the engine may end the process; what it leaves behind is sound
        (disk / "ballast").unlink()
        with open_engine(url) as store:
            assert store.ready() == {traces[0].trace_id}
            assert store.check().problems == ()
            store.load(bundle_of(traces), level="mechanism")
            assert differences(stored_graph(store), expected_graph(traces)) == []
