"""Evaluation: tasks whose true drivers are known."""
