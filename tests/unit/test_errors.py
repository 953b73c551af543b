"""The error tree: one base, exit codes as documented, no retry without a reason."""

from __future__ import annotations

import inspect
import re

from tracestore import errors

TREE = [value for _, value in inspect.getmembers(errors, inspect.isclass) if issubclass(value, Exception)]


def test_every_error_descends_from_the_base() -> None:
    assert all(issubclass(error, errors.TracestoreError) for error in TREE)


def test_docstring_shows_the_tree_as_it_is() -> None:
    shown = {name: (int(code), retry == "yes") for name, code, retry in re.findall(r"(\w+Error) +(\d) +(yes|no)", errors.__doc__ or "")}
    descendants = [error for error in TREE if issubclass(error, errors.TracestoreError) and error is not errors.TracestoreError]
    actual = {error.__name__: (error.exit_code, error.retryable) for error in descendants}
    assert shown == actual
