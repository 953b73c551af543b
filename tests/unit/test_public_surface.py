"""What `import tracestore` offers, and what it must not cost."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType

import tracestore
import tracestore.errors


def modules_after(code: str) -> set[str]:
    """Run code in a fresh interpreter; give the top-level modules that it imported."""
    probe = f"{code}\nimport sys\nprint(' '.join(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=60, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_every_exported_name_is_there_and_sorted() -> None:
    assert tracestore.__all__ == sorted(tracestore.__all__)
    for name in tracestore.__all__:
        assert getattr(tracestore, name) is not None
    assert set(tracestore.__all__) <= set(dir(tracestore))


def test_nothing_public_is_left_out_of_the_list() -> None:
    for name in tracestore.__all__:
        getattr(tracestore, name)
    public = {n for n, value in vars(tracestore).items() if not n.startswith("_") and not isinstance(value, ModuleType)}
    assert public - {"annotations", "TYPE_CHECKING", "Any"} <= set(tracestore.__all__)


def test_every_exception_is_exported() -> None:
    classes = {name for name, value in vars(tracestore.errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert classes <= set(tracestore.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(tracestore, "no_such_thing")


def test_the_exported_name_is_not_hidden_by_a_module_of_the_same_name() -> None:
    import tracestore.ingest  # a submodule becomes an attribute of the package

    for name in tracestore.__all__:
        assert not isinstance(getattr(tracestore, name), ModuleType), name


def test_importing_the_package_costs_nothing_heavy() -> None:
    assert not modules_after("import tracestore") & {"pyarrow", "torch", "transformers", "ladybug", "numpy", "networkx", "rich", "typer"}


def test_help_of_query_costs_nothing_heavy() -> None:
    code = "from tracestore.cli import app\ntry:\n    app(['query', '--help'])\nexcept SystemExit:\n    pass"
    assert not modules_after(code) & {"pyarrow", "torch", "transformers", "ladybug", "numpy", "networkx", "pandas"}


def test_asking_a_store_needs_no_torch() -> None:
    loaded = modules_after("import tracestore.api, tracestore.query, tracestore.store.ladybug.store, tracestore.ingest, tracestore.load")
    assert not loaded & {"torch", "transformers"}
