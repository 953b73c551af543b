"""`store delete` and `store prune` on every engine: what goes, what stays, what a kill leaves, and that no load brings it back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.conftest import with_column
from tests.conformance.engines import ENGINES
from tests.support.command_line import ROOT, ok, run
from tests.support.neo4j_server import shared_server
from tests.support.store_graph import differences, expected_graph, stored_graph
from tests.support.synthetic import make_trace
from tracestore.archive import Archive
from tracestore.errors import BadInputError
from tracestore.load import Rule, delete_traces, load_archive, plan_prune, retention
from tracestore.load.retention import parse_duration
from tracestore.model import Trace
from tracestore.store import open_engine
from tracestore.store.base import Store

DAY = 86_400_000
NOW = 1_800_000_000_000
AGES = [50, 40, 30, 20, 10, 5]
"""Days; the trace of index n has these."""
TAGS: list[list[list[str]]] = [[["old"]], [["old", "x"]], [["old"], ["new"]], [["new"]], [], [["x"]]]
"""Tags of the Items of each trace."""


def make(number: int) -> Trace:
    items = [{"item_id": f"i{number}-{n}", "tags": tags} for n, tags in enumerate(TAGS[number])]
    trace = make_trace(number, items=items, trace_id=f"{number:032x}")
    return with_column(trace, "Trace", "created_at", [NOW - AGES[number] * DAY])


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    found = Archive(tmp_path_factory.mktemp("retention") / "archive")
    found.write(make(number) for number in range(len(AGES)))
    return found


@pytest.fixture(params=sorted(ENGINES))
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name an empty store of each engine."""
    if request.param == "ladybug":
        return str(tmp_path / "graph.lbug")
    server = shared_server()
    server.empty()
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TRACESTORE_ALLOW_PLAIN", "1")
    return server.uri


def tells_size(url: str) -> bool:
    """A server's files can be looked at only where they lie on this machine."""
    return "://" not in url or shared_server().local is not None


@pytest.fixture
def store(url: str, archive: Archive) -> Iterator[Store]:
    with open_engine(url) as opened:
        load_archive(archive, opened, level="mechanism")
        yield opened


@pytest.mark.parametrize(
    ("rule", "goes", "shared"),
    [
        (Rule(keep_last=2), [0, 1, 2, 3], 0),
        (Rule(keep_last=0), [0, 1, 2, 3, 4, 5], 0),
        (Rule(keep_last=9), [], 0),
        (Rule(older_than_ms=30 * DAY), [0, 1], 0),  # exactly 30 days is not older than 30 days
        (Rule(older_than_ms=30 * DAY - 1), [0, 1, 2], 0),
        (Rule(tags=("old",)), [0, 1], 1),
        (Rule(tags=("old", "new")), [0, 1, 2, 3], 0),
        (Rule(tags=("nobody's",)), [], 0),
        (Rule(keep_last=1, tags=("old",)), [0], 1),  # the newest of those with the tag stays
        (Rule(keep_last=4, older_than_ms=15 * DAY), [0, 1], 0),
        (Rule(keep_last=1, older_than_ms=45 * DAY, tags=("old", "x")), [0], 1),
    ],
)
def test_a_rule_takes_what_meets_all_of_it(archive: Archive, tmp_path: Path, rule: Rule, goes: list[int], shared: int) -> None:
    with open_engine(str(tmp_path / "graph.lbug")) as store:  # the rule reads by the same two statements on every engine
        load_archive(archive, store, level="summary")
        plan = plan_prune(store, rule, now_ms=NOW)
    assert [int(one.trace_id, 16) for one in plan.goes] == goes
    assert (plan.stays, plan.shared) == (len(AGES) - len(goes), shared)


def test_a_rule_that_says_nothing_and_a_bad_duration_are_refused(tmp_path: Path) -> None:
    with open_engine(str(tmp_path / "graph.lbug")) as store, pytest.raises(BadInputError, match="keep-last"):
        plan_prune(store, Rule())
    for text, expected in (("90s", 90_000), ("15 m", 900_000), ("12h", 43_200_000), ("30d", 30 * DAY), ("2W", 14 * DAY)):
        assert parse_duration(text) == expected
    for text in ("", "30", "d", "-1d", "1.5d", "30 days", "1y"):
        with pytest.raises(BadInputError, match="90s"):
            parse_duration(text)


def test_pruning_leaves_exactly_the_rest_and_no_load_brings_it_back(
    store: Store, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "GROUP", 2)
    plan = plan_prune(store, Rule(keep_last=3), now_ms=NOW)
    told: list[int] = []
    report = delete_traces(store, [one.trace_id for one in plan.goes], progress=told.append)
    assert (report.deleted, told) == (3, [2, 1])
    assert (report.bytes_before > 0) is tells_size(store.url)
    rest = [make(number) for number in (3, 4, 5)]
    assert differences(stored_graph(store), expected_graph(rest)) == []
    assert store.evicted() == {f"{number:032x}" for number in range(3)}
    summary = load_archive(archive, store, level="mechanism")
    assert (summary.loaded, len(summary.skipped)) == ((), len(AGES))
    assert store.check().problems == ()
    assert plan_prune(store, Rule(keep_last=3), now_ms=NOW).goes == ()


CHILD = """
import os, signal, sys
from tracestore.load import delete_traces, retention
from tracestore.store import open_engine
import tracestore.store.ladybug.store as ladybug
import tracestore.store.neo4j.store as neo4j

url, when = sys.argv[1], int(sys.argv[2])
calls = 0

def killing(clean):
    def cleaned(*given):
        global calls
        calls += 1
        if calls == when:
            os.kill(os.getpid(), signal.SIGKILL)  # EVICTED is recorded, the rows are still there
        return clean(*given)
    return cleaned

retention.GROUP = 2
with open_engine(url) as store:
    ladybug.clean_all = killing(ladybug.clean_all)
    neo4j.clean_orphans = killing(neo4j.clean_orphans)
    delete_traces(store, [f"{number:032x}" for number in range(5)])
"""


def test_a_killed_prune_is_gone_on_with(url: str, archive: Archive) -> None:
    with open_engine(url) as store:
        load_archive(archive, store, level="mechanism")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, url, "2"], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    with open_engine(url, read_only=True) as reader:
        assert reader.ready() == {"0" * 31 + "4", "0" * 31 + "5"}  # two groups of two are out of sight
    with open_engine(url) as store:
        assert differences(stored_graph(store), expected_graph([make(4), make(5)])) == []
        assert store.check().problems == ()
        assert delete_traces(store, [f"{number:032x}" for number in range(5)]).deleted == 1  # the same command again
        assert differences(stored_graph(store), expected_graph([make(5)])) == []
        assert load_archive(archive, store).loaded == ()


def test_the_command_shows_before_it_deletes(url: str, archive: Archive) -> None:
    ok("load", "--archive", archive.path, "--store", url)
    rule: list[Any] = ["store", "prune", "--store", url, "--keep-last", 1, "--tag", "old"]
    shown = ok(*rule, "--dry-run", "--json").json
    assert shown["dry_run"] is True
    assert [row["trace_id"] for row in shown["traces"]] == ["0" * 32]
    assert (shown["stays"], shown["shared"]) == (5, 1)
    table = ok(*rule, "--dry-run")
    assert "0" * 32 in table.out
    assert "1 traces would go, 5 would stay" in table.err
    assert run(*rule).code == 1  # nobody answers the question
    assert ok("store", "status", "--store", url, "--json").json["traces"]["READY"] == 6
    done = ok(*rule, "--yes", "--json")
    assert (done.json["deleted"], done.json["bytes_before"] > 0) == (1, tells_size(url))
    assert "1 traces deleted in" in done.err
    again = ok(*rule, "--yes", "--json").json
    assert again["traces"] == []
    assert ok("load", "--archive", archive.path, "--store", url, "--json").json["loaded"] == 0
    assert ok("store", "delete", "0" * 31 + "3", "--store", url, "--yes", "--json").json["deleted"] == 1
    assert ok("store", "status", "--store", url, "--json").json["traces"] == {"READY": 4, "LOADING": 0, "RETIRED": 0, "EVICTED": 2}


def test_the_command_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    missing = tmp_path / "nothing.lbug"
    assert run("store", "prune", "--store", missing).code == 2
    assert run("store", "prune", "--store", missing, "--older-than", "soon").code == 3
    assert run("store", "prune", "--store", missing, "--keep-last", 1, "--yes").code == 5
    assert run("store", "delete", "x", "--store", missing, "--yes").code == 5
    assert not missing.exists()
