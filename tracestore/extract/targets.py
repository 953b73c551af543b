"""What is explained: names and positions become target specs, strings become tokens, expectations become verdicts.

1. Before the model runs: item and options are merged, strings cut to their first token in the prompt's context, and, where nothing is to
   be generated, names replaced by positions, so that the same question asked in two ways has one `trace_id`.
2. After generation: positions become TargetSpecs. Position p explains the token at p + 1 where it exists in the text, else the target
   token that was asked for, else the model's most probable one. `span:KIND` makes one SpanSpec of every span of the kind: the sum over
   its tokens; `span:KIND:each` a TargetSpec of every token.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tracestore.errors import ItemError
from tracestore.extract.attribution import SpanSpec, TargetSpec
from tracestore.extract.item_format import EACH, SPAN_TARGET, TARGET_NAMES
from tracestore.extract.prepare import Prepared
from tracestore.extract.spans import TokenSpan
from tracestore.extract.tokenise import Tokenised, append_given, tokenise
from tracestore.model import RUNNER_UP, Gauge, Item, TraceOptions

_LOG = logging.getLogger("tracestore.extract")


@dataclass(frozen=True, slots=True)
class TargetPlan:
    """A resolved question. `where` is a name only while tokens are still to be generated, or for spans; else ascending positions."""

    where: str | tuple[int, ...]
    token_id: int | None
    foil_token_id: int | None
    runner_up: bool
    gauge: Gauge

    def identity(self) -> list[object]:
        """Give what belongs into the `trace_id`."""
        where = self.where if isinstance(self.where, str) else list(self.where)
        return [where, self.token_id, self.foil_token_id, self.runner_up, self.gauge]


def plan_targets(tokenizer: Any, item: Item, options: TraceOptions, prepared: Prepared, *, n_new: int, vocabulary: int) -> TargetPlan:
    """Resolve an item's question, its own fields before the options'. Raises ItemError when it makes no sense."""
    asked = item.targets if item.targets is not None else options.targets
    continued = prepared.n_given > 0 or n_new > 0
    if asked is None:
        asked = "generated" if continued else "last"
    target = item.target_token if item.target_token is not None else options.target_token
    foil = item.foil if item.foil is not None else options.foil
    gauge: Gauge = options.gauge or ("centred" if foil is None else "foil")
    if (gauge == "foil") != (foil is not None):
        raise ItemError("the gauge `foil` and a foil go together: give both or neither")
    runner_up = foil == RUNNER_UP
    token_id = None if target is None else first_token(tokenizer, target, prepared, "target_token", vocabulary)
    foil_id = None if foil is None or runner_up else first_token(tokenizer, foil, prepared, "foil", vocabulary)
    if foil_id is not None and foil_id == token_id:
        raise ItemError(f"target_token and foil are the same token (id {foil_id}): nothing to tell apart")
    where = _where(asked, prepared, n_new)
    if token_id is not None and not (where == "last" or (isinstance(where, tuple) and len(where) == 1)):
        raise ItemError("target_token needs a single target: `last` or one position")
    return TargetPlan(where, token_id, foil_id, runner_up, gauge)


def _where(asked: str | Sequence[int], prepared: Prepared, n_new: int) -> str | tuple[int, ...]:
    n_known = len(prepared.tokens)
    if not isinstance(asked, str):
        return _positions(asked, n_known, n_new)
    if asked.startswith(SPAN_TARGET):
        return asked
    if asked not in TARGET_NAMES:
        raise ItemError(f"unknown targets: choose {', '.join(TARGET_NAMES)}, span:KIND, span:KIND:each or positions")
    if asked == "generated" and prepared.n_given == 0 and n_new == 0:
        raise ItemError("targets `generated` needs a completion or max_new_tokens")
    return asked if n_new else named_positions(asked, prepared.n_prompt, n_known)


def _positions(asked: Sequence[int], n_known: int, n_new: int) -> tuple[int, ...]:
    """Check positions; negative ones count from the end of prompt and completion."""
    found = []
    for position in asked:
        resolved = position + n_known if position < 0 else position
        if not 0 <= resolved < n_known + n_new:
            raise ItemError(f"target position {position} is outside the text's {n_known} tokens")
        found.append(resolved)
    if not found or len(set(found)) != len(found):
        raise ItemError("targets name no position, or one twice")
    return tuple(sorted(found))


def named_positions(name: str, n_prompt: int, n_tokens: int) -> tuple[int, ...]:
    """Give the positions that a name stands for in a finished text of `n_tokens`, the first `n_prompt` of them the prompt's.

    `generated` with nothing generated (the model ended at once) explains that ending: the prediction after the prompt.
    """
    if name == "all":
        return tuple(range(n_tokens))
    if name == "generated" and n_tokens > n_prompt:
        return tuple(range(n_prompt - 1, n_tokens - 1))
    return (n_tokens - 1,)


def target_specs(plan: TargetPlan, tokens: Tokenised, n_prompt: int, spans: Sequence[TokenSpan]) -> Sequence[TargetSpec | SpanSpec]:
    """List what to explain in a finished text, by position. Raises ItemError when that is nothing."""
    count = len(tokens)
    if isinstance(plan.where, str) and plan.where.startswith(SPAN_TARGET):
        kind = plan.where.removeprefix(SPAN_TARGET)
        groups = _span_positions(kind.removesuffix(EACH), spans)
        if not kind.endswith(EACH):
            return [_span_spec(plan, tokens, group) for group in groups]
        positions = tuple(sorted({position for group in groups for position in group}))
    elif isinstance(plan.where, tuple):
        positions = tuple(position for position in plan.where if position < count)
    else:
        positions = named_positions(plan.where, n_prompt, count)
    if not positions:
        raise ItemError("none of the target positions was reached: the continuation ended before them")
    return _token_specs(plan, tokens, positions)


def _span_spec(plan: TargetPlan, tokens: Tokenised, positions: Sequence[int]) -> SpanSpec:
    if plan.foil_token_id is not None and len(positions) > 1:
        raise ItemError(f"a foil token cannot stand against a span of {len(positions)} tokens: use the foil runner-up, or span:KIND:each")
    return SpanSpec(tuple(_token_specs(plan, tokens, positions)))


def _token_specs(plan: TargetPlan, tokens: Tokenised, positions: Sequence[int]) -> list[TargetSpec]:
    count = len(tokens)
    specs = []
    for position in positions:
        following = tokens.token_ids[position + 1] if position + 1 < count else None
        token = plan.token_id if plan.token_id is not None else following
        if plan.foil_token_id is not None and token == plan.foil_token_id:
            raise ItemError(f"the foil is the target itself at position {position} (id {token}): nothing to tell apart")
        specs.append(TargetSpec(position, token, plan.foil_token_id, plan.runner_up, plan.gauge))
    return specs


def _span_positions(kind: str, spans: Sequence[TokenSpan]) -> list[tuple[int, ...]]:
    """Give, for every span of a kind, the positions that predict its tokens (nothing predicts position 0); a stretch only once."""
    stretches = {(max(1, span.first_pos) - 1, span.last_pos) for span in spans if span.kind == kind and span.last_pos > 0}
    if not stretches:
        raise ItemError(
            f"the item has no {kind} span to explain" + (" beyond its first token" if any(s.kind == kind for s in spans) else "")
        )
    return [tuple(range(first, last)) for first, last in sorted(stretches)]


def first_token(tokenizer: Any, token: str | int, prepared: Prepared, what: str, vocabulary: int) -> int:
    """Give the token that a text begins with when it follows the prepared text, or check an id.

    A text that is several tokens (" 5" is a space and a digit in some vocabularies) gives the first: what is taken is in the result.
    """
    ids = following_tokens(tokenizer, token, prepared, what, vocabulary)
    if len(ids) > 1:
        _LOG.warning("%s is %d tokens in this vocabulary; the first, id %d, is taken", what, len(ids), ids[0])
    return ids[0]


def following_tokens(tokenizer: Any, token: str | int, prepared: Prepared, what: str, vocabulary: int) -> list[int]:
    """Give the tokens of a text that follows the prepared text (at least one), or check an id."""
    if isinstance(token, int):
        if not 0 <= token < vocabulary:
            raise ItemError(f"{what} {token} is outside the vocabulary of {vocabulary} tokens")
        return [token]
    if not token:
        raise ItemError(f"{what} is an empty text: give at least one token")
    try:
        ids = append_given(tokenizer, prepared.tokens, token, special=prepared.special).token_ids[len(prepared.tokens) :]
    except ItemError:
        ids = tokenise(tokenizer, token, special=False).token_ids
    return [int(one) for one in ids]


def answer_correct(answer: str, expected: str | None) -> bool | None:
    """Tell whether an answer begins with what was expected, leading space aside; None without an expectation or an answer.

    An expectation that ends in a letter or digit must end there in the answer too: "5" is not the beginning of "50".
    """
    wanted, said = (expected or "").strip(), answer.lstrip()
    if not wanted or not said.strip():
        return None
    if not said.startswith(wanted):
        return False
    rest = said[len(wanted) :]
    return not (rest and wanted[-1].isalnum() and rest[0].isalnum())


def token_correct(before: str, token: str, expected: str | None) -> bool | None:
    """Tell whether a token, after the answer's earlier text `before`, is the next piece of what was expected.

    None when there is no expectation, when nothing but space was said yet, or when the expectation was said already.
    """
    wanted, said = (expected or "").strip(), (before + token).lstrip()
    if not wanted or not said.strip():
        return None
    earlier = before.lstrip()
    if len(earlier.rstrip()) >= len(wanted) and earlier.startswith(wanted):
        return None
    if len(said) >= len(wanted):
        return answer_correct(said, wanted)
    return wanted.startswith(said)
