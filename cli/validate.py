"""`tracestore validate`: does the decomposition of this model close?"""

from __future__ import annotations

from tracestore.cli import _options as options
from tracestore.cli import _tracing as tracing
from tracestore.cli._errors import say
from tracestore.cli._output import print_table, write_json

IDENTITY_KEYS = ("id", "error", "tolerance", "ok")


def validate(
    model: options.Model,
    method: options.MethodOption = options.DEFAULT_METHOD,
    device: options.Device = "cpu",
    dtype: options.DtypeOption = options.Dtype.float32,
    as_json: options.Json = False,
) -> None:
    """Check the identities of the decomposition on a model. Exit 4 when it is refused, 7 when an identity fails."""
    from tracestore.errors import ConservationError, UnsupportedModelError

    try:
        loaded = tracing.load(model, device, dtype)
        from tracestore import api

        report = api.validate(loaded, method=method.value)
    except UnsupportedModelError as error:
        if as_json:
            refused = {"model_id": model, "family": None, "method": method.value, "supported": False}
            write_json(refused | {"identities": [], "reason": str(error)})
        raise
    found = report.to_dict()
    rows = found["identities"]
    if as_json:
        write_json(found | {"identities": [{key: row[key] for key in IDENTITY_KEYS} for row in rows]})
    else:
        print_table([*IDENTITY_KEYS, "meaning"], rows)
    failed = [str(row["id"]) for row in rows if not row["ok"]]
    if failed:
        raise ConservationError(f"{report.model_id}: {', '.join(failed)} do not hold; this model's traces cannot be relied on")
    say(f"{report.model_id} ({report.family}), method {report.method}: every identity holds")
