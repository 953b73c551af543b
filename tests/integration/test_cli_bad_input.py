"""Every bad input that reaches the command line: a clear message, the documented exit code, nothing lost."""

from __future__ import annotations

import json
import resource
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.archives import change_manifest, flip_byte
from tests.support.command_line import ok, run
from tests.support.synthetic import make_traces
from tests.support.tiny_text_model import byte_level_tokenizer, save_tiny, tiny_llama
from tracestore.api import open_store
from tracestore.archive import Archive


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """An archive of two packages, one trace each."""
    found = Archive(tmp_path / "archive")
    for trace in make_traces(2):
        found.write([trace])
    return found.path


def saved(folder: Path, model: Any, *, template: bool = True) -> Path:
    model.save_pretrained(folder)
    tokenizer = byte_level_tokenizer() if template else byte_level_tokenizer(template=None)
    tokenizer.save_pretrained(folder)
    return folder


def traced(model: Path, tmp_path: Path, item: dict[str, Any]) -> Any:
    """Trace a sound item and a bad one; the sound one must be there afterwards."""
    path = tmp_path / "items.jsonl"
    path.write_text(json.dumps({"prompt": "It is in", "id": "sound"}) + "\n" + json.dumps(item) + "\n")
    done = run("trace", "--items", path, "--model", model, "--archive", tmp_path / "a", "--errors", tmp_path / "errors", "--json")
    assert done.json["traced"] == 1
    assert done.code == 6
    return json.loads((tmp_path / "errors").read_text())["reason"]


@pytest.mark.parametrize("command", ["why", "trace"])
def test_an_empty_prompt(model: Path, tmp_path: Path, command: str) -> None:
    where = ["--archive", tmp_path / "a"] if command == "trace" else []
    done = run(command, "", "--model", model, *where)
    assert done.code == 3
    assert "the prompt is empty" in done.err


def test_a_prompt_beyond_the_context(model: Path) -> None:
    done = run("why", "Paris " * 500, "--model", model)
    assert done.code == 3
    assert "context of 128" in done.err
    assert "Paris" not in done.err


def test_spans_out_of_range(model: Path, tmp_path: Path) -> None:
    assert "span" in traced(model, tmp_path, {"prompt": "It is", "spans": [{"kind": "step", "start": 2, "end": 99}]})


def test_a_chat_for_a_model_without_a_template(tmp_path: Path) -> None:
    folder = saved(tmp_path / "plain", tiny_llama(420), template=False)
    assert "template" in traced(folder, tmp_path, {"messages": [{"role": "user", "content": "hi"}]})


def test_a_checkpoint_with_nan_weights(tmp_path: Path) -> None:
    broken = tiny_llama(420)
    with torch.no_grad():
        broken.model.layers[1].mlp.down_proj.weight.fill_(float("nan"))
    done = run("why", "The capital of", "--model", saved(tmp_path / "nan", broken))
    assert done.code == 3
    assert "finite" in done.err


def test_an_unknown_model_folder(tmp_path: Path) -> None:
    done = run("why", "The capital of", "--model", tmp_path / "nowhere")
    assert done.code == 3
    assert "there is no model folder" in done.err


def test_an_unsupported_architecture_is_refused_by_name(tmp_path: Path) -> None:
    from transformers import MambaConfig, MambaForCausalLM

    torch.manual_seed(0)
    config = MambaConfig(vocab_size=420, hidden_size=16, num_hidden_layers=2, state_size=4, time_step_rank=4)
    folder = saved(tmp_path / "mamba", MambaForCausalLM(config))
    done = run("why", "The capital of", "--model", folder)
    assert done.code == 4
    assert "Mamba" in done.err


def test_a_prompt_and_a_file_at_once_or_neither_is_a_usage_error(model: Path, tmp_path: Path) -> None:
    assert run("trace", "--model", model, "--archive", tmp_path / "a").code == 2
    assert run("trace", "x", "--items", "y.jsonl", "--model", model, "--archive", tmp_path / "a").code == 2
    assert run("why", "--model", model).code == 2
    assert run("query").code == 2


def test_positions_that_are_none(model: Path) -> None:
    assert run("why", "It is", "--model", model, "--targets", "first").code == 2
    assert run("why", "It is", "--model", model, "--targets", "99").code == 3


def test_a_place_that_cannot_be_written(model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for command in (
        ["trace", "It is", "--model", model, "--archive", tmp_path / "file" / "archive"],
        ["store", "init", "--store", tmp_path / "file" / "graph.lbug"],
        ["why", "It is", "--model", model, "--html", tmp_path / "file" / "why.html"],
    ):
        done = run(*command)
        assert done.code == (5 if command[0] == "store" else 3), done.err
        assert "error:" in done.err
        assert "unexpected" not in done.err


def test_no_file_of_items(model: Path, tmp_path: Path) -> None:
    done = run("trace", "--items", tmp_path / "none.jsonl", "--model", model, "--archive", tmp_path / "a")
    assert done.code == 3
    assert "there is no file of items" in done.err
    (tmp_path / "items.doc").write_text("x")
    assert run("trace", "--items", tmp_path / "items.doc", "--model", model, "--archive", tmp_path / "a").code == 3


def test_a_full_disk_stops_the_run_and_the_next_one_resumes(model: Path, tmp_path: Path) -> None:
    items = tmp_path / "items.txt"
    items.write_text("It is in\nThe capital of\n")
    command = ["trace", "--items", items, "--model", model, "--archive", tmp_path / "a", "--json"]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, hard))  # a file larger than this fails as on a full disk
    try:
        done = run(*command)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert done.code == 1
    assert "No room" in done.err
    assert not (tmp_path / "a" / "errors").exists()
    assert Archive(tmp_path / "a").trace_ids() == ()
    assert ok(*command).json["traced"] == 2
    assert Archive(tmp_path / "a").verify().ok


def test_a_damaged_package_is_named_and_the_others_are_loaded(archive: Path, tmp_path: Path) -> None:
    first = sorted((archive / "packages").iterdir())[0]
    flip_byte(first / "Token.parquet", 40)
    verified = run("archive", "verify", "--archive", archive, "--json")
    assert verified.code == 7
    assert first.name in " ".join(verified.json["problems"])
    done = run("load", "--archive", archive, "--store", tmp_path / "graph.lbug")
    assert done.code in (6, 7)
    assert first.name in done.err
    assert ok("store", "status", "--store", tmp_path / "graph.lbug", "--json").json["traces"]["READY"] == 1


def test_a_missing_file_of_a_package(archive: Path) -> None:
    first = sorted((archive / "packages").iterdir())[0]
    (first / "Token.parquet").unlink()
    assert run("archive", "verify", "--archive", archive).code == 7


def test_an_archive_of_a_newer_schema(archive: Path, tmp_path: Path) -> None:
    change_manifest(Archive(archive).packages()[0].path, schema_version=99)
    done = run("load", "--archive", archive, "--store", tmp_path / "graph.lbug")
    assert done.code == 7
    assert "newer than" in done.err
    assert "upgrade tracestore" in done.err


def test_no_archive_and_no_trace(archive: Path, tmp_path: Path) -> None:
    assert run("archive", "list", "--archive", tmp_path / "nowhere").code == 3
    assert not (tmp_path / "nowhere").exists()
    done = run("why", "--trace", "unknown", "--archive", archive)
    assert done.code == 3
    assert "unknown" in done.err


def test_a_store_that_another_process_holds(archive: Path, tmp_path: Path) -> None:
    with open_store(tmp_path / "graph.lbug"):
        done = run("load", "--archive", archive, "--store", tmp_path / "graph.lbug")
    assert done.code == 5
    assert ok("load", "--archive", archive, "--store", tmp_path / "graph.lbug", "--json").json["loaded"] == 2


def test_no_store_and_a_file_that_is_none(tmp_path: Path) -> None:
    done = run("query", "stats", "--store", tmp_path / "graph.lbug")
    assert done.code == 5
    assert "there is no store" in done.err
    assert not (tmp_path / "graph.lbug").exists()
    (tmp_path / "notes.txt").write_text("no store at all, but long enough to look like something" * 100)
    for command in (["query", "stats"], ["store", "status"], ["store", "init"]):
        assert run(*command, "--store", tmp_path / "notes.txt").code == 5
    assert (tmp_path / "notes.txt").read_text().startswith("no store at all")


def test_bad_queries(archive: Path, tmp_path: Path) -> None:
    store = tmp_path / "graph.lbug"
    ok("load", "--archive", archive, "--store", store)
    assert "drivers" in run("query", "driver", "--store", store).err
    for command in (
        ["no_such_query"],
        ["drivers", "-p", "k=3"],
        ["drivers", "-p", "output_id=x", "-p", "k=many"],
        ["MATCH (n) DETACH DELETE n"],
        ["MATCH (t:Trace) RETURN t.trace_id AS id; MATCH (n) RETURN n"],
        ["MATCH (t:Trace RETURN t"],
    ):
        done = run("query", *command, "--store", store)
        assert done.code == 3, (command, done.err)
        assert "unexpected" not in done.err
    assert run("query", "drivers", "-p", "output_id", "--store", store).code == 2
