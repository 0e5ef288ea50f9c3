"""Carrying an act of a rollout out: declare, verify, record, once."""
