"""`tracestore eval` end to end: the bars that must hold on tasks whose drivers are known, and the files it leaves."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.support.command_line import ok


@pytest.mark.slow
def test_circuits_every_step_of_every_chain_is_found(tmp_path: Path) -> None:
    done = ok("eval", "-s", "circuits", "--methods", "secant.total,frozen.total,random", "--limit", "8", "-o", tmp_path, "--json")
    rows = done.json["rows"]
    by_method = {name: [r for r in rows if r["method"] == name] for name in ("secant.total", "frozen.total", "random")}
    assert len(by_method["secant.total"]) == 24
    assert all(row["chain"] == 1.0 for row in by_method["secant.total"])
    hops = [row for row in by_method["frozen.total"] if row["task"] == "hop3"]
    assert all(row["step3"] == 1.0 for row in hops)
    assert sum(row["chain"] for row in hops) < len(hops) / 2, "a frozen pattern cannot see why a head looked there"
    assert sum(row["chain"] for row in by_method["random"]) < 8
    assert pq.read_table(tmp_path / "rows.parquet").num_rows == len(rows)
    report = (tmp_path / "report.md").read_text()
    assert "| secant.total | 1.00 [1.00, 1.00] | 1.00 [1.00, 1.00] |" in report
    assert (tmp_path / "circuits-auprc.png").read_bytes().startswith(b"\x89PNG")
