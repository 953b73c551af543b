"""The page's own files: nothing in them is data, so they need no token."""

from __future__ import annotations

import mimetypes
from importlib.resources import files
from pathlib import Path
from typing import Final

from fastapi import FastAPI
from starlette.responses import FileResponse
from starlette.staticfiles import StaticFiles

FOLDER: Final = Path(str(files("tracestore.serve"))) / "page"


def install(app: FastAPI) -> None:
    """Serve the page at / and its files under /page/."""
    mimetypes.add_type("text/javascript", ".js")  # some systems say otherwise, and browsers then refuse modules

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(FOLDER / "index.html", headers={"Cache-Control": "no-cache"})

    app.mount("/page", StaticFiles(directory=FOLDER), name="page")
