"""`export --format neo4j-import` with the real admin tool: the server that starts on the result is a normally loaded store."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.conformance.conftest import fixed_traces, with_column
from tests.conformance.engines import compare
from tests.conformance.test_catalogue import CASES, OF_OUTPUT
from tests.support.command_line import ok, run
from tests.support.neo4j_server import TestServer, own_server
from tests.support.oracle import Oracle
from tests.support.store_graph import differences, expected_graph, stored_graph
from tests.support.synthetic import make_trace
from tracestore import schema
from tracestore.archive import Archive
from tracestore.model import Trace
from tracestore.store.neo4j.local import LocalServer, main

NASTY = ['say "hi", twice""', "two\nlines\r\nand a tab\t", " spaces ", "comma, semicolon; and 'quotes'", "back\\slash\\", "\u2028 🌍 é", ""]
LISTS = [[], [" a ", "b;c", 'd"e', "f,g"], ["", "x"], ["one"], ["line\nbreak"]]


def nasty_trace() -> Trace:
    """Make a trace whose texts and lists are what CSV files break on."""
    items = [{"item_id": f"nasty-{n}", "dataset": NASTY[n], "tags": tags} for n, tags in enumerate(LISTS)]
    trace = make_trace(50, n_tokens=len(NASTY), items=items, extras=True)
    trace = with_column(trace, "Token", "text", NASTY)
    trace = with_column(trace, "Trace", "keep", [math.inf])
    return with_column(trace, "Trace", "text", ["".join(NASTY)])


def annotate(archive: Archive, traces: list[Trace]) -> None:
    """Append a further input line, and the same knockout in two packages."""
    archive.append_items([(traces[0].trace_id, {"item_id": "later", "dataset": "facts", "tags": ["appended"]})])
    knockout = {"kind": "column", "effect": -1.5, "effect_logp": -0.25, "created_at": 7}
    edge = {"src": traces[1].table("Token")["local"][0].as_py(), "dst": traces[1].outputs[0].row["local"], **knockout}
    knocked = pa.Table.from_pylist([edge], schema=schema.arrow_schema("KNOCKOUT.Token.Output"))
    for _ in range(2):
        with archive.writer() as writer:
            writer.annotate(traces[1].trace_id, {"KNOCKOUT.Token.Output": knocked})


@dataclass
class Imported:
    """An archive, what exporting it said, the server on the result, and how its admin tool was called."""

    traces: list[Trace]
    archive: Archive
    oracle: Oracle
    report: dict[str, Any]
    server: TestServer
    admin: list[tuple[str, ...]]


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Imported]:
    folder = tmp_path_factory.mktemp("import")
    traces = [*fixed_traces(), nasty_trace()]
    archive = Archive(folder / "archive")
    archive.write(traces)
    annotate(archive, traces)
    report = ok("export", "--archive", archive.path, "--format", "neo4j-import", "--output", folder / "made it", "--json").json
    calls: list[tuple[str, ...]] = []
    with own_server(folder / "home", before=lambda local: fill(local, Path(report["path"]), calls)) as server:
        yield Imported(traces, archive, Oracle(archive.read_traces()), report, server, calls)


def fill(local: LocalServer, made: Path, calls: list[tuple[str, ...]]) -> None:
    """Import with the real admin tool; note how it was called."""
    with pytest.MonkeyPatch.context() as patch:
        original = LocalServer._admin

        def spy(self: LocalServer, java: Path, jars: Path, arguments: tuple[str, ...], heap: str, folder: Path | None = None) -> str:
            calls.append((str(folder), *arguments))
            return original(self, java, jars, arguments, heap, folder)

        patch.setattr(LocalServer, "_admin", spy)
        assert main(["import", str(made), "--home", str(local.home), "--version", local.release.version]) == 0


@pytest.fixture
def environment(imported: Imported, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in imported.server.environment.items():
        monkeypatch.setenv(name, value)


def test_the_command_that_is_printed_is_the_one_that_ran(imported: Imported) -> None:
    (command,) = imported.report["commands"]
    place, *arguments = imported.admin[-1]
    assert shlex.split(command) == ["cd", place, "&&", "neo4j-admin", *arguments]
    assert {path.stat().st_mode & 0o777 for path in Path(place).iterdir() if path.name != "import.report"} == {0o600}


@pytest.mark.usefixtures("environment")
def test_nobody_reads_before_the_constraints_are_there(imported: Imported) -> None:
    """The first test on the server: it makes them."""
    uri = imported.server.uri
    refused = run("query", "stats", "--store", uri)
    assert refused.code == 5
    assert "tracestore store migrate" in refused.err
    ok("store", "migrate", "--store", uri)
    assert ok("store", "status", "--store", uri, "--json").json["traces"]["READY"] == len(imported.traces)


@pytest.mark.usefixtures("environment")
def test_the_graph_is_the_archives(imported: Imported) -> None:
    expected = expected_graph(imported.archive.read_traces())
    with imported.server.open() as store:
        assert differences(stored_graph(store), expected) == []
        status = store.status()
        assert sum(status.nodes.values()) == imported.report["nodes"] == sum(len(expected[name]) for name in schema.NODE_BY_LABEL)
        assert sum(status.edges.values()) == imported.report["edges"] == sum(len(expected[name]) for name in schema.EDGE_TABLES)


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("query", sorted({*CASES, *OF_OUTPUT}))
def test_the_catalogue_answers_as_after_a_load(imported: Imported, query: str) -> None:
    output = imported.traces[0].outputs[-1].output_id
    with imported.server.open(read_only=True) as store:
        for params in CASES.get(query, [])[:2]:
            compare(store, imported.oracle, query, params)
        for params in OF_OUTPUT.get(query, [])[:2]:
            compare(store, imported.oracle, query, {"output_id": output, **params})


@pytest.mark.usefixtures("environment")
def test_a_load_skips_what_is_there_and_goes_on_with_fresh_numbers(imported: Imported) -> None:
    uri, archive, count = imported.server.uri, imported.archive, len(imported.traces)
    again = ok("load", "--archive", archive.path, "--store", uri, "--json").json
    assert (again["loaded"], again["skipped"], again["edges"]) == (0, count, 0)
    assert imported.server.run("MATCH (t:Trace) RETURN max(t.trace_no)") == [[count]]
    further = make_trace(77, n_outputs=2)
    archive.write([further])
    more = ok("load", "--archive", archive.path, "--store", uri, "--level", "mechanism", "--json").json
    assert (more["loaded"], more["skipped"]) == (1, count)
    assert imported.server.run("MATCH (t:Trace {trace_id: $id}) RETURN t.trace_no > $n", id=further.trace_id, n=count) == [[True]]
    with imported.server.open() as store:
        assert differences(stored_graph(store), expected_graph(archive.read_traces())) == []
        problems = store.check().problems
    assert problems  # of the one trace that was made not to conserve
    assert all("differ by" in problem or "more of the same kind" in problem for problem in problems)


@pytest.mark.usefixtures("environment")
def test_a_server_that_runs_is_not_imported_into(imported: Imported, capsys: pytest.CaptureFixture[str]) -> None:
    assert imported.server.local is not None
    home = str(imported.server.local.home)
    assert main(["import", imported.report["path"], "--home", home]) == 3
    assert "stop it first" in capsys.readouterr().err
