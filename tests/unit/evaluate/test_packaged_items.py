"""The packaged questions as one body: no prompt is in two places, and each answer is a token that the packaged model can give."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tracestore.evaluate.annotated import Annotated, packaged
from tracestore.evaluate.suites.registry import SUITES, suite_items
from tracestore.extract.tokenise import token_text

FILES = ("prompts", "held_out", "long", "reasoning", "commonsense")
CHECKED_BY_TOKEN = ("held_out", "long")
"""Files whose every expected word is one token: whether the model is right is then told by its next token alone."""

OF_PROMPTS = {"facts", "arithmetic", "indirect_object", "two_hop", "induction", "negation", "planted", "retrieval"}
NEW_FAMILIES = {"coreference", "comparison", "translation", "agreement", "code"}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """The packaged model's tokenizer."""
    from transformers import AutoTokenizer

    from tracestore.extract.demo_model import demo_model_folder

    return AutoTokenizer.from_pretrained(demo_model_folder())


def frame(annotated: Annotated) -> str:
    """Give a prompt with its evidence blanked out: what two items of one template share."""
    text = annotated.item.prompt or ""
    for span in sorted(annotated.item.evidence, key=lambda span: -span.start):
        text = f"{text[: span.start]}_{text[span.end :]}"
    return text


def test_no_id_and_no_prompt_is_in_two_files_or_splits() -> None:
    items = [item for name in FILES for item in packaged(name)]
    assert [key for key, count in Counter(item.id for item in items).items() if count > 1] == []
    assert [key for key, count in Counter(item.item.prompt for item in items).items() if count > 1] == []


@pytest.mark.parametrize("name", FILES)
def test_evidence_is_inside_the_text_and_something_is_expected(name: str) -> None:
    for item in packaged(name):
        prompt = item.item.prompt or ""
        assert (item.item.expected or "").strip(), item.id
        assert item.item.evidence, item.id
        assert all(prompt[span.start : span.end].strip() for span in item.item.evidence), item.id
        assert not {"[[", "]]"} & {prompt[i : i + 2] for i in range(len(prompt))}, item.id


@pytest.mark.parametrize("name", FILES)
def test_the_answer_begins_where_the_prompts_tokens_end(name: str, tokenizer: Any) -> None:
    for item in packaged(name):
        prompt, expected = item.item.prompt or "", item.item.expected or ""
        bare, whole = tokenizer(prompt)["input_ids"], tokenizer(prompt + expected)["input_ids"]
        assert whole[: len(bare)] == bare, item.id
        if name in CHECKED_BY_TOKEN:
            assert [token_text(tokenizer, token) for token in whole[len(bare) :]] == [expected], item.id


def test_held_out_items_are_of_every_task_and_of_five_new_families() -> None:
    items = packaged("held_out")
    counts = Counter(item.task for item in items)
    assert set(counts) == OF_PROMPTS | NEW_FAMILIES
    assert set(counts.values()) <= {11, 12}
    assert len(items) == 150
    assert {item.split for item in items} == {"report"}


def test_held_out_items_share_no_template_with_prompts() -> None:
    used = {frame(item) for item in packaged("prompts")}
    assert {item.id for item in packaged("held_out") if frame(item) in used} == set()


def test_the_tuning_set_grew_only_in_its_own_tasks() -> None:
    counts = Counter(item.task for item in packaged("prompts") if item.split == "tuning")
    assert counts == {"facts": 26, "arithmetic": 27, "indirect_object": 26, "two_hop": 25}
    assert sum(item.split == "report" for item in packaged("prompts")) == 130


def test_long_items_are_as_long_as_their_ids_say(tokenizer: Any) -> None:
    items = packaged("long")
    assert Counter(item.id.split("-")[1] for item in items) == {"128": 8, "256": 8, "512": 8}
    assert Counter(item.task for item in items) == {"long_retrieval": 9, "long_induction": 9, "long_two_hop": 6}
    for item in items:
        asked = int(item.id.split("-")[1])
        assert abs(len(tokenizer(item.item.prompt)["input_ids"]) - asked) <= asked / 10, item.id
        assert item.split == "report", item.id


@pytest.mark.parametrize("split", ["tuning", "report"])
@pytest.mark.parametrize("name", FILES)
def test_the_first_items_of_a_split_hold_every_task_of_it_once(name: str, split: str) -> None:
    items = suite_items(SUITES[name], split)
    tasks = {item.task for item in items}
    assert sorted(item.task for item in items[: len(tasks)]) == sorted(tasks)
