"""Dagster's own facts, read and written: records, events of partitions and episodes, runs, approvals."""
