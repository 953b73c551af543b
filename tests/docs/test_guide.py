"""What the README and the guide show works as shown, and their links lead somewhere."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tracestore.extract.demo_model import demo_model_folder

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PLACEHOLDER = re.compile(r"PATH_OR_HUB_ID|path-or-hub-id")


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_names_a_place_on_this_machine(page: Path) -> None:
    assert not re.search(r"(?<![\w.:/-])/(?:work|root|tmp|home)/", page.read_text(encoding="utf-8"))


def test_the_readme_python_runs(tmp_path: Path) -> None:
    (source,) = blocks(ROOT / "README.md", "python")
    script = PLACEHOLDER.sub(str(demo_model_folder()), source)
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.splitlines()[0]) < 1e-4  # the closure that it prints first
    assert "France" in done.stdout


def test_the_readme_commands_run_in_order(tmp_path: Path) -> None:
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "The capital of France is", "expected": " Paris"}\n', encoding="utf-8")
    shown = "".join(block for block in blocks(ROOT / "README.md", "") if "tracestore trace" in block)
    commands = [shlex.split(line, comments=True) for line in shown.splitlines() if line.startswith("tracestore ")]
    assert len(commands) == 5
    for command in commands:
        arguments = [PLACEHOLDER.sub("demo", argument) for argument in command[1:]]
        done = subprocess.run(
            [sys.executable, "-m", "tracestore", *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        assert done.stdout.strip() or arguments[0] in {"trace", "load"}
    assert (tmp_path / "graph.lbug").is_file()
