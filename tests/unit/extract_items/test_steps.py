"""An answer cut into steps: where they begin, and that they tile the answer's tokens."""

from __future__ import annotations

import pytest

from tests.support.tiny_text_model import byte_level_tokenizer
from tracestore.extract.spans import TokenSpan
from tracestore.extract.steps import step_spans, step_starts
from tracestore.extract.tokenise import append_given, tokenise
from tracestore.model import StepRule

TOKENIZER = byte_level_tokenizer()


@pytest.mark.parametrize(
    ("rule", "text", "pieces"),
    [
        ("line", "First.\nSecond. Third\n\n\nFourth\n", ["First.\n", "Second. Third\n\n\n", "Fourth\n"]),
        ("line", "one", ["one"]),
        ("line", "\n\none\ntwo", ["\n\none\n", "two"]),
        ("sentence", " Two plus 2.5 is 4.5. So it is! Yes?  End", [" Two plus 2.5 is 4.5. ", "So it is! ", "Yes?  ", "End"]),
        ("sentence", "See e.g. the text. Dr. Who came.", ["See e.g. the text. ", "Dr. Who came."]),
        ("sentence", '"Go." He went.\n1. First\n2. Then', ['"Go." ', "He went.\n", "1. First\n", "2. Then"]),
        ("sentence", "\u662f\u7684\u3002\u4e0d\u662f\u3002", ["\u662f\u7684\u3002", "\u4e0d\u662f\u3002"]),
        ("sentence", "Done.   ", ["Done.   "]),
    ],
)
def test_where_steps_begin(rule: StepRule, text: str, pieces: list[str]) -> None:
    starts = step_starts(text, rule)
    assert [text[start:stop] for start, stop in zip(starts, [*starts[1:], len(text)], strict=True)] == pieces


def cut(completion: str, rule: StepRule) -> tuple[list[TokenSpan], int, int]:
    prompt = tokenise(TOKENIZER, "What is it?")
    tokens = append_given(TOKENIZER, prompt, completion)
    return step_spans(tokens, len(prompt), len(prompt.text), rule), len(prompt), len(tokens)


@pytest.mark.parametrize("rule", ["line", "sentence"])
def test_steps_tile_the_answers_tokens(rule: StepRule) -> None:
    spans, first, count = cut(" It is Paris. \n\n The capital is in France.\n\U0001f600 Rome.\n \n", rule)
    assert [span.first_pos for span in spans] == [first, *(span.last_pos + 1 for span in spans[:-1])]
    assert spans[-1].last_pos == count - 1
    assert [span.text.strip() for span in spans] == ["It is Paris.", "The capital is in France.", "\U0001f600 Rome."]
    assert [(span.kind, span.ordinal) for span in spans] == [("step", 0), ("step", 1), ("step", 2)]


def test_a_token_with_its_space_belongs_to_the_step_of_its_letters() -> None:
    spans, _, _ = cut(" Paris. Rome.", "sentence")
    assert [span.text for span in spans] == [" Paris.", " Rome."]


def test_no_answer_has_no_steps() -> None:
    tokens = tokenise(TOKENIZER, "What is it?")
    assert step_spans(tokens, len(tokens), len(tokens.text), "line") == []
