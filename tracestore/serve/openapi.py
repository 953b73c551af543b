"""The API's description: what FastAPI finds in the code, and what the headers of the named queries know."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from tracestore.query.catalogue import catalogue, entry
from tracestore.serve import named
from tracestore.serve.problems import SCHEMA
from tracestore.serve.routes import queries, traces
from tracestore.serve.settings import EXPORT_PREFIX


def install(app: FastAPI) -> None:
    """Make the app describe itself completely."""

    def describe() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _description(app)
        return app.openapi_schema

    app.openapi = describe  # type: ignore[method-assign]  # FastAPI's documented way


def _description(app: FastAPI) -> dict[str, Any]:
    found = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    parts = found.setdefault("components", {})
    parts.setdefault("schemas", {})["Problem"] = dict(SCHEMA)
    parts["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
    found["security"] = [{"bearer": []}, {}]  # on loopback none is needed
    for name, one in catalogue().items():
        operations = found["paths"][f"{queries.PREFIX}/{name}"]
        for operation in operations.values():
            operation["summary"] = one.header.question
            operation["description"] = f"Starts from: {one.header.seeks}."
            operation["responses"]["200"] = named.described_rows(one.header)
        operations["get"]["parameters"] = named.described_parameters(one.header)
        operations["post"]["requestBody"] = named.described_body(one.header)
    listing = found["paths"]["/api/traces"]["get"]
    header = entry(traces.LISTING).header
    listing["parameters"] += named.described_parameters(header, leave_out=traces.PAGING)
    for path in ("/{form}", "/{form}/{table}"):
        found["paths"][EXPORT_PREFIX + path]["get"]["parameters"] += named.described_parameters(header, leave_out=traces.PAGING)
    following = {"type": ["string", "null"], "description": "the cursor of the next page; null on the last"}
    listing["responses"]["200"] = named.described_rows(header, {"next": following})
    mass = {"type": ["number", "null"]}
    masses = {f"path_mass_{part}": {**mass, "description": f"sum of |weight| of {part} paths, logits"} for part in ("finished", "open")}
    for part, query in (("drivers", "drivers"), ("heads", "driver_heads"), ("paths", "driver_paths")):
        more = masses if part == "paths" else None
        found["paths"][f"/api/outputs/{{output_id}}/{part}"]["get"]["responses"]["200"] = named.described_rows(entry(query).header, more)
    found["paths"]["/api/cypher"]["post"]["responses"]["200"] = named.described_rows(None)
    return found
