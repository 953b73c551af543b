"""Items before the model runs: spans as tokens, limits, and which text is which."""

from __future__ import annotations

import pytest

from tests.support.tiny_text_model import byte_level_tokenizer, metaspace_tokenizer
from tracestore.errors import ItemError
from tracestore.extract.prepare import Prepared, prepare
from tracestore.extract.spans import locate, token_spans
from tracestore.extract.tokenise import tokenise
from tracestore.model import Document, Item, SpanRequest

TOKENIZER = byte_level_tokenizer()


def made(item: Item, *, context_length: int | None = None, max_new_tokens: int = 0) -> Prepared:
    return prepare(TOKENIZER, item, context_length=context_length, max_new_tokens=max_new_tokens)


def test_spans_cover_prompt_and_completion_in_order_of_place() -> None:
    item = Item(
        prompt="It is in Paris. Where is the tower?",
        completion=" It is in Paris.",
        documents=(Document("d", "It is in Paris."),),
        spans=(SpanRequest("step", 36, 51, "s"),),
        evidence=(SpanRequest("evidence", 9, 14),),
    )
    prepared = made(item)
    spans = token_spans(prepared.tokens, prepared.spans)
    assert [(span.kind, span.ref, span.text) for span in spans] == [
        ("document", "d", "It is in Paris."),
        ("evidence", None, "Paris"),
        ("step", "s", "It is in Paris."),
    ]
    for span in spans:
        covered = prepared.tokens.text[prepared.tokens.offsets[span.first_pos][0] : prepared.tokens.offsets[span.last_pos][1]]
        assert covered.strip() == span.text
    assert spans[2].first_pos == prepared.n_prompt
    assert spans[2].last_pos == len(prepared.tokens) - 1


def test_equal_documents_take_their_places_in_turn() -> None:
    prepared = made(Item(prompt="a b. a b.", documents=(Document("1", "a b."), Document("2", "a b."))))
    assert [(span.ref, span.start) for span in prepared.spans] == [("1", 0), ("2", 5)]


def test_a_token_that_only_shares_space_is_outside() -> None:
    tokens = tokenise(TOKENIZER, "The capital of Paris")
    paris = len(tokens) - 1
    while tokens.offsets[paris][0] > 14:
        paris -= 1
    assert locate(tokens, 4, 15) == (1, paris - 1)
    assert locate(tokens, 14, 15) == (paris, paris)
    marked = tokenise(metaspace_tokenizer(), "The capital")
    assert locate(marked, 0, 1) == (1, 1)


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (Item(prompt=""), "empty"),
        (Item(prompt="abc", spans=(SpanRequest("step", 0, 4),)), r"\[0, 4\): the text has 3 characters"),
        (Item(prompt="abc", evidence=(SpanRequest("evidence", 2, 2),)), r"\[2, 2\)"),
        (Item(prompt="abc", documents=(Document("d", "SECRET"),)), r"documents\[0\] \(6 characters\)"),
    ],
)
def test_items_that_cannot_be_placed(item: Item, words: str) -> None:
    with pytest.raises(ItemError, match=words) as caught:
        made(item)
    assert "SECRET" not in str(caught.value)


def test_the_context_holds_prompt_completion_and_what_is_generated() -> None:
    item = Item(prompt="The capital of France is", completion=" Paris")
    prepared = made(item)
    room = len(prepared.tokens) + 3
    assert made(item, context_length=room, max_new_tokens=3) == prepared
    words = f"{prepared.n_prompt} prompt tokens, {prepared.n_given} given and 4 to generate do not fit the model's context of {room}"
    with pytest.raises(ItemError, match=words):
        made(item, context_length=room, max_new_tokens=4)
