"""What each day by itself says of a statistic."""

import numpy as np
import pytest

from mlops_assets.evaluation.jackknife import (
    error_of,
    pseudo_values,
    standard_error,
    without_each_group,
)
from mlops_assets.evaluation.metrics import metric


def test_of_a_mean_over_equal_days_each_day_says_its_own_mean() -> None:
    random = np.random.default_rng(1)
    values, days = random.normal(size=60), np.repeat(np.arange(6), 10)
    left_out, count = without_each_group(lambda kept: float(values[kept].mean()), days)
    assert left_out is not None and count == 6
    own = pseudo_values(float(values.mean()), left_out)
    assert own == pytest.approx(values.reshape(6, 10).mean(axis=1))
    assert error_of(left_out) == pytest.approx(own.std(ddof=1) / np.sqrt(6))
    assert standard_error(lambda kept: float(values[kept].mean()), days) == (error_of(left_out), 6)


def test_of_few_days_or_a_statistic_that_one_day_alone_defines_nothing_is_said() -> None:
    days = np.repeat(np.arange(5), 2)
    assert without_each_group(lambda kept: 1.0, days[:8]) == (None, 4)
    assert without_each_group(lambda kept: 1.0 if kept[0] else None, days) == (None, 5)


def test_bias_has_a_side_and_other_metrics_have_none() -> None:
    target, high = np.array([0.0, 1.0, 0.0, 1.0]), np.full(4, 0.7)
    bias = metric("bias", "binary")
    assert bias.value(target, high) == pytest.approx(0.2) == bias.signed_value(target, high)
    assert bias.signed_value(target, 1 - high) == pytest.approx(-0.2)
    assert bias.signed_value(target[:0], high[:0]) is None
    skill = metric("skill", "binary")
    assert skill.signed_value(target, high) == skill.value(target, high)
