"""The user guide, and the programs that generate its reference pages."""
