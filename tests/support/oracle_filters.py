"""The filters that every query over many prompts takes, in plain Python."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Row = dict[str, Any]
Params = Mapping[str, Any]

ITEM_FILTERS = ("dataset", "split", "tag", "session_id")


def item_passes(item: Row, p: Params) -> bool:
    """Does an Item pass the filters that are on?"""
    same = all(p.get(name) in (None, item[name]) for name in ("dataset", "split", "session_id"))
    return same and (p.get("tag") is None or p["tag"] in item["tags"])


def made_in_time(trace: Row, p: Params) -> bool:
    """Was a trace made within the times that are asked for?"""
    since, until = p.get("since"), p.get("until")
    return (since is None or trace["created_at"] >= since) and (until is None or trace["created_at"] < until)
