"""Tokens and character ranges: every character belongs to a token, whatever kind of tokenizer it is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizer

from tests.support.tiny_text_model import added_word, byte_level_tokenizer, metaspace_tokenizer
from tracestore.errors import ItemError
from tracestore.extract.tokenise import append_generated, append_given, decode_ranges, token_text, token_texts, tokenise

TEXTS = (
    "The capital of France is",
    " leading space",
    "two  spaces, trailing ",
    "caf\u00e9 \U0001f600!",
    "tab\tand\nline\n",
    "\u4f60\u597d",
)


class Characters(PreTrainedTokenizer):  # type: ignore[misc]
    """A slow tokenizer, one token a character (or a pair of digits), which gives no offsets."""

    def __init__(self, **options: Any) -> None:
        self._words = ["<s>", *(chr(code) for code in range(32, 127)), *(f"{n:02d}" for n in range(100))]
        self._ids = {word: index for index, word in enumerate(self._words)}
        super().__init__(**options)

    @property
    def vocab_size(self) -> int:
        return len(self._words)

    def get_vocab(self) -> dict[str, int]:
        return dict(self._ids)

    def _tokenize(self, text: str, **_: Any) -> list[str]:
        words, at = [], 0
        while at < len(text):
            size = 2 if text[at : at + 2].isdigit() and len(text[at : at + 2]) == 2 else 1
            words.append(text[at : at + size])
            at += size
        return words

    def _convert_token_to_id(self, token: str) -> int:
        return self._ids[token]

    def _convert_id_to_token(self, index: int) -> str:
        return self._words[index]

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        return "".join(tokens)

    def build_inputs_with_special_tokens(self, first: list[int], second: list[int] | None = None) -> list[int]:
        return [0, *first, *(second or ())]


class Lossy(Characters):
    """A slow tokenizer that decodes to something else than the text."""

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        return "".join(tokens).lower()


def covered(text: str, offsets: tuple[tuple[int, int], ...]) -> bool:
    """Tell whether the ranges are ascending and leave no character out."""
    end = 0
    for start, stop in offsets:
        if stop == start:
            continue
        if start > end or stop < end:
            return False
        end = max(end, stop)
    return end == len(text)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("trim", [False, True])
def test_byte_level_ranges_cover_the_text(text: str, trim: bool) -> None:
    tokenizer = byte_level_tokenizer(trim_offsets=trim)
    tokens = tokenise(tokenizer, text)
    assert list(tokens.token_ids) == tokenizer(text)["input_ids"]
    assert covered(text, tokens.offsets)


def test_trimmed_offsets_get_their_space_back() -> None:
    text = "The capital of France"
    plain, trimmed = (tokenise(byte_level_tokenizer(trim_offsets=trim), text) for trim in (False, True))
    assert plain == trimmed
    assert token_texts(byte_level_tokenizer(trim_offsets=True), trimmed)[1].startswith(" ")


def test_half_an_emoji_is_found_by_its_character() -> None:
    tokenizer = byte_level_tokenizer()
    text = "a \U0001f600b"
    tokens = tokenise(tokenizer, text)
    shared = [pos for pos, (start, stop) in enumerate(tokens.offsets) if start <= 2 < stop]
    assert len(shared) == 4
    assert {token_texts(tokenizer, tokens)[pos].strip() for pos in shared} == {"\U0001f600"}


@pytest.mark.parametrize("end_mark", [False, True])
def test_marks_in_front_stay_and_marks_behind_go(end_mark: bool) -> None:
    tokenizer = metaspace_tokenizer(end_mark=end_mark)
    tokens = tokenise(tokenizer, "The capital of France")
    assert tokens.token_ids[0] == 1
    assert tokens.offsets[0] == (0, 0)
    assert 2 not in tokens.token_ids
    assert covered(tokens.text, tokens.offsets)
    assert token_texts(tokenizer, tokens)[0] == "<s>"


@pytest.mark.parametrize("make", [byte_level_tokenizer, metaspace_tokenizer])
@pytest.mark.parametrize(
    ("prompt", "completion"),
    [
        ("The capital of France is", " Paris. It is"),
        ("The capital of France is ", "Paris"),
        ("2 + 3 =", " 5"),
        ("Wh", "ere"),
        ("a", "\n\nb"),
    ],
)
def test_a_given_answer_leaves_the_prompt_alone_and_is_exact(make: Any, prompt: str, completion: str) -> None:
    tokenizer = make()
    before = tokenise(tokenizer, prompt)
    after = append_given(tokenizer, before, completion)
    assert after.text == prompt + completion
    assert after.token_ids[: len(before)] == before.token_ids
    assert after.offsets[: len(before)] == before.offsets
    assert after.offsets[len(before)][0] == len(prompt)
    decoded = [tokenizer.decode(list(ids), clean_up_tokenization_spaces=False) for ids in (before.token_ids, after.token_ids)]
    assert decoded[1] == decoded[0] + completion


@settings(max_examples=60, deadline=None)
@given(st.text("ab \u00e9\U0001f600\n", min_size=1, max_size=12), st.text("ab \u00e9\U0001f600\n", min_size=1, max_size=12))
def test_any_split_of_a_text_keeps_prompt_tokens_and_characters(prompt: str, completion: str) -> None:
    tokenizer = _BYTES
    before = tokenise(tokenizer, prompt)
    after = append_given(tokenizer, before, completion)
    assert after.text == prompt + completion
    assert after.token_ids[: len(before)] == before.token_ids
    assert covered(after.text, after.offsets)
    assert tokenizer.decode(list(after.token_ids), clean_up_tokenization_spaces=False) == prompt + completion


@settings(max_examples=60, deadline=None)
@given(st.text("ab \u00e9\U0001f600\u4f60\n", min_size=1, max_size=12))
def test_generated_tokens_rebuild_their_text(text: str) -> None:
    prompt = tokenise(_BYTES, "The")
    new = tokenise(_BYTES, text).token_ids
    grown = append_generated(_BYTES, prompt, new)
    assert grown.text == "The" + text
    assert covered(grown.text, grown.offsets)


_BYTES = byte_level_tokenizer()


def test_generated_metaspace_tokens_keep_their_spaces() -> None:
    tokenizer = metaspace_tokenizer()
    whole = tokenise(tokenizer, "The capital of France is Paris.")
    prompt = tokenise(tokenizer, "The capital of France")
    assert whole.token_ids[: len(prompt)] == prompt.token_ids
    grown = append_generated(tokenizer, prompt, whole.token_ids[len(prompt) :])
    assert grown.text == whole.text
    assert grown.offsets == whole.offsets


def test_bytes_that_never_become_a_character_stay_visible() -> None:
    broken = _BYTES("\U0001f600")["input_ids"][:2]
    grown = append_generated(_BYTES, tokenise(_BYTES, "a"), [*broken, *_BYTES("bc")["input_ids"]])
    assert grown.text == "a\ufffdbc"
    assert covered(grown.text, grown.offsets)


class Pieces:
    """Tokens that are stretches of bytes, cut anywhere."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = pieces

    def decode(self, ids: list[int], **_: Any) -> str:
        return b"".join(self.pieces[index] for index in ids).decode(errors="replace")


def test_a_token_may_end_within_a_character_and_begin_within_the_next() -> None:
    emoji = "\U0001f600".encode()
    pieces = Pieces(b"ab" + emoji[:2], emoji[2:3], emoji[3:] + b"c" + emoji[:1], emoji[1:] + b"d")
    text, ranges = decode_ranges(pieces, range(4), 0)
    assert text == "ab\U0001f600c\U0001f600d"
    assert ranges == ((0, 3), (2, 3), (2, 5), (4, 6))


def test_a_slow_tokenizer_is_decoded_token_by_token() -> None:
    tokens = tokenise(Characters(), "on 12345!")
    assert tokens.token_ids[0] == 0
    assert tokens.offsets == ((0, 0), (0, 1), (1, 2), (2, 3), (3, 5), (5, 7), (7, 8), (8, 9))
    with pytest.raises(ItemError, match="do not rebuild the text"):
        tokenise(Lossy(), "On")
    assert tokenise(Lossy(), "on").offsets == ((0, 0), (0, 1), (1, 2))


def test_a_special_token_that_begins_a_word_is_cut_as_the_tokenizer_cuts_it() -> None:
    tokenizer = added_word(byte_level_tokenizer(), "Par")
    tokens = tokenise(tokenizer, "in Paris")
    pieces = [tokens.text[start:stop] for start, stop in tokens.offsets]
    assert "Par" in pieces
    assert "".join(pieces) == "in Paris"


def test_token_text_of_bytes_and_marks() -> None:
    assert token_text(_BYTES, _BYTES(" of")["input_ids"][0]) == " of"
    assert "\ufffd" not in token_text(_BYTES, _BYTES("\U0001f600")["input_ids"][0])
    spaced = metaspace_tokenizer()
    assert token_text(spaced, spaced("in Paris")["input_ids"][-1])[0] in " Paris."
    assert token_text(spaced, 1) == "<s>"


def test_an_empty_prompt_has_no_tokens() -> None:
    with pytest.raises(ItemError, match="empty"):
        tokenise(_BYTES, "")
