"""Split Cypher into tokens, strictly: whatever two engines could read differently is refused.

1. The text must hold no control characters but tab and line feed (a carriage return counts only before a line feed), and no half of a pair.
2. Comments are dropped: `//` to the end of the line, `/* */` without another `/*` inside.
3. Strings and names in backticks become one token each; all must be closed.
4. `\\uXXXX`: Neo4j decodes it before it reads anything else, the embedded engine only inside strings. So it is accepted only inside a
   string, and only for characters that mean nothing to a scanner.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from tracestore.errors import QueryError

TokenKind = Literal["word", "name", "string", "number", "symbol"]

_CLOSES: Final = {"'": "string", '"': "string", "`": "name"}
_WORD: Final = re.compile(r"[^\W\d]\w*")
_NUMBER: Final = re.compile(r"\d\w*")
_ESCAPE: Final = re.compile(r"\\+(?:u+([0-9a-fA-F]{4})|U([0-9a-fA-F]{8}))")
_LINE_ENDS: Final = frozenset("\x0b\x0c\x85\u2028\u2029")


@dataclass(frozen=True, slots=True)
class Token:
    """One token. `name` was in backticks; a string's text is left out, for nothing may depend on it."""

    kind: TokenKind
    text: str


def tokens(text: str) -> Iterator[Token]:
    """Yield the tokens of a statement. Raises QueryError for text that engines could read in different ways."""
    text = text.replace("\r\n", "\n")
    _check_characters(text)
    at = 0
    while at < len(text):
        char = text[at]
        if text.startswith("//", at):
            at = _line_comment(text, at)
        elif text.startswith("/*", at):
            at = _block_comment(text, at)
        elif char in _CLOSES:
            end = _closing(text, at)
            yield Token("string", "") if _CLOSES[char] == "string" else Token("name", text[at + 1 : end])
            at = end + 1
        elif char.isspace():
            at += 1
        elif char == "\\":
            raise QueryError("This Cypher has a backslash outside a string; it is refused, because engines read it in different ways.")
        elif found := _WORD.match(text, at) or _NUMBER.match(text, at):
            yield Token("number" if char.isdecimal() else "word", found.group())
            at = found.end()
        else:
            yield Token("symbol", char)
            at += 1


def _check_characters(text: str) -> None:
    for char in text:
        if char not in "\n\t" and unicodedata.category(char) in ("Cc", "Cs"):
            raise QueryError("This Cypher holds a control character (or half a character pair); remove it.")
    for match in _ESCAPE.finditer(text):
        code = int(match[1] or match[2], 16)
        if code > 0x10FFFF or 0xD800 <= code < 0xE000 or chr(code) in "'\"`\\/*" or unicodedata.category(chr(code)) == "Cc":
            raise QueryError(
                "This Cypher escapes a quote, a slash or a control character as \\u; write the character itself, or use a parameter."
            )


def _line_comment(text: str, at: int) -> int:
    end = text.find("\n", at)
    end = len(text) if end < 0 else end
    if _LINE_ENDS & set(text[at:end]):
        raise QueryError("A comment in this Cypher holds an unusual line separator; remove it.")
    return end


def _block_comment(text: str, at: int) -> int:
    end = text.find("*/", at + 2)
    if end < 0 or text.find("/*", at + 2, end) >= 0:
        raise QueryError("A /* comment in this Cypher is not closed, or has another one inside.")
    return end + 2


def _closing(text: str, at: int) -> int:
    """Find the character that closes the string or name that opens at `at`."""
    quote = text[at]
    end = at + 1
    while end < len(text) and text[end] != quote:
        if text[end] == "\\":
            if quote == "`":
                raise QueryError("A name in backticks in this Cypher holds a backslash; it is refused.")
            end += 1
        end += 1
    if end >= len(text):
        raise QueryError(f"A {quote} in this Cypher is not closed.")
    return end
