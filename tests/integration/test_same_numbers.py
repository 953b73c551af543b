"""The same question gives the same numbers wherever it is asked: Python, terminal, HTTP, Cypher on each engine, SQL over the export."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.support import recipes
from tests.support.command_line import ok
from tests.support.http_server import serving
from tests.support.neo4j_server import shared_server
from tests.support.tiny_text_model import tiny_loaded
from tracestore import api
from tracestore.archive import Archive
from tracestore.model import Trace

Rows = list[dict[str, Any]]
Ask = Callable[..., Rows]

PROMPTS = ("The capital of France is Paris. Where is", "Where is the tower? It is in", "What is two plus three? 2 + 3 =")
TARGET = 70
"""The vocabulary id that every prompt is asked about."""
CLOSE = 1e-6
"""Stores keep float32; sums are of a few of them, in another order here and there."""

DRIVERS = (
    "MATCH (t:Token)-[i:INFLUENCES]->(o:Output) WHERE o.output_id = $output_id "
    "RETURN t.pos AS pos, t.token_id AS token_id, t.text AS text, i.score AS score, i.drive AS drive, i.removal AS removal, "
    "i.direct AS direct, i.share AS share, t.sink AS sink"
)
ACROSS = (
    "MATCH (t:Token)-[i:INFLUENCES]->(o:Output) WHERE o.text = $text AND NOT t.sink "
    "WITH t.text AS text, o.output_id AS output_id, sum(i.share) AS share, sum(i.score) AS score "
    "RETURN text, count(*) AS outputs, avg(share) AS share_mean, avg(score) AS score_mean"
)
HEADS = (
    "MATCH (h:HeadSummary)-[:OF]->(o:Output) RETURN h.layer AS layer, h.head AS head, count(*) AS outputs, sum(h.share) AS share_sum, "
    "avg(h.relevance) AS relevance_mean"
)
QUESTIONS = {
    "drivers": (("pos",), ("token_id", "text", "score", "drive", "removal", "direct", "share", "sink"), DRIVERS),
    "drivers_across": (("text",), ("outputs", "share_mean", "score_mean"), ACROSS),
    "heads_across": (("layer", "head"), ("outputs", "share_sum", "relevance_mean"), HEADS),
}
"""Of each query: what tells its rows apart, what is compared, and the question written by hand in Cypher."""


@pytest.fixture(scope="module")
def traces() -> list[Trace]:
    model = tiny_loaded()
    return [api.trace(model, prompt, targets="last", target_token=TARGET) for prompt in PROMPTS]


@pytest.fixture(scope="module")
def archive(traces: list[Trace], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("same") / "archive"
    Archive(path).write(traces)
    return path


@pytest.fixture(scope="module", params=["ladybug", "neo4j"])
def place(request: pytest.FixtureRequest, archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "neo4j":
            server = shared_server()
            server.empty()
            for name, value in {**server.environment, "TRACESTORE_ALLOW_PLAIN": "1"}.items():
                patch.setenv(name, value)
            found = server.uri
        else:
            found = str(tmp_path_factory.mktemp("graph") / "graph.lbug")
        ok("load", "--archive", archive, "--store", found)
        yield found


def params_of(query: str, traces: list[Trace]) -> dict[str, Any]:
    output = traces[0].outputs[0]
    chosen = {"drivers": {"output_id": output.output_id}, "drivers_across": {"text": output.row["text"]}, "heads_across": {}}
    return chosen[query]


def test_the_same_question_gives_the_same_numbers(place: str, archive: Path, traces: list[Trace], tmp_path: Path) -> None:
    ok("export", "--archive", archive, "--format", "parquet", "--output", tmp_path / "tables")
    tables = recipes.views(tmp_path / "tables")
    with serving("--store", place) as served, api.open_store(place, read_only=True) as store:
        for query, (keys, values, cypher) in QUESTIONS.items():
            params = params_of(query, traces)
            everything = {**params, "k": 10_000}
            flags = [part for name, value in everything.items() for part in ("-p", f"{name}={value}")]
            with urllib.request.urlopen(f"{served.url}/api/queries/{query}?{urlencode(everything)}", timeout=60) as answer:
                over_http = json.load(answer)["rows"]
            body = json.dumps(everything).encode()
            asked = urllib.request.Request(f"{served.url}/api/queries/{query}", body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(asked, timeout=60) as answer:
                posted = json.load(answer)["rows"]
            found = {
                "terminal": ok("query", query, *flags, "--store", place, "--format", "json").json,
                "http": over_http,
                "http, posted": posted,
                "cypher by hand": store.cypher(cypher, **params).to_pylist(),
                "sql": recipes.ask(tables, query, params),
            }
            if query == "drivers":
                output = traces[0].outputs[0]
                why = ("why", "--output", output.output_id, "--all-tokens", "--json")
                (from_store,) = ok(*why, "--store", place).json["outputs"]
                (from_archive,) = ok(*why, "--archive", archive).json["outputs"]
                found |= {"why, from the store": from_store["drivers"], "why, from the archive": from_archive["drivers"]}
                found |= {"as it was traced": output.influences().to_pylist()}
                with urllib.request.urlopen(f"{served.url}/api/outputs/{output.output_id}/drivers", timeout=60) as answer:
                    found |= {"http, of the output": json.load(answer)["rows"]}
            expected = by_key(store.query(query, **everything).to_pylist(), keys)
            assert len(expected) > 3
            for where, rows in found.items():
                compare(by_key(rows, keys), expected, values, f"{query}, {where}")


def by_key(rows: Rows, keys: tuple[str, ...]) -> dict[tuple[Any, ...], dict[str, Any]]:
    found = {tuple(row[key] for key in keys): row for row in rows}
    assert len(found) == len(rows)
    return found


def compare(found: dict[Any, Any], expected: dict[Any, Any], names: tuple[str, ...], where: str) -> None:
    assert found.keys() == expected.keys(), where
    for key, row in expected.items():
        for name in names:
            value = found[key][name]
            same = value == pytest.approx(row[name], rel=CLOSE, abs=CLOSE) if isinstance(row[name], float) else value == row[name]
            assert same, f"{where}: {name} of {key} is {value!r}, not {row[name]!r}"
