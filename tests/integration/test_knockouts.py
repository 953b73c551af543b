"""Knockouts from a stored trace to the archive and into a graph: appended once, kept, and refused where they make no sense."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

import tracestore as ts
from tests.support.tiny_text_model import byte_level_tokenizer, tiny_llama
from tracestore.archive import Archive
from tracestore.errors import BadInputError
from tracestore.extract.knockouts.measure import KnockoutRunner
from tracestore.extract.knockouts.removal import Removal
from tracestore.extract.loading import LoadedModel, wrap_model
from tracestore.extract.trace import attributor_for
from tracestore.knockouts import Choice, PartialVerifyError, verify_all
from tracestore.knockouts.run import prompt_tokens, target_of
from tracestore.model import Document, Item, SpanRequest

PROMPT = "The capital of France is Paris. The capital of Italy is"
KNOCKOUTS = "MATCH (s)-[r:KNOCKOUT]->(o:Output) RETURN r.kind AS kind, r.effect AS effect, r.estimate AS estimate ORDER BY r.effect"


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    tokenizer = byte_level_tokenizer()
    return wrap_model(tiny_llama(len(tokenizer)), tokenizer, model_id="tiny")


@pytest.fixture(scope="module")
def item() -> Item:
    return Item(
        prompt=PROMPT,
        documents=(Document("a", "The capital of France is Paris."),),
        spans=(SpanRequest("step", 4, 22), SpanRequest("evidence", 36, len(PROMPT)), SpanRequest("turn", 0, 52)),
    )


@pytest.fixture(scope="module")
def trace(model: LoadedModel, item: Item) -> ts.Trace:
    return ts.trace(model, item)


@pytest.fixture
def archive(tmp_path: Path, trace: ts.Trace) -> Archive:
    found = Archive(tmp_path / "traces")
    found.write([trace])
    return found


def output_of(trace: ts.Trace) -> str:
    return trace.outputs[0].output_id


def stop(*_: object, **__: object) -> Any:
    raise AssertionError("the model was run")


def test_the_effect_is_what_the_model_does_without_the_token(model: LoadedModel, archive: Archive, trace: ts.Trace) -> None:
    report = ts.verify(model, archive, output_of(trace), sources=["3"])
    ids = torch.tensor([trace.table("Token")["token_id"].to_pylist()])
    length, output = ids.shape[1], trace.outputs[0].row
    mask = torch.full((length, length), -torch.inf).triu(1)
    masked = mask.clone()
    masked[4:, 3] = -torch.inf

    def says(additive: torch.Tensor) -> tuple[float, float]:
        with torch.no_grad():
            logits = model.model(input_ids=ids, attention_mask=additive[None, None]).logits[0, -1]
        return float(logits[output["token_id"]] - logits.mean()), float(torch.log_softmax(logits, -1)[output["token_id"]])

    (row,) = report.table.to_pylist()
    with_it, without_it = says(mask), says(masked)
    assert row["effect"] == pytest.approx(without_it[0] - with_it[0], abs=1e-4)
    assert row["effect_logp"] == pytest.approx(without_it[1] - with_it[1], abs=1e-4)
    score = next(r["score"] for r in trace.outputs[0].influences().to_pylist() if r["pos"] == 3)
    assert row["estimate"] == score
    assert row["gap"] == pytest.approx(row["effect"] + score)
    assert row["agrees"] is (score * row["effect"] < 0)


@pytest.mark.parametrize(
    ("kind", "stored", "label"),
    [
        ("column", "column", "Token"),
        ("mean-embedding", "mean_embedding", "Token"),
        ("edge", "edge", "Token"),
        ("head", "head", "HeadSummary"),
        ("motif", "motif", "Path"),
        ("span", "column", "Span"),
        ("step", "column", "Span"),
    ],
)
def test_each_kind_is_appended_and_found_again(
    model: LoadedModel, archive: Archive, trace: ts.Trace, monkeypatch: pytest.MonkeyPatch, kind: Any, stored: str, label: str
) -> None:
    first = ts.verify(model, archive, output_of(trace), kind=kind, top=3, random=2, seed=4)
    rows = first.table.to_pylist()
    assert first.measured == len(rows) > 0
    assert {row["kind"] for row in rows} == {stored}
    written = archive.read_trace(trace.trace_id).table(f"KNOCKOUT.{label}.Output")
    assert written["effect"].to_pylist() == pytest.approx([row["effect"] for row in rows])
    assert written["estimate"].to_pylist() == pytest.approx([row["estimate"] for row in rows])
    monkeypatch.setattr(KnockoutRunner, "measure", stop)
    again = ts.verify(model, archive, output_of(trace), kind=kind, top=3, random=2, seed=4)
    assert (again.measured, again.known) == (0, len(rows))
    assert [row["source"] for row in again.table.to_pylist()] == [row["source"] for row in rows]
    assert len(archive.annotations()) == 1
    assert archive.verify().problems == ()


def test_again_measures_again_and_keeps_both(model: LoadedModel, archive: Archive, trace: ts.Trace) -> None:
    ts.verify(model, archive, output_of(trace), top=1)
    report = ts.verify(model, archive, output_of(trace), top=1, again=True)
    assert report.measured == 1
    assert archive.read_trace(trace.trace_id).table("KNOCKOUT.Token.Output").num_rows == 2


def test_random_controls_are_drawn_by_the_seed_and_marked(model: LoadedModel, archive: Archive, trace: ts.Trace) -> None:
    def drawn(seed: int) -> list[str]:
        rows = ts.verify(model, archive, output_of(trace), top=2, random=3, seed=seed).table.to_pylist()
        assert [row["random"] for row in rows] == [False, False, True, True, True]
        return [row["source"] for row in rows]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_spans_go_whole_and_those_that_reach_the_target_are_left_out(model: LoadedModel, archive: Archive, trace: ts.Trace) -> None:
    rows = ts.verify(model, archive, output_of(trace), kind="span").table.to_pylist()
    assert {row["source"] for row in rows} == {"document:a", "step:0"}
    whole = ts.verify(model, archive, output_of(trace), kind="span", sources=["document:a"])
    removal = whole.outputs[0].knockouts[0].source.removal
    assert removal.columns == tuple(range(7))
    with pytest.raises(BadInputError, match="covers the target itself"):
        ts.verify(model, archive, output_of(trace), kind="span", sources=["evidence:0"])
    with pytest.raises(BadInputError, match="turn:0 is every token before"):
        ts.verify(model, archive, output_of(trace), kind="span", sources=["turn:0"])


@pytest.mark.parametrize(
    ("kind", "name", "reason"),
    [
        ("column", "11", "nothing later reads position 11"),
        ("column", "12", "comes after position 11"),
        ("column", "no", "write a position"),
        ("edge", "L9.H9:0->1", "one of the stored edges"),
        ("head", "L9.H0", "no head 'L9.H0'"),
        ("motif", "emb>out", "no motif"),
    ],
)
def test_a_source_that_cannot_be_removed_is_refused(
    model: LoadedModel, archive: Archive, trace: ts.Trace, kind: Any, name: str, reason: str
) -> None:
    with pytest.raises(BadInputError, match=reason):
        ts.verify(model, archive, output_of(trace), kind=kind, sources=[name])
    assert archive.annotations() == ()


def test_the_only_token_before_the_target_is_every_token(model: LoadedModel, tmp_path: Path) -> None:
    archive = Archive(tmp_path / "traces")
    short = ts.trace(model, " of France")
    archive.write([short])
    assert len(short.table("Token")) == 2
    assert ts.verify(model, archive, output_of(short)).outputs[0].knockouts == ()
    with pytest.raises(BadInputError, match="leave at least one"):
        ts.verify(model, archive, output_of(short), sources=["0"])


def test_a_model_that_changed_is_refused_with_what_differs(model: LoadedModel, archive: Archive, trace: ts.Trace) -> None:
    tokenizer = model.tokenizer
    retrained = wrap_model(tiny_llama(len(tokenizer), seed=1), tokenizer, model_id="tiny")
    with pytest.raises(BadInputError, match=r"has changed since.*weights.*fingerprint"):
        ts.verify(retrained, archive, output_of(trace))
    deeper = wrap_model(tiny_llama(len(tokenizer), layers=3), tokenizer, model_id="tiny")
    with pytest.raises(BadInputError, match=r"configuration differs \(3 layers of 4 heads now, 2 of 4 in the trace\)"):
        ts.verify(deeper, archive, output_of(trace))
    other = wrap_model(tiny_llama(len(tokenizer), seed=1), tokenizer, model_id="other")
    with pytest.raises(BadInputError, match="it is not tiny, which was traced"):
        ts.verify(other, archive, output_of(trace))
    with pytest.raises(BadInputError, match="loaded in bfloat16"):
        ts.verify(replace(model, dtype="bfloat16"), archive, output_of(trace))
    with pytest.raises(BadInputError, match="none of the 1 outputs was made by other"):
        verify_all(other, archive)
    assert archive.annotations() == ()


def test_a_model_that_says_something_else_than_was_recorded_is_refused(model: LoadedModel, trace: ts.Trace, tmp_path: Path) -> None:
    output = trace.table("Output")
    wrong = pa.array([output["explained"][0].as_py() + 1.0], pa.float32())
    index = output.column_names.index("explained")
    archive = Archive(tmp_path / "traces")
    archive.write([replace(trace, tables={**trace.tables, "Output": output.set_column(index, output.schema.field(index), wrong)})])
    with pytest.raises(BadInputError, match="does not compute what was traced"):
        ts.verify(model, archive, output_of(trace))


def test_a_trace_without_text_is_refused(model: LoadedModel, trace: ts.Trace, tmp_path: Path) -> None:
    from tracestore.archive import redact

    archive = Archive(tmp_path / "traces")
    hidden = redact(trace, bytes(32))
    archive.write([hidden])
    with pytest.raises(BadInputError, match="without its text"):
        ts.verify(model, archive, output_of(hidden))
    with pytest.raises(PartialVerifyError, match="1 of 1 outputs were not verified"):
        verify_all(model, archive)


def test_all_outputs_are_verified_once_and_a_new_one_later(model: LoadedModel, archive: Archive, trace: ts.Trace) -> None:
    answered = ts.trace(model, Item(prompt="Where is the tower?", completion=" It is in Paris."))
    archive.write([answered])
    counts: list[int] = []
    report = verify_all(model, archive, Choice(top=2), progress=counts.append)
    outputs = 1 + len(answered.outputs)
    assert (len(report.outputs), len(counts), report.measured, report.known) == (outputs, outputs, 2 * outputs, 0)
    again = verify_all(model, archive, Choice(top=3))
    assert (again.measured, again.known) == (outputs, 2 * outputs)


def test_effects_reach_the_graph_once_and_survive_a_rebuild(model: LoadedModel, archive: Archive, trace: ts.Trace, tmp_path: Path) -> None:
    url = tmp_path / "graph.lbug"
    with ts.open_store(url) as store:
        store.load(archive)
        ts.verify(model, archive, output_of(trace), top=4)
        ts.verify(model, archive, output_of(trace), kind="head", top=2)
        store.load(archive)
        found = store.cypher(KNOCKOUTS).to_pylist()
        assert [row["kind"] for row in found].count("column") == 4
        assert len(found) == 6
        store.load(archive)
        assert store.cypher(KNOCKOUTS).to_pylist() == found
        assert store.check().problems == ()
    archive.compact()
    assert len(archive.annotations()) == 1
    ts.rebuild_store(archive, url)
    with ts.open_store(url) as store:
        assert store.cypher(KNOCKOUTS).to_pylist() == found
        read = store.read_trace(output_of(trace))
        assert read.table("KNOCKOUT.Token.Output").num_rows == 4
    archive.forget([trace.trace_id])
    archive.compact()
    assert archive.annotations() == ()


def test_a_motif_is_all_heads_of_a_path_and_each_set_of_heads_one_source(model: LoadedModel, archive: Archive, trace: ts.Trace) -> None:
    found = ts.verify(model, archive, output_of(trace), kind="motif", top=100).outputs[0].knockouts
    sets = [knockout.source.removal.heads for knockout in found]
    assert len(set(sets)) == len(sets) > 1
    paths = trace.table("Path").to_pylist()
    for knockout in found:
        heads = knockout.source.removal.heads
        names = {f"L{layer}.h{head}" for layer, head in heads}
        through = [row["weight"] for row in paths if names & {part.partition(":")[0] for part in row["motif"].split(">")}]
        assert knockout.estimate == pytest.approx(sum(through), abs=1e-5)
    several = next(knockout for knockout in found if len(knockout.source.removal.heads) > 1)
    both = several.source.removal
    direct = KnockoutRunner(attributor_for(model)).measure(prompt_tokens(trace), target_of(trace, trace.outputs[0]), [Removal(), both])
    assert several.effect == pytest.approx(direct[1].explained - direct[0].explained, abs=1e-5)


def test_a_head_without_a_summary_gets_one(model: LoadedModel, trace: ts.Trace, tmp_path: Path) -> None:
    summaries = trace.table("HeadSummary")
    kept = summaries.slice(0, 2)
    archive = Archive(tmp_path / "traces")
    archive.write([replace(trace, tables={**trace.tables, "HeadSummary": kept})])
    for kind in (0, 1):  # the second time, half is known
        ts.verify(model, archive, output_of(trace), kind="head", top=4 + 2 * kind)
    found = archive.read_trace(trace.trace_id).table("HeadSummary")
    verified = archive.read_trace(trace.trace_id).table("KNOCKOUT.HeadSummary.Output")
    assert set(verified["src"].to_pylist()) <= set(found["local"].to_pylist())
    made = found.slice(2).to_pylist()
    vector = trace.outputs[0].row["head_vector"]
    assert len(made) >= 4
    assert all(row["relevance"] == vector[row["layer"] * 4 + row["head"]] for row in made)
    archive.compact()
    assert archive.read_trace(trace.trace_id).table("HeadSummary").num_rows == found.num_rows
    assert archive.verify().problems == ()
    with ts.open_store(tmp_path / "graph.lbug") as store:
        store.load(archive)
        assert store.cypher("MATCH (h:HeadSummary)-[:OF]->(o:Output) RETURN count(*) AS n").to_pylist() == [{"n": found.num_rows}]
        assert store.cypher("MATCH (h:HeadSummary)-[r:KNOCKOUT]->(o:Output) RETURN count(*) AS n").to_pylist() == [{"n": 6}]


def test_an_effect_on_nothing_is_found_by_archive_verify(archive: Archive, trace: ts.Trace) -> None:
    from tracestore import schema

    row = {"src": 10**6, "dst": trace.outputs[0].row["local"], "kind": "column", "effect": 0.5, "effect_logp": 0.5, "created_at": 1}
    table = pa.Table.from_pylist([row], schema=schema.arrow_schema("KNOCKOUT.Token.Output"))
    with archive.writer() as writer:
        writer.annotate(trace.trace_id, {"KNOCKOUT.Token.Output": table})
    (problem,) = archive.verify().problems
    assert "whose src is no Token" in problem
    assert archive.verify(deep=False).problems == ()


def test_nothing_to_do_is_refused() -> None:
    with pytest.raises(BadInputError, match="nothing to knock out"):
        Choice(top=0).check()
