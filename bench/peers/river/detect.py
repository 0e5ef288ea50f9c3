"""What river's detectors say of streams of numbers. Runs in the environment of ``requirements.txt``.

Belongs here: feeding a detector one number after the other, as its documentation does. Does not belong here:
what the numbers are and which alarms count (``bench/drift_worlds.py``).

``python detect.py STREAMS RULES``: STREAMS is an .npz file with ``starts`` (the place at which each stream
begins, and the end) and one array per name that a rule is fed with; RULES is JSON, by rule ``detector``,
``fed``, ``settings`` and ``rises_only``. Prints JSON: by rule, per stream, the places of its alarms.
"""

import itertools
import json
import sys
from typing import Any

import numpy as np
from river import drift

DETECTORS = {"ADWIN": drift.ADWIN, "DDM": drift.binary.DDM, "PageHinkley": drift.PageHinkley}

CLOCK = 32
"""ADWIN looks at its window once in so many numbers."""


def alarms(rule: dict[str, Any], values: list[float]) -> list[int]:
    """Places at which the detector says that something changed; it starts anew by itself after each.

    ``rises_only``: of ADWIN, which does not say in which direction: an alarm counts where the mean of what it
    keeps is higher than it was up to so many numbers before.
    """
    detector = DETECTORS[rule["detector"]](**rule["settings"])
    found, mean = [], 0.0
    for place, value in enumerate(values):
        if rule["rises_only"] and place % CLOCK == 0:
            mean = detector.estimation
        detector.update(value)
        if detector.drift_detected and not (rule["rises_only"] and detector.estimation <= mean):
            found.append(place)
    return found


def main() -> None:
    """Prints the alarms of every rule on every stream."""
    streams, rules = np.load(sys.argv[1]), json.loads(sys.argv[2])
    starts = streams["starts"].tolist()
    found = {}
    for name, rule in rules.items():
        values = streams[rule["fed"]]
        found[name] = [alarms(rule, values[begin:end].tolist()) for begin, end in itertools.pairwise(starts)]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
