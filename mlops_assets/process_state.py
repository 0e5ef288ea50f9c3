"""What plain functions may change in the process, put back after each call.

Belongs here: the state that Python and numpy keep per process. Does not belong here: the state of any other
library, which is kept out where it is used (``resources/mlflow_store.py``, ``evaluation/drawing.py``).

A run builds several use cases in one process. A seed set, a folder entered or a variable left by a function
of one must not change what a function of another gives.
"""

import functools
import os
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlops_assets import environment


@contextmanager
def process_restored() -> Iterator[None]:
    """Afterwards working folder, environment, random generators, numpy's error handling and warning filters
    are what they were.
    """
    import numpy as np

    folder, drawn, numpy_drawn = Path.cwd(), random.getstate(), np.random.get_state()
    with environment.restored(), warnings.catch_warnings(), np.errstate():
        try:
            yield
        finally:
            os.chdir(folder)
            random.setstate(drawn)
            np.random.set_state(numpy_drawn)


def apart(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, leaving the process as it found it."""

    @functools.wraps(function)
    def called(*arguments: Any, **named: Any) -> Any:
        with process_restored():
            return function(*arguments, **named)

    return called
