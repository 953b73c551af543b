"""From an item to tokens and spans: everything that is known before the model runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tracestore.errors import ItemError
from tracestore.extract.chat import render_chat
from tracestore.extract.spans import check_ranges, document_spans, token_spans
from tracestore.extract.tokenise import Tokenised, append_given, tokenise
from tracestore.model import Item, SpanRequest


@dataclass(frozen=True, slots=True)
class Prepared:
    """An item's tokens: the prompt, then a given completion if there is one; and its stretches in characters of that text.

    `n_prompt` counts the prompt's tokens, `prompt_chars` its characters; `special` says whether the tokenizer's own marks precede it.
    """

    tokens: Tokenised
    n_prompt: int
    prompt_chars: int
    special: bool
    spans: tuple[SpanRequest, ...]

    @property
    def n_given(self) -> int:
        """Tokens of the given completion."""
        return len(self.tokens) - self.n_prompt


def prepare(tokenizer: Any, item: Item, *, context_length: int | None, max_new_tokens: int) -> Prepared:
    """Render, tokenise and locate. Raises ItemError for what cannot be traced; its text holds nothing of the prompt."""
    chat_spans: tuple[SpanRequest, ...] = ()
    special = item.messages is None  # a chat template writes its own marks
    if item.messages is not None:
        chat = render_chat(tokenizer, item)
        text, completion, chat_spans = chat.text, chat.completion, chat.spans
    else:
        text, completion = item.prompt or "", item.completion
    if not text:
        raise ItemError("the prompt is empty")
    prompt = tokenise(tokenizer, text, special=special)
    tokens = append_given(tokenizer, prompt, completion, special=special) if completion else prompt
    if context_length is not None and len(tokens) + max_new_tokens > context_length:
        raise ItemError(
            f"{len(prompt)} prompt tokens, {len(tokens) - len(prompt)} given and {max_new_tokens} to generate do not fit "
            f"the model's context of {context_length}: shorten the item or use a model with a longer context"
        )
    asked = (*item.spans, *item.evidence)
    check_ranges(asked, len(tokens.text))
    spans = (*chat_spans, *document_spans(item.documents, tokens.text), *asked)
    token_spans(tokens, spans)  # a stretch without tokens is refused before the model runs
    return Prepared(tokens, len(prompt), len(text), special, spans)
