"""What supports a step: by hand on a small chain, and against a walk over a networkx graph on random ones."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import networkx as nx
import numpy as np
import pytest

from tracestore.extract.chains import Chain, Unit, owners, trace_chain
from tracestore.extract.spans import TokenSpan

FIRST = 100


def span(kind: Any, first: int, last: int, ref: str | None = None) -> TokenSpan:
    return TokenSpan(kind, ref, 0, first, last, "")


def ranked(chain: Chain, target: int) -> list[tuple[int, float]]:
    """Give the sources of a target by rank, with their `direct`."""
    mine = sorted((row for row in chain.supports.to_pylist() if row["dst"] == FIRST + target), key=lambda row: row["rank"])
    assert [row["rank"] for row in mine] == list(range(1, len(mine) + 1))
    return [(row["src"] - FIRST, row["direct"]) for row in mine]


def edges(chain: Chain) -> dict[tuple[int, int], tuple[float, float]]:
    rows = chain.supports.to_pylist()
    return {(row["src"] - FIRST, row["dst"] - FIRST): (row["score"], row["total"]) for row in rows}


def test_a_token_belongs_to_the_shortest_span_around_it() -> None:
    spans = [span("role", 0, 9), span("document", 2, 5), span("evidence", 3, 3)]
    spans += [span("answer", 6, 8), span("step", 6, 8), span("turn", 2, 5)]
    assert owners(spans, 11).tolist() == [0, 0, 1, 2, 1, 1, 4, 4, 4, 0, -1]


def test_a_chain_by_hand() -> None:
    """Tokens: 0 sink, 1 document A, 2 document B, 3 step one, 4 step two. Step one comes from A; step two from step one and B."""
    spans = [span("document", 1, 1), span("document", 2, 2), span("answer", 3, 4), span("step", 3, 3), span("step", 4, 4)]
    units = [
        Unit(3, 3, 5.0, 0.5, np.array([0.25, 4.0, 0.25]), np.array([0.0, 0.75, 0.25]), np.array([0.0, 3.0, 1.0])),
        Unit(4, 4, 7.0, 1.0, np.array([0.5, 0.5, 1.0, 4.0]), np.array([0.0, 0.1, 0.3, 0.6]), np.array([0.0, 1.0, 3.0, 6.0])),
    ]
    chain = trace_chain(spans, units, 5, FIRST)
    assert chain.spans[3] == {"explained": 5.0, "bias": 0.5, "own": 0.0, "unassigned": 0.25}
    assert chain.spans[4] == {"explained": 7.0, "bias": 1.0, "own": 0.0, "unassigned": 0.5}
    assert chain.spans[2] == {"explained": 12.0, "bias": 1.5, "own": 4.0, "unassigned": 0.75}
    assert edges(chain) == {
        (0, 3): (4.0, 4.0),
        (1, 3): (0.25, 0.25),
        (3, 4): (4.0, 4.0),
        (1, 4): (1.0, 2.0),  # and a quarter of what passed through step one
        (0, 4): (0.5, 3.5),
        (0, 2): (4.5, 7.5),
        (1, 2): (1.25, 2.25),
    }
    assert ranked(chain, 3) == [(0, 3.0), (1, 1.0)]
    assert ranked(chain, 4) == [(3, 6.0), (1, 3.0), (0, 1.0)]
    assert ranked(chain, 2) == [(0, 4.0), (1, 4.0)]  # equal: the larger |score| is first


def test_the_unsigned_ranking_leaves_out_sinks_and_what_cancels_stays_large() -> None:
    """Tokens: 0 sink and 1 document A, 2 and 3 document B, 4 and 5 the step. The sink's score is A's; B's scores cancel."""
    spans = [span("document", 0, 1), span("document", 2, 3), span("step", 4, 5)]
    unit = Unit(4, 5, 6.5, 0.5, np.array([4.0, 1.0, 3.0, -2.5, 0.5]), np.full(5, 0.25), np.array([0.0, 1.5, 3.5, 2.5, 9.0]))
    chain = trace_chain(spans, [unit], 6, FIRST)
    assert ranked(chain, 2) == [(1, 6.0), (0, 1.5)]
    assert edges(chain)[0, 2][0] == 5.0  # with the sink: the score stays exact
    assert edges(chain)[1, 2][0] == 0.5
    assert chain.spans[2] == {"explained": 6.5, "bias": 0.5, "own": 0.5, "unassigned": 0.0}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("stretches", [False, True])
def test_mass_is_conserved_and_followed_as_walks_would(seed: int, stretches: bool) -> None:
    rng = np.random.default_rng(seed)
    length, prompt = 16, 7
    spans = [span("document", 1, 3), span("document", 5, 6), span("answer", prompt, 15)]
    cuts = [prompt, 9, 12, 13, 16]
    spans += [span("step", low, high - 1) for low, high in pairwise(cuts)]
    pieces = list(pairwise(cuts)) if stretches else [(pos, pos + 1) for pos in range(prompt, 16) if pos != 10]
    units = [random_unit(rng, low, high - 1) for low, high in pieces]
    chain = trace_chain(spans, units, length, FIRST)
    found, owner = edges(chain), owners(spans, length)
    for index, values in chain.spans.items():
        score = sum(direct for (_, dst), (direct, _) in found.items() if dst == index)
        assert values["explained"] == pytest.approx(values["bias"] + values["own"] + values["unassigned"] + score, abs=1e-5)
        inside = set(range(prompt, 16)) if index == 2 else set(np.flatnonzero(owner == index).tolist())
        mine = [unit for unit in units if set(range(unit.first, unit.last + 1)) <= inside]
        direct = np.zeros(length)
        for unit in mine:
            direct[: unit.last] += unit.score
        rest, entered = walks(direct, units, owner, inside)
        assert rest.sum() == pytest.approx(direct.sum())
        expected = {i: mass for i, mass in entered.items() if i >= 0 and not (index == 2 and i > 2)}
        got = {src: total for (src, dst), (_, total) in found.items() if dst == index}
        assert got == pytest.approx({i: expected.get(i, 0.0) for i in got}, abs=1e-5)
        assert set(expected) - set(got) == {i for i in set(expected) - set(got) if abs(expected[i]) < 1e-12}


def random_unit(rng: np.random.Generator, first: int, last: int) -> Unit:
    score, share, direct = rng.normal(size=last), rng.random(last), rng.random(last)
    share[0] = 0.0
    bias = float(rng.normal())
    return Unit(first, last, float(score.sum()) + bias, bias, score, share / share.sum(), direct)


def walks(direct: Any, units: list[Unit], owner: Any, inside: set[int]) -> tuple[Any, dict[int, float]]:
    """Follow every unit of mass along every walk, by recursion over a graph; give where it rests and what entered each span."""
    graph: nx.DiGraph[int] = nx.DiGraph()
    for unit in units:
        before = unit.share[: unit.first]
        for pos in range(unit.first, unit.last + 1):
            for source in np.flatnonzero(before):
                graph.add_edge(pos, int(source), weight=float(before[source] / before.sum()))
    rest, entered = np.zeros(len(direct)), dict[int, float]()

    def walk(pos: int, mass: float) -> None:
        onward: list[tuple[int, int, float]] = list(graph.out_edges(pos, data="weight")) if pos in graph else []
        if not onward:
            rest[pos] += mass
        for _, source, weight in onward:
            if owner[source] != owner[pos]:
                entered[owner[source]] = entered.get(owner[source], 0.0) + mass * weight
            walk(source, mass * weight)

    for pos, mass in enumerate(direct):
        if pos not in inside:
            entered[owner[pos]] = entered.get(owner[pos], 0.0) + mass
        walk(pos, mass)
    return rest, entered


def test_nothing_explained_gives_nothing() -> None:
    chain = trace_chain([span("step", 1, 2)], [], 4, FIRST)
    assert (chain.spans, chain.supports.num_rows) == ({}, 0)
