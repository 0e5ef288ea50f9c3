"""What a trainer is.

Belongs here: the ABC and what it returns. Does not belong here: one library's way of training (a file
beside this one) or scoring (``serve/scoring.py`` scores the bytes that a trainer returns).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mlops_assets.errors import DataError, DeclarationError, UnknownName
from serve.schema import FeatureSpec, Task
from serve.scoring import FORMATS

Array = NDArray[np.float64]


SMALL_TABLE = 10_000


def threads(rows: int) -> int:
    """Threads to train with: all cores (0), one for a small table.

    On few rows the threads of a tree library mostly wait for each other, on a busy machine for minutes.
    The number changes no byte of a model.
    """
    return 1 if rows < SMALL_TABLE else 0


@dataclass(frozen=True)
class FittedModel:
    """A trained model as bytes of its native format, with what a person asks about it.

    ``importance`` is {feature: share}; the shares add up to one (all zero when nothing was learned).
    """

    payload: bytes
    model_file: str
    importance: dict[str, float]
    params: dict[str, Any]


@dataclass(frozen=True)
class FitInputs:
    """What one model is made of.

    ``matrix`` (n, features): NaN is missing, categories are codes; ``target`` (n,); ``classes``: 2 for
    binary, 0 for regression; ``params``: what YAML changes of the trainer's defaults.
    """

    matrix: Array
    target: Array
    features: Sequence[FeatureSpec]
    task: Task
    classes: int
    params: Mapping[str, Any]
    seed: int


class Trainer(ABC):
    """One way to train. Same inputs, parameters and seed give the same bytes, on any number of cores.

    A trainer takes missing values (NaN) and categories (codes) as they are, leaves its inputs alone, and
    keeps everything that a score depends on in the bytes. A class without rows does not fail it: it is
    learned as the least likely one.
    """

    name: ClassVar[str]
    """What YAML calls it."""
    tasks: ClassVar[frozenset[Task]]
    """What it can learn."""
    model_format: ClassVar[str]
    """The format of its bytes, one of ``serve.formats.FORMATS``: how they are scored and served."""
    defaults: ClassVar[Mapping[str, Any]]
    """Every parameter that YAML may change, with its value."""

    @property
    def model_file(self) -> str:
        return FORMATS[self.model_format].model_file

    def parameters(self, overrides: Mapping[str, Any]) -> dict[str, Any]:
        """The defaults with overrides; DeclarationError names an unknown one and the allowed ones."""
        unknown = sorted(set(overrides) - set(self.defaults))
        if unknown:
            raise DeclarationError(
                str(UnknownName(f"parameter of trainer {self.name}", unknown[0], self.defaults))
            )
        return {**self.defaults, **overrides}

    def require_task(self, task: Task) -> None:
        """DeclarationError when this trainer does not do the task."""
        if task not in self.tasks:
            raise DeclarationError(
                f"trainer {self.name!r} does not do task {task!r}; it does {', '.join(sorted(self.tasks))}"
            )

    def fit(self, given: FitInputs) -> FittedModel:
        """The model of these inputs.

        DataError names a feature with infinite values: the libraries each do something else with them, none
        says so. DeclarationError names a parameter that the trainer does not have.
        """
        self.require_task(given.task)
        for position, feature in enumerate(given.features):
            infinite = int(np.isinf(given.matrix[:, position]).sum())
            if infinite:
                raise DataError(
                    f"feature {feature.name!r} holds {infinite} infinite values; make them missing in the "
                    "feature view's transform"
                )
        chosen = self.parameters(given.params)
        payload, importance = self._fit(replace(given, params=chosen))
        total = sum(importance.values())
        shares = {name: (value / total if total > 0 else 0.0) for name, value in importance.items()}
        return FittedModel(payload, self.model_file, shares, chosen)

    @abstractmethod
    def _fit(self, given: FitInputs) -> tuple[bytes, dict[str, float]]:
        """The bytes of the native format, and importance per feature (any non-negative scale).

        ``given.params`` holds every parameter of the trainer.
        """
