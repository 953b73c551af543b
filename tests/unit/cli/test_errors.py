"""From what went wrong to a message and an exit code."""

from __future__ import annotations

import errno

import pytest
import typer

from tests.support.command_line import run
from tracestore import errors
from tracestore.cli import _errors, app
from tracestore.cli._errors import GuardedGroup, describe, resumable


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ItemError("m"), 3),
        (errors.UnsupportedModelError("m"), 4),
        (errors.StoreLockedError("m"), 5),
        (errors.PartialSuccessError("m"), 6),
        (errors.ConservationError("m"), 7),
        (errors.ResourceError("m"), 1),
        (KeyboardInterrupt(), 130),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 3),
        (OSError(errno.ENOSPC, "No space left on device"), 1),
        (MemoryError(), 1),
        (ValueError("secret prompt"), 1),
    ],
)
def test_every_error_has_its_exit_code(error: BaseException, code: int) -> None:
    assert describe(error)[1] == code


def test_an_unexpected_error_never_shows_its_text() -> None:
    message, _ = describe(ValueError("secret prompt"))
    assert "secret" not in message
    assert "ValueError" in message
    assert "--debug" in message


def test_an_interrupted_command_says_how_to_go_on() -> None:
    with pytest.raises(KeyboardInterrupt) as caught, resumable("run it again"):
        raise KeyboardInterrupt
    assert describe(caught.value) == ("interrupted\nrun it again", 130)


def failing(error: BaseException) -> typer.Typer:
    made = typer.Typer(cls=GuardedGroup, pretty_exceptions_enable=False)

    @made.callback()
    def root(debug: bool = False) -> None: ...

    @made.command()
    def fail() -> None:
        raise error

    return made


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.support.command_line.app", failing(ValueError("x")))
    plain, debug = run("fail"), run("--debug", "fail")
    assert plain.code == debug.code == 1
    assert "Traceback" not in plain.err
    assert "Traceback" in debug.err


def test_a_reader_that_has_gone_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_errors, "_silence_stdout", lambda: None)
    monkeypatch.setattr("tests.support.command_line.app", failing(BrokenPipeError()))
    done = run("fail")
    assert (done.code, done.err) == (0, "")


def test_usage_errors_keep_their_code() -> None:
    assert run("no-such-command").code == 2
    assert run("query", "stats", "--no-such-option").code == 2


def test_every_command_describes_itself() -> None:
    from typer.main import get_command

    def walk(command: object, path: tuple[str, ...]) -> list[tuple[str, ...]]:
        inner = getattr(command, "commands", None)
        return [path] if inner is None else [leaf for name, sub in inner.items() for leaf in walk(sub, (*path, name))]

    leaves = walk(get_command(app), ())
    assert ("store", "rebuild") in leaves
    assert ("archive", "compact") in leaves
    for leaf in leaves:
        done = run(*leaf, "--help")
        assert done.code == 0, leaf
        assert "--json" in done.out, leaf
