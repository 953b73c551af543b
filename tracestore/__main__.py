"""Run the command line as `python -m tracestore`."""

from tracestore.cli import main

if __name__ == "__main__":
    main()
