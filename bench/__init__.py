"""Benchmarks: what the platform costs and what its models are worth. Never run as tests."""
