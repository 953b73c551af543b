"""The page's own files: what its first screen needs is asked for at once, and nothing large beside it."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

PAGE = Path(__file__).resolve().parents[2] / "tracestore" / "serve" / "page"
IMPORT = re.compile(r'^import .*? from "(\.[^"]+)";', flags=re.MULTILINE)


def imported(starts: list[str]) -> set[str]:
    """Name the modules that these import, and they in turn."""
    found: set[str] = set()
    left = [PurePosixPath(start) for start in starts]
    while left:
        module = left.pop()
        if str(module) not in found:
            found.add(str(module))
            for name in IMPORT.findall((PAGE / module).read_text(encoding="utf-8")):
                joined = (PAGE / module.parent / name).resolve().relative_to(PAGE.resolve())
                left.append(PurePosixPath(joined.as_posix()))
    return found


def test_a_trace_is_one_round_trip_of_code_away() -> None:
    index = (PAGE / "index.html").read_text(encoding="utf-8")
    preloaded = re.findall(r'rel="modulepreload" href="page/([^"]+)"', index)
    assert sorted([*preloaded, "js/main.js"]) == sorted(imported(["js/main.js", "js/screens/trace.js"]))
    assert "d3" not in index  # loaded by the one screen that draws with it
