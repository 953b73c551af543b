"""Every kind of damage is found, named and confined to its package; it is never read as data."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.archives import assert_same_trace, change_manifest, flip_byte, fresh, table_path
from tests.support.synthetic import make_trace, make_traces
from tracestore import schema
from tracestore.archive import Archive, Package
from tracestore.archive.layout import storage_errors
from tracestore.errors import ArchiveError, ResourceError

TRACES = make_traces(4, n_layers=1, n_tokens=4)


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """Two packages of two traces."""
    made = Archive(tmp_path / "archive")
    for pair in (TRACES[:2], TRACES[2:]):
        made.write(pair)
    return made


def _cut(package: Package) -> None:
    path = table_path(package, "VALUE.State.Head")
    path.write_bytes(path.read_bytes()[:-40])


def _swap(package: Package) -> None:
    shutil.copy(table_path(package, "Head"), table_path(package, "Mlp"))


FILE_DAMAGE: list[tuple[str, Callable[[Package], object], str]] = [
    ("flipped byte in data", lambda p: flip_byte(table_path(p, "State"), 200), "State.parquet is not what was written"),
    ("flipped byte in footer", lambda p: flip_byte(table_path(p, "Output"), -20), "Output.parquet is not what was written"),
    ("missing file", lambda p: table_path(p, "Token").unlink(), "Token.parquet is missing"),
    ("truncated file", _cut, "VALUE.State.Head.parquet is not what was written"),
    ("empty file", lambda p: table_path(p, "Head").write_bytes(b""), "Head.parquet is not what was written"),
    ("another table's file", _swap, "Mlp.parquet is not what was written"),
]


@pytest.mark.parametrize(("damage", "message"), [case[1:] for case in FILE_DAMAGE], ids=[case[0] for case in FILE_DAMAGE])
def test_a_damaged_file_is_named_and_the_other_package_stays_readable(
    archive: Archive, damage: Callable[[Package], object], message: str
) -> None:
    package = archive.packages()[0]
    damage(package)
    again = fresh(archive)
    for read in (lambda: again.read_trace(TRACES[0].trace_id), lambda: list(again.bundles(package))):
        with pytest.raises(ArchiveError, match=f"Package {package.package_id} is damaged: its file {message}") as caught:
            read()
        assert "other packages are not affected" in str(caught.value)
    assert_same_trace(again.read_trace(TRACES[2].trace_id), TRACES[2])
    report = again.verify()
    assert len(report.problems) == 1
    assert package.package_id in report.problems[0]
    assert message in report.problems[0]
    assert not report.ok


def test_damage_after_a_file_was_found_sound_is_seen(archive: Archive) -> None:
    archive.read_trace(TRACES[0].trace_id)
    path = table_path(archive.packages()[0], "State")
    flip_byte(path, 150)
    os.utime(path, ns=(1, 1))
    with pytest.raises(ArchiveError, match=r"State\.parquet"):
        archive.read_trace(TRACES[0].trace_id)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_flipped_byte_of_a_package_is_found(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    archive = Archive(tmp_path_factory.mktemp("archive"))
    archive.write([make_trace(1, n_tokens=2, n_layers=1, n_heads=1)])
    package = archive.packages()[0]
    path = data.draw(st.sampled_from(sorted(package.path.iterdir())))
    flip_byte(path, data.draw(st.integers(0, path.stat().st_size - 1)))
    problems = fresh(archive).verify(deep=False).problems
    assert len(problems) == 1
    assert package.package_id in problems[0]


def _newer(package: Package) -> None:
    change_manifest(package.path, schema_version=schema.SCHEMA_VERSION + 1)


def _manifest(package: Package) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((package.path / "manifest.json").read_bytes())
    return value


MANIFEST_DAMAGE: list[tuple[str, Callable[[Package], object], str]] = [
    ("missing", lambda p: (p.path / "manifest.json").unlink(), "has no manifest"),
    ("flipped byte", lambda p: flip_byte(p.path / "manifest.json", 300), "is damaged"),
    ("no JSON", lambda p: (p.path / "manifest.json").write_text("{"), "is damaged"),
    ("no object", lambda p: (p.path / "manifest.json").write_text("[1]"), "is damaged"),
    ("another package's", lambda p: change_manifest(p.path, package_id="elsewhere"), "holds the manifest of package elsewhere"),
    ("without members", lambda p: (p.path / "manifest.json").write_text("{}"), "is damaged"),
    ("a file outside", lambda p: change_manifest(p.path, files=[{**_manifest(p)["files"][0], "name": "../x"}]), "is damaged"),
    ("of an older schema", lambda p: change_manifest(p.path, schema_version=schema.SCHEMA_VERSION - 1), "older than"),
    ("members of a wrong type", lambda p: change_manifest(p.path, traces=7), "is damaged"),
]


@pytest.mark.parametrize(("damage", "message"), [case[1:] for case in MANIFEST_DAMAGE], ids=[case[0] for case in MANIFEST_DAMAGE])
def test_a_folder_without_a_valid_manifest_does_not_exist_and_is_reported_not_deleted(
    archive: Archive, damage: Callable[[Package], object], message: str
) -> None:
    package = archive.packages()[0]
    damage(package)
    again = fresh(archive)
    assert again.trace_ids() == tuple(trace.trace_id for trace in TRACES[2:])
    assert again.missing([trace.trace_id for trace in TRACES]) == [trace.trace_id for trace in TRACES[:2]]
    for problems in (again.problems(), again.verify().problems):
        assert len(problems) == 1
        assert package.package_id in problems[0]
        assert message in problems[0]
    again.compact()
    assert package.path.is_dir()
    assert again.write(TRACES) == [trace.trace_id for trace in TRACES[:2]]


def test_a_newer_package_is_refused_with_the_word_upgrade(archive: Archive) -> None:
    package = archive.packages()[1]
    _newer(package)
    again = fresh(archive)
    for ask in (again.packages, again.trace_ids, lambda: again.missing(["x"]), again.compact):
        with pytest.raises(
            ArchiveError, match=f"Package {package.package_id} has schema version {schema.SCHEMA_VERSION + 1}, newer.*upgrade"
        ):
            ask()
    assert_same_trace(again.read_trace(TRACES[0].trace_id), TRACES[0])
    assert ["upgrade" in problem for problem in again.verify().problems] == [True]


def _wrong_counts(package: Package) -> None:
    traces = _manifest(package)["traces"]
    traces[0][2][0] += 1
    change_manifest(package.path, traces=traces)


def _wrong_hash(package: Package) -> None:
    traces = _manifest(package)["traces"]
    traces[1][1] = "0" * 64
    change_manifest(package.path, traces=traces)


def _wrong_id(package: Package) -> None:
    traces = _manifest(package)["traces"]
    traces[0][0] = "renamed"
    change_manifest(package.path, traces=traces)


def _twice(package: Package) -> None:
    traces = _manifest(package)["traces"]
    traces[1][0] = traces[0][0]
    change_manifest(package.path, traces=traces)


def _no_file(package: Package) -> None:
    files = [file for file in _manifest(package)["files"] if file["table"] != "Mlp"]
    table_path(package, "Mlp").unlink()
    change_manifest(package.path, files=files)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_wrong_counts, "and counts"),
        (_wrong_hash, "the rows of 1 traces"),
        (_wrong_id, "has no Trace row with its id"),
        (_twice, "names a trace twice"),
        (_no_file, "counts rows of Mlp but names no file"),
        (lambda p: (p.path / "notes.txt").write_text("x"), "holds notes.txt"),
    ],
    ids=["row counts", "content hash", "trace id", "trace twice", "file not named", "extra file"],
)
def test_what_the_manifest_says_is_compared_with_what_is_there(archive: Archive, damage: Callable[[Package], object], message: str) -> None:
    package = archive.packages()[0]
    damage(package)
    problems = fresh(archive).verify().problems
    assert any(message in problem and package.package_id in problem for problem in problems), problems


def test_deep_looks_at_the_content_and_shallow_does_not(archive: Archive) -> None:
    _wrong_hash(archive.packages()[0])
    assert fresh(archive).verify(deep=False).ok
    assert not fresh(archive).verify(deep=True).ok


def test_edges_without_their_nodes_are_found(tmp_path: Path) -> None:
    from tracestore.model import Trace

    trace = make_trace(1)
    archive = Archive(tmp_path / "a")
    archive.write([Trace(trace.trace_id, {**trace.tables, "Mlp": trace.tables["Mlp"].slice(1)})])
    assert ["is no Mlp of the trace" in problem for problem in archive.verify().problems] == [True]


def test_leftovers_of_killed_processes_are_notes_and_compact_deletes_them(archive: Archive) -> None:
    packages = archive.path / "packages"
    (packages / ".tmp-1-abc").mkdir()
    (packages / ".tmp-1-abc" / "Token.parquet").write_bytes(b"half")
    (packages / ".removed-old").mkdir()
    (archive.path / "tombstones" / ".tmp-abc").write_bytes(b"{")
    report = archive.verify()
    assert report.ok
    assert [note.split()[0] for note in report.notes] == [".removed-old", ".tmp-1-abc", ".tmp-abc"]
    assert archive.compact().leftovers == 3
    assert archive.verify().notes == ()


def test_the_folder_of_a_living_writer_is_no_leftover(archive: Archive) -> None:
    from tracestore.archive.layout import temporary_package

    with temporary_package(archive._layout) as folder:
        assert archive.verify().notes == ()
        archive.compact()
        assert folder.is_dir()
    assert not folder.exists()


def test_a_stray_file_among_the_packages_is_reported(archive: Archive) -> None:
    (archive.path / "packages" / "README").write_text("x")
    assert len(archive) == 4
    assert archive.verify().problems == ("README, among the packages, is no folder and is not read: move it elsewhere.",)


def test_a_tombstone_that_cannot_be_read_stops_everything(archive: Archive) -> None:
    archive.forget([TRACES[0].trace_id])
    next((archive.path / "tombstones").iterdir()).write_text("{")
    again = fresh(archive)
    for ask in (again.trace_ids, again.forgotten, lambda: again.read_trace(TRACES[0].trace_id)):
        with pytest.raises(ArchiveError, match="unknown which traces were forgotten"):
            ask()
    assert "unknown which traces were forgotten" in again.verify().problems[0]


@pytest.fixture
def small_files() -> Iterator[None]:
    """Let no file grow beyond 4 KB, which the system reports as a full disk would be."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_a_clear_error_that_leaves_nothing_behind(archive: Archive, small_files: None) -> None:
    big = make_trace(9, n_tokens=24, n_layers=4, n_heads=4)
    writer = archive.writer()
    writer.add(big)
    with pytest.raises(ResourceError, match=r"No room to write a package.*1 traces since the last package were not kept"):
        writer.close()
    assert {path.name for path in (archive.path / "packages").iterdir()} == {package.package_id for package in archive.packages()}
    assert fresh(archive).verify().problems == ()
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    writer.close()  # there is room again: the writer still has the trace
    assert_same_trace(archive.read_trace(big.trace_id), big)


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, ResourceError), (errno.EDQUOT, ResourceError), (errno.EROFS, ArchiveError)])
def test_disk_errors_become_ours(number: int, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="the thing"), storage_errors("the thing"):
        raise OSError(number, os.strerror(number))


def test_a_place_that_takes_no_files_is_a_clear_error() -> None:
    with pytest.raises(ArchiveError, match="Check the path, its permissions"):
        Archive("/proc/archive")
