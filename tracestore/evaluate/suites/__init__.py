"""The tasks that methods are evaluated on, each with its ground truth."""
