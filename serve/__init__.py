"""The data plane: what runs on Ray Serve replicas.

Nothing here imports Dagster or ``mlops_assets``; write ``from ray import serve`` and
``from serve.x import y``, never ``import serve``, because Ray's own module has the same name.
"""
