"""One place turns what went wrong into a message on stderr and an exit code.

0 ok, 1 unexpected, 2 usage, 3 bad input, 4 unsupported model, 5 store unavailable, 6 partial success, 7 integrity failure, 130 interrupted.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import typer
from typer.core import TyperGroup

from tracestore.errors import TracestoreError

INTERRUPTED: Final = 130
UNEXPECTED: Final = 1
BAD_INPUT: Final = 3

_USAGE_ERROR: Final[type[Exception]] = next(
    c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException"
)  # wherever typer keeps it
_TYPER_OWN: Final = (_USAGE_ERROR, typer.Exit, typer.Abort)
_PATH_ERRORS: Final = frozenset(
    {errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP}
)
_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class GuardedGroup(TyperGroup):
    """The root group: whatever a command raises leaves as an exit code, with one message."""

    def invoke(self, ctx: Any) -> Any:
        debug = bool(ctx.params.get("debug"))
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()  # a reader that has gone is noticed here, not while the interpreter ends
        except _TYPER_OWN:
            raise
        except BrokenPipeError:
            _silence_stdout()
            raise typer.Exit(0) from None
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  the one place where everything ends as an exit code
            if debug:
                traceback.print_exception(error)
            message, code = describe(error)
            say(message)
            raise typer.Exit(code) from None
        return result


def describe(error: BaseException) -> tuple[str, int]:
    """Give the message and the exit code of an error."""
    if isinstance(error, KeyboardInterrupt):
        return _with_notes("interrupted", error), INTERRUPTED
    if isinstance(error, TracestoreError):
        if isinstance(error.__cause__, OSError) and error.__cause__.errno in _PATH_ERRORS and not error.retryable:
            return _with_notes(f"error: {error}", error), BAD_INPUT  # a path that cannot be used: nothing is damaged
        return _with_notes(f"error: {error}", error), error.exit_code
    if isinstance(error, OSError) and error.errno in _PATH_ERRORS:
        return f"error: {_os_error(error)}", BAD_INPUT
    if isinstance(error, OSError) and error.errno in _NO_SPACE:
        return f"error: {_os_error(error)}: free some space and run the same command again; what is finished is kept", UNEXPECTED
    if isinstance(error, MemoryError):
        return "error: out of memory: use shorter prompts, fewer targets or a smaller model", UNEXPECTED
    # The text of a foreign exception may hold a prompt: only its type is shown.
    return f"error: unexpected {type(error).__name__}; this is a fault of tracestore. `tracestore --debug ...` shows where", UNEXPECTED


@contextmanager
def resumable(hint: str) -> Iterator[None]:
    """Tell, should the block be interrupted, how to go on."""
    try:
        yield
    except KeyboardInterrupt as error:
        error.add_note(hint)
        raise


def say(message: str) -> None:
    """Write a message to stderr."""
    typer.echo(message, err=True)


def _with_notes(message: str, error: BaseException) -> str:
    return "\n".join([message, *getattr(error, "__notes__", [])])


def _os_error(error: OSError) -> str:
    reason = error.strerror or type(error).__name__
    return f"{error.filename}: {reason}" if error.filename else reason


def _silence_stdout() -> None:
    """Point stdout at nothing: the interpreter flushes it once more when it ends."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):  # a stdout without a file, as under tests
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  lives until the process ends
