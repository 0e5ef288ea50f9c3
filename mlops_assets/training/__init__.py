"""Pure training: rows in, model bytes and scores out. No Dagster, no clients, no clock."""
