"""What is explained, and when an answer is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.support.tiny_text_model import byte_level_tokenizer
from tracestore.errors import ItemError
from tracestore.extract.attribution import SpanSpec, TargetSpec
from tracestore.extract.prepare import prepare
from tracestore.extract.spans import token_spans
from tracestore.extract.targets import TargetPlan, answer_correct, plan_targets, target_specs, token_correct
from tracestore.model import Item, SpanRequest, TraceOptions

TOKENIZER = byte_level_tokenizer()
PROMPT = "The capital of France is"


def planned(item: Item, options: TraceOptions | None = None, *, n_new: int = 0) -> TargetPlan:
    prepared = prepare(TOKENIZER, item, context_length=None, max_new_tokens=n_new)
    return plan_targets(TOKENIZER, item, options or TraceOptions(), prepared, n_new=n_new, vocabulary=len(TOKENIZER))


def every(item: Item, options: TraceOptions | None = None) -> Sequence[TargetSpec | SpanSpec]:
    prepared = prepare(TOKENIZER, item, context_length=None, max_new_tokens=0)
    plan = plan_targets(TOKENIZER, item, options or TraceOptions(), prepared, n_new=0, vocabulary=len(TOKENIZER))
    return target_specs(plan, prepared.tokens, prepared.n_prompt, token_spans(prepared.tokens, prepared.spans))


def specs(item: Item, options: TraceOptions | None = None) -> list[TargetSpec]:
    return [spec for spec in every(item, options) if isinstance(spec, TargetSpec)]


def test_by_default_the_last_or_the_answer() -> None:
    last = len(TOKENIZER(PROMPT)["input_ids"]) - 1
    assert specs(Item(prompt=PROMPT)) == [TargetSpec(last, None, None, False, "centred")]
    answer = TOKENIZER(" Paris.")["input_ids"]
    given = specs(Item(prompt=PROMPT, completion=" Paris."))
    assert [(spec.pos, spec.token_id) for spec in given] == [(last + i, token) for i, token in enumerate(answer)]
    assert planned(Item(prompt=PROMPT), n_new=3).where == "generated"


def test_all_explains_what_follows_and_the_last_prediction() -> None:
    ids = TOKENIZER(PROMPT)["input_ids"]
    assert [(spec.pos, spec.token_id) for spec in specs(Item(prompt=PROMPT, targets="all"))] == list(enumerate([*ids[1:], None]))


def test_the_same_question_asked_in_two_ways_is_one() -> None:
    last = len(TOKENIZER(PROMPT)["input_ids"]) - 1
    questions: list[Any] = ["last", (last,), (-1,)]
    assert len({str(planned(Item(prompt=PROMPT, targets=question)).identity()) for question in questions}) == 1
    assert planned(Item(prompt=PROMPT, targets=(3, 1))).where == (1, 3)


def test_an_items_own_fields_come_before_the_options() -> None:
    options = TraceOptions(targets="all", foil=" Rome")
    plan = planned(Item(prompt=PROMPT, targets=(2,), foil="runner-up"), options)
    assert (plan.where, plan.runner_up, plan.foil_token_id, plan.gauge) == ((2,), True, None, "foil")
    assert planned(Item(prompt=PROMPT), options).where == tuple(range(len(TOKENIZER(PROMPT)["input_ids"])))


def test_a_span_is_explained_as_a_sum_or_token_by_token() -> None:
    item = Item(prompt=PROMPT, spans=(SpanRequest("step", 0, 3), SpanRequest("step", 15, 21)), targets="span:step:each")
    whole = every(replace(item, targets="span:step"))
    assert [part for span in whole if isinstance(span, SpanSpec) for part in span.parts] == specs(item)
    assert len(whole) == 1  # nothing predicts the first token, which is all of the first span
    tokens = prepare(TOKENIZER, item, context_length=None, max_new_tokens=0).tokens
    explained = [spec.pos + 1 for spec in specs(item)]
    assert explained == [pos for pos, (start, stop) in enumerate(tokens.offsets) if pos > 0 and (stop <= 3 or (start >= 14 and stop <= 21))]
    with pytest.raises(ItemError, match="no evidence span to explain"):
        specs(Item(prompt=PROMPT, targets="span:evidence"))
    with pytest.raises(ItemError, match="no document span to explain beyond its first token"):
        specs(Item(prompt=PROMPT, spans=(SpanRequest("document", 0, 1),), targets="span:document"))


def test_one_stretch_is_explained_once_and_a_foil_needs_a_single_token() -> None:
    ends = {"start": 4, "end": 21}
    twice = Item(prompt=PROMPT, spans=(SpanRequest("evidence", **ends, ref="a"), SpanRequest("evidence", **ends, ref="b")))
    (found,) = every(replace(twice, targets="span:evidence"))
    assert isinstance(found, SpanSpec)
    answer = Item(prompt=PROMPT, completion=" Paris.", spans=(SpanRequest("answer", 24, 31),), targets="span:answer")
    with pytest.raises(ItemError, match="foil token cannot stand against a span of 2 tokens"):
        every(answer, TraceOptions(foil=" Rome"))
    (span,) = every(answer, TraceOptions(foil="runner-up"))
    assert isinstance(span, SpanSpec)
    assert all(part.runner_up and part.gauge == "foil" for part in span.parts)


def test_a_text_of_several_tokens_gives_its_first_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    ids = TOKENIZER(" Rhinoceros")["input_ids"]
    assert len(ids) > 1
    assert planned(Item(prompt=PROMPT, target_token=" Rhinoceros")).token_id == ids[0]
    assert f"target_token is {len(ids)} tokens in this vocabulary; the first, id {ids[0]}, is taken" in caplog.text
    assert "Rhino" not in caplog.text
    assert planned(Item(prompt=PROMPT, target_token=ids[0])).token_id == ids[0]


def test_target_token_replaces_what_follows() -> None:
    paris, rome = (TOKENIZER(word)["input_ids"][0] for word in (" Paris", " Rome"))
    (spec,) = specs(Item(prompt=PROMPT, completion=" Paris", targets=(-2,), target_token=" Rome"))
    assert spec.token_id == rome != paris


@pytest.mark.parametrize(
    ("item", "options", "words"),
    [
        (Item(prompt=PROMPT, targets="generated"), TraceOptions(), "needs a completion or max_new_tokens"),
        (Item(prompt=PROMPT, targets="everything"), TraceOptions(), "unknown targets"),
        (Item(prompt=PROMPT, targets=(99,)), TraceOptions(), "99 is outside the text's"),
        (Item(prompt=PROMPT, targets=(-99,)), TraceOptions(), "-99 is outside"),
        (Item(prompt=PROMPT, targets=(0, 0)), TraceOptions(), "one twice"),
        (Item(prompt=PROMPT, targets="all", target_token=" a"), TraceOptions(), "single target"),
        (Item(prompt=PROMPT, target_token=10**6), TraceOptions(), "outside the vocabulary"),
        (Item(prompt=PROMPT, target_token=" a", foil=" a"), TraceOptions(), "same token"),
        (Item(prompt=PROMPT, foil=" a"), TraceOptions(gauge="raw"), "go together"),
        (Item(prompt=PROMPT), TraceOptions(gauge="foil"), "go together"),
        (Item(prompt=PROMPT, completion=" Paris", foil=" Paris"), TraceOptions(), "foil is the target itself"),
    ],
)
def test_questions_without_sense(item: Item, options: TraceOptions, words: str) -> None:
    with pytest.raises(ItemError, match=words):
        specs(item, options)


@pytest.mark.parametrize(
    ("answer", "expected", "verdict"),
    [
        (" Paris. It", "Paris", True),
        ("Paris", " Paris ", True),
        (" Parisian", "Paris", False),
        (" 50", "5", False),
        (" 5.", "5", True),
        (" the Paris", "Paris", False),
        ("\n Paris", "Paris", True),
        (" (x)y", "(x)", True),
        (" Rome", "Paris", False),
        ("  ", "Paris", None),
        (" Paris", None, None),
    ],
)
def test_an_answer_begins_with_what_was_expected(answer: str, expected: str | None, verdict: bool | None) -> None:
    assert answer_correct(answer, expected) is verdict


@pytest.mark.parametrize(
    ("before", "token", "expected", "verdict"),
    [
        ("", " Paris", "Paris", True),
        ("", " Par", "Paris", True),
        (" Par", "is", "Paris", True),
        (" Par", "ma", "Paris", False),
        ("", " ", "5", None),
        (" ", "5", "5", True),
        (" ", "50", "5", False),
        (" Paris", ".", "Paris", None),
        (" New", " York", "New York", True),
        ("", " Rome", "Paris", False),
        ("", " Paris", None, None),
    ],
)
def test_a_token_is_the_next_piece_of_what_was_expected(before: str, token: str, expected: str | None, verdict: bool | None) -> None:
    assert token_correct(before, token, expected) is verdict
