"""Cut an answer into the steps of its reasoning: by line, or by sentence.

1. Find where steps begin, in characters of the answer.
2. Give every token of the answer to the step in which its first letter stands; tokens of space alone stay with the step before them.
   So the steps tile the answer: no token of it is lost, none is in two.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import Final

from tracestore.extract.spans import TokenSpan
from tracestore.extract.tokenise import Tokenised
from tracestore.model import StepRule

_LINE: Final = re.compile(r"\n+")
_SENTENCE: Final = re.compile(r"\n+|(?<=[.!?\u2026\u3002\uff01\uff1f])[\"')\]\u2019\u201d]*(?:\s+|(?<=[\u3002\uff01\uff1f]))")
_NO_END: Final = re.compile(r"(?:\b(?:e\.g|i\.e|cf|vs|etc|Dr|Mr|Mrs|Ms|Prof|St|No|Fig|Eq|approx)|(?:^|\s)\(?[0-9]+|\b[A-Z])\.$")
"""What ends in a full stop without ending a sentence: abbreviations, initials, and the number of an item in a list."""


def step_starts(text: str, rule: StepRule) -> list[int]:
    """Give the characters at which the steps of `text` begin, ascending, the first of them 0."""
    starts = [0]
    for found in (_LINE if rule == "line" else _SENTENCE).finditer(text):
        before = text[starts[-1] : found.start()]
        broken = "\n" in found.group()
        if before.strip() and text[found.end() :].strip() and (broken or not _NO_END.search(before)):
            starts.append(found.end())
    return starts


def step_spans(tokens: Tokenised, first_pos: int, first_char: int, rule: StepRule) -> list[TokenSpan]:
    """Cut the answer, which begins with the token at `first_pos` and the character `first_char`, into step spans that tile it."""
    count = len(tokens)
    if first_pos >= count:
        return []
    starts = [first_char + start for start in step_starts(tokens.text[first_char:], rule)]
    members: dict[int, list[int]] = {}
    step = 0
    for pos in range(first_pos, count):
        low, high = tokens.offsets[pos]
        piece = tokens.text[low:high]
        if piece.strip():
            solid = low + len(piece) - len(piece.lstrip())
            step = max(step, bisect_right(starts, solid) - 1)
        members.setdefault(step, []).append(pos)
    return [
        TokenSpan("step", None, ordinal, group[0], group[-1], tokens.text[tokens.offsets[group[0]][0] : tokens.offsets[group[-1]][1]])
        for ordinal, (_, group) in enumerate(sorted(members.items()))
    ]
