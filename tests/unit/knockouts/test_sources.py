"""In which order the sources of a prediction are taken."""

from __future__ import annotations

import pytest

from tests.support.synthetic import make_trace
from tracestore.knockouts.sources import Candidates, Kind


@pytest.mark.parametrize(("kind", "label"), [("column", "Token"), ("mean-embedding", "Token"), ("span", "Span")])
def test_tokens_and_spans_are_taken_by_drive(kind: Kind, label: str) -> None:
    trace = make_trace(3, n_tokens=24, n_prompt_tokens=8, n_outputs=1, steps=4)
    output = trace.outputs[-1].row
    taken = [source.local for source in Candidates(trace, output).of_kind(kind)]
    rows = {row["src"]: row for row in trace.table(f"INFLUENCES.{label}.Output").to_pylist() if row["dst"] == output["local"]}
    assert len(taken) > 1
    assert taken == sorted(taken, key=lambda local: rows[local]["rank_drive"])
    assert taken != sorted(taken, key=lambda local: rows[local]["rank_direct"])  # else the two could not be told apart
