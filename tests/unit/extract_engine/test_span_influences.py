"""The influences of spans, summed from those of tokens, by hand."""

from __future__ import annotations

import pyarrow as pa
import pytest

from tracestore import schema
from tracestore.extract.spans import TokenSpan
from tracestore.extract.text_tables import TextRecord, span_influences
from tracestore.extract.tokenise import Tokenised

OUTPUT = 50
DIRECT = (9.0, 1.0, 2.0, 3.0)
"""Of the positions 0, an attention sink, to 3, which is explained."""


REMOVAL, DRIVE = (7.0, -1.0, -3.0, 0.0), (2.0, 0.125, -0.5, 0.25)


def influences() -> pa.Table:
    columns = {name: [0.0] * 4 for name in ("score", "direct_value", "direct_address", "total_value", "total_address")}
    columns |= {"direct": list(DIRECT), "total": [2 * value for value in DIRECT], "share": [0.0, 1 / 6, 2 / 6, 3 / 6]}
    columns |= {"removal": list(REMOVAL), "drive": list(DRIVE)}
    keys = {"src": [2, 3, 4, 5], "dst": [OUTPUT] * 4}
    keys |= {"rank_drive": [4, 2, 3, 1], "rank_direct": [4, 3, 2, 1], "rank_total": [4, 3, 2, 1]}
    return pa.table({**keys, **columns}).select(schema.arrow_schema("INFLUENCES.Token.Output").names)


def test_sums_hold_the_sink_and_ranks_leave_it_out() -> None:
    places = [("document", 0, 1), ("document", 2, 2), ("role", 0, 0), ("answer", 3, 4)]
    spans = tuple(TokenSpan(kind, None, 0, first, last, "") for kind, first, last in places)  # type: ignore[arg-type]
    tokens = Tokenised("abcde", (1, 2, 3, 4, 5), tuple((at, at + 1) for at in range(5)))
    record = TextRecord(tokens, tuple("abcde"), ("prompt",) * 5, (True, False, False, False, False), spans)
    rows = span_influences(record, influences()).to_pylist()
    assert [row["src"] - record.first_span_local for row in rows] == [0, 1, 2, 3]
    assert [row["direct"] for row in rows] == [10.0, 2.0, 9.0, 3.0]  # the answer counts up to the explained position
    assert [row["share"] for row in rows] == pytest.approx([1 / 6, 2 / 6, 0.0, 3 / 6])
    assert [row["rank_direct"] for row in rows] == [3, 2, 4, 1]
    assert [row["rank_total"] for row in rows] == [3, 2, 4, 1]
    assert [row["removal"] for row in rows] == [6.0, -3.0, 7.0, 0.0]
    assert [row["drive"] for row in rows] == [0.125, -0.5, 0.0, 0.25]  # without the sink
    assert [row["rank_drive"] for row in rows] == [2, 3, 4, 1]
