"""One scoring path: names to matrix, native bytes to scores, packages on disk."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from serve.formats.linear_json import LinearScorer
from serve.schema import FeatureSpec, ModelManifest, Task
from serve.scoring import (
    Encoder,
    load_package,
    manifest_bytes,
    package_digest,
    scorer_from_bytes,
    write_package,
)

FEATURES = (
    FeatureSpec(name="distance", type="number"),
    FeatureSpec(name="seats", type="integer"),
    FeatureSpec(name="holiday", type="boolean"),
    FeatureSpec(name="carrier", type="category", categories=("UA", "B6", "7")),
)
ROWS = [
    {"distance": 0.1, "seats": 150, "holiday": True, "carrier": "B6"},
    {"distance": None, "seats": None, "holiday": None, "carrier": None},
    {"distance": -3.25, "seats": 2**40, "holiday": False, "carrier": "ZZ"},
    {"distance": 7.0, "seats": 0, "holiday": False, "carrier": "7"},
]


def linear(
    task: Task = "binary", outputs: int = 1, width: int = 12, seed: int = 0
) -> tuple[ModelManifest, bytes]:
    """A linear model over ``width`` numbers and one category, with coefficients that do not add up evenly."""
    random = np.random.default_rng(seed)
    features = [FeatureSpec(name="c", type="category", categories=("a", "b"))]
    features += [FeatureSpec(name=f"x{i}", type="number") for i in range(width)]
    columns: list[dict[str, float]] = [{"levels": 2}]
    columns += [{"mean": 0.3 * i, "scale": 1.7} for i in range(width)]
    document = {
        "columns": columns,
        "coefficients": random.normal(size=(outputs, 2 * width + 3)).tolist(),
        "intercepts": random.normal(size=outputs).tolist(),
    }
    classes = {"binary": ("no", "yes"), "multiclass": tuple("abcde"[:outputs]), "regression": None}[task]
    manifest = ModelManifest(
        name="m",
        task=task,
        trainer="ridge",
        model_format="linear-json",
        model_file="linear.json",
        target="y",
        features=tuple(features),
        classes=classes,
    )
    return manifest, json.dumps(document).encode()


def some_matrix(rows: int, width: int = 12, seed: int = 1) -> np.ndarray:
    random = np.random.default_rng(seed)
    matrix = np.column_stack([random.integers(0, 2, rows), random.normal(size=(rows, width))])
    matrix[random.random(matrix.shape) < 0.1] = np.nan
    return matrix


def test_a_row_becomes_floats_codes_and_nan() -> None:
    matrix = Encoder(FEATURES).rows(ROWS)
    expected = [[0.1, 150, 1, 1], [math.nan] * 4, [-3.25, 2**40, 0, math.nan], [7, 0, 0, 2]]
    np.testing.assert_array_equal(matrix, expected)


def test_a_name_that_a_row_lacks_is_missing() -> None:
    assert np.isnan(Encoder(FEATURES).rows([{}])).all()


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame(ROWS),
        pd.DataFrame(ROWS).convert_dtypes(),
        pd.DataFrame(ROWS).astype({"carrier": "category", "holiday": "boolean", "seats": "Int64"}),
        pd.DataFrame(ROWS).astype({"distance": "object", "seats": "object"}),
    ],
    ids=["inferred", "nullable", "categorical", "objects"],
)
def test_columns_of_any_dtype_give_the_matrix_of_the_rows(frame: pd.DataFrame) -> None:
    np.testing.assert_array_equal(Encoder(FEATURES).columns(frame), Encoder(FEATURES).rows(ROWS))


def test_a_category_column_of_integers_finds_its_text_codes() -> None:
    encoder = Encoder([FeatureSpec(name="gate", type="category", categories=("1", "2"))])
    np.testing.assert_array_equal(encoder.columns({"gate": pd.Series([2, 1, 3])})[:, 0], [1, 0, math.nan])


def test_an_all_missing_column_is_nan_whatever_its_dtype() -> None:
    encoder = Encoder(FEATURES)
    frame = pd.DataFrame(
        {name: pd.Series([None, None], dtype=object) for name in ("distance", "seats", "holiday", "carrier")}
    )
    assert np.isnan(encoder.columns(frame)).all()


def test_text_in_a_number_column_is_an_error_and_not_missing() -> None:
    with pytest.raises((ValueError, TypeError)):
        Encoder(FEATURES[:1]).columns({"distance": pd.Series(["far", "near"])})


@pytest.mark.parametrize(("task", "outputs"), [("binary", 1), ("multiclass", 4), ("regression", 1)])
@pytest.mark.parametrize("layout", ["C", "F"])
def test_a_linear_score_does_not_depend_on_the_batch(task: Task, outputs: int, layout: str) -> None:
    scorer = scorer_from_bytes(*linear(task, outputs, width=40))
    matrix = np.asarray(some_matrix(257, width=40), order=layout)  # type: ignore[call-overload]
    whole = scorer.score(matrix)
    np.testing.assert_array_equal(
        whole, np.concatenate([scorer.score(matrix[i : i + 1]) for i in range(257)])
    )
    np.testing.assert_array_equal(whole[100:], scorer.score(matrix[100:]))


def test_a_linear_score_is_the_textbook_formula() -> None:
    manifest, payload = linear()
    document = json.loads(payload)
    [row] = some_matrix(1, seed=4)
    terms = list(document["intercepts"])
    terms.append(document["coefficients"][0][2 if math.isnan(row[0]) else int(row[0])])
    for i in range(12):
        value, missing = document["coefficients"][0][3 + 2 * i : 5 + 2 * i]
        terms.append(missing if math.isnan(row[i + 1]) else value * (row[i + 1] - 0.3 * i) / 1.7)
    expected = 1 / (1 + math.exp(-math.fsum(terms)))
    assert scorer_from_bytes(manifest, payload).score(row[None, :])[0] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("margin", [-2000.0, 2000.0])
def test_an_extreme_margin_saturates_instead_of_overflowing(margin: float) -> None:
    manifest, payload = linear()
    document = {**json.loads(payload), "intercepts": [margin]}
    [score] = scorer_from_bytes(manifest, json.dumps(document).encode()).score(some_matrix(1))
    assert score == (1.0 if margin > 0 else 0.0)


def test_class_scores_add_up_to_one() -> None:
    scores = scorer_from_bytes(*linear("multiclass", 4)).score(some_matrix(50))
    assert scores.shape == (50, 4)
    np.testing.assert_allclose(scores.sum(axis=1), 1.0, rtol=1e-12)


def test_no_rows_give_no_scores() -> None:
    assert scorer_from_bytes(*linear("multiclass", 4)).score(np.empty((0, 13))).shape == (0, 4)


def test_a_package_reads_back_and_scores_the_same(tmp_path: object) -> None:
    manifest, payload = linear()
    write_package(f"{tmp_path}/m", manifest, payload)
    loaded = load_package(f"file://{tmp_path}/m")
    assert isinstance(loaded, LinearScorer) and loaded.manifest == manifest
    np.testing.assert_array_equal(
        loaded.score(some_matrix(9)), scorer_from_bytes(manifest, payload).score(some_matrix(9))
    )


def test_a_folder_without_a_manifest_is_named(tmp_path: object) -> None:
    with pytest.raises(FileNotFoundError, match=r"model\.json"):
        load_package(str(tmp_path))


def test_the_digest_changes_with_manifest_and_payload() -> None:
    manifest, payload = linear()
    same = ModelManifest.model_validate_json(manifest_bytes(manifest))
    changed = manifest.model_copy(update={"threshold": 0.4})
    digests = [
        package_digest(m, p)
        for m, p in ((manifest, payload), (same, payload), (changed, payload), (manifest, payload + b" "))
    ]
    assert digests[0] == digests[1] and len(set(digests)) == 3


def test_a_package_from_before_the_entity_keeps_its_digest() -> None:
    manifest, payload = linear()
    assert b"entity" not in manifest_bytes(manifest)
    keyed = manifest.model_copy(update={"entity": ("flight_id",)})
    assert package_digest(keyed, payload) != package_digest(manifest, payload)
    assert ModelManifest.model_validate_json(manifest_bytes(keyed)) == keyed
