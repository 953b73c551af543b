"""The guard: hostile statements are refused, innocent ones pass, and no disguise of a refused word gets through."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.statements import BOTH, HOSTILE, LADYBUG_ONLY, NEO4J_ONLY
from tracestore.errors import QueryError
from tracestore.query.guard import MAX_CHARS, PROCEDURES, REFUSED, check_read_only
from tracestore.query.tokens import Token, tokens


def refusal(text: str) -> str | None:
    """Say why a statement is refused; None for one that passes."""
    try:
        check_read_only(text)
    except QueryError as error:
        return str(error)
    return None


def test_there_are_enough_of_both() -> None:
    assert len(set(HOSTILE)) == len(HOSTILE) >= 80
    assert len(set(BOTH)) == len(BOTH) >= 80  # accepted and answered on both engines: tests/conformance/test_fence.py


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_is_refused(text: str) -> None:
    with pytest.raises(QueryError):
        check_read_only(text)


@pytest.mark.parametrize("text", [*BOTH, *NEO4J_ONLY, *LADYBUG_ONLY])
def test_innocent_passes(text: str) -> None:
    assert refusal(text) is None


def test_messages_name_the_word_and_never_quote_the_text() -> None:
    with pytest.raises(QueryError, match="DELETE is refused") as caught:
        check_read_only("MATCH (secret {name: 'hush'}) DELETE secret")
    assert "hush" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_very_long_statement_is_refused() -> None:
    check_read_only("RETURN '" + "x" * (MAX_CHARS - 10) + "'")
    with pytest.raises(QueryError, match="characters"):
        check_read_only("RETURN '" + "x" * MAX_CHARS + "'")


SPACE = st.sampled_from([" ", "\n", "\t", "  ", "/**/", "/* ' */", '// " \n', "\r\n"])
REFUSED_WORD = st.sampled_from(sorted(REFUSED))
CASED = st.builds(
    lambda word, mask: "".join(c.lower() if mask >> i & 1 else c for i, c in enumerate(word)), REFUSED_WORD, st.integers(0, 2**12)
)
PLAIN = st.text(st.characters(blacklist_categories=["Cs", "Cc"], blacklist_characters="\\'\"`/*\u2028\u2029"), max_size=20)


def quoted(text: str, quote: str) -> str:
    return quote + text + quote


LITERAL = st.one_of(
    st.builds(quoted, PLAIN, st.sampled_from(["'", '"', "`"])),
    st.builds("/*{}*/".format, PLAIN),
    st.builds("//{}\n".format, PLAIN),
    st.sampled_from(["'\\''", '"\\""', "'\\\\'", "n.set", "$set", ":Set", "1.5", "(", ")", "[", "]", "-->"]),
)


@given(before=st.lists(LITERAL, max_size=4), word=CASED, left=SPACE, right=SPACE, after=st.lists(LITERAL, max_size=4))
def test_a_refused_word_outside_literals_is_always_refused(before: list[str], word: str, left: str, right: str, after: list[str]) -> None:
    text = "MATCH (n) " + " ".join(before) + " x" + left + word + right + "x " + " ".join(after)
    with pytest.raises(QueryError):
        check_read_only(text)


@given(word=CASED, padding=PLAIN, form=st.sampled_from(["'{}'", '"{}"', "/* {} */ 1", "1 // {}", "`{}`", "'\\'{}'", '"\\\\{}"']))
def test_a_refused_word_inside_a_literal_passes(word: str, padding: str, form: str) -> None:
    assert refusal("RETURN " + form.format(padding + " " + word + " " + padding)) is None


@given(st.text(max_size=60))
def test_any_text_is_accepted_or_refused_and_nothing_else_happens(text: str) -> None:
    try:
        check_read_only("RETURN " + text)
    except QueryError:
        return
    stripped = [token for token in tokens("RETURN " + text) if token.kind == "word"]
    assert stripped[0] == Token("word", "RETURN")


@given(
    st.lists(st.sampled_from(["'", '"', "`", "/*", "*/", "//", "\\", "\n", "\r", " SET ", "a", "1", ".", ":", ";", "\u2028"]), max_size=12)
)
def test_what_passes_is_safe_by_a_second_reading(parts: list[str]) -> None:
    """A plain reading by one regular expression finds no refused word outside literals in anything that the guard accepts."""
    text = "RETURN " + "".join(parts)
    try:
        check_read_only(text)
    except QueryError:
        return
    literal = r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|`[^`]*`|/\*.*?\*/|//[^\n]*"
    comment = r"/\*|//"
    rest = re.sub(literal, lambda found: " " if re.match(comment, found.group()) else " Q ", text, flags=re.DOTALL)
    names = re.sub(r"[.:]\s*SET\b", "", rest)
    assert not re.search(r"\bSET\b", names), text


def test_procedures_are_upper_case_like_what_they_are_compared_with() -> None:
    assert {name.upper() for name in PROCEDURES} == PROCEDURES
