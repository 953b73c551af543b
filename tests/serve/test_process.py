"""`tracestore serve` as a process: it starts, refuses, stops, bears many clients, and stays out of the way of a load."""

from __future__ import annotations

import asyncio
import json
import math
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from bench.serve import Load, hammer, paths_of
from tests.support.command_line import run, start
from tests.support.http_server import Served, serving
from tests.support.synthetic import make_traces
from tracestore.archive import Archive

ANSWERS, SECONDS = 600, 300.0
"""Of the first 200 the server warms up; the time is what a very busy machine may take."""


def got(served: Served, path: str) -> Any:
    with urllib.request.urlopen(served.url + path, timeout=30) as answer:
        return json.load(answer)


def test_fifty_clients_at_once_get_answers_and_memory_stays_flat(store_path: Path) -> None:
    reading, graphs = paths_of(str(store_path))
    with serving("--store", store_path) as served:
        load = asyncio.run(hammer(served.url, served.process.pid, reading + graphs[:1], clients=50, seconds=SECONDS, answers=ANSWERS))
    assert load.errors == {}
    assert len(load.taken) >= ANSWERS
    assert load.percentile(0.99) < 5_000  # ms; what it is on a calm machine stands in docs/benchmarks.md
    assert load.growth < 0.1  # a leak of 150 kB an answer


def test_growth_leaves_out_the_first_third_of_the_answers_and_is_no_number_without_the_others() -> None:
    slow_start = [(0, 100.0), (1, 120.0), (2, 150.0), (3, 200.0), (4, 200.0), (6, 210.0), (8, 220.0), (9, 230.0)]
    assert Load(taken=[1.0] * 9, memory=slow_start).growth == pytest.approx(0.1)
    assert math.isnan(Load(taken=[1.0] * 9, memory=slow_start[:5]).growth)
    assert math.isnan(Load().growth)


def test_a_load_goes_on_beside_readers_who_see_it_when_it_is_done(tmp_path: Path) -> None:
    archive, store = tmp_path / "archive", tmp_path / "graph.lbug"
    first, later = make_traces(2), make_traces(20, first_seed=100, n_tokens=16)
    Archive(archive).write(first)
    assert run("load", "--archive", archive, "--store", store).code == 0
    Archive(archive).write(later)
    with serving("--store", store) as served:
        assert len(got(served, "/api/traces?limit=100")["rows"]) == 2
        loading = start("load", "--archive", archive, "--store", store)
        paths = ["/api/traces?limit=100", f"/api/traces/{first[0].trace_id}", f"/api/outputs/{first[0].outputs[0].output_id}/graph"]
        rounds, load = 0, None
        while loading.poll() is None:
            load = asyncio.run(hammer(served.url, served.process.pid, paths, clients=4, seconds=0.2))
            assert load.errors == {}
            rounds += 1
        _, said = loading.communicate()
        assert loading.returncode == 0, said
        assert rounds
        assert len(got(served, "/api/traces?limit=100")["rows"]) == 22
        assert got(served, f"/api/outputs/{later[-1].outputs[0].output_id}/drivers")["rows"]


def test_what_cannot_be_served_is_refused_before_it_starts(store_path: Path, tmp_path: Path) -> None:
    missing = run("serve", "--store", tmp_path / "nothing.lbug", "--port", 0)
    assert (missing.code, missing.out) == (5, "")
    open_to_all = run("serve", "--store", store_path, "--host", "0.0.0.0", "--port", 0)
    assert open_to_all.code == 3
    assert "--token-file" in open_to_all.err
    with serving("--store", store_path) as served:
        taken = run("serve", "--store", store_path, "--port", served.url.rsplit(":", 1)[1])
    assert taken.code == 3
    assert "--port" in taken.err


def test_an_archive_that_the_environment_names_may_be_missing(
    store_path: Path, archive_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = tmp_path / "nowhere"
    asked_for = run("serve", "--store", store_path, "--archive", missing, "--port", 0)
    assert (asked_for.code, asked_for.out) == (3, "")
    assert asked_for.err.startswith(f"error: there is no archive at {missing}")

    monkeypatch.setenv("TRACESTORE_ARCHIVE", str(missing))
    with serving("--store", store_path) as served:
        assert got(served, "/api/traces")["rows"]
        with pytest.raises(urllib.error.HTTPError) as refused:
            got(served, "/api/export/graphml")
        assert refused.value.code == 403
        refused.value.close()
        assert served.process.stderr is not None
        warning = served.process.stderr.readline()
    assert warning.startswith(f"warning: TRACESTORE_ARCHIVE: there is no archive at {missing}")
    assert "nothing can be exported" in warning

    monkeypatch.setenv("TRACESTORE_ARCHIVE", str(archive_path))
    with serving("--store", store_path) as served, urllib.request.urlopen(served.url + "/api/export/graphml", timeout=30) as answer:
        assert answer.status == 200


def test_a_token_is_asked_for(store_path: Path, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("0123456789abcdef")
    token.chmod(0o600)
    with serving("--store", store_path, "--token-file", token) as served:
        with pytest.raises(urllib.error.HTTPError) as refused:
            got(served, "/api/traces")
        assert refused.value.code == 401
        refused.value.close()
        request = urllib.request.Request(served.url + "/api/traces", headers={"Authorization": "Bearer 0123456789abcdef"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert json.load(answer)["rows"]
