"""Write docs/queries.md from the headers of the catalogue: `python -m tracestore.query.document > docs/queries.md`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.resources import files

from tracestore.query.catalogue import CatalogueEntry, catalogue
from tracestore.query.header import OrderKey
from tracestore.query.parameters import Parameter, spell

INTRODUCTION = """# Queries

Made from the headers in `cypher/` by `python -m tracestore.query.document`; do not edit.

```
tracestore queries                                        # this list
tracestore query drivers -p output_id=... -p k=8 --store graph.lbug
```

In Python: `store.query("drivers", output_id=..., k=8)` gives a pyarrow table. A parameter that is *optional* filters only when it is
given. All queries see complete (READY) traces only. Weights, scores and relevance are in logits; a share is between 0 and 1.

Every query over many prompts filters by `model_id`, `method`, `dataset`, `split`, `tag`, `session_id`, time (`since`, `until`), `origin`
and `correct` of the predictions, `min_share`, and with or without attention sinks (`sink`), or says why one of these means nothing to it.
`origin` is that of the token a prediction was about: a prediction that nothing follows in the text (as `targets="last"` gives on a bare
prompt) has none.

As a data frame (`pip install 'tracestore[frames]'`):

```python
frame = store.query("heads_across", model_id="...").to_pandas()
frame = polars.from_arrow(store.query("heads_across", model_id="..."))
```

## Ad-hoc Cypher

`tracestore query "MATCH ..."` runs one statement that reads: it must begin with MATCH, OPTIONAL MATCH, WITH, UNWIND, RETURN, CALL,
EXPLAIN or PROFILE, and words that write or administer are refused (as names, put them in backticks). Give values as parameters. Join to
`(:Trace)` by `OF` and ask for `ready_id IS NOT NULL`, or traces that are just being loaded or deleted are counted.

**A fault of the embedded engine** (LadybugDB 0.21.0 to 0.22.0): a MATCH that filters on a relationship's property and then goes on by
another hop can give wrong rows without an error. Such statements are refused; put the filter behind a WITH:

```cypher
MATCH (t:Token)-[i:INFLUENCES]->(o:Output) WHERE t.text = ' Paris'
WITH t, i, o WHERE i.share >= 0.1
MATCH (o)-[:OF]->(tr:Trace) WHERE tr.ready_id IS NOT NULL
RETURN o.output_id, i.share
```
"""


def document() -> str:
    """Give the page's text."""
    return "\n".join([INTRODUCTION, "## Catalogue\n", *_table(), *(line for found in catalogue().values() for line in _section(found))])


def _table() -> Iterator[str]:
    yield "| query | question |"
    yield "|---|---|"
    for found in catalogue().values():
        yield f"| [`{found.name}`](#{found.name}) | {_cell(found.header.question)} |"
    yield ""


def _section(found: CatalogueEntry) -> Iterator[str]:
    header = found.header
    yield f"### {found.name}\n"
    yield f"{header.question}\n"
    yield "| parameter | type | default | meaning |"
    yield "|---|---|---|---|"
    for parameter in header.parameters:
        yield f"| `{parameter.name}` | {_type(parameter)} | {_default(parameter)} | {_cell(parameter.doc)} |"
    yield ""
    for group in header.needs:
        yield f"Exactly one of {', '.join(f'`{name}`' for name in group)} must be given.\n"
    for name, why in header.without:
        yield f"Takes no `{name}`: {why}.\n"
    yield "| column | type | meaning |"
    yield "|---|---|---|"
    for column in header.columns:
        yield f"| `{column.name}` | {column.type}{' or null' if column.nullable else ''} | {_cell(column.doc)} |"
    yield ""
    rows = f"at most `{header.rows}`" if not header.rows.isdecimal() else f"at most {header.rows}"
    yield f"- **Rows**: {rows}, in order of {', '.join(_order(key) for key in header.order)}."
    yield f"- **Seeks on**: {header.seeks}."
    yield f"- **Several stores**: {header.merge}."
    yield f"- **Cypher**: {_sources(found.name)}.\n"


def _type(parameter: Parameter) -> str:
    if parameter.choices:
        return ", ".join(f"`{choice}`" for choice in parameter.choices)
    bounds = [f"at least {spell(parameter.low)}"] if parameter.low is not None else []
    bounds += [f"at most {spell(parameter.high)}"] if parameter.high is not None else []
    return ", ".join([parameter.type, *bounds])


def _default(parameter: Parameter) -> str:
    return "*required*" if parameter.required else "*optional*" if parameter.optional else f"`{spell(parameter.default)}`"


def _order(key: OrderKey) -> str:
    column = f"what `{key.column.strip('{}')}` names" if key.column.startswith("{") else f"`{key.column}`"
    column += "" if key.signed is None else f" (value of `{key.signed}`)"
    return ("size of " if key.absolute else "") + column + (", largest first" if key.descending else "")


def _sources(name: str) -> str:
    folder = files("tracestore.cypher")
    overrides = [f.name for f in folder.iterdir() if f.is_dir() and (f / f"{name}.cypher").is_file()]
    return ", ".join([f"`cypher/{name}.cypher`", *(f"`cypher/{dialect}/{name}.cypher`" for dialect in sorted(overrides))])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    sys.stdout.write(document())
