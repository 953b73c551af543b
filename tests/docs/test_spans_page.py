"""The retrieval example and the commands on steps work as docs/spans.md shows them."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.test_guide import PLACEHOLDER, ROOT, blocks
from tests.support.command_line import ok
from tests.support.tiny_text_model import save_tiny

PAGE = ROOT / "docs" / "spans.md"


def test_the_document_that_carried_the_answer_is_found_and_its_removal_agrees(tmp_path: Path) -> None:
    (source,) = blocks(PAGE, "python")
    done = subprocess.run([sys.executable, "-c", source], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    drivers = {words[1]: float(words[2]) for words in lines if words[0] == "driver"}
    hidden = {words[1]: float(words[2]) for words in lines if words[0] == "hidden"}
    removed = {words[1]: (float(words[2]), float(words[4])) for words in lines if words[0] == "removed"}
    assert max(drivers, key=lambda ref: drivers[ref]) == "oslo"
    assert min(hidden, key=lambda ref: hidden[ref]) == "document:oslo"
    assert {ref for ref, (before, after) in removed.items() if after < before / 2} == {"oslo"}
    shown = {row[0]: row[1:] for row in (line.strip("| \n").split(" | ") for line in PAGE.read_text().splitlines()) if row[0] in drivers}
    for ref, (share, effect, both) in shown.items():  # the page's table is what the snippet prints
        assert abs(float(share) - drivers[ref]) < 0.011
        assert abs(float(effect) - hidden[f"document:{ref}"]) < 0.05
        assert all(abs(float(a) - b) < 0.02 for a, b in zip(both.split(" -> "), removed[ref], strict=True))
    assert len(shown) == 3


def test_the_commands_on_steps_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_tiny(tmp_path / "model")
    item = {"prompt": "The capital of France is", "completion": " Paris. It is in France."}
    (tmp_path / "chains.jsonl").write_text(json.dumps(item) + "\n", encoding="utf-8")
    shown = PAGE.read_text(encoding="utf-8").partition("## What did a step rest on?")[2].split("```")[1]
    found = ""
    for line in shown.strip().splitlines():
        arguments = [PLACEHOLDER.sub("model", word) for word in shlex.split(line)[1:]]
        if "trace_id=TRACE_ID" in arguments:
            trace_id = ok("query", "list_traces", "--store", "graph.lbug", "--json").json[0]["trace_id"]
            arguments = [word.replace("TRACE_ID", trace_id) for word in arguments]
        found = ok(*arguments).out
    assert " Paris." in found
    assert " It is in France." in found
