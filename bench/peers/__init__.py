"""The servers that ``bench/serving.py`` compares: ours on Ray Serve, two bounds, and three peers.

Belongs here: one booster for all of them, how each is installed, started, asked and stopped. Does not
belong here: the load, the table (``bench/serving.py``).

``model.py`` is the booster and its row. ``environments.py`` makes each peer's own virtual environment
from ``<name>/requirements.txt``. ``processes.py`` starts a command and ends whatever it left behind.
``others.py`` says how each peer is started, ``on_ray.py`` how our gateway and a no-op are.
"""
