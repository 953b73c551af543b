"""`tracestore debug`: a wrong answer against the right one, a right one against its runner-up, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import ok, run
from tests.support.masked_softmax import last_logits
from tests.support.tiny_text_model import save_tiny
from tracestore.extract.loading import load_model
from tracestore.knockouts import debug

PROMPT = "The capital of France is Paris. The capital of Italy is"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def wrong(model: Path) -> Any:
    return ok("debug", PROMPT, "--expected", " the", "--model", model, "--json").json


def test_a_wrong_answer_is_explained_against_what_was_expected(wrong: Any) -> None:
    assert wrong["right"] is False
    assert wrong["expected"] == {"token_id": wrong["other"]["token_id"], "text": " the", "given": " the", "tokens": 1}
    (output,) = wrong["outputs"]
    assert output["gauge"] == "foil"
    assert (output["token_id"], output["foil_token_id"]) == (wrong["answer"]["token_id"], wrong["other"]["token_id"])
    assert output["explained"] == wrong["difference"] > 0
    assert output["drivers"]
    assert output["heads"]


def test_the_knockouts_found_do_turn_it_round_and_none_of_them_is_superfluous(model: Path, wrong: Any) -> None:
    loaded = load_model(model)
    report = debug(loaded, PROMPT, " the")
    flip = report.flips["column"]
    ids = loaded.tokenizer(PROMPT, return_tensors="pt").input_ids
    answer, other = wrong["answer"]["token_id"], wrong["other"]["token_id"]

    def difference(columns: list[int]) -> float:
        logits = last_logits(loaded.model, ids, layers=2, columns=columns)
        return float(logits[answer] - logits[other])

    columns = [source.removal.columns[0] for source in flip.sources]
    assert flip.before == pytest.approx(difference([]), abs=1e-4)
    assert flip.after == pytest.approx(difference(columns), abs=1e-4)
    assert flip.flipped
    assert all(difference([c for c in columns if c != left_out]) >= 0 for left_out in columns if len(columns) > 1)
    shown = next(f for f in wrong["flips"] if f["kind"] == "column")
    assert [source["source"] for source in shown["sources"]] == [str(c) for c in columns]
    assert (shown["flipped"], shown["minimality"]) == (True, "not proven")


def test_a_model_that_is_right_already_says_so(model: Path, wrong: Any) -> None:
    said = wrong["answer"]["text"]
    done = ok("debug", PROMPT, "--expected", said, "--model", model)
    assert "the model is right already" in done.out
    found = ok("debug", PROMPT, "--expected", said, "--model", model, "--json").json
    assert found["right"] is True
    assert found["answer"]["token_id"] == found["expected"]["token_id"]
    assert found["difference"] > 0


def test_a_reader_sees_verdict_drivers_and_knockouts(model: Path) -> None:
    done = ok("debug", PROMPT, "--expected", " the", "--model", model)
    for part in ("is ahead of ' the' by", "drivers, by drive", "heads", "tokens: without", "heads: ", "is not proven"):
        assert part in done.out


def test_an_expectation_of_several_tokens_says_what_was_taken(model: Path) -> None:
    done = ok("debug", PROMPT, "--expected", " Vienna", "--model", model, "--json")
    assert done.json["expected"]["tokens"] > 1
    assert "the first" in done.err
    assert done.json["expected"]["text"] in done.err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--expected", " the", "--answer", " the"), "the same token"),
        (("--expected", ""), "empty text"),
    ],
)
def test_what_makes_no_sense_is_refused(model: Path, arguments: tuple[str, ...], reason: str) -> None:
    done = run("debug", PROMPT, *arguments, "--model", model)
    assert (done.code, reason in done.err) == (3, True)


def test_an_answer_can_be_named(model: Path) -> None:
    found = ok("debug", PROMPT, "--expected", " the", "--answer", " of", "--model", model, "--json").json
    assert found["answer"]["text"] == " of"
