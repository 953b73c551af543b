"""Paths as JSON and as lines, from a synthetic trace."""

from __future__ import annotations

import pytest

from tests.support.synthetic import make_trace
from tracestore.cli._answers import print_why, why_json
from tracestore.cli._paths import mass_note, paths_json, print_paths, stored_paths
from tracestore.errors import BadInputError
from tracestore.model import Output

MASSES = {"path_mass_finished": 3.0, "path_mass_open": 9.0, "path_largest_open": 0.5}


@pytest.fixture
def output() -> Output:
    found = make_trace(3, text="The capital of France is", n_outputs=1, paths=True).outputs[0]
    return Output(found.trace, {**found.row, **MASSES})


def test_the_largest_come_first_with_the_token_they_start_at(output: Output) -> None:
    answer = paths_json(output, 3)
    assert [path["rank"] for path in answer["paths"]] == [1, 2, 3]
    assert answer["path_mass_open"] == 9.0
    texts = ["The", " capital", " of", " France", " is"]
    assert all(path["source_text"] == texts[path["source_pos"]] for path in answer["paths"])
    assert len(stored_paths(output, None)) == 5
    assert why_json(output.trace, [output], k=1, by="drive")["outputs"][0]["paths"] == stored_paths(output, 5)


def test_a_rank_that_an_unfinished_path_could_take_is_not_guessed(output: Output, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = [abs(path["weight"]) for path in stored_paths(output, None)]
    for left, certain in ((0.0, 5), ((sizes[1] + sizes[2]) / 2, 2), (sizes[0] + 1.0, 0)):
        searched = Output(output.trace, {**output.row, "path_largest_open": left})
        assert [path["certain"] for path in stored_paths(searched, None)] == [True] * certain + [False] * (5 - certain)
        print_why(output.trace, [searched], k=1, by="drive")
        text = capsys.readouterr().out
        printed = [f"{path['weight']:+.3f}  " in text for path in stored_paths(searched, None)]
        assert printed == [True] * certain + [False] * (5 - certain)
        assert (f"more than {5 - certain} of the 5 largest" in text) is (certain < 5)
        assert ("exact paths" in text) is (certain > 0)


def test_every_hop_is_printed_with_its_sign(output: Output, capsys: pytest.CaptureFixture[str]) -> None:
    print_paths(output, stored_paths(output, None))
    lines = capsys.readouterr().out.splitlines()
    for line, path in zip(lines, stored_paths(output, None), strict=True):
        assert f"{path['weight']:+.3f}" in line
        assert all(hop in line for hop in path["hops"][1:-1])
        start = "bias" if path["hops"][0].startswith("bias") else f"'{path['source_text']}'"
        assert f"{start}@{path['source_pos']}" in line
    assert "unfinished ones 9 (the largest 0.5)" in mass_note(output)
    print_why(output.trace, [output], k=1, by="drive")
    assert "exact paths (more: tracestore paths)" in capsys.readouterr().out


def test_a_trace_without_paths_says_so(output: Output) -> None:
    with pytest.raises(BadInputError, match="traced without paths"):
        paths_json(Output(output.trace, {**output.row, "path_mass_finished": None}), 3)
