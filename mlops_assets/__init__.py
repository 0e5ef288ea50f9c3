"""A production machine-learning loop as one declarative Dagster asset graph."""
