"""The platform on one machine: Ray Serve, Dagster and MLflow as supervised processes.

Belongs here: which processes run, in what order they start and stop, and what ``mlops up`` and
``mlops down`` show. Does not belong here: what the graph does (``components/``) or talking to a
running service (``resources/``).
"""
