"""What docs/knockouts.md shows works as shown, and its numbers are those that the demo model gives."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import tracestore as ts
from tests.docs.test_guide import ROOT, blocks
from tests.support.command_line import ok
from tracestore import api

PAGE = ROOT / "docs" / "knockouts.md"


def test_the_page_runs_and_gives_its_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = api.load_model("demo")
    for place in (api, ts):  # loaded once for all of the page
        monkeypatch.setattr(place, "load_model", lambda *_, **__: loaded)
    lines = re.findall(r"^tracestore .*", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(lines) == 7
    out = {}
    for line in lines:
        arguments = shlex.split(line)[1:]
        out[" ".join(arguments[:2]) + (" heads" if "--kind" in arguments else "")] = ok(*arguments).out
    verified = out["verify --all-outputs"]
    for source, text, estimate, effect in re.findall(
        r'^\| (\d+) \| "(.*?)" \| (\S+) \| (\S+) \|', PAGE.read_text(encoding="utf-8"), re.MULTILINE
    ):
        (row,) = re.findall(rf"^ {source} +{re.escape(text)} +(\S+) +(\S+) ", verified, re.MULTILINE)
        assert [round(float(value), 2) for value in row] == pytest.approx([float(estimate), float(effect)], abs=0.011)
    assert "L29.H1" in out["verify --all-outputs heads"]
    assert "KNOCKOUT" not in out["query disagreement"]
    assert "29" in out["query disagreement"]
    debugged = next(text for name, text in out.items() if name.startswith("debug"))
    assert re.search(r"tokens: without 10 ' Italy': ' Paris' gets ahead; the difference goes from 8\.26\d to -3\.37\d", debugged)
    assert "heads: without L23.H4: ' Paris' gets ahead" in debugged
    (script,) = blocks(PAGE, "python")
    printed: list[str] = []
    exec(compile(script, str(PAGE), "exec"), {"print": lambda *values: printed.append(" ".join(map(str, values)))})
    assert [line.split()[:2] for line in printed] == [["10", "Italy"], ["5", "Paris"], ["8", "capital"]]
