"""The wheel and the editable install, each tried from an environment of its own, away from the checkout."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{command[0]} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy what is under version control, links kept: a build must not need more."""
    target = tmp_path_factory.mktemp("source")
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    for name in filter(None, listed.split("\0")):
        if not (ROOT / name).exists():
            continue  # deleted and not yet committed
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target / name, follow_symlinks=False)
    return target


@pytest.fixture(scope="module")
def wheel(source: Path) -> Path:
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", source, cwd=source)
    return next((source / "dist").glob("*.whl"))


def environment(folder: Path) -> Path:
    """Make an environment that sees this one's dependencies, but not its installation of tracestore; give its python."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    # A plain path in a .pth file is searched last, and the .pth files inside it (an editable install's) are not read.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    run(python, "-m", "pip", "uninstall", "--yes", "setuptools", cwd=folder)  # an old one comes with Python: build with ours
    return python


def check_installed(python: Path, elsewhere: Path) -> None:
    """Use the installed package from a folder that is not the checkout."""
    queries = json.loads(run(python, "-m", "tracestore", "queries", "--json", cwd=elsewhere))
    assert "drivers" in {query["name"] for query in queries}
    probe = "import importlib.util as u; print([n for n in ('cli', 'cypher', 'tests') if u.find_spec(n)])"
    assert run(python, "-c", probe, cwd=elsewhere).strip() == "[]"
    help_text = run(python.parent / "tracestore", "--help", cwd=elsewhere)
    assert "ingest" in help_text


def test_wheel_works_away_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    python = environment(tmp_path / "env")
    run(python, "-m", "pip", "install", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    assert "site-packages" in run(python, "-c", "import tracestore; print(tracestore.__file__)", cwd=tmp_path)
    check_installed(python, tmp_path)


def test_editable_install_works_away_from_the_checkout(source: Path, tmp_path: Path) -> None:
    python = environment(tmp_path / "env")
    run(python, "-m", "pip", "install", "--no-deps", "--no-index", "--no-build-isolation", "--editable", source, cwd=tmp_path)
    assert run(python, "-c", "import tracestore; print(tracestore.__file__)", cwd=tmp_path).strip().startswith(str(source))
    check_installed(python, tmp_path)


def test_wheel_holds_the_data_and_says_what_it_is(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = next(archive.read(name).decode() for name in names if name.endswith("METADATA"))
    assert {"tracestore/py.typed", "tracestore/cypher/drivers.cypher", "tracestore/cli/__init__.py"} <= names
    assert any(name.startswith("tracestore/prebuilt/") for name in names)
    assert {f"tracestore/serve/page/{name}" for name in ("index.html", "js/main.js", "vendor/d3/d3.min.js", "vendor/d3/LICENSE")} <= names
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"tracestore"}
    assert "License-Expression: Apache-2.0" in metadata
    assert "Provides-Extra: extract" in metadata


def test_no_lock_file_records_download_addresses() -> None:
    constraints = (ROOT / "constraints.txt").read_text()
    assert "://" not in constraints
    assert "torch==" in constraints
