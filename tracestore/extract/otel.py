"""Read answers that were already given from OpenTelemetry spans (OTLP JSON), to be replayed and explained.

1. A file holds one OTLP JSON object, or one a line (as the collector's file exporter writes): resourceSpans > scopeSpans > spans.
2. A span is a call of a language model when it has `gen_ai.input.messages` (GenAI conventions, structured or as JSON text) or
   `llm.input_messages.*` (OpenInference). Others are passed over; `retrieval.documents.*` of a trace's spans are kept for its calls.
3. Its messages become an item's messages, the first output message's text its completion; `gen_ai.conversation.id` or `session.id` its
   session, its place in time within that session its turn; trace and span id are kept.
4. Documents of the same trace that stand verbatim in the messages become the item's documents.

What cannot be replayed is a failure with the span's id and the reason: an image, an answer that calls tools, no answer at all.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tracestore.errors import BadInputError, ItemError
from tracestore.extract.item_format import parse_item
from tracestore.extract.items import ItemFailure
from tracestore.model import Item

_SESSIONS: Final = ("gen_ai.conversation.id", "session.id")
_INPUT: Final = "gen_ai.input.messages"
_OUTPUT: Final = "gen_ai.output.messages"
_SYSTEM: Final = "gen_ai.system_instructions"
_LLM: Final = "llm.input_messages"
_LLM_OUTPUT: Final = "llm.output_messages"


@dataclass(frozen=True, slots=True)
class _Span:
    trace_id: str
    span_id: str
    start: int
    attributes: Mapping[str, Any]

    @property
    def is_call(self) -> bool:
        return _INPUT in self.attributes or any(name.startswith(f"{_LLM}.") for name in self.attributes)


def read_otel(path: str | Path) -> Iterator[Item | ItemFailure]:
    """Yield the language model calls of a file as items, in order of time, and what cannot be replayed as failures.

    `ItemFailure.line` counts the calls of the file from 1. Raises BadInputError when the file is no OTLP JSON.
    """
    spans = sorted(_spans(Path(path)), key=lambda span: span.start)
    documents: dict[str, list[dict[str, str]]] = defaultdict(list)
    for span in spans:
        documents[span.trace_id] += _documents(span)
    turns: dict[str, int] = defaultdict(int)
    calls = [span for span in spans if span.is_call]
    for number, span in enumerate(calls, start=1):
        session = next((str(span.attributes[name]) for name in _SESSIONS if span.attributes.get(name)), None)
        turn = turns[session] if session is not None else None
        if session is not None:
            turns[session] += 1
        try:
            yield parse_item(_record(span, session, turn, documents[span.trace_id]))
        except ItemError as error:
            yield ItemFailure(number, str(error), span.span_id)


def _spans(path: Path) -> Iterator[_Span]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(f"cannot read the spans of {path}: {error.strerror if isinstance(error, OSError) else 'no UTF-8'}") from None
    for value in _objects(path, text):
        try:
            for resource in value["resourceSpans"]:
                for scope in resource.get("scopeSpans", ()):
                    for span in scope.get("spans", ()):
                        attributes = {entry["key"]: _value(entry["value"]) for entry in span.get("attributes", ())}
                        yield _Span(str(span["traceId"]), str(span["spanId"]), int(span.get("startTimeUnixNano", 0)), attributes)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise BadInputError(
                f"{path.name} is no OTLP JSON: `resourceSpans` with `scopeSpans`, `spans`, ids and attributes are needed"
            ) from None


def _objects(path: Path, text: str) -> Iterator[Any]:
    """Give the file's one JSON object, or those of its lines."""
    try:
        yield json.loads(text)
        return
    except ValueError:
        pass
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                yield json.loads(line)
            except ValueError:
                raise BadInputError(f"{path.name}, line {number}, is no JSON") from None


def _value(value: Mapping[str, Any]) -> Any:
    """Turn an OTLP AnyValue into a plain one."""
    if "arrayValue" in value:
        return [_value(entry) for entry in value["arrayValue"].get("values", ())]
    if "kvlistValue" in value:
        return {entry["key"]: _value(entry["value"]) for entry in value["kvlistValue"].get("values", ())}
    if "intValue" in value:
        return int(value["intValue"])
    return next(iter(value.values()), None)


def _record(span: _Span, session: str | None, turn: int | None, documents: list[dict[str, str]]) -> dict[str, Any]:
    """Make an item's record. Raises ItemError for what cannot be replayed; its message holds no text of the span."""
    messages, answer = _gen_ai(span.attributes) if _INPUT in span.attributes else _open_inference(span.attributes)
    if not answer:
        raise ItemError("the span holds no text that was answered (an answer that only calls tools cannot be replayed)")
    said = "\n".join(str(message.get("content", "")) for message in messages)
    record: dict[str, Any] = {
        "messages": messages,
        "completion": answer,
        "id": span.span_id,
        "otel_trace_id": span.trace_id,
        "otel_span_id": span.span_id,
    }
    if session is not None:
        record |= {"session_id": session, "turn": turn}
    inside = [document for document in documents if document["text"] in said]
    return record | ({"documents": inside} if inside else {})


def _gen_ai(attributes: Mapping[str, Any]) -> tuple[list[dict[str, Any]], str]:
    messages = [_message(entry, f"input message {n}") for n, entry in enumerate(_structured(attributes[_INPUT], _INPUT))]
    if attributes.get(_SYSTEM):
        parts = _structured(attributes[_SYSTEM], _SYSTEM)
        messages.insert(0, {"role": "system", "content": _text(parts, "system instructions")})
    outputs = _structured(attributes.get(_OUTPUT, []), _OUTPUT)
    return messages, _text(outputs[0].get("parts", []), "output message", calls=True) if outputs else ""


def _structured(value: Any, name: str) -> list[Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise ItemError(f"`{name}` is text that is no JSON") from None
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise ItemError(f"`{name}` is no list of objects")
    return value


def _message(entry: Mapping[str, Any], where: str) -> dict[str, Any]:
    parts = entry.get("parts", [])
    results = [part for part in parts if part.get("type") == "tool_call_response"]
    calls = [part for part in parts if part.get("type") == "tool_call"]
    if results:
        values = [part.get("response", part.get("result", "")) for part in results]
        return {"role": "tool", "content": "\n".join(v if isinstance(v, str) else json.dumps(v) for v in values)}
    message: dict[str, Any] = {"role": str(entry.get("role", "")), "content": _text(parts, where, calls=bool(calls))}
    if calls:
        message["tool_calls"] = [
            {"type": "function", "function": {"name": str(part.get("name", "")), "arguments": part.get("arguments", {})}} for part in calls
        ]
    return message


def _text(parts: Any, where: str, *, calls: bool = False) -> str:
    """Join the text of parts. Raises ItemError for parts that are neither text nor (where allowed) tool calls."""
    allowed = {"text", "reasoning"} | ({"tool_call"} if calls else set())
    strange = sorted({str(part.get("type")) for part in parts} - allowed)
    if strange:
        raise ItemError(f"{where} holds {', '.join(strange)}: only text can be replayed")
    return "".join(str(part.get("content", "")) for part in parts if part.get("type") == "text")


def _open_inference(attributes: Mapping[str, Any]) -> tuple[list[dict[str, Any]], str]:
    messages = []
    for number, entry in enumerate(_indexed(attributes, _LLM)):
        if "message.contents" in {name[:16] for name in entry}:
            raise ItemError(f"input message {number} has several content items: only text can be replayed")
        message: dict[str, Any] = {"role": str(entry.get("message.role", "")), "content": str(entry.get("message.content", ""))}
        calls = _indexed(entry, "message.tool_calls")
        if calls:
            message["tool_calls"] = [
                {"type": "function", "function": {"name": call.get("tool_call.function.name", ""), "arguments": _arguments(call)}}
                for call in calls
            ]
        messages.append(message)
    outputs = _indexed(attributes, _LLM_OUTPUT)
    return messages, str(outputs[0].get("message.content", "")) if outputs else ""


def _arguments(call: Mapping[str, Any]) -> Any:
    text = call.get("tool_call.function.arguments", "{}")
    try:
        return json.loads(text) if isinstance(text, str) else text
    except ValueError:
        return text


def _indexed(attributes: Mapping[str, Any], prefix: str) -> list[dict[str, Any]]:
    """Gather `prefix.N.rest` into a list of {rest: value} in order of N."""
    found: dict[int, dict[str, Any]] = defaultdict(dict)
    for name, value in attributes.items():
        head, _, rest = name.removeprefix(f"{prefix}.").partition(".")
        if name.startswith(f"{prefix}.") and head.isdigit() and rest:
            found[int(head)][rest] = value
    return [found[number] for number in sorted(found)]


def _documents(span: _Span) -> list[dict[str, str]]:
    found = []
    for number, entry in enumerate(_indexed(span.attributes, "retrieval.documents")):
        text = entry.get("document.content")
        if isinstance(text, str) and text:
            found.append({"id": str(entry.get("document.id", f"{span.span_id}-{number}")), "text": text})
    return found
