"""What was gained and lost between two traces, or between two models or checkpoints on the prompts that both were traced on.

1. Match: predictions of the same prompt, method, place in the answer and width (two traces: place and width alone).
2. Heads and motifs: mean share over the matched predictions on each side. Tokens: share in each matched prediction.
3. Gained or lost: the share crosses `min_share`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from tracestore.compare.measures import rank_biased_overlap, ranked, total_variation
from tracestore.compare.profiles import Profile
from tracestore.errors import BadInputError

Change = Literal["gained", "lost", "kept"]
Pair = tuple[Profile, Profile]

MIN_TOKEN_SHARE: Final = 0.1
MIN_SHARE: Final = 0.02
"""From which share on a token drives a prediction, and a head or a motif is used."""


@dataclass(frozen=True, slots=True)
class Changed:
    """A token, head or motif with its share on both sides."""

    name: str
    share_a: float
    share_b: float
    change: Change
    output: str | None = None  # for tokens: the prediction

    @property
    def difference(self) -> float:
        """share_b - share_a."""
        return self.share_b - self.share_a


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two sides compared. Distances are means over the matched predictions, 0 to 1; `motif_shift` is None where no paths are stored."""

    a: str
    b: str
    pairs: int
    unmatched_a: int
    unmatched_b: int
    same_answers: int
    correct_a: int
    correct_b: int
    token_shift: float
    driver_overlap: float
    head_shift: float
    motif_shift: float | None
    tokens: tuple[Changed, ...]
    heads: tuple[Changed, ...]
    motifs: tuple[Changed, ...]

    def to_dict(self) -> dict[str, Any]:
        """Give plain values for JSON."""
        found = asdict(self)
        for kind in ("tokens", "heads", "motifs"):
            for row, changed in zip(found[kind], getattr(self, kind), strict=True):
                row["difference"] = changed.difference
        return found


def compare_traces(a: Iterable[Profile], b: Iterable[Profile], *, names: tuple[str, str]) -> Comparison:
    """Compare the predictions of two traces, of the same prompt or not. Raises BadInputError when none match."""
    return _compare(list(a), list(b), names, lambda profile: (profile.answer_pos, profile.width))


def compare_models(a: Iterable[Profile], b: Iterable[Profile], *, names: tuple[str, str]) -> Comparison:
    """Compare two models or checkpoints on the prompts that both have. Raises BadInputError when there are none, or one is ambiguous."""
    return _compare(list(a), list(b), names, prompt_key)


def prompt_key(profile: Profile) -> tuple[object, ...]:
    """Give what the same prediction has in common in two runs: prompt, method, and place in the answer."""
    return profile.prompt_hash, profile.method, profile.n_prompt, profile.answer_pos, profile.width


def match(a: Sequence[Profile], b: Sequence[Profile], key: Any, names: tuple[str, str]) -> list[Pair]:
    """Pair the predictions of two sides. Raises BadInputError when none match, or one side has two for a place."""
    sides = []
    for name, profiles in zip(names, (a, b), strict=True):
        side: dict[Any, Profile] = {}
        for profile in profiles:
            other = side.setdefault(key(profile), profile)
            if other is not profile and other.trace_id != profile.trace_id:
                raise BadInputError(
                    f"{name} holds two traces of one prompt ({other.trace_id} of {other.model_id} and {profile.trace_id} of "
                    f"{profile.model_id}): say which model, step or method is meant"
                )
        sides.append(side)
    first, second = sides
    pairs = [(profile, second[place]) for place, profile in first.items() if place in second]
    if not pairs:
        raise BadInputError(
            f"nothing matches: {names[0]} has {len(first)} predictions and {names[1]} {len(second)}, none of the same prompt (with the "
            "same tokens), method and place in the answer; trace the same items with the same targets and method on both sides"
        )
    return pairs


def _compare(a: Sequence[Profile], b: Sequence[Profile], names: tuple[str, str], key: Any) -> Comparison:
    pairs = match(a, b, key, names)
    count = len(pairs)
    with_paths = [(one, other) for one, other in pairs if one.motifs and other.motifs]
    return Comparison(
        a=names[0],
        b=names[1],
        pairs=count,
        unmatched_a=len(a) - count,
        unmatched_b=len(b) - count,
        same_answers=sum(same_answer(one, other) for one, other in pairs),
        correct_a=sum(one.correct is True for one, _ in pairs),
        correct_b=sum(other.correct is True for _, other in pairs),
        token_shift=sum(total_variation(one.tokens, aligned(one, other)) for one, other in pairs) / count,
        driver_overlap=sum(rank_biased_overlap(ranked(one.tokens), ranked(aligned(one, other))) for one, other in pairs) / count,
        head_shift=sum(total_variation(one.heads, other.heads) for one, other in pairs) / count,
        motif_shift=sum(total_variation(one.motifs, other.motifs) for one, other in with_paths) / len(with_paths) if with_paths else None,
        tokens=_tokens(pairs),
        heads=_mean_changes([(_named(one.heads), _named(other.heads)) for one, other in pairs]),
        motifs=_mean_changes([(one.motifs, other.motifs) for one, other in with_paths]),
    )


def same_answer(one: Profile, other: Profile) -> bool:
    """Did both say the same: the same explained token, and the model's own choice in both or in neither."""
    return one.said == other.said and one.own_choice == other.own_choice


def aligned(one: Profile, other: Profile) -> dict[int, float]:
    """Give the other's token shares by the position as far from the end of the prompt in `one`."""
    return {pos - other.n_prompt + one.n_prompt: share for pos, share in other.tokens.items()}


def head_name(head: tuple[int, int]) -> str:
    """Write a head as L5.H1."""
    return f"L{head[0]}.H{head[1]}"


def _named(heads: Mapping[tuple[int, int], float]) -> dict[str, float]:
    return {head_name(head): share for head, share in heads.items()}


def _change(a: float, b: float, least: float) -> Change | None:
    if max(a, b) < least:
        return None
    return "kept" if min(a, b) >= least else "gained" if b >= least else "lost"


def _tokens(pairs: Sequence[Pair]) -> tuple[Changed, ...]:
    """List every token that drives a prediction on either side; where prompts differ in length, by its distance from their ends."""
    found = []
    for one, other in pairs:
        shift, theirs = other.n_prompt - one.n_prompt, aligned(one, other)
        for pos in sorted(one.tokens.keys() | theirs.keys()):
            a, b = one.tokens.get(pos, 0.0), theirs.get(pos, 0.0)
            change = _change(a, b, MIN_TOKEN_SHARE)
            if change is not None:
                mine, its = one.texts.get(pos, ""), other.texts.get(pos + shift, "")
                found.append(Changed(f"{pos}:{mine}" if mine == its else f"{pos}:{mine} | {its}", a, b, change, one.name))
    return _largest(found)


def _mean_changes(shares: Sequence[tuple[Mapping[str, float], Mapping[str, float]]]) -> tuple[Changed, ...]:
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for pair in shares:
        for side, listed in enumerate(pair):
            for name, share in listed.items():
                sums[name][side] += share / len(shares)
    found = []
    for name, (a, b) in sums.items():
        change = _change(a, b, MIN_SHARE)
        if change is not None:
            found.append(Changed(name, a, b, change))
    return _largest(found)


def _largest(changes: Iterable[Changed]) -> tuple[Changed, ...]:
    return tuple(sorted(changes, key=lambda change: (-abs(change.difference), change.output or "", change.name)))
