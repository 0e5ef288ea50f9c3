"""Streams: which records of a topic a table holds, and what the records say. Pure."""
