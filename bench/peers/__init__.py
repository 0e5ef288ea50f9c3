"""What ours is compared with: servers in ``bench/serving.py``, detectors in ``bench/drift_worlds.py``.

Belongs here: one booster for all servers, how each is installed, started, asked and stopped; which detectors
with which settings. Does not belong here: the load and the worlds, the tables (``bench/``).

``model.py`` is the booster and its row. ``environments.py`` makes each peer's own virtual environment from
``<name>/requirements.txt``. ``processes.py`` starts a command and ends whatever it left behind. ``others.py``
says how each server is started, ``on_ray.py`` how our gateway and a no-op are. ``detectors.py`` says what
each detector is fed with.
"""
