"""The outside world, one file each: lake, registry, tracking, cluster, event log."""
