"""Forgetting and compaction: what goes, what stays, and that a stop at any step is harmless."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.archives import assert_same_trace, flip_byte, fresh, table_path
from tests.support.synthetic import make_trace, make_traces
from tracestore.archive import Archive, maintenance, package
from tracestore.errors import ArchiveError, BadInputError

TRACES = make_traces(6, n_layers=1, n_tokens=3, mechanism=False)
NAMES = [trace.trace_id for trace in TRACES]


def _archive(path: Path, *groups: list[int]) -> Archive:
    archive = Archive(path / "archive")
    for group in groups:
        with archive.writer() as writer:
            for index in group:
                writer.add(TRACES[index])
    return archive


def test_forget_takes_effect_at_once_and_survives(tmp_path: Path) -> None:
    archive, other = _archive(tmp_path, [0, 1]), Archive(tmp_path / "archive")
    assert archive.forget([NAMES[1], NAMES[1]]) == 1
    assert other.trace_ids() == (NAMES[0],)
    assert archive.forget([NAMES[1]]) == 0
    with pytest.raises(BadInputError, match="has no trace unknown; nothing was forgotten"):
        archive.forget([NAMES[0], "unknown"])
    assert fresh(archive).trace_ids() == (NAMES[0],)


def test_a_forgotten_trace_that_a_slow_writer_adds_later_stays_hidden(tmp_path: Path) -> None:
    archive = _archive(tmp_path, [0])
    writer = archive.writer()
    writer.add(TRACES[0])
    archive.forget([NAMES[0]])
    writer.close()
    assert archive.trace_ids() == ()
    assert archive.compact().removed_traces == 2
    assert list((archive.path / "packages").iterdir()) == []
    assert archive.missing([NAMES[0]]) == []


def test_compact_removes_the_bytes_of_forgotten_traces_and_keeps_the_tombstone(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "archive")
    secret = make_trace(7, text="the password is xyzzy", items=[{"item_id": "secret-item"}])
    archive.write([TRACES[0], secret])
    archive.append_items([(secret.trace_id, {"item_id": "secret-later"}), (NAMES[0], {"item_id": "kept-later"})])
    archive.forget([secret.trace_id])
    report = archive.compact()
    assert (report.removed_traces, report.packages_before, report.packages_after, report.problems) == (1, 2, 2, ())
    again = fresh(archive)
    assert again.trace_ids() == (NAMES[0],)
    assert [row["item_id"] for row in again.read_trace(NAMES[0]).table("Item").to_pylist()][-1] == "kept-later"
    stored = [bundle.tables for package in (*again.packages(), *again.annotations()) for bundle in again.bundles(package)]
    assert "secret" not in str([table.to_pydict() for tables in stored for table in tables.values()])
    assert again.forgotten() == {secret.trace_id}
    assert again.write([secret]) == []
    assert again.verify().notes == ()


def test_compact_keeps_the_first_of_doubled_traces(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "archive")
    versions = [make_trace(seed, trace_id="same", n_layers=1, mechanism=False) for seed in range(20, 24)]
    for n, version in enumerate(versions):
        with archive.writer() as writer:
            writer.add(version)
            writer.add(make_trace(30 + n, n_layers=1, mechanism=False))
    assert archive.compact().removed_traces == 3
    assert_same_trace(archive.read_trace("same"), versions[0])
    assert len(archive) == 5
    assert len(archive.packages()) == 1
    assert archive.verify().notes == ()


def test_compact_merges_small_packages_up_to_the_size_of_one_and_then_rests(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "archive")
    traces = make_traces(90, n_tokens=2, n_layers=1, n_heads=1, mechanism=False)
    sizes = [20, 30, 20, 1, 1, 18]
    start = 0
    for size in sizes:
        archive.write(traces[start : start + size])
        start += size
    report = archive.compact()
    assert (report.packages_before, report.packages_after, report.removed_traces) == (6, 2, 0)
    assert sorted(len(package.traces) for package in archive.packages()) == [40, 50]
    assert set(archive.trace_ids()) == {trace.trace_id for trace in traces}
    assert_same_trace(archive.read_trace(traces[33].trace_id), traces[33])
    names = [package.package_id for package in archive.packages()]
    assert archive.compact().packages_after == 2
    assert [package.package_id for package in archive.packages()] == names


def test_compact_leaves_a_damaged_package_alone(tmp_path: Path) -> None:
    archive = _archive(tmp_path, [0, 1], [2, 4], [3])
    broken = archive.packages()[1]
    flip_byte(table_path(broken, "Token"), 100)
    archive.forget([NAMES[0], NAMES[2]])
    report = fresh(archive).compact()
    assert [broken.package_id in problem for problem in report.problems] == [True]
    assert broken.path.is_dir()
    assert set(archive.trace_ids()) == {NAMES[1], NAMES[3], NAMES[4]}
    assert_same_trace(archive.read_trace(NAMES[1]), TRACES[1])


@pytest.mark.parametrize("calls_before_the_stop", range(4))
@pytest.mark.parametrize("step", ["write_package", "remove_package"])
def test_a_compaction_that_stops_anywhere_leaves_a_correct_archive_and_the_next_finishes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, calls_before_the_stop: int
) -> None:
    archive = _archive(tmp_path, [0, 1], [1, 2], [3], [3, 4], [5])
    archive.forget([NAMES[4]])
    real = getattr(maintenance, step)
    calls: list[int] = []

    def stopping(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) > calls_before_the_stop:
            raise RuntimeError("stop")
        return real(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(maintenance, step, stopping)
        with suppress(RuntimeError):
            archive.compact()
    expected = {NAMES[n] for n in (0, 1, 2, 3, 5)}
    for _ in range(2):
        again = fresh(archive)
        assert set(again.trace_ids()) == expected
        for index in (0, 1, 2, 3, 5):
            assert_same_trace(again.read_trace(NAMES[index]), TRACES[index])
        assert again.verify().ok
        again.compact()
    assert fresh(archive).verify().notes == ()
    assert len(archive.packages()) == 1


def test_a_reader_that_listed_before_a_compaction_reads_on(tmp_path: Path) -> None:
    archive = _archive(tmp_path, [0], [1])
    packages = archive.packages()
    fresh(archive).compact()
    assert_same_trace(archive.read_trace(NAMES[1]), TRACES[1])
    with pytest.raises(ArchiveError, match="list the packages again") as caught:
        list(archive.bundles(packages[0]))
    assert caught.value.retryable


def test_two_compactions_at_once_are_refused(tmp_path: Path) -> None:
    archive = _archive(tmp_path, [0])
    with archive._layout.compact_lock(), pytest.raises(ArchiveError, match="being compacted by another process"):
        fresh(archive).compact()


def test_writers_work_during_a_compaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = _archive(tmp_path, [0], [1])
    real = package.write_package

    def with_a_writer(*arguments: Any, **options: Any) -> Any:
        monkeypatch.setattr(maintenance, "write_package", real)
        fresh(archive).write([TRACES[2]])
        return real(*arguments, **options)

    monkeypatch.setattr(maintenance, "write_package", with_a_writer)
    archive.compact()
    assert set(archive.trace_ids()) == set(NAMES[:3])
    assert archive.verify().notes == ()


def test_what_a_new_package_replaces_is_not_read_even_while_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = Archive(tmp_path / "archive")
    trace = make_trace(1, n_layers=1, extras=True)
    effects = trace.tables["KNOCKOUT.Token.Output"]
    archive.write([trace])
    for _ in range(2):
        with archive.writer() as writer:
            writer.annotate(trace.trace_id, {"KNOCKOUT.Token.Output": effects})

    def killed(*_: object) -> None:
        raise RuntimeError("stop")

    with monkeypatch.context() as patch:
        patch.setattr(maintenance, "remove_package", killed)
        with pytest.raises(RuntimeError):
            archive.compact()
    again = fresh(archive)
    assert len(list((archive.path / "packages").iterdir())) == 4
    assert len(again.annotations()) == 1
    assert again.read_trace(trace.trace_id).table("KNOCKOUT.Token.Output").num_rows == 3 * effects.num_rows
    assert [note.split()[3] for note in again.verify().notes] == ["replaced"] * 2
    assert again.compact().leftovers == 2
    assert again.read_trace(trace.trace_id).table("KNOCKOUT.Token.Output").num_rows == 3 * effects.num_rows
