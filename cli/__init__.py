"""The command line: thin commands that parse, call the library and render. `main` is the entry point."""

from tracestore.cli.app import app, main

__all__ = ["app", "main"]
