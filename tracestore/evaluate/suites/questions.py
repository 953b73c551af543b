"""From annotated items to cases on a language model: tokens, the explained token, and evidence as positions.

The explained token is the model's own most probable next token: a wrong answer is explained as it was given, and kept apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from tracestore.evaluate.annotated import Annotated
from tracestore.evaluate.case import Case
from tracestore.extract.loading import LoadedModel
from tracestore.extract.prepare import prepare
from tracestore.extract.spans import token_spans
from tracestore.extract.targets import answer_correct
from tracestore.extract.tokenise import token_text
from tracestore.extract.trace import attributor_for


def language_cases(loaded: LoadedModel, items: Iterable[Annotated]) -> Iterator[Case]:
    """Make a case of every item. Each stretch of evidence is a step, in order of place."""
    attributor = attributor_for(loaded)
    for annotated in items:
        item = annotated.item
        prepared = prepare(loaded.tokenizer, item, context_length=loaded.context_length, max_new_tokens=0)
        token_ids = prepared.tokens.token_ids[: prepared.n_prompt]
        with torch.no_grad():
            run = attributor.run(torch.tensor(token_ids))
            token = int(run.logits_row(len(token_ids) - 1).argmax())
        spans = [span for span in token_spans(prepared.tokens, prepared.spans) if span.kind == "evidence"]
        steps = tuple(frozenset(range(span.first_pos, span.last_pos + 1)) for span in spans)
        yield Case(
            id=annotated.id,
            task=annotated.task,
            attributor=attributor,
            token_ids=tuple(token_ids),
            token_id=token,
            evidence=frozenset().union(*steps),
            steps=steps,
            correct=answer_correct(token_text(loaded.tokenizer, token), item.expected) if item.expected else None,
        )
