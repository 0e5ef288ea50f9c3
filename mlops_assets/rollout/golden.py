"""What an endpoint must answer to a golden request. Pure.

Belongs here: turning stored offline scores into the exact answer of the HTTP contract, and naming
what differs. Does not belong here: sending requests (``resources/serve_client.py``).
"""

from collections.abc import Mapping
from typing import Any

from serve.schema import GoldenRow, ModelManifest


def expected_answer(manifest: ModelManifest, row: GoldenRow) -> dict[str, Any]:
    """``prediction`` and ``probability`` of the HTTP contract for a golden row's offline scores."""
    if manifest.task == "regression":
        return {"prediction": row.scores[0], "probability": None}
    classes = manifest.classes or ()
    if manifest.task == "binary":
        return {
            "prediction": classes[int(row.scores[0] >= manifest.threshold)],
            "probability": row.scores[0],
        }
    best = max(range(len(classes)), key=lambda position: (row.scores[position], -position))
    return {"prediction": classes[best], "probability": dict(zip(classes, row.scores, strict=True))}


def difference(
    answer: Mapping[str, Any], expected: Mapping[str, Any], *, version: str, tolerance: float = 0.0
) -> str | None:
    """What differs between an answer and the expected one, in words; None when they agree.

    Without a tolerance floats are compared to the bit: JSON carries the shortest text that reads back as
    the same float. A GPU adds in another order; its ``tolerance`` is relative, and absolute below one.
    """
    wanted = {**expected, "model_version": version}
    wrong = [
        f"{name} is {answer.get(name)!r}, offline it was {value!r}"
        for name, value in wanted.items()
        if not _agree(answer.get(name), value, tolerance)
    ]
    return "; ".join(wrong) or None


def _agree(answered: Any, wanted: Any, tolerance: float) -> bool:
    if isinstance(wanted, Mapping):
        return (
            isinstance(answered, Mapping)
            and set(answered) == set(wanted)
            and all(_agree(answered[key], wanted[key], tolerance) for key in wanted)
        )
    if tolerance and isinstance(wanted, float) and isinstance(answered, float | int):
        return abs(answered - wanted) <= tolerance * max(1.0, abs(wanted))
    return bool(answered == wanted)
