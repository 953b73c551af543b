"""Chat messages: rendered once, every content found again at its exact place."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.tiny_text_model import CHATML, STRIPPING, byte_level_tokenizer
from tracestore.errors import ItemError
from tracestore.extract.chat import render_chat
from tracestore.extract.prepare import prepare
from tracestore.model import Document, Item, SpanRequest

EDITING = CHATML.replace("{{ message['content'] }}", "{{ message['content'].split('</think>')[-1] }}")
REFUSING = "{% if messages[0]['role'] != 'user' %}{{ raise_exception('Conversation must begin with a user') }}{% endif %}" + CHATML
LEAKING = "{{ raise_exception('cannot render ' + messages[0]['content']) }}"

TOOL_CHAT: tuple[dict[str, Any], ...] = (
    {"role": "system", "content": "user"},
    {"role": "user", "content": "a"},
    {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "add", "arguments": {"x": 2, "y": "caf\u00e9"}}}]},
    {"role": "tool", "name": "add", "content": "5"},
    {"role": "assistant", "content": "a"},
    {"role": "user", "content": "a"},
)


def found(text: str, spans: tuple[SpanRequest, ...], kind: str) -> list[tuple[str | None, str]]:
    return [(span.ref, text[span.start : span.end]) for span in spans if span.kind == kind]


def test_every_kind_of_span_is_at_its_place() -> None:
    tokenizer = byte_level_tokenizer()
    chat = render_chat(tokenizer, Item(messages=TOOL_CHAT))
    assert chat.text == tokenizer.apply_chat_template(list(TOOL_CHAT), tokenize=False, add_generation_prompt=True)
    roles = [("system", "user"), ("user", "a"), ("tool", "5"), ("assistant", "a"), ("user", "a")]
    assert found(chat.text, chat.spans, "role") == roles
    headers = [chat.text[: span.start].rsplit("<|im_start|>", 1)[1] for span in chat.spans if span.kind == "role"]
    assert headers == ["system\n", "user\n", "tool\n", "assistant\n", "user\n"]
    assert found(chat.text, chat.spans, "tool_result") == [("add", "5")]
    assert found(chat.text, chat.spans, "tool_call") == [("add", 'add {"x": 2, "y": "caf\u00e9"}')]
    turns = found(chat.text, chat.spans, "turn")
    assert [ref for ref, _ in turns] == ["0", "1"]
    assert turns[0][1].startswith("a<|im_end|>")
    assert turns[0][1].endswith("assistant\na")
    assert turns[1][1] == "a"
    assert chat.completion is None


def test_a_template_that_strips_contents_is_still_exact() -> None:
    chat = render_chat(byte_level_tokenizer(template=STRIPPING), Item(messages=({"role": "user", "content": "  user\n"},)))
    (span,) = [span for span in chat.spans if span.kind == "role"]
    assert chat.text[: span.start] == "<|im_start|>user\n"
    assert chat.text[span.start : span.end] == "user"


MOVING = (
    "{% set system = messages[0]['content'] %}{% for message in messages[1:] %}[{{ message['role'] }}]"
    "{% if loop.last %}{{ system }}\n\n{% endif %}{{ message['content'].lstrip('\n') }}{% endfor %}"
)


def test_a_template_that_moves_the_system_message_is_followed() -> None:
    said = (("system", "a"), ("user", "\nuser"), ("assistant", "b\n"), ("user", "a"))
    messages = tuple({"role": role, "content": content} for role, content in said)
    chat = render_chat(byte_level_tokenizer(template=MOVING), Item(messages=messages))
    assert chat.text == "[user]user[assistant]b\n[user]a\n\na"
    places = [(span.ref, span.start, span.end) for span in chat.spans if span.kind == "role"]
    assert places == [("system", 29, 30), ("user", 6, 10), ("assistant", 21, 23), ("user", 32, 33)]
    assert [(span.start, span.end) for span in chat.spans if span.kind == "turn"] == [(6, 23), (32, 33)]


def test_a_template_that_edits_contents_gives_spans_only_to_what_stands_there(caplog: pytest.LogCaptureFixture) -> None:
    messages = ({"role": "user", "content": "why"}, {"role": "assistant", "content": "hm</think>so"}, {"role": "user", "content": "ok"})
    chat = render_chat(byte_level_tokenizer(template=EDITING), Item(messages=messages))
    assert found(chat.text, chat.spans, "role") == [("user", "why"), ("user", "ok")]
    assert "message 1" in caplog.text
    assert "hm" not in caplog.text


def test_a_last_answer_is_replayed() -> None:
    messages = ({"role": "user", "content": "Where?"}, {"role": "assistant", "content": "In Paris."})
    chat = render_chat(byte_level_tokenizer(), Item(messages=messages))
    assert chat.text.endswith("<|im_start|>assistant\n")
    assert chat.completion == "In Paris."
    prepared = prepare(byte_level_tokenizer(), Item(messages=messages), context_length=None, max_new_tokens=0)
    assert prepared.tokens.text[prepared.prompt_chars :] == "In Paris."
    assert prepared.n_given == len(byte_level_tokenizer()("In Paris.")["input_ids"])


def test_parts_are_located_one_by_one() -> None:
    template = CHATML.replace("{{ message['content'] }}", "{% for part in message['content'] %}{{ part.text }}|{% endfor %}")
    messages = ({"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "user"}]},)
    chat = render_chat(byte_level_tokenizer(template=template), Item(messages=messages))
    assert found(chat.text, chat.spans, "role") == [("user", "one"), ("user", "user")]
    assert chat.text[chat.spans[1].start - 4 : chat.spans[1].start] == "one|"


def test_documents_go_to_the_template_unless_a_message_says_them() -> None:
    template = "{% for d in documents or [] %}[{{ d.title }}: {{ d.text }}]{% endfor %}" + CHATML
    tokenizer = byte_level_tokenizer(template=template)
    asked = ({"role": "user", "content": "Where is it?"},)
    documents = (Document("d1", "It is in Paris."),)
    prepared = prepare(tokenizer, Item(messages=asked, documents=documents), context_length=None, max_new_tokens=0)
    assert prepared.tokens.text.startswith("[d1: It is in Paris.]")
    assert found(prepared.tokens.text, prepared.spans, "document") == [("d1", "It is in Paris.")]
    said = ({"role": "user", "content": "It is in Paris. Where is it?"},)
    prepared = prepare(tokenizer, Item(messages=said, documents=documents), context_length=None, max_new_tokens=0)
    assert prepared.tokens.text.startswith("<|im_start|>user\nIt is in Paris.")
    with pytest.raises(ItemError, match=r"documents\[0\]"):
        prepare(byte_level_tokenizer(), Item(messages=asked, documents=documents), context_length=None, max_new_tokens=0)


def test_what_the_template_leaves_out_is_refused() -> None:
    deaf = byte_level_tokenizer(template=CHATML.replace("message.get('tool_calls') or []", "[]"))
    asked = ({"role": "user", "content": "a"},)
    with pytest.raises(ItemError, match="takes no tools"):
        render_chat(deaf, Item(messages=asked, tools=({"type": "function", "function": {"name": "add"}},)))
    with pytest.raises(ItemError, match="leaves tool calls out"):
        render_chat(deaf, Item(messages=TOOL_CHAT))
    hearing = byte_level_tokenizer(template="{{ tools | tojson if tools else '' }}" + CHATML)
    assert '"add"' in render_chat(hearing, Item(messages=asked, tools=({"name": "add"},))).text


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (None, "no chat template"),
        (REFUSING, "Conversation must begin with a user"),
        (LEAKING, "refuses these messages"),
        ("{{ messages[0].missing.name }}", "cannot render|refuses"),
    ],
)
def test_refusals_name_the_reason_and_no_text(template: str | None, words: str) -> None:
    item = Item(messages=({"role": "system", "content": "SECRET"},))
    with pytest.raises(ItemError, match=words) as caught:
        render_chat(byte_level_tokenizer(template=template), item)
    assert "SECRET" not in str(caught.value)
