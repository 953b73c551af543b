"""Exact paths of an output, as JSON and as coloured lines: token -> component -> ... -> output."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from tracestore.errors import BadInputError

if TYPE_CHECKING:
    from rich.text import Text

    from tracestore.model import Output

PATH_KEYS: Final = ("rank", "weight", "share", "source_pos", "motif", "hops")
TOP_PATHS: Final = 5
MASS_KEYS: Final = ("path_mass_finished", "path_mass_open", "path_largest_open")


def stored_paths(output: Output, k: int | None) -> list[dict[str, Any]]:
    """Give the `k` largest paths of an output (None: all that are stored), with the text of the token each starts at.

    `certain`: no path that the search left unfinished is larger, so that the path's rank cannot change.
    """
    open_ = output.row["path_largest_open"] or 0.0
    texts = {token["pos"]: token["text"] for token in output.trace.table("Token").to_pylist()}
    rows = [row for row in output.trace.table("Path").to_pylist() if row["output_uid"] == output.row["local"]]
    rows.sort(key=lambda row: int(row["rank"]))
    return [
        {**{key: row[key] for key in PATH_KEYS}, "source_text": texts.get(row["source_pos"]), "certain": abs(row["weight"]) >= open_}
        for row in rows[:k]
    ]


def paths_json(output: Output, k: int | None) -> dict[str, Any]:
    """Give the answer of `tracestore paths` for one output. Raises BadInputError when its trace was made without paths."""
    if output.row["path_mass_finished"] is None:
        raise BadInputError(
            f"output {output.output_id} was traced without paths: trace again with --paths 50 (some architectures have none by "
            f"the method {output.trace.header['method']})"
        )
    keys = ("output_id", "pos", "token_id", "text", "foil_text", "gauge", "explained", *MASS_KEYS)
    return {**{key: output.row[key] for key in keys}, "paths": stored_paths(output, k)}


def print_paths(output: Output, paths: list[dict[str, Any]], *, title: str | None = None) -> None:
    """Print paths, largest first, and how much of the search was finished."""
    from rich.console import Console

    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    if title is not None:
        console.print(title, style="italic")
    for path in paths:
        console.print(_line(output, path))


def mass_note(output: Output) -> str:
    """Say what the weights of paths are, and what was left open."""
    row = output.row
    return (
        f"each weight is exact and signed, in logits; finished paths hold {row['path_mass_finished']:.3g} of |weight|, "
        f"unfinished ones {row['path_mass_open']:.3g} (the largest {row['path_largest_open']:.3g}), and they cancel: a sum of |weight| "
        f"is no share of the explained {row['explained']:.3f}"
    )


def open_note(output: Output, left_out: int) -> str:
    """Say why paths that are stored are not shown."""
    return (
        f"not enough kept: the search for paths left one of {output.row['path_largest_open']:.3g} logits unfinished, more than {left_out} "
        f"of the {TOP_PATHS} largest that it finished, which are not shown (`tracestore paths` does). Trace again with a larger --paths"
    )


def _line(output: Output, path: dict[str, Any]) -> Text:
    from rich.text import Text

    from tracestore.coloured import LOWERS, RAISES, shown

    red, green, blue = RAISES if path["weight"] > 0 else LOWERS
    colour = f"rgb({red},{green},{blue})"
    first, *middle, last = path["hops"]
    source = "bias" if first.startswith("bias") else f"'{shown(path['source_text'])}'"
    line = Text(f"{path['weight']:+8.3f}  ", style=f"bold {colour}")
    line.append(f"{path['share']:6.1%}  ", style="dim")
    line.append(f"{source}@{path['source_pos']}", style=colour)
    for hop in middle:
        line.append(" -> ", style="dim")
        line.append(hop)
    line.append(" -> ", style="dim")
    line.append(f"'{shown(output.row['text'], output.row['token_id'])}'@{last.partition('@')[2]}", style="bold")
    return line
