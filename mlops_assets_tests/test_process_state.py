"""A plain function may do to the process what it likes: the next one finds it as it was."""

import os
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlops_assets.process_state import apart


def state() -> tuple[Any, ...]:
    return (
        dict(os.environ),
        Path.cwd(),
        random.getstate(),
        str(np.random.get_state()),
        np.geterr(),
        [str(entry) for entry in warnings.filters],
    )


def test_what_a_function_changes_in_the_process_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEPT", "before")
    monkeypatch.setenv("REMOVED", "before")

    def careless(value: int) -> int:
        """Doubles it."""
        random.seed(1)
        np.random.seed(1)
        np.seterr(all="raise")
        os.chdir(tmp_path)
        os.environ.update(KEPT="changed", LEFT="behind")
        del os.environ["REMOVED"]
        warnings.simplefilter("ignore")
        return 2 * value

    before = state()

    assert apart(careless)(4) == 8

    assert state() == before


def test_what_a_failing_function_changes_is_put_back_too(tmp_path: Path) -> None:
    def failing() -> None:
        os.chdir(tmp_path)
        raise ValueError("no rows")

    before = Path.cwd()
    with pytest.raises(ValueError, match="no rows"):
        apart(failing)()
    assert Path.cwd() == before
