"""kill -9 at random moments of load, attach, replace, delete and rebuild: the store always opens, holds whole traces only, exactly as they
were archived, and loses nothing that was reported done. Long form: TRACESTORE_CRASH_KILLS=50.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

from tests.crash.kills import Ledger, assert_sound, run_and_kill
from tests.support.store_graph import ask, differences, expected_graph, stored_graph
from tests.support.synthetic import make_traces
from tracestore.archive import Archive
from tracestore.load import load_archive
from tracestore.store import open_engine

KILLS = int(os.environ.get("TRACESTORE_CRASH_KILLS", "10"))


def test_random_kills_lose_nothing_and_leave_nothing_partial(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "archive")
    traces = make_traces(12, n_tokens=8, n_outputs=2, extras=True)
    archive.write(traces[:8])
    archive.write(traces[8:])
    archive.append_items([(traces[0].trace_id, {"item_id": "again", "tags": ["late"]})])
    url = tmp_path / "graph.lbug"
    dice, ledger, highest = random.Random(20_240), Ledger(), 0
    for kill in range(KILLS):
        run_and_kill(archive.path, url, kill, dice, ledger)
        highest = assert_sound(archive, str(url), ledger, highest)
    with open_engine(str(url)) as store:
        load_archive(archive, store, level="mechanism")
        names = sorted(store.ready() | store.evicted())
        assert names == sorted(archive.trace_ids())
        with_mechanism = {row["id"] for row in ask(store, "MATCH (o:Output) WHERE o.mechanism RETURN o.output_id AS id")}
        expected = expected_graph([archive.read_trace(name) for name in store.ready()], with_mechanism)
        assert differences(stored_graph(store), expected) == []
    assert not [path.name for path in tmp_path.iterdir() if ".building" in path.name or ".next" in path.name]
