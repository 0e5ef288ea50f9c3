"""Every detector keeps the contract."""

import pytest

from mlops_assets.errors import UnknownName
from mlops_assets.monitoring.detectors import DETECTORS, decides
from mlops_assets.testing.conformance.detectors import DetectorConformance


@pytest.mark.parametrize("detector", DETECTORS.members())
class TestDetector(DetectorConformance):
    pass


def test_which_decide() -> None:
    assert {name: decides(name) for name in DETECTORS} == {"kl": False, "ks": True, "psi": True}


def test_one_that_is_gone_decides_nothing_and_is_named() -> None:
    assert not decides("mmd")
    with pytest.raises(UnknownName, match=r"detector 'mmd'\. Allowed: kl, ks, psi"):
        DETECTORS["mmd"]
