"""Features of one event from raw rows per key: what a feature view computes offline, to the bit.

Belongs here: what a store holds of a view (``held.py``), keeping it so as rows change (``applying.py``), the
values of one event (``evaluate.py``), the view's function on plain values (``transform.py``), from a request
to a valid row (``lookup.py``), where the rows lie (``stores/``). Does not belong here: HTTP
(``serve/endpoint.py``), the same view over whole tables (``mlops_assets/features/``), reading the lake.

``mlops_assets`` fills stores through this package, so that whoever writes a store and whoever reads it share
one form; it is in ``serve`` because replicas read it, and they know nothing of ``mlops_assets``.
"""
