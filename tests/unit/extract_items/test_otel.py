"""OpenTelemetry spans become items: both conventions, sessions and turns, documents, and a reason for each that cannot be replayed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tracestore.errors import BadInputError
from tracestore.extract.items import ItemFailure
from tracestore.extract.otel import read_otel
from tracestore.model import Document, Item

TRACE = "a" * 32


def any_value(value: Any) -> dict[str, Any]:
    """Write a value as OTLP's AnyValue."""
    if isinstance(value, str):
        return {"stringValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, list):
        return {"arrayValue": {"values": [any_value(one) for one in value]}}
    return {"kvlistValue": {"values": [{"key": k, "value": any_value(v)} for k, v in value.items()]}}


def span(number: int, attributes: dict[str, Any]) -> dict[str, Any]:
    pairs = [{"key": name, "value": any_value(value)} for name, value in attributes.items()]
    return {"traceId": TRACE, "spanId": f"{number:016x}", "name": "chat", "startTimeUnixNano": str(1000 + number), "attributes": pairs}


def write(path: Path, *spans: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": list(spans)}]}]}))
    return path


def said(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "parts": [{"type": "text", "content": text}]}


GEN_AI = {
    "gen_ai.system_instructions": [{"type": "text", "content": "Be brief."}],
    "gen_ai.input.messages": [said("user", "Where is Paris?")],
    "gen_ai.output.messages": json.dumps([said("assistant", "In France.") | {"finish_reason": "stop"}]),
    "gen_ai.conversation.id": "c1",
}
OPEN_INFERENCE = {
    "openinference.span.kind": "LLM",
    "llm.input_messages.0.message.role": "user",
    "llm.input_messages.0.message.content": "Paris is in France.\nWhere is Paris?",
    "llm.output_messages.0.message.role": "assistant",
    "llm.output_messages.0.message.content": "France",
    "session.id": "s1",
}


def test_both_conventions_become_items_with_ids_session_and_turn(tmp_path: Path) -> None:
    retrieval = {"retrieval.documents.0.document.content": "Paris is in France.", "retrieval.documents.0.document.id": 7}
    unused = {"retrieval.documents.0.document.content": "Oslo is in Norway."}
    path = write(
        tmp_path / "spans.json",
        span(4, GEN_AI),
        span(1, retrieval),
        span(2, unused),
        span(3, OPEN_INFERENCE),
        span(5, GEN_AI),
        span(6, {"x": 1}),
    )
    first, second, third = read_otel(path)
    assert first == Item(
        messages=({"role": "user", "content": "Paris is in France.\nWhere is Paris?"},),
        completion="France",
        documents=(Document("7", "Paris is in France."),),
        id=f"{3:016x}",
        session_id="s1",
        turn=0,
        otel_trace_id=TRACE,
        otel_span_id=f"{3:016x}",
    )
    assert isinstance(second, Item)
    assert second.messages == ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where is Paris?"})
    assert (second.completion, second.session_id, second.turn) == ("In France.", "c1", 0)
    assert isinstance(third, Item)
    assert third.turn == 1


def test_tool_calls_and_results_are_messages(tmp_path: Path) -> None:
    call = {"role": "assistant", "parts": [{"type": "tool_call", "id": "1", "name": "weather", "arguments": {"city": "Paris"}}]}
    result = {"role": "tool", "parts": [{"type": "tool_call_response", "id": "1", "result": "rainy"}]}
    attributes = GEN_AI | {"gen_ai.input.messages": [said("user", "Weather?"), call, result]}
    (item,) = read_otel(write(tmp_path / "spans.json", span(1, attributes)))
    assert isinstance(item, Item)
    assert item.messages is not None
    assert item.messages[2]["tool_calls"][0]["function"] == {"name": "weather", "arguments": {"city": "Paris"}}
    assert item.messages[3] == {"role": "tool", "content": "rainy"}


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        (GEN_AI | {"gen_ai.output.messages": []}, "no text that was answered"),
        (GEN_AI | {"gen_ai.output.messages": [{"role": "assistant", "parts": [{"type": "tool_call", "name": "x"}]}]}, "only calls tools"),
        (
            GEN_AI | {"gen_ai.input.messages": [{"role": "user", "parts": [{"type": "blob", "content": "zzz"}]}]},
            "input message 0 holds blob",
        ),
        (GEN_AI | {"gen_ai.input.messages": "no json"}, "text that is no JSON"),
        (OPEN_INFERENCE | {"llm.input_messages.0.message.contents.0.message_content.type": "image"}, "several content items"),
    ],
)
def test_what_cannot_be_replayed_is_reported_with_the_spans_id(tmp_path: Path, attributes: dict[str, Any], reason: str) -> None:
    found = list(read_otel(write(tmp_path / "spans.json", span(1, attributes), span(2, GEN_AI))))
    assert isinstance(found[0], ItemFailure)
    assert (found[0].item_id, found[0].line) == (f"{1:016x}", 1)
    assert reason in found[0].reason
    assert "zzz" not in found[0].reason
    assert isinstance(found[1], Item)


def test_one_object_a_line_is_read_and_other_json_refused(tmp_path: Path) -> None:
    lines = [json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span(n, GEN_AI)]}]}]}) for n in (2, 1)]
    path = tmp_path / "spans.jsonl"
    path.write_text("\n".join(lines) + "\n")
    assert [item.id for item in read_otel(path) if isinstance(item, Item)] == [f"{1:016x}", f"{2:016x}"]
    for text, message in (('{"a": 1}', "no OTLP JSON"), ("{\n", "line 1, is no JSON")):
        path.write_text(text)
        with pytest.raises(BadInputError, match=message):
            list(read_otel(path))
    with pytest.raises(BadInputError, match="cannot read the spans"):
        list(read_otel(tmp_path / "missing.json"))
