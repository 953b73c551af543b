"""The guard: hostile statements are refused, innocent ones pass, and no disguise of a refused word gets through."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracestore.errors import QueryError
from tracestore.query.guard import MAX_CHARS, PROCEDURES, REFUSED, check_read_only
from tracestore.query.tokens import Token, tokens

HOSTILE = [
    "CREATE (:Trace {uid: 1})",
    "create (:Trace)",
    "CrEaTe (:Trace)",
    "MERGE (t:Trace {uid: 1}) RETURN t",
    "MATCH (t:Trace) SET t.status = 'READY'",
    "MATCH (t:Trace) DELETE t",
    "MATCH (t:Trace) DETACH DELETE t",
    "MATCH (t:Trace) REMOVE t.text",
    "MATCH (t:Trace) WITH t CREATE (t)-[:OF]->(t)",
    "MATCH (t)\nSET\nt.x = 1",
    "MATCH (t)/**/SET/**/t.x = 1",
    "MATCH (t) // a comment\nSET t.x = 1",
    "MATCH (t) RETURN t; MATCH (t) RETURN t",
    "RETURN 1; DROP TABLE Trace",
    "RETURN 'a;b'; RETURN 2",
    "DROP TABLE Trace",
    "ALTER TABLE Trace ADD x INT64",
    "COPY Trace TO '/tmp/out.csv'",
    "COPY (MATCH (t:Trace) RETURN t.text) TO '/tmp/out.csv'",
    "COPY Trace FROM '/etc/passwd'",
    "LOAD FROM '/etc/passwd' RETURN *",
    "LOAD CSV FROM 'file:///etc/passwd' AS row RETURN row",
    "EXPORT DATABASE '/tmp/x'",
    "IMPORT DATABASE '/tmp/x'",
    "INSTALL httpfs",
    "LOAD EXTENSION httpfs",
    "ATTACH '/tmp/x' AS y (dbtype duckdb)",
    "USE other MATCH (t) RETURN t",
    "SHOW SETTINGS",
    "SHOW TRANSACTIONS",
    "TERMINATE TRANSACTIONS 'neo4j-transaction-1'",
    "BEGIN TRANSACTION",
    "COMMIT",
    "ROLLBACK",
    "CHECKPOINT",
    "CALL threads=1",
    "CALL dbms.listConfig() YIELD name RETURN name",
    "CALL dbms.killConnections(['bolt-1'])",
    "CALL `dbms`.`listConfig`()",
    "CALL apoc.cypher.doIt('CREATE (n)', {})",
    "RETURN apoc.cypher.runFirstColumnSingle('MATCH (n) RETURN n', {})",
    "CALL project_graph('g', ['Trace'], ['OF'])",
    "CALL db . createLabel('x')",
    "CALL { MATCH (t:Trace) SET t.x = 1 }",
    "MATCH (t) CALL { WITH t DETACH DELETE t } IN TRANSACTIONS",
    "FOREACH (x IN [1] | CREATE (:T))",
    "MATCH (t) FOREACH (x IN [1] | MERGE (:T))",
    "EXPLAIN CREATE (:T)",
    "PROFILE MATCH (t) DELETE t",
    "RETURN nextval('s')",
    "RETURN `nextval`('s')",
    "\\u0043REATE (n)",
    "MATCH (n) \\u0053ET n.x = 1",
    "RETURN '\\u0027 CREATE (n) //'",
    "RETURN '\\\\u0027 CREATE (n) //'",
    'RETURN "\\U00000022 CREATE (n)"',
    "RETURN 'unclosed",
    "RETURN `unclosed",
    "RETURN 1 /* unclosed",
    "RETURN 'a\\' CREATE (n)",
    "RETURN 1 /* /* */ ' */ SET n.x = 1 // '",
    "RETURN 1 // \u2028 SET",
    "RETURN 1 // \r ' \n CREATE (n) // '",
    "RETURN 1\x00 CREATE (n)",
    "RETURN 1. CREATE (n)",
    "RETURN 1.CREATE",
    "MATCH p = (a)-[*1..SET]->(b) RETURN p",
    "MATCH (n) \u017fET n.x = 1",  # a letter that some engines fold to S
    "",
    ";",
    "   // only a comment",
    "GRANT ROLE admin TO me",
    "START DATABASE x",
    "INSERT (:T)",
    "RETURN 1 AS set",
]

INNOCENT = [
    "MATCH (t:Trace) RETURN t.trace_id",
    "match (t:Trace) return t.trace_id limit 5",
    "MATCH (t:Trace) RETURN t.trace_id;",
    "MATCH (t:Trace) RETURN t.trace_id ; // done",
    "RETURN 'CREATE (n)'",
    'RETURN "DELETE everything; DROP it"',
    "RETURN 'it\\'s SET' AS x",
    'RETURN "say \\"MERGE\\""',
    "RETURN '\\\\' AS backslash",
    "RETURN 'caf\\u00e9' AS word",
    "RETURN 1 // CREATE nothing",
    "RETURN 1 /* DROP nothing */",
    "// SET in a comment first\nMATCH (t:Trace) RETURN t.text",
    "RETURN 1 /* it's fine */ + 1",
    "RETURN 'a // b' + 'c /* d'",
    "MATCH (n:Trace) RETURN n.set",
    "MATCH (n:Trace) RETURN n . delete, n.`create`",
    "MATCH (n:`SET`) RETURN n",
    "MATCH (n:Set)-[:USE]->(m) RETURN n",
    "MATCH (n) RETURN {a: 1}.set",
    "MATCH (n {name: $create}) RETURN n",
    "MATCH (n) WHERE n.x = $set RETURN (n).delete, [n][0].load",
    "MATCH (created:Trace) RETURN created",
    "MATCH (setting) RETURN setting.value AS offset",
    "MATCH (n) WHERE n.dataset = 'x' RETURN n.dataset, n.created_at AS uploaded",
    "OPTIONAL MATCH (t:Token) RETURN count(t)",
    "WITH 1 AS x RETURN x",
    "UNWIND [1, 2] AS x RETURN x",
    "EXPLAIN MATCH (n) RETURN n",
    "PROFILE MATCH (n) RETURN n",
    "CALL show_tables() RETURN *",
    "CALL TABLE_INFO('Trace') RETURN *",
    "CALL db.labels() YIELD label RETURN label",
    "CALL db.schema.visualization()",
    "MATCH (t:Trace) CALL { WITH t MATCH (o)-[:OF]->(t) RETURN count(o) AS n } RETURN t, n",
    "MATCH (t:Trace) CALL (t) { MATCH (o)-[:OF]->(t) RETURN count(o) AS n } RETURN t, n",
    "MATCH (a)--(b) RETURN a",
    "MATCH (a)-[:VALUE|KEY*1..3]->(b) RETURN a",
    "MATCH p = (a)-[r:VALUE* SHORTEST 1..4]->(b) RETURN p",
    "MATCH (n) WHERE EXISTS { MATCH (n)-[:OF]->(m) } RETURN COUNT { MATCH (n)-->(k) }",
    "MATCH (n) RETURN CASE WHEN n.x > 1 THEN 'a' ELSE 'b' END",
    "MATCH (n) RETURN n.x % 2, n.y ^ 2, -n.z, n['text']",
    "MATCH (n)\r\nRETURN n\r\n",
    "MATCH (n) RETURN 'naïve 東京 🌍', n.été",
    "RETURN 1 UNION ALL RETURN 2",
    "MATCH (start:Token)-[:EMITS]->(stop) RETURN start, stop",
    "RETURN 'a\nb'",
    "MATCH (`weird``name`) RETURN `weird``name`",
    "RETURN 1e5, .5, 0x1F, 1.5e-3",
]


def test_there_are_enough_of_both() -> None:
    assert len(set(HOSTILE)) >= 40
    assert len(set(INNOCENT)) >= 40


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_is_refused(text: str) -> None:
    with pytest.raises(QueryError):
        check_read_only(text)


@pytest.mark.parametrize("text", INNOCENT)
def test_innocent_passes(text: str) -> None:
    check_read_only(text)


def test_messages_name_the_word_and_never_quote_the_text() -> None:
    with pytest.raises(QueryError, match="DELETE is refused") as caught:
        check_read_only("MATCH (secret {name: 'hush'}) DELETE secret")
    assert "hush" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_very_long_statement_is_refused() -> None:
    check_read_only("RETURN '" + "x" * (MAX_CHARS - 10) + "'")
    with pytest.raises(QueryError, match="characters"):
        check_read_only("RETURN '" + "x" * MAX_CHARS + "'")


SPACE = st.sampled_from([" ", "\n", "\t", "  ", "/**/", "/* ' */", '// " \n', "\r\n"])
REFUSED_WORD = st.sampled_from(sorted(REFUSED))
CASED = st.builds(
    lambda word, mask: "".join(c.lower() if mask >> i & 1 else c for i, c in enumerate(word)), REFUSED_WORD, st.integers(0, 2**12)
)
PLAIN = st.text(st.characters(blacklist_categories=["Cs", "Cc"], blacklist_characters="\\'\"`/*\u2028\u2029"), max_size=20)


def quoted(text: str, quote: str) -> str:
    return quote + text + quote


LITERAL = st.one_of(
    st.builds(quoted, PLAIN, st.sampled_from(["'", '"', "`"])),
    st.builds("/*{}*/".format, PLAIN),
    st.builds("//{}\n".format, PLAIN),
    st.sampled_from(["'\\''", '"\\""', "'\\\\'", "n.set", "$set", ":Set", "1.5", "(", ")", "[", "]", "-->"]),
)


@given(before=st.lists(LITERAL, max_size=4), word=CASED, left=SPACE, right=SPACE, after=st.lists(LITERAL, max_size=4))
def test_a_refused_word_outside_literals_is_always_refused(before: list[str], word: str, left: str, right: str, after: list[str]) -> None:
    text = "MATCH (n) " + " ".join(before) + " x" + left + word + right + "x " + " ".join(after)
    with pytest.raises(QueryError):
        check_read_only(text)


@given(word=CASED, padding=PLAIN, form=st.sampled_from(["'{}'", '"{}"', "/* {} */ 1", "1 // {}", "`{}`", "'\\'{}'", '"\\\\{}"']))
def test_a_refused_word_inside_a_literal_passes(word: str, padding: str, form: str) -> None:
    check_read_only("RETURN " + form.format(padding + " " + word + " " + padding))


@given(st.text(max_size=60))
def test_any_text_is_accepted_or_refused_and_nothing_else_happens(text: str) -> None:
    try:
        check_read_only("RETURN " + text)
    except QueryError:
        return
    stripped = [token for token in tokens("RETURN " + text) if token.kind == "word"]
    assert stripped[0] == Token("word", "RETURN")


@given(
    st.lists(st.sampled_from(["'", '"', "`", "/*", "*/", "//", "\\", "\n", "\r", " SET ", "a", "1", ".", ":", ";", "\u2028"]), max_size=12)
)
def test_what_passes_is_safe_by_a_second_reading(parts: list[str]) -> None:
    """A plain reading by one regular expression finds no refused word outside literals in anything that the guard accepts."""
    text = "RETURN " + "".join(parts)
    try:
        check_read_only(text)
    except QueryError:
        return
    literal = r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|`[^`]*`|/\*.*?\*/|//[^\n]*"
    comment = r"/\*|//"
    rest = re.sub(literal, lambda found: " " if re.match(comment, found.group()) else " Q ", text, flags=re.DOTALL)
    names = re.sub(r"[.:]\s*SET\b", "", rest)
    assert not re.search(r"\bSET\b", names), text


def test_procedures_are_upper_case_like_what_they_are_compared_with() -> None:
    assert {name.upper() for name in PROCEDURES} == PROCEDURES
