"""What goes in comes out, in packages of bounded size, whoever writes at the same time."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.archives import assert_same_trace, change_manifest, fresh
from tests.support.synthetic import conservation_errors, make_trace, make_traces
from tracestore import schema
from tracestore.archive import Archive
from tracestore.archive.hashing import trace_hash
from tracestore.archive.writer import ArchiveWriter
from tracestore.errors import ArchiveError, BadInputError
from tracestore.model import Trace

WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(lambda text: bool(text.strip()))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), count=st.integers(0, 9), per_package=st.integers(1, 4))
def test_written_is_read(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, count: int, per_package: int) -> None:
    traces = [
        make_trace(
            seed,
            text=" ".join(data.draw(st.lists(WORDS, min_size=1, max_size=4))),
            n_outputs=data.draw(st.integers(1, 2)),
            n_items=data.draw(st.integers(0, 2)),
            mechanism=data.draw(st.booleans()),
            extras=data.draw(st.booleans()),
            n_layers=2,
        )
        for seed in range(count)
    ]
    archive = Archive(tmp_path_factory.mktemp("archive"))
    with archive.writer(max_traces=per_package) as writer:
        assert all(writer.add(trace) for trace in traces)
    assert [len(package.traces) for package in archive.packages()] == [min(per_package, count - n) for n in range(0, count, per_package)]
    again = fresh(archive)
    assert again.trace_ids() == tuple(trace.trace_id for trace in traces)
    for trace, streamed in zip(traces, again.read_traces(), strict=True):
        assert_same_trace(again.read_trace(trace.trace_id), trace)
        assert_same_trace(streamed, trace)
    assert again.verify().problems == ()


def test_empty_tables_have_no_file_and_come_back_empty(tmp_path: Path) -> None:
    trace = make_trace(1, n_items=0, mechanism=False)
    padded = Trace(trace.trace_id, {**trace.tables, "State": schema.arrow_schema("State").empty_table()})
    archive = Archive(tmp_path / "a")
    archive.write([padded])
    names = {path.name for path in archive.packages()[0].path.iterdir()}
    assert names == {"manifest.json", *(f"{name}.parquet" for name in trace.tables)}
    found = archive.read_trace(trace.trace_id)
    assert found.table("State").num_rows == 0
    assert found.table("Item").num_rows == 0


def test_a_large_trace_spans_row_groups_and_still_conserves(tmp_path: Path) -> None:
    traces = [make_trace(seed, n_tokens=48, n_layers=6, n_heads=8, keep=1.0, max_edges=60_000) for seed in (1, 2)]
    archive = Archive(tmp_path / "a")
    archive.write([make_trace(0), *traces, make_trace(3)])
    found = archive.read_trace(traces[1].trace_id)
    assert found.table("VALUE.State.Head").num_rows > 40_000
    assert conservation_errors(found) == 0.0
    assert_same_trace(found, traces[1])


def test_packages_close_by_count_bytes_and_age(tmp_path: Path) -> None:
    now = [0.0]
    layout = Archive(tmp_path / "a")._layout
    with ArchiveWriter(layout, max_traces=100, max_seconds=60, clock=lambda: now[0]) as writer:
        for seed, seconds in enumerate((0, 59, 60, 61, 119)):  # closed by the third; the fourth starts anew
            now[0] = seconds
            writer.add(make_trace(seed))
        assert [len(package.traces) for package in writer.packages] == [3]
        assert writer.pending == 2
        writer.close_if_full()
        assert writer.pending == 2  # 58 s old
        now[0] = 121
        writer.close_if_full()  # as whoever feeds it does before long work
        assert writer.pending == 0
    with ArchiveWriter(layout, max_bytes=30_000) as writer:
        for seed in range(10, 16):
            writer.add(make_trace(seed))
        sizes = [len(package.traces) for package in writer.packages]
    assert sizes == [sizes[0]] * len(sizes)
    assert 1 <= sizes[0] < 6
    with Archive(tmp_path / "b").writer() as writer:
        for trace in make_traces(65, n_tokens=2, n_layers=1):
            writer.add(trace)
        assert [len(package.traces) for package in writer.packages] == [64]


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o777], ids=oct)
def test_everything_is_private_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        archive = Archive(tmp_path / "a")
        archive.write(make_traces(2))
        archive.append_items([(archive.trace_ids()[0], {"item_id": "later"})])
        archive.forget([archive.trace_ids()[1]])
        archive.redaction_key()
    finally:
        os.umask(before)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in [archive.path, *archive.path.rglob("*")]}
    assert len(modes) > 25
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o700}
    assert {mode for path, mode in modes.items() if path.is_file()} == {0o600}


def test_missing_is_what_is_neither_there_nor_forgotten(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "a")
    traces = make_traces(4)
    names = [trace.trace_id for trace in traces]
    assert archive.write(traces[:3]) == names[:3]
    archive.forget([names[1]])
    assert archive.missing([names[3], names[0], names[1], "new", names[3]]) == [names[3], "new"]
    assert archive.trace_ids() == (names[0], names[2])
    assert archive.forgotten() == {names[1]}
    assert names[0] in archive
    assert names[1] not in archive
    assert len(archive) == 2
    assert archive.write(traces) == [names[3]]
    with pytest.raises(BadInputError, match="was forgotten"):
        archive.read_trace(names[1])
    with pytest.raises(BadInputError, match="has no trace nowhere"):
        archive.read_trace("nowhere")


def test_another_writers_package_is_seen_at_once_and_the_first_of_doubles_wins(tmp_path: Path) -> None:
    first, second = Archive(tmp_path / "a"), Archive(tmp_path / "a")
    old, new = make_trace(1, trace_id="same"), make_trace(2, trace_id="same")
    with first.writer() as one, second.writer() as two:
        one.add(make_trace(3))
        two.add(new)
        two.add(make_trace(4))
        one.add(old)
        one.close()
    for archive in (first, second):
        assert len(archive) == 3
        assert_same_trace(archive.read_trace("same"), old)
        assert [[b.trace_ids for b in archive.bundles(package)] for package in archive.packages()] == [
            [(make_trace(3).trace_id, "same")],
            [(make_trace(4).trace_id,)],
        ]
    notes = first.verify().notes
    assert len(notes) == 1
    assert "holds 1 traces that an earlier one holds (such as same" in notes[0]


def test_package_names_sort_by_creation_even_when_the_clock_goes_back(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "a")
    archive.write([make_trace(1)])
    future = archive.packages()[0]
    name = f"29990101T000000.000000-000000-{future.package_id[-16:]}"
    future.path.rename(archive.path / "packages" / name)
    change_manifest(archive.path / "packages" / name, package_id=name)
    archive.write([make_trace(2)])
    archive.write([make_trace(3)])
    assert archive.trace_ids() == tuple(make_trace(seed).trace_id for seed in (1, 2, 3))
    assert [package.package_id[:29] for package in archive.packages()] == [f"29990101T000000.000000-00000{n}" for n in range(3)]


def test_bundles_are_bounded_projected_and_renumbered(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "a")
    traces = make_traces(6, n_outputs=2)
    archive.write(traces)
    package = archive.packages()[0]
    archive.forget([traces[2].trace_id])
    wanted = [traces[n].trace_id for n in (0, 2, 3, 5)]
    summary = list(archive.bundles(package, level="summary", trace_ids=wanted))
    assert [bundle.trace_ids for bundle in summary] == [tuple(traces[n].trace_id for n in (0, 3, 5))]
    assert {schema.table_level(name) for name in summary[0].tables} == {"summary"}
    assert all(table.schema.equals(schema.package_schema(name)) for name, table in summary[0].tables.items())
    assert summary[0].tables["Trace"]["trace"].to_pylist() == [0, 1, 2]
    assert summary[0].tables["Trace"]["trace_id"].to_pylist() == list(summary[0].trace_ids)
    sizes = [sum(traces[n].table(name).num_rows for name in schema.ARCHIVE_TABLES) for n in (0, 1, 3, 4, 5)]
    pairs = list(archive.bundles(package, max_rows=max(sizes) * 2))
    assert [len(bundle.trace_ids) for bundle in pairs] == [2, 2, 1]
    assert [bundle.rows for bundle in pairs] == [sum(sizes[:2]), sum(sizes[2:4]), sizes[4]]
    assert [len(bundle.trace_ids) for bundle in archive.bundles(package.package_id, max_rows=1)] == [1] * 5
    only = list(archive.bundles(package, tables=["Output"]))
    assert set(only[0].tables) == {"Output"}


def test_a_failing_run_keeps_what_was_added(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "a")
    for error in (ValueError, KeyboardInterrupt):
        with suppress(error), archive.writer() as writer:
            writer.add(make_trace(int(error is ValueError)))
            raise error
    assert set(archive.trace_ids()) == {make_trace(0).trace_id, make_trace(1).trace_id}


@pytest.mark.parametrize("step", ["write_private", "publish", "sync_folder"])
def test_ctrl_c_while_a_package_is_closed_keeps_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    from tracestore.archive import layout, package

    owner: Any = layout if step == "sync_folder" else package
    real = getattr(owner, step)
    calls = []

    def interrupted(*arguments: Any) -> Any:
        result = real(*arguments)
        calls.append(step)
        if len(calls) == (2 if step == "sync_folder" else 1):  # sync_folder: the second is after the rename
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(owner, step, interrupted)
    archive = Archive(tmp_path / "a")
    with suppress(KeyboardInterrupt), archive.writer() as writer:
        writer.add(make_trace(1))
        writer.close()
        pytest.fail("the interruption was swallowed")
    assert len(calls) >= 1
    assert [package.trace_ids for package in archive.packages()] == [(make_trace(1).trace_id,)]
    assert archive.verify().notes == ()


def test_what_does_not_fit_the_schema_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    good = make_trace(1)
    tokens = good.tables["Token"]
    bad = [
        (Trace("", good.tables), "1 to 200 printable"),
        (Trace("a\nb", good.tables), "1 to 200 printable"),
        (Trace("other", good.tables), "exactly one Trace row"),
        (Trace(good.trace_id, {}), "exactly one Trace row"),
        (Trace(good.trace_id, {**good.tables, "Neuron": tokens}), "'Neuron' that schema.py does not define"),
        (Trace(good.trace_id, {**good.tables, "Token": tokens.drop_columns(["pos"])}), r"look at \['pos'\]"),
    ]
    archive = Archive(tmp_path / "a")
    with archive.writer() as writer:
        for trace, message in bad:
            with pytest.raises(BadInputError, match=message):
                writer.add(trace)
        assert writer.add(good)
        assert not writer.add(good)
    assert archive.trace_ids() == (good.trace_id,)


def test_appended_items_join_their_trace_once(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "a")
    trace = make_trace(1, items=[{"item_id": "own"}])
    with archive.writer() as writer:
        writer.add(trace)
        writer.add_items(trace.trace_id, [{"item_id": "second", "tags": ["a"], "correct": True}, {"item_id": "second"}])
    archive.append_items([(trace.trace_id, {"item_id": name}) for name in ("own", "second", "third", "third")])
    rows = fresh(archive).read_trace(trace.trace_id).table("Item").to_pylist()
    assert [(row["item_id"], row["correct"], row["tags"]) for row in rows] == [
        ("own", None, []),
        ("second", True, ["a"]),
        ("third", None, []),
    ]
    assert [row["local"] >> 31 for row in rows] == [0, 1, 1]
    assert archive.item_keys() == {(trace.trace_id, name) for name in ("own", "second", "third")}
    bundles = [bundle for package in archive.annotations() for bundle in archive.bundles(package)]
    assert [bundle.kind for bundle in bundles] == ["annotations"] * 2
    assert [bundle.tables["Item"]["item_id"].to_pylist() for bundle in bundles] == [["second"], ["second", "third"]]
    assert bundles[0].tables["Item"].schema.equals(schema.package_schema("Item"))
    assert [t.table("Item").num_rows for t in archive.read_traces()] == [3]
    archive.forget([trace.trace_id])
    assert archive.item_keys() == frozenset()
    assert [list(archive.bundles(package)) for package in archive.annotations()] == [[], []]


def test_items_with_half_characters_or_unknown_properties_are_refused(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "a")
    with pytest.raises(BadInputError, match="half characters"):
        archive.append_items([("t", {"item_id": "x", "expected": "\ud83c"})])
    with pytest.raises(BadInputError, match="no property colour"):
        archive.append_items([("t", {"item_id": "x", "colour": "red"})])
    assert list((archive.path / "packages").iterdir()) == []


def test_the_hash_of_a_trace_ignores_how_arrow_holds_it_and_sees_every_value() -> None:
    trace = make_trace(1, extras=True)
    rechunked = {name: table.slice(0, 1).__class__.from_batches(table.to_batches(max_chunksize=1)) for name, table in trace.tables.items()}
    assert trace_hash(rechunked) == trace_hash(trace.tables)
    assert trace_hash({**trace.tables, "Path": trace.tables["Path"].slice(1)}) != trace_hash(trace.tables)
    seen = {trace_hash(make_trace(1, extras=True, items=[{"item_id": "i", "expected": text}]).tables) for text in (None, "", "a", "b")}
    assert len(seen) == 4


def test_a_folder_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="is not an archive"):
        Archive(tmp_path, create=False)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ArchiveError, match="Check the path"):
        Archive(tmp_path / "file" / "archive")
