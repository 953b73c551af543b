"""Make the small archive that ships with the package: `python -m tracestore.ingest.prebuilt` (or `make prebuilt`).

1. Trace the demo's prompts with the demo's model, pruned harder than by default, so that all of them fit into MAX_BYTES.
2. Make one package of them.
3. Put it in the place of the old one.

`tracestore demo --prebuilt` answers from it without torch.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final

from tracestore.errors import ResourceError
from tracestore.ingest.demo import ITEMS, PREBUILT, load_demo_model
from tracestore.ingest.runner import trace_to_archive
from tracestore.model import PruningOptions, TraceOptions

PRUNING: Final = PruningOptions(keep=0.9, max_edges=1_500)
MAX_BYTES: Final = 2_000_000


def make_prebuilt(target: Path = PREBUILT) -> int:
    """Make the archive; give its size in bytes. Raises ResourceError, and leaves the old one, when it is too large."""
    from tracestore.archive import Archive
    from tracestore.extract.items import read_items

    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        made = Path(folder) / "archive"
        archive = Archive(made)
        trace_to_archive(read_items(ITEMS), load_demo_model(), archive, TraceOptions(pruning=PRUNING), strict=True)
        for name in (".lock", ".compact.lock"):
            (made / name).unlink(missing_ok=True)
        (made / "tombstones").rmdir()
        for path in (made, *made.rglob("*")):  # nothing private in it
            path.chmod(0o755 if path.is_dir() else 0o644)
        size = sum(path.stat().st_size for path in made.rglob("*") if path.is_file())
        if size > MAX_BYTES:
            raise ResourceError(f"the archive has {size:,} bytes, more than {MAX_BYTES:,}: prune harder (PRUNING in {__name__})")
        shutil.rmtree(target, ignore_errors=True)
        made.rename(target)
    return size


if __name__ == "__main__":
    sys.stderr.write(f"{PREBUILT}: {make_prebuilt():,} bytes\n")
