"""Features as pure functions: what was known before an event, and nothing that came later.

Belongs here: point-in-time joins and aggregates (``point_in_time.py``), a declared view computed from
frames (``view.py``), declared features against observed values (``declared.py``). Does not belong here:
reading tables and events (``assets/feature_view.py``), functions of one use case (``defs/``).
"""
