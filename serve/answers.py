"""From scores to the answer of the HTTP contract. Pure.

Belongs here: prediction and probability per task. Does not belong here: scoring
(``serve/scoring.py``), other protocols' shapes (``serve/inference_protocol.py``).
"""

from collections.abc import Callable
from typing import Any

from serve.schema import ModelManifest

Answer = dict[str, Any]


def answerer(manifest: ModelManifest) -> Callable[[Any], Answer]:
    """A function from one row's score to ``{"prediction", "probability"}``.

    Binary: class label, probability of the positive class. Multiclass: the likeliest class (the first
    of equals) and every class's probability. Regression: the number, and None.
    """
    classes = manifest.classes or ()
    threshold = manifest.threshold
    if manifest.task == "binary":
        return lambda score: {"prediction": classes[score >= threshold], "probability": score}
    if manifest.task == "multiclass":
        return lambda scores: {
            "prediction": classes[scores.index(max(scores))],
            "probability": dict(zip(classes, scores, strict=True)),
        }
    return lambda score: {"prediction": score, "probability": None}
