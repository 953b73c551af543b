"""Reading items: formats, validation, line numbers, and no prompt text in any message."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracestore.errors import BadInputError, ItemError
from tracestore.extract.item_format import KEYS, item_record, parse_item
from tracestore.extract.items import ItemFailure, read_items
from tracestore.model import Document, Item, SpanRequest


def read(data: bytes | str, **options: Any) -> list[Item | ItemFailure]:
    return list(read_items(io.BytesIO(data.encode() if isinstance(data, str) else data), **options))


def failure(entry: Item | ItemFailure) -> ItemFailure:
    assert isinstance(entry, ItemFailure)
    return entry


def item(entry: Item | ItemFailure) -> Item:
    assert isinstance(entry, Item)
    return entry


FULL: dict[str, Any] = {
    "prompt": "Paris is in France. Where?",
    "completion": " In France",
    "documents": [{"id": "d1", "text": "Paris is in France."}],
    "spans": [{"kind": "turn", "ref": "s", "start": 0, "end": 5}],
    "evidence": [{"start": 12, "end": 18}],
    "steps": "line",
    "id": "x1",
    "targets": [3, -1],
    "target_token": " In",
    "foil": 7,
    "expected": "In France",
    "rationale": "It says so.",
    "dataset": "facts",
    "split": "test",
    "variant": "clean",
    "tags": ["a", "b"],
    "session_id": "s1",
    "turn": 2,
    "max_new_tokens": 4,
    "otel_trace_id": "A" * 32,
    "otel_span_id": "b" * 16,
}


def test_every_key_arrives() -> None:
    found = parse_item(FULL)
    assert found == Item(
        prompt="Paris is in France. Where?",
        completion=" In France",
        documents=(Document("d1", "Paris is in France."),),
        spans=(SpanRequest("turn", 0, 5, "s"),),
        evidence=(SpanRequest("evidence", 12, 18),),
        steps="line",
        id="x1",
        targets=(3, -1),
        target_token=" In",
        foil=7,
        expected="In France",
        rationale="It says so.",
        dataset="facts",
        split="test",
        variant="clean",
        tags=("a", "b"),
        session_id="s1",
        turn=2,
        max_new_tokens=4,
        otel_trace_id="a" * 32,
        otel_span_id="b" * 16,
    )
    assert set(FULL) | {"messages", "tools"} == set(KEYS)


def test_null_means_absent() -> None:
    found = parse_item({"prompt": "x", **{key: None for key in KEYS if key != "prompt"}, "id": "i"})
    assert found == Item(prompt="x", id="i")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"messages": [{"role": "user", "content": "SECRET"}]}, "not both"),
        ({"prompt": None}, "exactly one of"),
        ({"prompt": ""}, "prompt is empty"),
        ({"prompt": 5}, "`prompt` is a string, not a number"),
        ({"promt": "SECRET"}, "unknown key 'promt'; did you mean prompt?"),
        ({"label": "SECRET"}, "did you mean expected?"),
        ({"completion": ""}, "`completion` is empty"),
        ({"completion": ["SECRET"]}, "`completion` is a string, not a list"),
        ({"documents": [{"id": "d", "text": "SECRET"}]}, "documents[0].text` (6 characters) does not stand verbatim"),
        ({"documents": [{"id": "d", "text": "Paris"}, {"id": "d", "text": "France"}]}, "documents[1].id` is that of an earlier"),
        ({"documents": [{"id": "d", "body": "SECRET"}]}, "unknown key 'body' in `documents[0]`"),
        ({"documents": {"id": "d"}}, "`documents` is a list of objects, not an object"),
        ({"spans": [{"kind": "step", "start": 5, "end": 5}]}, "`spans[0]` is [5, 5): a span needs 0 <= start < end <= 36"),
        ({"spans": [{"kind": "step", "start": 0, "end": 37}]}, "`spans[0]` is [0, 37)"),
        ({"spans": [{"kind": "step", "start": -1, "end": 3}]}, "`spans[0]` is [-1, 3)"),
        ({"spans": [{"kind": "paragraph", "start": 0, "end": 3}]}, "`spans[0].kind` is one of role"),
        ({"spans": [{"kind": "step", "start": True, "end": 3}]}, "`spans[0].start` is a whole number, not a boolean"),
        ({"spans": ["SECRET"]}, "`spans[0]` is an object, not a string"),
        ({"evidence": [{"kind": "step", "start": 0, "end": 3}]}, "`evidence[0].kind` is evidence"),
        ({"targets": "first"}, "`targets` is one of last, generated, all"),
        ({"targets": "span:nothing"}, "`targets` is one of last, generated, all"),
        ({"targets": "span:answer:all"}, "span:KIND:each"),
        ({"targets": []}, "non-empty list"),
        ({"steps": "word"}, "`steps` is one of sentence, line"),
        ({"steps": "line", "spans": [{"kind": "step", "start": 0, "end": 3}]}, "give one of the two"),
        ({"targets": [1, 1]}, "names a position twice"),
        ({"targets": [1.5]}, "`targets[0]` is a whole number"),
        ({"target_token": 1.5}, "`target_token` is a string or a vocabulary id, not a number"),
        ({"target_token": -1}, "`target_token` is negative"),
        ({"turn": 10**30}, "`turn` is too large"),
        ({"foil": True}, "`foil` is a string or a vocabulary id, not a boolean"),
        ({"tags": "SECRET"}, "`tags` is a list"),
        ({"turn": -1}, "`turn` is negative"),
        ({"max_new_tokens": "5"}, "`max_new_tokens` is a whole number, not a string"),
        ({"otel_trace_id": "a" * 31}, "32 hexadecimal digits"),
        ({"tools": []}, "`tools` goes with `messages`"),
        ({"expected": ""}, "`expected` is empty"),
        ({"id": ""}, "`id` is empty"),
        ({"dataset": "\ud83d"}, "half of a surrogate pair"),
    ],
)
def test_malformed_items_say_which_key_and_never_the_text(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ItemError) as caught:
        parse_item({**FULL, **change})
    assert words in str(caught.value)
    assert "SECRET" not in str(caught.value)
    assert "Where?" not in str(caught.value)


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([], "`messages` is empty"),
        ([{"content": "SECRET"}], "`messages[0].role` is a non-empty string, not null"),
        ([{"role": "user"}], "neither content nor tool calls"),
        ([{"role": "user", "content": 5}], "`messages[0].content` is a string or a list of text parts"),
        ([{"role": "user", "content": [{"type": "image", "url": "SECRET"}]}], "`messages[0].content[0]` is no text part"),
        ([{"role": "assistant", "tool_calls": "SECRET"}], "`messages[0].tool_calls` is a list of objects"),
        ("SECRET", "`messages` is a list of objects, not a string"),
    ],
)
def test_malformed_messages(messages: Any, words: str) -> None:
    with pytest.raises(ItemError) as caught:
        parse_item({"messages": messages})
    assert words in str(caught.value)
    assert "SECRET" not in str(caught.value)


def test_an_answer_is_given_once() -> None:
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert parse_item({"messages": chat}).messages == tuple(chat)
    with pytest.raises(ItemError, match="not both"):
        parse_item({"messages": chat, "completion": "c"})


def test_lines_keep_their_numbers_and_reading_goes_on() -> None:
    broken = [b'{"prompt": ', b'{"prompt": "b\xff"}', b"[1]", b'{"prompt": "c", "prompt": "d"}', b'{"prompt": NaN}']
    data = b'\xef\xbb\xbf{"prompt": "a"}\r\n\r\n' + b"\n".join(broken) + b'\n{"prompt": "e"}'
    found = read(data)
    assert [e.prompt if isinstance(e, Item) else e.line for e in found] == ["a", 3, 4, 5, 6, 7, "e"]
    assert [item(e).line for e in (found[0], found[-1])] == [1, 8]
    reasons = [failure(e).reason for e in found[1:6]]
    assert reasons[0].startswith("not valid JSON: Expecting value at column")
    assert reasons[1] == "not valid UTF-8 at byte 13 of the line"
    assert reasons[2] == "an item is a JSON object, not a list"
    assert reasons[3] == "the key 'prompt' stands twice"
    assert reasons[4] == "NaN is not valid JSON"


def test_an_object_nested_too_deeply_is_one_failure() -> None:
    found = read('{"prompt": ' + "[" * 200_000 + "\n" + '{"prompt": "ok"}', format="jsonl")
    assert failure(found[0]).reason.startswith("not valid JSON")
    assert item(found[1]).prompt == "ok"


def test_a_line_over_the_limit_is_skipped_and_the_next_is_read() -> None:
    line = json.dumps({"prompt": "x" * 100})
    found = read(f"{line}\n{json.dumps({'prompt': 'b'})}\n{line}", max_line_bytes=50)
    assert [failure(found[0]).line, item(found[1]).prompt, failure(found[2]).line] == [1, "b", 3]
    assert failure(found[0]).reason == "the line is longer than 50 bytes"
    exact = json.dumps({"prompt": "y"})
    assert item(read(exact + "\n", max_line_bytes=len(exact))[0]).prompt == "y"


def test_text_is_a_prompt_a_line() -> None:
    assert [item(e).prompt for e in read(" a \r\n\n{b\n", format="txt")] == [" a ", "{b"]
    assert [item(e).prompt for e in read("plain\n{b\n")] == ["plain", "{b"]


def test_duplicate_ids_name_the_first_line() -> None:
    found = read('\n{"prompt": "a", "id": "i"}\n{"prompt": "b", "id": "i"}\n{"prompt": "c"}\n{"prompt": "c"}\n')
    assert [item(found[0]).id, failure(found[1]).line, failure(found[1]).item_id] == ["i", 3, "i"]
    assert "line 2" in failure(found[1]).reason
    assert failure(found[3]).line == 5


def test_default_ids_hash_the_content_and_can_be_keyed() -> None:
    first, again, other = (
        item(read(text)[0]).id for text in ('{"prompt": "a", "turn": 1}', '{"turn": 1, "prompt": "a"}', '{"prompt": "b"}')
    )
    assert first == again != other
    keyed = item(read('{"prompt": "b"}', text_key=b"k" * 32)[0]).id
    assert keyed is not None
    assert keyed != other
    assert item(read('{"prompt": "b", "turn": null}')[0]).id == other


def test_an_item_and_its_record_are_the_same() -> None:
    whole = parse_item(FULL)
    assert parse_item(item_record(whole)) == whole
    chat = parse_item({"messages": [{"role": "user", "content": "a"}], "tools": [{"name": "f"}], "targets": "all"})
    assert parse_item(item_record(chat)) == chat
    assert item_record(Item(prompt="a")) == {"prompt": "a"}
    assert parse_item(item_record(Item(prompt="a"))).id == item(read('{"prompt": "a"}')[0]).id


def test_parquet_rows(tmp_path: Path) -> None:
    path = tmp_path / "items.parquet"
    rows: list[dict[str, Any]] = [
        {"prompt": "a", "tags": ["t"], "spans": [{"kind": "step", "start": 0, "end": 1}]},
        {"prompt": None},
        {"prompt": "c", "tags": None},
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)
    found = list(read_items(path))
    assert item(found[0]).spans == (SpanRequest("step", 0, 1),)
    assert failure(found[1]).line == 2
    assert (item(found[2]).tags, item(found[2]).line) == ((), 3)
    pq.write_table(pa.table({"prompt": ["SECRET"], "extra": [1]}), path)
    with pytest.raises(BadInputError, match="extra") as caught:
        list(read_items(path))
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize("name", ["items.csv", "missing.jsonl", "broken.parquet", "missing.parquet"])
def test_unreadable_sources_are_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "broken.parquet").write_bytes(b"no parquet at all, whatever the name says")
    with pytest.raises(BadInputError, match=name.split(".")[0]):
        list(read_items(tmp_path / name))


def test_utf16_is_refused_as_a_whole() -> None:
    with pytest.raises(BadInputError, match="UTF-16"):
        read('{"prompt": "a"}'.encode("utf-16"))


def test_reading_items_needs_no_model() -> None:
    heavy = {"torch", "transformers", "pyarrow"}
    program = f"import sys, tracestore.extract.items as items; next(items.read_items('-')); print({heavy} & set(sys.modules) or 'none')"
    done = subprocess.run([sys.executable, "-c", program], input='{"prompt": "a"}', capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "none\n"


def test_reading_is_lazy() -> None:
    class Endless(io.RawIOBase):
        served = 0

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            line = b'{"prompt": "%d"}\n' % self.served
            self.served += 1
            buffer[: len(line)] = line
            return len(line)

    source = Endless()
    entries = read_items(io.BufferedReader(source, 64))
    assert [item(next(entries)).prompt for _ in range(3)] == ["0", "1", "2"]
    assert source.served < 20


_VALUES = st.none() | st.booleans() | st.integers() | st.text("ab \u00e9\ud800{", max_size=5)
_KEYS = st.sampled_from([*KEYS, "other"])


@given(st.dictionaries(_KEYS, st.recursive(_VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=2))))
def test_any_json_object_is_an_item_or_an_item_error(record: dict[str, Any]) -> None:
    try:
        found = parse_item(record)
    except ItemError:
        return
    assert (found.prompt is None) != (found.messages is None)
    assert found.id


def test_two_variants_of_an_item_may_share_its_id() -> None:
    lines = [{"id": "a", "variant": "clean"}, {"id": "a", "variant": "corrupt"}, {"id": "a"}, {"id": "a", "variant": "clean"}]
    found = read("\n".join(json.dumps({"prompt": "x", **line}) for line in lines))
    assert [item(entry).variant for entry in found[:3]] == ["clean", "corrupt", None]
    assert failure(found[3]).reason.endswith("as line 1")
