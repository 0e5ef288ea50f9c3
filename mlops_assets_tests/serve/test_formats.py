"""Every model format keeps the contract."""

import pytest

from mlops_assets.testing.conformance.formats import FormatConformance, cases
from mlops_assets.training.trainers import TRAINERS
from serve.families import UnknownMember
from serve.formats import FORMATS, gpu_formats


@pytest.mark.parametrize(("scorer", "model"), cases(FORMATS.members(), TRAINERS.members()))
class TestFormat(FormatConformance):
    pass


def test_an_unknown_format_is_named_with_the_known_ones() -> None:
    with pytest.raises(UnknownMember, match=r"'onnx'\. Allowed: lightgbm-text, linear-json, xgboost-ubj"):
        FORMATS["onnx"]


def test_a_gpu_scores_trees_only() -> None:
    assert gpu_formats() == ["lightgbm-text", "xgboost-ubj"]
