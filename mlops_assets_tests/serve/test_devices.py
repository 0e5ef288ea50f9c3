import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlops_assets.testing.small_models import package
from serve.devices import (
    DeviceDisagrees,
    DeviceReport,
    DeviceUnavailable,
    Sight,
    check_parity,
    load_on_device,
    parity_matrix,
    sight,
)
from serve.formats.lightgbm_text import LightGbmScorer
from serve.formats.linear_json import LinearScorer
from serve.model import GoldenMismatch, Model, verify_golden_rows
from serve.schema import FeatureSpec, GoldenRow, ModelManifest, Task
from serve.scoring import (
    Matrix,
    Scorer,
    package_bytes,
    scorer_from_bytes,
    write_package,
)


class OffScorer(LightGbmScorer):
    """Stands for a GPU: the same model, off by a given amount."""

    off: float | Matrix = 0.0
    tolerance = 1e-9

    def score(self, matrix: Matrix) -> Matrix:
        return super().score(matrix) + self.off


def gpu(off: float = 0.0) -> Any:
    def load(manifest: ModelManifest, payload: bytes) -> Scorer:
        scorer = OffScorer(manifest, payload)
        scorer.off = off
        return scorer

    return load


def there_is_one() -> Sight:
    return Sight("Some GPU")


def there_is_none() -> Sight:
    return Sight(None, "no usable GPU: CUDARuntimeError: no device")


def test_gpu_without_one_is_a_sentence() -> None:
    with pytest.raises(DeviceUnavailable, match=r"v7 must run on a GPU \(device: gpu\): no usable GPU"):
        load_on_device(*package(), device="gpu", num_gpus=0.5, version="v7", look=there_is_none)


def test_gpu_that_was_given_no_share_is_a_sentence() -> None:
    with pytest.raises(DeviceUnavailable, match="num_gpus is 0"):
        load_on_device(*package(), device="gpu", num_gpus=0, version="v7", look=there_is_one)


def test_auto_without_a_gpu_scores_on_the_cpu_and_says_why(caplog: pytest.LogCaptureFixture) -> None:
    scorer, report = load_on_device(*package(), device="auto", num_gpus=0.5, version="v7", look=there_is_none)
    assert type(scorer) is LightGbmScorer
    assert (report.requested, report.used, report.num_gpus) == ("auto", "cpu", 0.5)
    assert "fell back to CPU: no usable GPU: CUDARuntimeError" in report.reason
    assert report.reason in caplog.text


def test_auto_without_a_share_does_not_look_for_a_gpu() -> None:
    def never() -> Sight:
        raise AssertionError

    _, report = load_on_device(*package(), device="auto", num_gpus=0, version="v7", look=never)
    assert "num_gpus is 0" in report.reason
    _, report = load_on_device(*package(), device="cpu", num_gpus=0, version="v7", look=never)
    assert report == DeviceReport("cpu", "cpu", "device: cpu is declared", 0)


@pytest.mark.parametrize("device", ["auto", "gpu"])
def test_a_gpu_that_agrees_is_used(device: Any) -> None:
    scorer, report = load_on_device(
        *package(), device=device, num_gpus=1, version="v7", look=there_is_one, gpu_scorer=gpu(1e-12)
    )
    assert type(scorer) is OffScorer
    assert (report.used, report.gpu) == ("gpu", "Some GPU")
    assert report.parity is not None
    assert report.parity.rows == 1_002
    assert 0.9e-12 < report.parity.largest_difference < 1.1e-12


def test_a_gpu_that_disagrees_is_not_used() -> None:
    with pytest.raises(DeviceDisagrees, match="1002 of 1002 scores differ by more than 1e-09"):
        load_on_device(
            *package(), device="gpu", num_gpus=1, version="v7", look=there_is_one, gpu_scorer=gpu(1e-6)
        )
    scorer, report = load_on_device(
        *package(), device="auto", num_gpus=1, version="v7", look=there_is_one, gpu_scorer=gpu(1e-6)
    )
    assert type(scorer) is LightGbmScorer
    assert "DeviceDisagrees" in report.reason


def test_a_model_that_the_gpu_library_cannot_load_falls_back() -> None:
    def refuses(manifest: ModelManifest, payload: bytes) -> Scorer:
        raise ValueError("unknown objective")

    arguments: dict[str, Any] = {"num_gpus": 1, "version": "v7", "look": there_is_one, "gpu_scorer": refuses}
    _, report = load_on_device(*package(), device="auto", **arguments)
    assert "ValueError: unknown objective" in report.reason
    with pytest.raises(DeviceUnavailable, match="unknown objective"):
        load_on_device(*package(), device="gpu", **arguments)


def test_a_format_without_a_gpu_scorer_falls_back() -> None:
    manifest = ModelManifest(
        name="m", task="regression", trainer="t", model_format="linear-json", model_file="m.json",
        target="y", features=(FeatureSpec(name="x", type="number"),),
    )  # fmt: skip
    payload = b'{"columns": [{"mean": 0, "scale": 1}], "coefficients": [[1, 0]], "intercepts": [0]}'
    scorer, report = load_on_device(
        manifest, payload, device="auto", num_gpus=1, version="v7", look=there_is_one
    )
    assert type(scorer) is LinearScorer
    assert "linear-json has no GPU scorer" in report.reason
    with pytest.raises(ValueError, match="linear-json has no GPU scorer"):
        scorer_from_bytes(manifest, payload, device="gpu")


def test_nan_on_one_side_only_is_a_disagreement() -> None:
    reference, other = (scorer(*package()) for scorer in (LightGbmScorer, OffScorer))
    rows = len(parity_matrix(other.manifest))
    other.off = np.where(np.arange(rows) == 7, np.nan, 0.0)
    with pytest.raises(DeviceDisagrees, match=r"row 7 .*\(1 of 1002 scores"):
        check_parity(other, reference, version="v7")


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_the_parity_rows_are_the_same_every_time_and_reach_many_leaves(task: Task) -> None:
    manifest, payload = package(task)
    matrix = parity_matrix(manifest)
    assert np.array_equal(matrix, parity_matrix(manifest), equal_nan=True)
    assert matrix.shape == (1_002, 6)
    assert 0.05 < np.isnan(matrix[2:]).mean() < 0.15
    assert len(np.unique(LightGbmScorer(manifest, payload).score(matrix), axis=0)) > 20


def test_golden_rows_are_exact_unless_the_scorer_states_a_tolerance() -> None:
    manifest, payload = package()
    golden = manifest.golden[0]
    near = GoldenRow(features=golden.features, scores=(golden.scores[0] + 1e-12,))
    shifted = manifest.model_copy(update={"golden": (near,)})
    with pytest.raises(GoldenMismatch):
        verify_golden_rows(LightGbmScorer(shifted, payload), version="v7")
    assert verify_golden_rows(OffScorer(shifted, payload), version="v7") == 1
    far = shifted.model_copy(update={"golden": (GoldenRow(features=golden.features, scores=(0.123,)),)})
    with pytest.raises(GoldenMismatch):
        verify_golden_rows(OffScorer(far, payload), version="v7")


def test_a_replica_tells_its_device(tmp_path: Path) -> None:
    uri = str(tmp_path / "v1")
    write_package(uri, *package())
    told = asyncio.run(Model({"version": "v1", "package_uri": uri, "device": "auto"}).info())["device"]
    assert (told["requested"], told["used"], told["parity"]) == ("auto", "cpu", None)
    assert "num_gpus is 0" in told["reason"]


def test_the_size_of_a_package_is_known_without_reading_it(tmp_path: Path) -> None:
    manifest, payload = package()
    write_package(str(tmp_path), manifest, payload)
    assert package_bytes(str(tmp_path), manifest) == len(payload)
    with pytest.raises(FileNotFoundError, match=r"other\.txt"):
        package_bytes(str(tmp_path), manifest.model_copy(update={"model_file": "other.txt"}))


def test_looking_for_a_gpu_gives_a_name_or_what_is_missing() -> None:
    seen = sight()
    assert (seen.gpu is None) == bool(seen.missing)
