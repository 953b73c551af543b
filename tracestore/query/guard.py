"""The first fence around ad-hoc Cypher: a token scan. The second is the engine's read-only connection.

A read-only connection alone is not enough: one engine still terminates other sessions' transactions, the other still writes files.

1. Split the text into tokens (comments dropped, strings and backtick names opaque); what engines could read differently is refused.
2. One statement only: a `;` may only end it.
3. It must begin with a clause that reads.
4. No word of `REFUSED` anywhere, unless it can only be a name there: after `.` of a property, `:` of a label or `$` of a parameter.
5. `CALL` only with a subquery or a procedure of `PROCEDURES`; no function of `REFUSED_FUNCTIONS`.
"""

from __future__ import annotations

from typing import Final

from tracestore.errors import QueryError
from tracestore.query.tokens import Token, tokens

BEGINNINGS: Final = frozenset({"MATCH", "OPTIONAL", "WITH", "UNWIND", "RETURN", "CALL", "EXPLAIN", "PROFILE"})
REFUSED: Final = frozenset(
    {
        *("CREATE", "MERGE", "INSERT", "SET", "DELETE", "DETACH", "REMOVE", "FOREACH"),
        *("DROP", "ALTER", "RENAME", "GRANT", "REVOKE", "DENY"),
        *("LOAD", "COPY", "EXPORT", "IMPORT", "INSTALL", "UNINSTALL", "ATTACH", "USE", "SHOW", "TERMINATE"),
        *("BEGIN", "COMMIT", "ROLLBACK", "CHECKPOINT", "TRANSACTIONS", "APOC", "GDS"),
    }
)
REFUSED_FUNCTIONS: Final = frozenset({"NEXTVAL"})
PROCEDURES: Final = frozenset(
    {
        *("SHOW_TABLES", "TABLE_INFO", "SHOW_CONNECTION", "SHOW_FUNCTIONS", "DB_VERSION"),
        *("DB.LABELS", "DB.RELATIONSHIPTYPES", "DB.PROPERTYKEYS"),
        *("DB.SCHEMA.VISUALIZATION", "DB.SCHEMA.NODETYPEPROPERTIES", "DB.SCHEMA.RELTYPEPROPERTIES"),
    }
)
MAX_CHARS: Final = 100_000


def check_read_only(text: str) -> None:
    """Accept one statement that only reads. Raises QueryError that names what is refused, never the text."""
    if len(text) > MAX_CHARS:
        raise QueryError(f"This Cypher has more than {MAX_CHARS} characters; pass long values as parameters.")
    found = list(tokens(text))
    while found and found[-1] == Token("symbol", ";"):
        found.pop()
    if not found:
        raise QueryError("There is no Cypher to run.")
    if Token("symbol", ";") in found:
        raise QueryError("Only one Cypher statement at a time; remove what follows the semicolon.")
    if found[0].kind != "word" or found[0].text.upper() not in BEGINNINGS:
        raise QueryError(f"Only Cypher that reads is accepted: it must begin with {', '.join(sorted(BEGINNINGS))}.")
    for index, token in enumerate(found):
        if token.kind in ("word", "name") and index + 1 < len(found) and found[index + 1].text == "(":
            _check_function(token)
        if token.kind != "word" or _is_name(found, index):
            continue
        word = token.text.upper()
        if word in REFUSED:
            raise QueryError(f"Only Cypher that reads is accepted: {word} is refused (as a name, put it in backticks).")
        if word == "CALL":
            _check_call(found, index + 1)


def _is_name(found: list[Token], index: int) -> bool:
    """Can the word at `index` only be a property, label or parameter, by what stands before it?"""
    before = found[index - 1].text if index and found[index - 1].kind == "symbol" else ""
    if before in ("$", ":"):
        return True
    if before != "." or index < 2:
        return False
    owner = found[index - 2]
    return owner.kind in ("word", "name") or (owner.kind == "symbol" and owner.text in ")]}")


def _check_function(token: Token) -> None:
    if token.text.upper() in REFUSED_FUNCTIONS:
        raise QueryError(f"Only Cypher that reads is accepted: the function {token.text.lower()} is refused.")


def _check_call(found: list[Token], index: int) -> None:
    if index < len(found) and found[index].kind == "symbol" and found[index].text in "{(":
        return
    name = ""
    while index < len(found) and (found[index].kind == "word" or found[index] == Token("symbol", ".")):
        name += found[index].text
        index += 1
    if name.upper() not in PROCEDURES or index >= len(found) or found[index] != Token("symbol", "("):
        raise QueryError(f"CALL is accepted only for {', '.join(sorted(p.lower() for p in PROCEDURES))}.")
