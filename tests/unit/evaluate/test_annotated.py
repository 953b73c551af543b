"""The packaged items: marks become stretches of the bare text, and every item holds together."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from tracestore.errors import BadInputError
from tracestore.evaluate.annotated import packaged, parse_proof, read_user_file, unmark


def test_marks_become_stretches() -> None:
    text, spans = unmark("In [[June]] the [[sun]] shines.")
    assert text == "In June the sun shines."
    assert [text[s.start : s.end] for s in spans] == ["June", "sun"]


def test_prompts_are_many_marked_and_split_by_task() -> None:
    items = packaged("prompts")
    assert len(items) >= 150
    assert len({item.id for item in items}) == len(items) == len({item.item.prompt for item in items})
    assert all(item.item.evidence and item.item.expected for item in items)
    report = Counter(item.task for item in items if item.split == "report")
    assert {"induction", "negation", "planted", "retrieval"} <= set(report)
    unseen = {item.task for item in items if item.split == "report"} - {item.task for item in items if item.split == "tuning"}
    assert unseen == {"induction", "negation", "planted", "retrieval"}


def test_commonsense_items_have_a_rationale_a_chain_and_a_proof() -> None:
    items = packaged("commonsense")
    assert len(items) >= 60
    for item in items:
        assert item.item.rationale
        assert item.proof
        reached = {end for _, end in item.proof}
        assert f"s{len(item.steps)}" in reached, item.id
    assert not {i.task for i in items if i.split == "tuning"} & {i.task for i in items if i.split == "report"}


def test_a_proof_edge_that_leads_nowhere_is_refused() -> None:
    assert parse_proof(["p1>s1", "s1>s2"], 2) == (("p1", "s1"), ("s1", "s2"))
    for wrong in ("s2>s1", "s2>s2", "p1>s3", "p1>p2", "x"):
        with pytest.raises(BadInputError, match="proof edge"):
            parse_proof([wrong], 2)


def test_a_users_file_needs_evidence_and_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    good = {"prompt": "The capital of France is", "expected": " Paris", "evidence": [{"start": 15, "end": 21}], "dataset": "geo"}
    path.write_text(json.dumps(good) + "\n")
    (found,) = read_user_file(path)
    assert (found.task, found.split, found.item.prompt) == ("geo", "report", good["prompt"])
    path.write_text(json.dumps(good) + "\n" + json.dumps({"prompt": "x"}) + "\n")
    with pytest.raises(BadInputError, match=r"mine.jsonl, line 2: `evidence` is needed"):
        list(read_user_file(path))
