"""The format of an item: one JSON object, validated key by key (needs neither torch nor transformers).

Nothing of an item's text ever enters an error: messages name keys, types, indices and lengths only.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, get_args

from tracestore.errors import ItemError
from tracestore.ids import content_hash
from tracestore.model import Document, Item, SpanKind, SpanRequest, StepRule, Targets

KEYS: Final = (
    "prompt",
    "messages",
    "tools",
    "completion",
    "documents",
    "spans",
    "evidence",
    "steps",
    "id",
    "targets",
    "target_token",
    "foil",
    "expected",
    "rationale",
    "dataset",
    "split",
    "variant",
    "tags",
    "session_id",
    "turn",
    "max_new_tokens",
    "otel_trace_id",
    "otel_span_id",
)
SPAN_KINDS: Final[tuple[str, ...]] = get_args(SpanKind)
TARGET_NAMES: Final = ("last", "generated", "all")
SPAN_TARGET: Final = "span:"
EACH: Final = ":each"
"""`span:KIND` explains every span of a kind as one sum, `span:KIND:each` every token of them by itself."""
STEP_RULES: Final[tuple[str, ...]] = get_args(StepRule)

_SYNONYMS: Final = {
    "text": "prompt",
    "input": "prompt",
    "question": "prompt",
    "chat": "messages",
    "conversation": "messages",
    "answer": "completion (a given answer) or expected (the right one)",
    "response": "completion",
    "output": "completion",
    "target": "target_token or targets",
    "label": "expected",
    "session": "session_id",
    "context": "documents",
    "max_tokens": "max_new_tokens",
}
_SHOWN_KEY_CHARS: Final = 40
_LARGEST: Final = 1 << 53  # of a count: what every JSON reader and column holds exactly


def parse_item(record: object, *, text_key: bytes | None = None) -> Item:
    """Build an Item from a decoded JSON object; an id that is missing becomes a hash of the content (keyed with `text_key`).

    Raises ItemError, whose message holds no text of the item.
    """
    if not isinstance(record, dict):
        raise ItemError(f"an item is a JSON object, not {_kind(record)}")
    _refuse_unknown(record)
    present = {key: value for key, value in record.items() if value is not None}
    if ("prompt" in present) == ("messages" in present):
        raise ItemError("an item has exactly one of `prompt` and `messages`" + (", not both" if "prompt" in present else ""))
    prompt = _text(present, "prompt", allow_empty=True)
    if prompt is not None and not prompt:
        raise ItemError("the prompt is empty")
    completion = _text(present, "completion")
    messages = _messages(present.get("messages"))
    _check_chat_only(present)
    length = None if prompt is None else len(prompt) + len(completion or "")
    item_id = _text(present, "id")
    _check_encodable(present)
    return Item(
        prompt=prompt,
        messages=messages,
        tools=_objects(present, "tools"),
        completion=completion,
        documents=_documents(present.get("documents"), prompt, completion),
        spans=_spans(present, "spans", length),
        evidence=_spans(present, "evidence", length),
        steps=_steps(present),
        id=item_id if item_id is not None else content_hash(present, key=text_key),
        targets=_targets(present.get("targets")),
        target_token=_token(present, "target_token"),
        foil=_token(present, "foil"),
        expected=_text(present, "expected"),
        rationale=_text(present, "rationale"),
        dataset=_text(present, "dataset"),
        split=_text(present, "split"),
        variant=_text(present, "variant"),
        tags=_tags(present.get("tags")),
        session_id=_text(present, "session_id"),
        turn=_count(present, "turn"),
        max_new_tokens=_count(present, "max_new_tokens"),
        otel_trace_id=_hexadecimal(present, "otel_trace_id", 32),
        otel_span_id=_hexadecimal(present, "otel_span_id", 16),
    )


def item_record(item: Item) -> dict[str, Any]:
    """Give the JSON object that `parse_item` makes this item of, without what is absent."""
    record = {key: getattr(item, key) for key in KEYS}
    record["messages"] = None if item.messages is None else [dict(message) for message in item.messages]
    record["tools"] = None if item.tools is None else [dict(tool) for tool in item.tools]
    record["documents"] = [{"id": document.id, "text": document.text} for document in item.documents]
    for key in ("spans", "evidence"):
        record[key] = [_span_record(span) for span in getattr(item, key)]
    record["targets"] = list(item.targets) if isinstance(item.targets, tuple) else item.targets
    record["tags"] = list(item.tags)
    kept = ("messages", "tools", "targets")  # empty, these mean something else than absent
    return {key: value for key, value in record.items() if value is not None and (value != [] or key in kept)}


def _span_record(span: SpanRequest) -> dict[str, Any]:
    record: dict[str, Any] = {"kind": span.kind, "start": span.start, "end": span.end}
    return record if span.ref is None else {**record, "ref": span.ref}


def _kind(value: object) -> str:
    names: Mapping[type, str] = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return "null" if value is None else names.get(type(value), type(value).__name__)


def _refuse_unknown(record: Mapping[str, Any]) -> None:
    for key in record:
        if key in KEYS:
            continue
        close = difflib.get_close_matches(key, KEYS, n=1)
        hint = _SYNONYMS.get(key.lower()) or (close[0] if close else "")
        shown = key if len(key) <= _SHOWN_KEY_CHARS else key[:_SHOWN_KEY_CHARS] + "..."
        raise ItemError(f"unknown key {shown!r}" + (f"; did you mean {hint}?" if hint else f"; known keys: {', '.join(KEYS)}"))


def _check_encodable(value: object) -> None:
    """Refuse half of a surrogate pair: no tokenizer and no file takes it."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ItemError(f"half of a surrogate pair at character {error.start} of a string: no valid Unicode text") from None
    elif isinstance(value, dict):
        for key, inner in value.items():
            _check_encodable(key)
            _check_encodable(inner)
    elif isinstance(value, list):
        for inner in value:
            _check_encodable(inner)


def _text(record: Mapping[str, Any], key: str, *, allow_empty: bool = False) -> str | None:
    value = record.get(key)
    if value is None:
        return None
    if not isinstance(value, str):
        raise ItemError(f"`{key}` is a string, not {_kind(value)}")
    if not value and not allow_empty:
        raise ItemError(f"`{key}` is empty: leave it out")
    return value


def _integer(value: object, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ItemError(f"{what} is a whole number, not {_kind(value)}")
    return value


def _count(record: Mapping[str, Any], key: str) -> int | None:
    if key not in record:
        return None
    value = _integer(record[key], f"`{key}`")
    if not 0 <= value <= _LARGEST:
        raise ItemError(f"`{key}` is {'negative' if value < 0 else 'too large'}")
    return value


def _token(record: Mapping[str, Any], key: str) -> str | int | None:
    """Read a token: a text or a vocabulary id."""
    value = record.get(key)
    if isinstance(value, int) and not isinstance(value, bool):
        return _count(record, key)
    if value is not None and not isinstance(value, str):
        raise ItemError(f"`{key}` is a string or a vocabulary id, not {_kind(value)}")
    return _text(record, key)


def _hexadecimal(record: Mapping[str, Any], key: str, digits: int) -> str | None:
    value = _text(record, key)
    if value is not None and re.fullmatch(f"[0-9a-fA-F]{{{digits}}}", value) is None:
        raise ItemError(f"`{key}` has {digits} hexadecimal digits")
    return None if value is None else value.lower()


def _tags(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(tag, str) and tag for tag in value):
        raise ItemError("`tags` is a list of non-empty strings")
    return tuple(value)


def _list(record: Mapping[str, Any], key: str) -> Sequence[Mapping[str, Any]]:
    value = record.get(key)
    if value is None:
        return ()
    if not isinstance(value, list):
        raise ItemError(f"`{key}` is a list of objects, not {_kind(value)}")
    for index, entry in enumerate(value):
        if not isinstance(entry, dict):
            raise ItemError(f"`{key}[{index}]` is an object, not {_kind(entry)}")
    return value


def _objects(record: Mapping[str, Any], key: str) -> tuple[Mapping[str, Any], ...] | None:
    entries = _list(record, key)
    return tuple(entries) if key in record else None


def _entry_text(entry: Mapping[str, Any], key: str, where: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value:
        raise ItemError(f"`{where}.{key}` is a non-empty string, not {_kind(value)}")
    return value


def _only(entry: Mapping[str, Any], allowed: Sequence[str], where: str) -> None:
    for key in entry:
        if key not in allowed:
            raise ItemError(f"unknown key {key[:_SHOWN_KEY_CHARS]!r} in `{where}`; it has {', '.join(allowed)}")


def _documents(value: object, prompt: str | None, completion: str | None) -> tuple[Document, ...]:
    """Read documents; each must stand verbatim in the prompt (a chat's are looked for when it is rendered)."""
    documents = []
    seen: set[str] = set()
    for index, entry in enumerate(_list({"documents": value}, "documents")):
        where = f"documents[{index}]"
        _only(entry, ("id", "text"), where)
        document = Document(_entry_text(entry, "id", where), _entry_text(entry, "text", where))
        if document.id in seen:
            raise ItemError(f"`{where}.id` is that of an earlier document")
        if prompt is not None and document.text not in prompt + (completion or ""):
            raise ItemError(f"`{where}.text` ({len(document.text)} characters) does not stand verbatim in the prompt")
        seen.add(document.id)
        documents.append(document)
    return tuple(documents)


def _spans(record: Mapping[str, Any], key: str, length: int | None) -> tuple[SpanRequest, ...]:
    """Read `spans` or `evidence` in characters of prompt and completion; a chat's ranges are checked when it is rendered."""
    spans = []
    for index, entry in enumerate(_list(record, key)):
        where = f"{key}[{index}]"
        _only(entry, ("kind", "ref", "start", "end"), where)
        kind: Any = entry.get("kind", "evidence" if key == "evidence" else None)
        if kind not in SPAN_KINDS or (key == "evidence" and kind != "evidence"):
            raise ItemError(f"`{where}.kind` is {'evidence' if key == 'evidence' else 'one of ' + ', '.join(SPAN_KINDS)}")
        start, end = (_integer(entry.get(name), f"`{where}.{name}`") for name in ("start", "end"))
        if not 0 <= start < end or (length is not None and end > length):
            limit = "" if length is None else f" <= {length}"
            raise ItemError(f"`{where}` is [{start}, {end}): a span needs 0 <= start < end{limit} (characters)")
        spans.append(SpanRequest(kind, start, end, _text(entry, "ref")))
    return tuple(spans)


def _steps(record: Mapping[str, Any]) -> StepRule | None:
    value: Any = record.get("steps")
    if value is None:
        return None
    if value not in STEP_RULES:
        raise ItemError(f"`steps` is one of {', '.join(STEP_RULES)} (steps at places of their own are `spans` of kind step)")
    if any(isinstance(entry, dict) and entry.get("kind") == "step" for entry in record.get("spans") or ()):
        raise ItemError("`steps` cuts the answer into steps, and `spans` name steps already: give one of the two")
    rule: StepRule = value
    return rule


def _targets(value: object) -> Targets | None:
    if value is None:
        return None
    if isinstance(value, str):
        kind = value.removeprefix(SPAN_TARGET)
        if value in TARGET_NAMES or (kind != value and kind.removesuffix(EACH) in SPAN_KINDS):
            return value
        raise ItemError(f"`targets` is one of {', '.join(TARGET_NAMES)}, span:KIND, span:KIND:each or a list of positions")
    if not isinstance(value, list) or not value:
        raise ItemError("`targets` is a name or a non-empty list of positions")
    positions = tuple(_integer(entry, f"`targets[{index}]`") for index, entry in enumerate(value))
    if len(set(positions)) != len(positions):
        raise ItemError("`targets` names a position twice")
    return positions


def _messages(value: object) -> tuple[Mapping[str, Any], ...] | None:
    if value is None:
        return None
    entries = _list({"messages": value}, "messages")
    if not entries:
        raise ItemError("`messages` is empty")
    for index, entry in enumerate(entries):
        where = f"messages[{index}]"
        _entry_text(entry, "role", where)
        _check_content(entry, where)
        calls = entry.get("tool_calls")
        if calls is not None and not (isinstance(calls, list) and all(isinstance(call, dict) for call in calls)):
            raise ItemError(f"`{where}.tool_calls` is a list of objects")
    return tuple(entries)


def _check_content(message: Mapping[str, Any], where: str) -> None:
    content = message.get("content")
    if content is None:
        if not message.get("tool_calls"):
            raise ItemError(f"`{where}` has neither content nor tool calls")
    elif isinstance(content, list):
        for index, part in enumerate(content):
            if not (isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)):
                raise ItemError(f"`{where}.content[{index}]` is no text part: only text is traced")
    elif not isinstance(content, str):
        raise ItemError(f"`{where}.content` is a string or a list of text parts, not {_kind(content)}")


def _check_chat_only(record: Mapping[str, Any]) -> None:
    if "tools" in record and "messages" not in record:
        raise ItemError("`tools` goes with `messages`")
    messages = record.get("messages")
    if messages and "completion" in record and messages[-1].get("role") == "assistant":
        raise ItemError("the last message is the assistant's answer already: give the answer there or as `completion`, not both")
