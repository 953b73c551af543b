"""The search for knockouts that turn a prediction round, on differences that are known."""

from __future__ import annotations

from collections.abc import Sequence

from tracestore.extract.knockouts.measure import Measured
from tracestore.extract.knockouts.removal import Removal
from tracestore.knockouts.flip import find_flip
from tracestore.knockouts.sources import Source


def sources(count: int) -> list[Source]:
    return [Source("column", "Token", at, str(at), 0.0, Removal(columns=(at,))) for at in range(count)]


class Model:
    """A difference that starts at 10 and changes by what is removed; `pairs` only count when both are gone."""

    def __init__(self, single: dict[int, float], pairs: dict[tuple[int, int], float] | None = None) -> None:
        self.single, self.pairs, self.seen = single, pairs or {}, list[tuple[int, ...]]()

    def __call__(self, removals: Sequence[Removal]) -> list[Measured]:
        found = []
        for removal in removals:
            gone = set(removal.columns)
            self.seen.append(removal.columns)
            explained = 10 + sum(self.single.get(at, 0.0) for at in gone)
            explained += sum(change for pair, change in self.pairs.items() if gone >= set(pair))
            found.append(Measured(explained, 0.0, 7 if explained < 0 else 1))
        return found


def names(found: Sequence[Source]) -> list[str]:
    return sorted(source.name for source in found)


def test_one_source_that_suffices_is_the_whole_set() -> None:
    flip = find_flip(sources(4), Model({0: -3.0, 2: -11.0, 3: -10.5}))
    assert (names(flip.sources), flip.before, flip.after, flip.top_token, flip.flipped) == (["2"], 10.0, -1.0, 7, True)


def test_a_greedy_beginning_that_turns_out_superfluous_is_pruned() -> None:
    # 0 is the best alone; 1 and 2 together turn it round without it
    model = Model({0: -4.0, 1: -3.0, 2: -3.5}, {(1, 2): -5.0})
    flip = find_flip(sources(3), model)
    assert names(flip.sources) == ["1", "2"]
    assert flip.after == -1.5
    assert flip.runs == len(model.seen)


def test_what_raises_the_difference_alone_is_not_tried_again() -> None:
    model = Model({0: -4.0, 1: 2.0, 2: -4.0, 3: -4.0})
    assert names(find_flip(sources(4), model).sources) == ["0", "2", "3"]
    assert all(1 not in columns for columns in model.seen if len(columns) > 1)


def test_the_best_set_is_given_where_none_turns_it_round() -> None:
    flip = find_flip(sources(5), Model(dict.fromkeys(range(5), -1.0)), largest=3)
    assert (len(flip.sources), flip.after, flip.flipped) == (3, 7.0, False)


def test_nothing_helps() -> None:
    flip = find_flip(sources(3), Model({0: 1.0}))
    assert (flip.sources, flip.after, flip.flipped) == ((), 10.0, False)
    assert find_flip([], Model({})).runs == 1


def test_every_column_is_never_removed() -> None:
    model = Model(dict.fromkeys(range(3), -4.0))
    flip = find_flip(sources(3), model, positions=3)
    assert (len(flip.sources), flip.flipped) == (2, False)
    assert max(len(columns) for columns in model.seen) == 2
