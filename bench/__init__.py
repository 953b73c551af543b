"""Speed and memory, one command each; measured with the environment that the command line sets."""

from tracestore.cli._tracing import prepare_libraries

prepare_libraries()
