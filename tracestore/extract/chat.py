"""Render chat messages through the model's own template and find each message again in the rendered text.

1. Render the messages. A last message of the assistant is a given answer: it is taken off and replayed after the generation prompt.
2. Render once more with a private mark in place of every content: what stands between the marks is the template's own text. If template
   text and contents (as given, or stripped) rebuild the first rendering, every range is exact, in whatever order they stand.
3. Else (a template that edits contents) look for each content in order; one that is not there verbatim gets no span.
   The templates' own masks are not used: most return zeros.
4. Tool calls are found from the function's name to the end of its arguments; turns run from a user's message to the next one.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import jinja2

from tracestore.errors import ItemError
from tracestore.model import Document, Item, SpanRequest

_LOG = logging.getLogger("tracestore.extract")
_MARK: Final = ("\ue00e", "\ue00f")  # private-use characters: no template writes them
_MARKED: Final = re.compile(f"{_MARK[0]}([0-9]+){_MARK[1]}")
_STRIPS: Final[tuple[Callable[[str], str], ...]] = (
    str,
    str.strip,
    str.rstrip,
    str.lstrip,
    lambda content: content.strip("\n"),
    lambda content: content.lstrip("\n"),
    lambda content: content.rstrip("\n"),
)
"""What templates do to a content before they insert it."""


Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class RenderedChat:
    """The prompt's text, the given answer if the chat ends with one, and role, turn, tool_call and tool_result spans in characters."""

    text: str
    completion: str | None
    spans: tuple[SpanRequest, ...]


def render_chat(tokenizer: Any, item: Item) -> RenderedChat:
    """Render an item's messages. Raises ItemError for a model without a template or messages that the template refuses."""
    messages = list(item.messages or ())
    completion = item.completion
    if completion is None and _is_answer(messages[-1]) and len(messages) > 1:
        completion = str(messages.pop()["content"])
    if not getattr(tokenizer, "chat_template", None):
        raise ItemError("this model has no chat template: give a prompt instead of messages, or use a chat model")
    text = _apply(tokenizer, item, messages)
    _check_used(tokenizer, item, messages, text)
    ranges = _by_marks(tokenizer, item, messages, text)
    if ranges is None:
        ranges = _in_order(messages, text)
    return RenderedChat(
        text, completion, (*_role_spans(messages, ranges), *_call_spans(messages, ranges, text), *_turn_spans(messages, ranges))
    )


def _is_answer(message: Mapping[str, Any]) -> bool:
    return (
        message.get("role") == "assistant"
        and bool(message.get("content"))
        and isinstance(message["content"], str)
        and not message.get("tool_calls")
    )


def _apply(tokenizer: Any, item: Item, messages: Sequence[Mapping[str, Any]]) -> str:
    tools = None if item.tools is None else [dict(tool) for tool in item.tools]
    documents = _template_documents(item.documents, item.messages or ())
    try:
        text: str = tokenizer.apply_chat_template(
            [dict(message) for message in messages], tools=tools, documents=documents, tokenize=False, add_generation_prompt=True
        )
    except jinja2.TemplateError as error:
        raise ItemError(f"the model's chat template refuses these messages{_reason(error, messages)}") from None
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise ItemError(f"the model's chat template cannot render these messages ({type(error).__name__})") from None
    return text


def _check_used(tokenizer: Any, item: Item, messages: Sequence[Mapping[str, Any]], text: str) -> None:
    """Refuse tools and tool calls that the template leaves out without a word: the model would never see them."""
    if item.tools and _apply(tokenizer, replace(item, tools=None), messages) == text:
        raise ItemError("this model's chat template takes no tools: leave them out, or write them into a message")
    if any(message.get("tool_calls") for message in messages):
        without = [{key: value for key, value in message.items() if key != "tool_calls"} for message in messages]
        filled = [message if message.get("content") is not None else {**message, "content": ""} for message in without]
        if text in (_apply_or_nothing(tokenizer, item, without), _apply_or_nothing(tokenizer, item, filled)):
            raise ItemError("this model's chat template leaves tool calls out: write them into the message's content")


def _apply_or_nothing(tokenizer: Any, item: Item, messages: Sequence[Mapping[str, Any]]) -> str | None:
    try:
        return _apply(tokenizer, item, messages)
    except ItemError:
        return None


def _reason(error: Exception, messages: Sequence[Mapping[str, Any]]) -> str:
    """Quote the template's own words, unless a message's text is in them."""
    words = str(error)
    contents = [text for message in messages for text in _texts(message) if text.strip()]
    quoted = any(text.strip() in words for text in contents) or len(words) > 200
    return "" if quoted or not words else f": {words}"


def _template_documents(documents: Sequence[Document], messages: Sequence[Mapping[str, Any]]) -> list[dict[str, str]] | None:
    """Hand documents to the template only if the messages do not contain them already."""
    said = "\n".join(text for message in messages for text in _texts(message))
    missing = [document for document in documents if document.text not in said]
    return [{"id": d.id, "doc_id": d.id, "title": d.id, "text": d.text, "content": d.text} for d in missing] or None


def _texts(message: Mapping[str, Any]) -> list[str]:
    content = message.get("content")
    if isinstance(content, str):
        return [content]
    return [str(part["text"]) for part in content] if isinstance(content, list) else []


def _marked(message: Mapping[str, Any], first: int) -> dict[str, Any]:
    """Replace every text of a message by its mark."""
    content = message.get("content")
    if isinstance(content, str):
        return {**message, "content": f"{_MARK[0]}{first}{_MARK[1]}"}
    if isinstance(content, list):
        return {**message, "content": [{**part, "text": f"{_MARK[0]}{first + i}{_MARK[1]}"} for i, part in enumerate(content)]}
    return dict(message)


def _by_marks(tokenizer: Any, item: Item, messages: Sequence[Mapping[str, Any]], text: str) -> list[list[Range]] | None:
    """Locate contents by rendering marks in their place; None when the template does more than insert (and strip) them."""
    marked: list[dict[str, Any]] = []
    texts: list[str] = []
    for message in messages:
        marked.append(_marked(message, len(texts)))
        texts += _texts(message)
    skeleton = _apply_or_nothing(tokenizer, item, marked)
    if skeleton is None:
        return None
    for strip in _STRIPS:
        found = _align(skeleton, [strip(content) for content in texts], text)
        if found is not None:
            break
    else:
        return None
    grouped: list[list[Range]] = []
    first = 0
    for message in messages:
        count = len(_texts(message))
        grouped.append([found[index] for index in range(first, first + count) if index in found])
        first += count
    return grouped


def _align(skeleton: str, contents: Sequence[str], text: str) -> dict[int, Range] | None:
    """Read `text` as `skeleton` with contents in place of its marks, in whatever order; give each content's first place."""
    found: dict[int, Range] = {}
    at = read = 0
    for mark in _MARKED.finditer(skeleton):
        index = int(mark[1])
        if index >= len(contents):  # not our mark: a message quotes one
            return None
        content = contents[index]
        between = skeleton[read : mark.start()]
        if not text.startswith(between + content, at):
            return None
        at += len(between)
        found.setdefault(index, (at, at + len(content)))
        at, read = at + len(content), mark.end()
    return found if text[at:] == skeleton[read:] else None


def _in_order(messages: Sequence[Mapping[str, Any]], text: str) -> list[list[Range]]:
    ranges: list[list[Range]] = []
    at = 0
    for index, message in enumerate(messages):
        ranges.append([])
        for content in _texts(message):
            shown = content.strip()
            start = text.find(shown, at) if shown else -1
            if start < 0:
                _LOG.warning("message %d does not stand verbatim in the rendered chat: it gets no span", index)
                continue
            at = start + len(shown)
            ranges[-1].append((start, at))
    return ranges


def _role_spans(messages: Sequence[Mapping[str, Any]], ranges: Sequence[Sequence[Range]]) -> list[SpanRequest]:
    spans = []
    for message, found in zip(messages, ranges, strict=True):
        for start, end in found:
            if end > start:
                spans.append(SpanRequest("role", start, end, str(message["role"])))
                if message["role"] == "tool":
                    name = message.get("name") or message.get("tool_call_id")
                    spans.append(SpanRequest("tool_result", start, end, None if name is None else str(name)))
    return spans


def _call_spans(messages: Sequence[Mapping[str, Any]], ranges: Sequence[Sequence[Range]], text: str) -> list[SpanRequest]:
    """Find tool calls between the contents around them: from the function's name to the end of its arguments."""
    spans = []
    at = 0
    for message, found in zip(messages, ranges, strict=True):
        at = max([at, *(end for _, end in found)])
        for call in message.get("tool_calls") or ():
            function = call.get("function", call)
            name = str(function.get("name", ""))
            start = text.find(name, at) if name else -1
            if start < 0:
                _LOG.warning("a tool call does not stand verbatim in the rendered chat: it gets no span")
                continue
            ends = [
                text.find(form, start) + len(form) for form in _argument_forms(function.get("arguments")) if text.find(form, start) >= 0
            ]
            at = min(ends, default=start + len(name))
            spans.append(SpanRequest("tool_call", start, at, name))
    return spans


def _argument_forms(arguments: Any) -> list[str]:
    """List the ways in which templates write a call's arguments."""
    if isinstance(arguments, str):
        return [arguments, json.dumps(arguments)] if arguments else []
    if arguments is None:
        return []
    forms = [json.dumps(arguments, ensure_ascii=False), json.dumps(arguments)]
    return [*forms, json.dumps(arguments, ensure_ascii=False, indent=4), json.dumps(arguments, separators=(",", ":"))]


def _turn_spans(messages: Sequence[Mapping[str, Any]], ranges: Sequence[Sequence[Range]]) -> list[SpanRequest]:
    turns: list[list[Range]] = []
    for message, found in zip(messages, ranges, strict=True):
        if message["role"] == "user":
            turns.append([])
        if turns:
            turns[-1] += found
    spans = []
    for index, turn in enumerate(turns):
        start, end = min((start for start, _ in turn), default=0), max((end for _, end in turn), default=0)
        if end > start:
            spans.append(SpanRequest("turn", start, end, str(index)))
    return spans
