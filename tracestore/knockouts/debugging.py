"""Why did the model say this and not that, and what would have to be missing for it to say the other?

1. Take the first token of what was expected, and the model's own first choice (or the answer that is named).
2. Trace the difference of their logits: target against foil. Where the model is right already, what it says against its runner-up.
3. Search the smallest knockouts found that turn it round: once among token columns, once among heads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from tracestore.errors import BadInputError
from tracestore.knockouts.flip import LARGEST_SET, Flip, find_flip
from tracestore.knockouts.run import prompt_tokens, target_of
from tracestore.knockouts.sources import Candidates, Kind
from tracestore.model import DEFAULT_METHOD, RUNNER_UP, Item, Method, Output, Trace, TraceOptions

if TYPE_CHECKING:
    from tracestore.extract.knockouts.measure import KnockoutRunner
    from tracestore.extract.loading import LoadedModel

CANDIDATES: Final = 24
"""Sources of each kind that the search may remove: those that the trace ranks first."""

SEARCHED: Final[tuple[Kind, ...]] = ("column", "head")


@dataclass(frozen=True, slots=True)
class TokenChoice:
    """A token that stands for a text: `of` is how many tokens that text has (the first is taken)."""

    token_id: int
    text: str
    given: str | None = None
    of: int = 1

    @property
    def note(self) -> str | None:
        """Say what was taken where a text is more than one token."""
        if self.of <= 1:
            return None
        return f"{self.given!r} is {self.of} tokens in this vocabulary: the first, {self.text!r} (id {self.token_id}), stands for it"


@dataclass(frozen=True, slots=True)
class DebugReport:
    """Why `answer` beats `other`. `right`: the model's first choice is what was expected, so `other` is its runner-up.

    `trace` explains logit(answer) - logit(other); `flips` gives what the search found, by kind of source.
    """

    trace: Trace
    right: bool
    expected: TokenChoice
    answer: TokenChoice
    other: TokenChoice
    flips: dict[Kind, Flip]
    first_choices: dict[int, str]  # texts of the tokens that are first without the sources

    @property
    def output(self) -> Output:
        """The explained difference."""
        return self.trace.outputs[0]

    def to_dict(self) -> dict[str, Any]:
        """Give the parts that `why` does not give, as plain values."""
        return {
            "right": self.right,
            "expected": _token(self.expected) | {"given": self.expected.given, "tokens": self.expected.of},
            "answer": _token(self.answer),
            "other": _token(self.other),
            "difference": self.output.row["explained"],
            "paths": [{key: row[key] for key in ("motif", "hops", "weight", "share", "rank")} for row in self.paths()],
            "flips": [self._flip(kind, flip) for kind, flip in self.flips.items()],
        }

    def paths(self, k: int = 10) -> list[dict[str, Any]]:
        """List the largest paths, where the trace has any."""
        return sorted(self.trace.table("Path").to_pylist(), key=lambda row: row["rank"])[:k]

    def _flip(self, kind: Kind, flip: Flip) -> dict[str, Any]:
        return {
            "kind": kind,
            "flipped": flip.flipped,
            "sources": [{"source": source.name, "text": source.text} for source in flip.sources],
            "before": flip.before,
            "after": flip.after,
            "first_choice": {"token_id": flip.top_token, "text": self.first_choices[flip.top_token]},
            "minimality": "not proven",
            "runs": flip.runs,
        }


def _token(choice: TokenChoice) -> dict[str, Any]:
    return {"token_id": choice.token_id, "text": choice.text}


def debug(
    loaded: LoadedModel,
    prompt: str,
    expected: str | int,
    *,
    answer: str | int | None = None,
    method: Method = DEFAULT_METHOD,
    candidates: int = CANDIDATES,
    largest: int = LARGEST_SET,
    progress: Callable[[int], None] | None = None,
) -> DebugReport:
    """Explain what the model says after a prompt against what was expected, and search what turns it round.

    `answer` is explained in place of the model's first choice. `progress` is told the runs of the model that were just made. Raises
    BadInputError when `answer` is `expected`, ItemError for a prompt that cannot be traced.
    """
    from tracestore.extract.knockouts.measure import knockout_runner
    from tracestore.extract.plan import plan_trace
    from tracestore.extract.targets import following_tokens
    from tracestore.extract.tokenise import token_text
    from tracestore.extract.trace import trace

    if candidates < 1 or largest < 1:
        raise BadInputError("the search needs at least one candidate and a set of at least one source")
    item = Item(prompt=prompt)
    vocabulary = int(loaded.model.get_input_embeddings().weight.shape[0])
    prepared = plan_trace(loaded, item, TraceOptions(targets="last")).prepared
    tokens = prepared.tokens.token_ids

    def choice(given: str | int, what: str) -> TokenChoice:
        found = following_tokens(loaded.tokenizer, given, prepared, what, vocabulary)
        return TokenChoice(found[0], token_text(loaded.tokenizer, found[0]), given if isinstance(given, str) else None, len(found))

    wanted = choice(expected, "expected")
    named = None if answer is None else choice(answer, "answer")
    if named is not None and named.token_id == wanted.token_id:
        raise BadInputError(f"the answer and what was expected are the same token (id {wanted.token_id}): there is nothing to tell apart")
    runner = knockout_runner(loaded)
    first = _first_choice(runner, tokens, wanted.token_id)
    right = first == wanted.token_id
    target = wanted.token_id if right else (first if named is None else named.token_id)
    foil: int | str = wanted.token_id if not right else (RUNNER_UP if named is None else named.token_id)
    found = trace(loaded, item, TraceOptions(targets="last", target_token=target, foil=foil, gauge="foil", method=method))
    output = found.outputs[0]
    flips = {kind: _search(runner, found, output, kind, candidates, largest, progress) for kind in SEARCHED}
    texts = {flip.top_token: token_text(loaded.tokenizer, flip.top_token) for flip in flips.values()}
    answered, other = (TokenChoice(one, token_text(loaded.tokenizer, one)) for one in (target, output.row["foil_token_id"]))
    return DebugReport(found, right, wanted, answered, other, flips, texts)


def _first_choice(runner: KnockoutRunner, tokens: Sequence[int], token: int) -> int:
    from tracestore.extract.knockouts.removal import Removal, Target

    (found,) = runner.measure(tokens, Target(len(tokens) - 1, (token,), "raw"), [Removal()])
    return found.top_token


def _search(
    runner: KnockoutRunner,
    trace: Trace,
    output: Output,
    kind: Kind,
    candidates: int,
    largest: int,
    progress: Callable[[int], None] | None,
) -> Flip:
    sources = Candidates(trace, output.row).of_kind(kind)[:candidates]
    measure = partial(runner.measure, prompt_tokens(trace), target_of(trace, output), progress=progress)
    return find_flip(sources, measure, largest=largest, positions=output.row["pos"])
