"""Rows of a query as data frames of pandas and polars: the same numbers, types and nulls."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars
import pytest

from tests.support.store_graph import bundle_of
from tests.support.synthetic import make_trace
from tracestore import api
from tracestore.api import GraphStore


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GraphStore]:
    path: Path = tmp_path_factory.mktemp("frames") / "graph.lbug"
    with api.open_store(path) as opened:
        traces = [make_trace(1, text="the cat sat", n_outputs=2), make_trace(2, text="a b", items=[])]
        opened.engine.load(bundle_of(traces))
        yield opened


def test_pandas(store: GraphStore) -> None:
    table = store.query("heads_across", k=1000)
    frame = table.to_pandas()
    assert list(frame.columns) == table.column_names
    assert frame.to_dict("records") == table.to_pylist()
    assert (str(frame["layer"].dtype), str(frame["share_mean"].dtype)) == ("int64", "float64")
    by_layer = frame.groupby("layer")["share_sum"].sum()
    assert by_layer[0] == pytest.approx(sum(row["share_sum"] for row in table.to_pylist() if row["layer"] == 0))
    listed = store.query("list_traces").to_pandas()
    assert listed["item_id"].isna().tolist() == [True, False]


def test_polars(store: GraphStore) -> None:
    table = store.query("heads_across", k=1000)
    frame = polars.from_arrow(table)
    assert isinstance(frame, polars.DataFrame)
    assert frame.to_dicts() == table.to_pylist()
    assert [str(frame.schema[name]) for name in ("layer", "share_mean", "model_id")] == ["Int64", "Float64", "String"]
    listed = polars.from_arrow(store.query("list_traces"))
    assert isinstance(listed, polars.DataFrame)
    assert listed["item_id"].is_null().to_list() == [True, False]


def test_the_influences_of_an_output_too(store: GraphStore) -> None:
    (first, *_) = store.query("list_outputs").to_pylist()
    influences = store.read_trace(first["output_id"]).outputs[0].influences()
    assert influences.to_pandas()["score"].sum() == pytest.approx(sum(row["score"] for row in influences.to_pylist()), abs=1e-6)
    assert polars.from_arrow(influences).height == influences.num_rows  # type: ignore[union-attr]
