"""Detectors of change that others use, each fed with what it is made for: CUSUM, and four of river's rules.

Belongs here: which detectors, with which settings, on which numbers. Does not belong here: the worlds and the
counting of alarms (``bench/drift_worlds.py``), river itself (``bench/peers/river``, an environment of its
own).

A *default* is the library's, as it comes. A *tuned* setting has half a false alarm a year (.50 at most) on
the world in which nothing changes: the most sensitive one of ``GRIDS`` that does, on seeds which nothing else
uses (``python -m bench.drift --part tuning --runs 100``). Nobody can tune like that without a copy of the
world that is known not to change; our rule is given no world, only the rate.
"""

import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.peers.environments import PEERS
from mlops_assets.testing.own_environment import environment

Floats = NDArray[np.float64]

RIVER = PEERS / "river"
WEEK_OF_ROWS = 672
"""Of the worlds: 96 rows a day."""


@dataclass(frozen=True)
class Detector:
    """A detector of river's with its settings. ``fed``: which of a stream's numbers it reads.

    ``rises_only``: an alarm counts where the mean rose, of one that alarms in both directions.
    """

    detector: str
    fed: str
    settings: Mapping[str, Any]
    rises_only: bool = False

    def at(self, setting: str, value: float) -> "Detector":
        """With another value of one setting."""
        return replace(self, settings={**self.settings, setting: value})


@dataclass(frozen=True)
class Stream:
    """What a model's answers gave, row by row: ``losses`` (log loss), ``errors`` (1 for a wrong class).

    ``ends``: when each row is over, in days since the first day after those that the model was evaluated on,
    which are part of the stream and lie before 0.
    """

    losses: Floats
    errors: Floats
    ends: Floats

    def day_means(self) -> tuple[Floats, Floats]:
        """(the mean loss of each day, when the day is over)."""
        day = np.ceil(np.round(self.ends, 9)).astype(np.int64)
        numbers, codes = np.unique(day, return_inverse=True)
        return np.bincount(codes, self.losses) / np.bincount(codes), numbers.astype(np.float64)


DEFAULTS: Mapping[str, Detector] = {
    "Page-Hinkley, default": Detector("PageHinkley", "losses", {}),
    "DDM, default": Detector("DDM", "errors", {}),
    "ADWIN, default": Detector("ADWIN", "errors", {}),
}
TUNED: Mapping[str, Detector] = {
    "Page-Hinkley, tuned": Detector("PageHinkley", "losses", {"threshold": 450.0, "mode": "up"}),
    "DDM, tuned": Detector("DDM", "errors", {"drift_threshold": 7.0, "warm_start": WEEK_OF_ROWS}),
    "ADWIN, tuned": Detector("ADWIN", "errors", {"delta": 1e-22}, rises_only=True),
}
GRIDS: Mapping[str, tuple[str, tuple[float, ...]]] = {
    "Page-Hinkley, tuned": ("threshold", (400, 450, 500, 550)),
    "DDM, tuned": ("drift_threshold", (6, 6.5, 7, 8)),
    "ADWIN, tuned": ("delta", (1e-18, 1e-20, 1e-22, 1e-24)),
}
"""The setting that is tuned, and its values from the most sensitive on."""

CUSUM_K, CUSUM_H = 0.5, 5.0
"""The textbook's, in standard deviations of a day: a shift of one is to be found soon."""
CUSUM_TUNED_H = 80.0
CUSUM_GRID = (5, 10, 20, 40, 60, 70, 80)


def cusum(values: Floats, reference: Floats, *, k: float = CUSUM_K, h: float = CUSUM_H) -> list[int]:
    """Places at which the values have become larger than the reference; it starts anew after each.

    The one-sided CUSUM of Page 1954, "Continuous inspection schemes", Biometrika 41, on values standardised
    by the reference's mean and deviation; k and h as in Montgomery, "Introduction to statistical quality
    control", chapter 9.
    """
    found, total = [], 0.0
    for place, value in enumerate((values - reference.mean()) / reference.std(ddof=1)):
        total = max(0.0, total + float(value) - k)
        if total > h:
            found.append(place)
            total = 0.0
    return found


def cusum_alarms(stream: Stream, *, h: float) -> list[float]:
    """When CUSUM alarms on the mean losses of days, held against those of the days before day 0."""
    means, ends = stream.day_means()
    after = ends > 0
    return [float(ends[after][place]) for place in cusum(means[after], means[~after], h=h)]


def river_alarms(streams: Sequence[Stream], rules: Mapping[str, Detector]) -> dict[str, list[list[float]]]:
    """By rule, per stream, when it alarms. The days before day 0 are read, and their alarms left out."""
    python = environment(RIVER / "requirements.txt", "river") / "python"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "streams.npz"
        np.savez(
            file,
            starts=np.cumsum([0, *(len(one.losses) for one in streams)]),
            losses=np.concatenate([one.losses for one in streams]),
            errors=np.concatenate([one.errors for one in streams]),
        )
        given = json.dumps({name: asdict(rule) for name, rule in rules.items()})
        done = subprocess.run(
            [str(python), str(RIVER / "detect.py"), str(file), given],
            check=True,
            capture_output=True,
            text=True,
        )
    return {
        name: [
            [float(stream.ends[place]) for place in places if stream.ends[place] > 0]
            for stream, places in zip(streams, found, strict=True)
        ]
        for name, found in json.loads(done.stdout).items()
    }


def peer_alarms(streams: Sequence[Stream]) -> list[dict[str, list[float]]]:
    """Per stream, by rule of every peer, when it alarms."""
    river = river_alarms(streams, {**DEFAULTS, **TUNED})
    return [
        {
            "CUSUM, textbook": cusum_alarms(stream, h=CUSUM_H),
            "CUSUM, tuned": cusum_alarms(stream, h=CUSUM_TUNED_H),
            **{name: found[place] for name, found in river.items()},
        }
        for place, stream in enumerate(streams)
    ]
