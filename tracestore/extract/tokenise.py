"""Text to token ids with character ranges that come from the tokenizer's own output, and token ids back to text.

1. Fast tokenizers give character offsets. Space that they cut off a token's range though the token stands for it is given back.
2. Others give none: decode token by token, and demand that the pieces rebuild the text exactly.
3. Marks that a tokenizer puts at the end (an end-of-text token) are dropped: a prompt is to be continued.
4. A continuation must leave the prompt's tokens alone and its own characters exact: tokenise both together and accept when the prompt's
   tokens come out unchanged; else tokenise it alone, or after a neutral character, and demand that decoding gives both back.
5. Tokens that share a character (half an emoji each) share its range.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from tracestore.errors import ItemError

Offsets = tuple[tuple[int, int], ...]

_REPLACEMENT: Final = "\ufffd"
_SPACE_MARKS: Final = ("\u2581", "\u0120")  # how SentencePiece and byte-level vocabularies spell a leading space
_CONTEXT_TOKENS: Final = 6  # decoded before a token, so that its leading space shows
_ANCHORS: Final = (
    "",
    "\n",
    ".",
    "a",
)  # what may stand before a continuation that is cut on its own: some vocabularies add a space after nothing
_LONGEST_CHARACTER: Final = 8  # tokens; beyond it the bytes are no character and stay as replacement marks


@dataclass(frozen=True, slots=True)
class Tokenised:
    """A text and its tokens: ids and character ranges (end excluded; empty for tokens that stand for no text), position by position."""

    text: str
    token_ids: tuple[int, ...]
    offsets: Offsets

    def __len__(self) -> int:
        return len(self.token_ids)


def tokenise(tokenizer: Any, text: str, *, special: bool = True) -> Tokenised:
    """Tokenise a prompt; `special` adds the marks that the tokenizer puts before a text. Raises ItemError when nothing is left."""
    tokens = _fast(tokenizer, text, special) if tokenizer.is_fast else _slow(tokenizer, text, special)
    if not tokens.token_ids:
        raise ItemError("the prompt is empty: the tokenizer makes no token of it")
    return tokens


def _fast(tokenizer: Any, text: str, special: bool) -> Tokenised:
    encoded = tokenizer(text, add_special_tokens=special, return_offsets_mapping=True, return_special_tokens_mask=True, verbose=False)
    ids, ranges, marks = encoded["input_ids"], encoded["offset_mapping"], encoded["special_tokens_mask"]
    count = len(ids)
    while special and count and marks[count - 1] and ranges[count - 1][0] == ranges[count - 1][1]:
        count -= 1
    offsets = _give_back_spaces(tokenizer, text, ids[:count], [tuple(pair) for pair in ranges[:count]], marks)
    return Tokenised(text, tuple(ids[:count]), offsets)


def _give_back_spaces(tokenizer: Any, text: str, ids: Sequence[int], ranges: list[tuple[int, int]], marks: Sequence[int]) -> Offsets:
    """Extend ranges over the space that the tokenizer cut off them, where the token's own spelling holds it.

    Some post-processors trim " of" to "of" and a token of nothing but spaces to nothing.
    """
    end = 0
    for index, (start, stop) in enumerate(ranges):
        if not marks[index] and (start > end or start == stop or (stop < len(text) and text[stop].isspace())):
            piece = _decode(tokenizer, [ids[index]])
            whole = end + len(piece)
            if piece and whole >= stop and text.startswith(piece, end) and text[end:start].strip() == text[stop:whole].strip() == "":
                ranges[index] = (end, whole)
            elif start > end and text[end:start].isspace() and str(tokenizer.convert_ids_to_tokens(ids[index])).startswith(_SPACE_MARKS):
                ranges[index] = (end, stop)
        end = max(end, ranges[index][1])
    return tuple(ranges)


def _slow(tokenizer: Any, text: str, special: bool) -> Tokenised:
    plain = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    before = _leading_marks(list(tokenizer(text)["input_ids"]), plain) if special else []
    rebuilt, ranges = decode_ranges(tokenizer, plain, 0)
    lead = len(text) - len(text.lstrip())
    if rebuilt == text[lead:]:  # some decoders drop the text's first spaces
        ranges = tuple((start + lead, stop + lead) for start, stop in ranges)
    elif rebuilt != text:
        raise ItemError("this tokenizer gives no offsets and its tokens do not rebuild the text: use a fast tokenizer")
    return Tokenised(text, (*before, *plain), ((0, 0),) * len(before) + ranges)


def _leading_marks(whole: list[int], plain: list[int]) -> list[int]:
    for start in range(len(whole) - len(plain) + 1):
        if whole[start : start + len(plain)] == plain:
            return whole[:start]
    raise ItemError("the tokenizer's special tokens change how the text is cut: no stable positions")


def _decode(tokenizer: Any, ids: Sequence[int]) -> str:
    text: str = tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text


def decode_ranges(tokenizer: Any, ids: Sequence[int], first: int) -> tuple[str, Offsets]:
    """Decode `ids[first:]` in the context of what stands before; give their text and each token's range in it.

    While the bytes of a character are incomplete its tokens wait for one another and share the character's range.
    """
    text = ""
    ranges: list[tuple[int, int]] = []
    read = first  # tokens before it are decoded
    settled = 0  # characters of the waiting piece that no later token can change
    for index in range(first, len(ids)):
        context = max(0, read - _CONTEXT_TOKENS)
        known = _decode(tokenizer, ids[context:read])
        piece = _decode(tokenizer, ids[context : index + 1])[len(known) :]
        complete = len(piece.rstrip(_REPLACEMENT))
        waiting = complete < len(piece) and index + 1 < len(ids) and index - read < _LONGEST_CHARACTER
        stop = complete + 1 if waiting else len(piece)
        ranges.append((len(text) + min(settled, stop), len(text) + stop))
        settled = complete
        if not waiting:
            text, read, settled = text + piece, index + 1, 0
    return text, tuple(ranges)


def append_given(tokenizer: Any, prompt: Tokenised, completion: str, *, special: bool = True) -> Tokenised:
    """Append a given continuation: the prompt's tokens stay, the text is exactly prompt + completion.

    Raises ItemError when no tokenisation does both.
    """
    count, at = len(prompt), len(prompt.text)
    joint = tokenise(tokenizer, prompt.text + completion, special=special)
    if joint.token_ids[:count] == prompt.token_ids and len(joint) > count and joint.offsets[count][0] >= at:
        return joint
    known = _decode(tokenizer, prompt.token_ids)
    for anchor in _ANCHORS:
        tail = _after_anchor(tokenizer, anchor, completion)
        if tail is None:
            continue
        ids = prompt.token_ids + tail.token_ids
        if _decode(tokenizer, ids) == known + completion:
            return Tokenised(prompt.text + completion, ids, prompt.offsets + tuple((start + at, stop + at) for start, stop in tail.offsets))
    raise ItemError("the completion cannot follow the prompt without changing its last token: move the space between them")


def _after_anchor(tokenizer: Any, anchor: str, completion: str) -> Tokenised | None:
    """Tokenise `completion` as it is cut after `anchor`; None where the two do not come apart."""
    if not anchor:
        return tokenise(tokenizer, completion, special=False)
    base = tokenise(tokenizer, anchor, special=False)
    whole = tokenise(tokenizer, anchor + completion, special=False)
    count, at = len(base), len(anchor)
    if whole.token_ids[:count] != base.token_ids or len(whole) == count or whole.offsets[count][0] < at:
        return None
    return Tokenised(completion, whole.token_ids[count:], tuple((start - at, stop - at) for start, stop in whole.offsets[count:]))


def append_generated(tokenizer: Any, tokens: Tokenised, new_ids: Sequence[int]) -> Tokenised:
    """Append generated tokens; the text grows by what they decode to."""
    ids = (*tokens.token_ids, *new_ids)
    text, ranges = decode_ranges(tokenizer, ids, len(tokens))
    at = len(tokens.text)
    return Tokenised(tokens.text + text, ids, tokens.offsets + tuple((start + at, stop + at) for start, stop in ranges))


def token_text(tokenizer: Any, token_id: int) -> str:
    """Give the text of a single token, as the tokenizer spells it when it decodes to nothing readable."""
    decoded = _decode(tokenizer, [token_id])
    name = str(tokenizer.convert_ids_to_tokens(token_id))
    if decoded and _REPLACEMENT not in decoded:
        return " " + decoded if name.startswith(_SPACE_MARKS) and not decoded[0].isspace() else decoded
    return name


def token_texts(tokenizer: Any, tokens: Tokenised) -> list[str]:
    """Give every position's text: its characters, or the token's own spelling where it stands for none."""
    return [
        tokens.text[start:stop] or token_text(tokenizer, token)
        for token, (start, stop) in zip(tokens.token_ids, tokens.offsets, strict=True)
    ]
