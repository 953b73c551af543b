"""The command line's reference page, from the app itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from typer.main import get_command

from tracestore.cli.app import EPILOG, app

_INTRODUCTION = """# Command line reference

Generated from the commands by `make docs`.

Data go to stdout, messages and progress to stderr. `--json` on any command prints one JSON value. `tracestore --debug COMMAND` shows the
traceback of an error.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | unexpected; out of memory or disk |
| 2 | usage: an unknown command, option or combination |
| 3 | bad input: items, prompts, parameters, paths |
| 4 | unsupported model |
| 5 | store unavailable, locked, or of another version |
| 6 | partial success: some items failed, the rest is done |
| 7 | integrity failure: damage, or an identity that does not hold |
| 130 | interrupted; the message says how to resume |
"""


def cli_page() -> str:
    """Describe every command with its arguments and options."""
    assert "130 interrupted" in EPILOG
    lines = [_INTRODUCTION]
    for path, command in _leaves(get_command(app), ()):
        lines += [f"## `tracestore {' '.join(path)}`", "", (command.help or "").strip(), ""]
        lines += [f"    tracestore {' '.join(path)} {_usage(command)}", ""]
        rows = [_row(parameter) for parameter in command.params if getattr(parameter, "name", "") != "help"]
        if rows:
            lines += ["| option | meaning | default |", "|---|---|---|", *rows, ""]
    return "\n".join(lines).rstrip() + "\n"


def _leaves(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    inner = getattr(command, "commands", None)
    if inner is None:
        yield path, command
        return
    for name, sub in inner.items():
        yield from _leaves(sub, (*path, name))


def _usage(command: Any) -> str:
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    required = [parameter for parameter in command.params if parameter.param_type_name == "option" and parameter.required]
    spelt = [_argument(p) if p.required else f"[{_argument(p)}]" for p in arguments]
    spelt += [f"{max(p.opts, key=len)} {(p.metavar or p.name).upper()}" for p in required]
    return " ".join([*spelt, "[OPTIONS]"])


def _argument(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper())


def _row(parameter: Any) -> str:
    argument = parameter.param_type_name == "argument"
    names = _argument(parameter) if argument else ", ".join(sorted(parameter.opts, key=len))
    text = (parameter.help or "").replace("|", "\\|")
    if parameter.envvar:
        text += f" Or set `{parameter.envvar}`."
    shown = names.replace("|", "\\|")
    return f"| `{shown}` | {text} | {'required' if parameter.required else _default(parameter.default)} |"


def _default(value: object) -> str:
    if value is None or value is False or value == () or callable(value):
        return ""
    return f"`{getattr(value, 'value', value)}`"
