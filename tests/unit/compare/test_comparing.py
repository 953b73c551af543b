"""Matching, what is gained and lost, and when an assertion fails; archive and store give the same profiles."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.conformance.engines import ENGINES
from tests.support.store_graph import bundle_of
from tests.support.synthetic import make_trace
from tracestore.archive import Archive
from tracestore.compare import Profile, Thresholds, archive_profiles, assert_mechanism, compare_models, compare_traces, store_profiles
from tracestore.errors import BadInputError

NAMES = ("before", "after")


def profile(
    prompt: str = "p", *, tokens: dict[int, float] | None = None, heads: dict[tuple[int, int], float] | None = None, said: str = " Paris"
) -> Profile:
    return Profile(
        output_id=f"{prompt}:3:7",
        trace_id=prompt,
        model_id="m",
        checkpoint_step=None,
        method="frozen",
        prompt_hash=prompt,
        items=((f"item-{prompt}", None),),
        n_prompt=4,
        answer_pos=0,
        width=0,
        said=said,
        own_choice=True,
        correct=True,
        tokens=tokens or {1: 0.7, 2: 0.2, 3: 0.1},
        texts={0: "The", 1: " capital", 2: " of", 3: " France"},
        heads=heads or {(0, 0): 0.6, (1, 1): 0.4},
        motifs={"emb>L1.h1:V>out": 1.0},
    )


def test_gained_and_lost_by_hand() -> None:
    before = [profile(), profile("q", heads={(0, 0): 0.6, (1, 1): 0.4})]
    after = [profile(tokens={1: 0.05, 2: 0.25, 3: 0.7}, heads={(1, 1): 0.5, (2, 0): 0.5}), profile("q"), profile("r")]
    found = compare_models(before, after, names=NAMES)
    assert (found.pairs, found.unmatched_a, found.unmatched_b, found.same_answers) == (2, 0, 1, 2)
    assert [(c.name, c.change, round(c.difference, 6)) for c in found.heads] == [
        ("L0.H0", "kept", -0.3),
        ("L2.H0", "gained", 0.25),
        ("L1.H1", "kept", 0.05),
    ]
    changes = {(c.output, c.name): c.change for c in found.tokens}
    assert changes["item-p +0", "1: capital"] == "lost"
    assert changes["item-p +0", "2: of"] == "kept"
    assert changes["item-q +0", "3: France"] == "kept"
    assert found.token_shift == pytest.approx(0.65 / 2)
    assert found.head_shift == pytest.approx(0.6 / 2)
    assert found.motif_shift == 0.0


def test_prompts_of_two_lengths_are_laid_end_to_end() -> None:
    longer = replace(profile("q", tokens={2: 0.7, 3: 0.2, 4: 0.1}), n_prompt=5, texts={2: " capital", 3: " of", 4: " Italy"})
    found = compare_traces([profile()], [longer], names=NAMES)
    assert found.token_shift == pytest.approx(0.0)
    assert found.driver_overlap == pytest.approx(1.0)
    assert [(c.name, c.change) for c in found.tokens] == [("1: capital", "kept"), ("2: of", "kept"), ("3: France |  Italy", "kept")]


def test_nothing_to_compare_is_said() -> None:
    with pytest.raises(BadInputError, match="nothing matches: before has 1 predictions and after 1"):
        compare_models([profile()], [profile("q")], names=NAMES)
    twice = [profile(), replace(profile(), trace_id="other", model_id="n")]
    with pytest.raises(BadInputError, match="after holds two traces of one prompt"):
        compare_models([profile()], twice, names=NAMES)


def test_an_assertion_fails_for_shifts_alone() -> None:
    moved = {1: 0.4, 2: 0.5, 3: 0.1}
    baseline = [profile(name) for name in "pqrs"]
    candidate = [profile(), profile("q", tokens=moved), profile("r", tokens=moved, said=" Rome"), profile("t")]
    report = assert_mechanism(baseline, candidate, names=NAMES)
    verdicts = {case.name: case.verdict for case in report.cases}
    assert verdicts == {"item-p +0": "ok", "item-q +0": "shifted", "item-r +0": "answer changed"}
    assert (report.passed, report.only_baseline, report.only_candidate) == (False, 1, 1)
    (shifted,) = [case for case in report.cases if case.verdict == "shifted"]
    assert shifted.token_shift == pytest.approx(0.3)
    assert shifted.reasons == ("0.30 of the token shares moved (allowed 0.25), most at 2 ' of'",)
    assert assert_mechanism(baseline, candidate, Thresholds(tokens=0.31), names=NAMES).passed
    assert not assert_mechanism(baseline, candidate, Thresholds(tokens=1.0, overlap=0.99), names=NAMES).passed
    heads = [profile(heads={(0, 0): 0.1, (1, 1): 0.9})]
    assert assert_mechanism(baseline, heads, names=NAMES).cases[0].reasons[0].startswith("0.50 of the head shares moved")
    motifs = [replace(profile(), motifs={"emb>out": 1.0})]
    assert assert_mechanism(baseline, motifs, names=NAMES).cases[0].reasons[0].startswith("1.00 of the motif shares moved")
    with pytest.raises(BadInputError, match="between 0 and 1"):
        assert_mechanism(baseline, candidate, Thresholds(tokens=1.5), names=NAMES)


def test_an_answer_that_is_no_longer_the_models_own_has_changed() -> None:
    report = assert_mechanism([profile()], [replace(profile(), own_choice=False)], names=NAMES)
    assert report.cases[0].verdict == "answer changed"


def test_junit_counts_failures_and_skips_and_survives_any_text() -> None:
    candidate = [profile(tokens={3: 1.0}), profile("q", said=' <"R\x00me">')]
    report = assert_mechanism([profile(), profile("q")], candidate, names=NAMES)
    suite = ElementTree.fromstring(report.to_junit().encode())
    assert {name: suite.attrib[name] for name in ("tests", "failures", "skipped")} == {"tests": "2", "failures": "1", "skipped": "1"}
    failure, skipped = suite.find(".//failure"), suite.find(".//skipped")
    assert failure is not None
    assert skipped is not None
    assert failure.attrib["message"] == "0.90 of the token shares moved (allowed 0.25), most at 3 ' France'"
    assert '<"R' in skipped.attrib["message"]
    assert report.to_dict()["answer_changed"] == 1


def test_archive_and_store_give_the_same(tmp_path: Path) -> None:
    traces = [make_trace(seed, n_outputs=2, extras=True) for seed in (1, 2)] + [make_trace(3, model_id="other")]
    archive = Archive(tmp_path / "archive")
    archive.write(traces)
    read = sorted(archive_profiles(archive), key=lambda p: p.output_id)
    assert len(read) == 5
    assert all(abs(sum(p.tokens.values()) - 1) < 1e-5 for p in read)
    with ENGINES["ladybug"](tmp_path) as store:
        store.load(bundle_of(traces), level="summary")
        stored = sorted(store_profiles(store), key=lambda p: p.output_id)
        assert [p.output_id for p in store_profiles(store, model_id="other")] == [traces[2].outputs[0].output_id]
        assert {p.trace_id for p in store_profiles(store, trace_id=traces[0].trace_id)} == {traces[0].trace_id}
    for one, other in zip(read, stored, strict=True):
        seen = set(other.texts)
        assert replace(one, texts={pos: text for pos, text in one.texts.items() if pos in seen}, items=()) == replace(other, items=())
        assert sorted(one.items, key=str) == sorted(other.items, key=str)
    assert [p.output_id for p in archive_profiles(archive, model_id="other")] == [traces[2].outputs[0].output_id]
    assert any(p.motifs for p in read)
