"""From stretches of characters to stretches of tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tracestore.errors import ItemError
from tracestore.extract.tokenise import Tokenised
from tracestore.model import Document, SpanKind, SpanRequest


@dataclass(frozen=True, slots=True)
class TokenSpan:
    """A stretch of tokens, both ends included; `ordinal` counts the spans of its kind by place."""

    kind: SpanKind
    ref: str | None
    ordinal: int
    first_pos: int
    last_pos: int
    text: str


def locate(tokens: Tokenised, start: int, end: int) -> tuple[int, int] | None:
    """Find the first and last token that share text with [start, end), or None.

    A token that only shares space with the stretch counts only if the stretch has nothing else: " Paris" is no part of "capital is ".
    """
    shared = [
        (position, tokens.text[max(start, low) : min(end, high)])
        for position, (low, high) in enumerate(tokens.offsets)
        if low < end and high > start
    ]
    solid = [position for position, text in shared if text.strip()] or [position for position, _ in shared]
    return (solid[0], solid[-1]) if solid else None


def check_ranges(spans: Iterable[SpanRequest], length: int) -> None:
    """Raise ItemError for a stretch outside a text of `length` characters."""
    for index, span in enumerate(spans):
        if not 0 <= span.start < span.end <= length:
            raise ItemError(f"span {index} ({span.kind}) is [{span.start}, {span.end}): the text has {length} characters")


def document_spans(documents: Sequence[Document], text: str) -> list[SpanRequest]:
    """Find each document verbatim; documents with the same text take its occurrences in turn. Raises ItemError when one is missing."""
    after: dict[str, int] = {}
    spans = []
    for index, document in enumerate(documents):
        start = text.find(document.text, after.get(document.text, 0))
        if start < 0 and document.text in after:
            start = text.find(document.text)
        if start < 0:
            raise ItemError(f"documents[{index}] ({len(document.text)} characters) does not stand verbatim in the text")
        after[document.text] = start + len(document.text)
        spans.append(SpanRequest("document", start, start + len(document.text), document.id))
    return spans


def token_spans(tokens: Tokenised, requests: Iterable[SpanRequest]) -> tuple[TokenSpan, ...]:
    """Turn character stretches into token stretches, in order of place; equal requests are one span.

    Raises ItemError for a stretch that no token stands for.
    """
    counts: Counter[str] = Counter()
    spans = []
    for request in sorted(set(requests), key=lambda r: (r.start, -r.end, r.kind, r.ref or "")):
        found = locate(tokens, request.start, request.end)
        if found is None:
            raise ItemError(f"no token stands for the {request.kind} span [{request.start}, {request.end})")
        text = tokens.text[request.start : request.end]
        spans.append(TokenSpan(request.kind, request.ref, counts[request.kind], *found, text))
        counts[request.kind] += 1
    return tuple(spans)
