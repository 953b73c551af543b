"""Headers of catalogue files: what they say is read, and anything malformed is refused."""

from __future__ import annotations

import pytest

from tracestore.query.catalogue import CatalogueEntry
from tracestore.query.header import HeaderError, OrderKey, parse, render
from tracestore.query.parameters import Parameter

GOOD = """// name: sample
// question: What is it?
// param name: string? -- a name
// param other: int? -- a number
// param k: int(1..9) = 3 -- rows at most
// param by: string(a|b) = a -- what to rank by
// param low: float(..0.5) = 0 -- lowest
// needs: one of name, other
// without sink: nothing flows here
// column a: float -- first, logits
// column b: int? -- second
// order: -|{by}|, b
// rows: k
// seeks: everything
// merge: concatenate
MATCH (n:N)
WHERE n.low >= $low
  AND n.name = $name      // when $name
  AND n.other = $other    // when $other
  AND EXISTS { MATCH (m)  // when $name or $other
  }                       // when $name or $other
RETURN n.a AS a, n.b AS b ORDER BY $by LIMIT $k
"""


def test_a_header_is_read() -> None:
    header, body = parse(GOOD)
    assert header.name == "sample"
    assert header.parameters[2] == Parameter("k", "int", "rows at most", default=3, low=1, high=9)
    assert header.parameters[3] == Parameter("by", "string", "what to rank by", default="a", choices=("a", "b"))
    assert header.parameters[4] == Parameter("low", "float", "lowest", default=0.0, high=0.5)
    assert header.needs == (("name", "other"),)
    assert [(c.name, c.type, c.nullable) for c in header.columns] == [("a", "float", False), ("b", "int", True)]
    assert header.order == (OrderKey("{by}", True, True), OrderKey("b"))
    assert (header.rows, header.merge) == ("k", "concatenate")
    assert header.without == (("sink", "nothing flows here"),)
    assert body.startswith("MATCH (n:N)")


def test_an_order_by_size_may_leave_one_choice_signed() -> None:
    header, _ = parse(GOOD.replace("// order: -|{by}|, b", "// order: -|{by} but a|, b"))
    assert header.order == (OrderKey("{by}", True, True, "a"), OrderKey("b"))
    found = CatalogueEntry(header, "")
    assert found.order({"by": "a"}) == (("a", True, False), ("b", False, False))
    assert found.order({"by": "b"}) == (("b", True, True), ("b", False, False))


def test_lines_of_null_parameters_are_left_out() -> None:
    _, body = parse(GOOD)
    values = {"name": None, "other": 7, "k": 3, "by": "a", "low": 0.0}
    statement, used = render(body, values)
    assert statement == (
        "MATCH (n:N)\nWHERE n.low >= $low\n  AND n.other = $other\n  AND EXISTS { MATCH (m)\n  }\n"
        "RETURN n.a AS a, n.b AS b ORDER BY $by LIMIT $k"
    )
    assert used == {"low": 0.0, "other": 7, "by": "a", "k": 3}
    assert "EXISTS" not in render(body, {**values, "other": None})[0]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("// name: sample\n", ""),
        ("// merge: concatenate\n", ""),
        ("// merge: concatenate", "// merge: "),
        ("// rows: k", "// rows: k\n// rows: k"),
        ("// rows: k", "// rows: many"),
        ("// rows: k", "// rows: by"),
        ("// question:", "// asks:"),
        ("// param k: int(1..9) = 3", "// param k: integer = 3"),
        ("// param k: int(1..9) = 3", "// param k: int(1..9) = 10"),
        ("// param k: int(1..9) = 3", "// param k: int(1-9) = 3"),
        ("// param k: int(1..9) = 3", "// param k: int? = 3"),
        ("= a -- what to rank by", "= c -- what to rank by"),
        (" -- rows at most", ""),
        ("// column b: int? -- second", "// column b: number -- second"),
        ("// column b: int? -- second", "// column a: int? -- second"),
        ("// order: -|{by}|, b", "// order: -|{by}|, c"),
        ("// order: -|{by}|, b", "// order: -|{by}, b"),
        ("// order: -|{by}|, b", "// order: b desc"),
        ("// order: -|{by}|, b", "// order: -|{by} but c|, b"),
        ("// order: -|{by}|, b", "// order: -|{by} but |, b"),
        ("// order: -|{by}|, b", "// order: -{by} but a, b"),
        ("// order: -|{by}|, b", "// order: -|a but a|, b"),
        ("string(a|b) = a", "string(a|c) = a"),
        ("// needs: one of name, other", "// needs: one of name, k"),
        ("// needs: one of name, other", "// needs: name"),
        ("// without sink: nothing flows here", "// without sink"),
        ("// without sink: nothing flows here", "// without colour: it has none"),
        ("// without sink: nothing flows here\n", "// param sink: bool? -- sinks\n// without sink: it has none\n"),
        ("LIMIT $k", "LIMIT 5"),
        ("LIMIT $k", "LIMIT $k + $m"),
        ("$name      // when $name", "$name"),
        ("$name      // when $name", "$name      // when $other"),
        ("n.low >= $low", "n.low >= $low // when $low"),
        ("// column a: float -- first, logits\n// column b: int? -- second\n", ""),
    ],
)
def test_a_malformed_header_is_refused(old: str, new: str) -> None:
    assert old in GOOD
    with pytest.raises(HeaderError):
        parse(GOOD.replace(old, new, 1))
