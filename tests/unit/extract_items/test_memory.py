"""Memory: what is free, and what is needed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from tracestore.errors import ResourceError
from tracestore.extract import memory


def container(root: Path, *, limit: str, used: int, cached: int) -> Path:
    (root / "memory.max").write_text(limit + "\n")
    (root / "memory.current").write_text(f"{used}\n")
    (root / "memory.stat").write_text(f"anon 7\ninactive_file {cached}\nactive_file 1\n")
    return root


def test_a_containers_limit_counts_and_its_file_cache_does_not(tmp_path: Path) -> None:
    assert memory._cgroup_left(container(tmp_path, limit="1000", used=900, cached=299)) == 400
    assert memory._cgroup_left(container(tmp_path, limit="1000", used=1200, cached=0)) == 0
    assert memory._cgroup_left(container(tmp_path, limit="max", used=900, cached=300)) is None
    assert memory._cgroup_left(tmp_path / "nowhere") is None


def test_a_longer_trace_and_a_larger_model_need_more() -> None:
    small = SimpleNamespace(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128, vocab_size=1000)
    large = SimpleNamespace(n_embd=1024, n_layer=24, n_head=16, vocab_size=50_000)
    needs = [memory.trace_bytes(small, 100, 1), memory.trace_bytes(small, 10_000, 1), memory.trace_bytes(large, 10_000, 1)]
    assert needs == sorted(set(needs))
    assert memory.trace_bytes(small, 100, 5) > needs[0]
    # 24 layers of (12 x 1024 + 4 x 4096) numbers of 4 bytes at each position dominate
    assert needs[2] == pytest.approx(24 * 10_000 * (12 * 1024 + 4 * 4096) * 4, rel=0.25)


def test_what_does_not_fit_is_refused_with_advice() -> None:
    memory.require(10, "x", "y", available=10)
    with pytest.raises(ResourceError, match=r"loading x needs about 3\.0 GB of memory and 2\.0 GB are free: use less"):
        memory.require(3 * 10**9, "loading x", "use less", available=2 * 10**9)
