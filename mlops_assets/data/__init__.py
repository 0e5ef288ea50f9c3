"""From raw files to checked rows: pure functions on DataFrames, no Dagster and no clients."""
