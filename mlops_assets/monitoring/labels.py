"""Late labels: the join to predictions by key, and when a window has enough of them. Pure.

Belongs here: the join, which labels a task can use, the watermark of a window. Does not belong here:
metrics (``performance.py``), reading logs and tables (``assets/joined_answers.py``).

A window is judged once ``min_share`` of its answers is labelled, or once no label can come any more
(``within`` after its end). A window that is judged before its last label favours labels that come early, and
those can differ from late ones (a flight that is late lands late): declare a high ``min_share`` where that
matters.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlops_assets.data.schema import conform
from mlops_assets.errors import DataError
from mlops_assets.monitoring.findings import PerformanceStatus as Status
from mlops_assets.training.training_set import are_codes, class_name, encode_target
from serve.schema import Task

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

ENTITY = "entity"
LABEL = "label"
HAS_KEYS = "has_keys"
AMBIGUOUS = "ambiguous_label"
_MEMBER = r'"[^"\\\x00-\x1f]*":("[^"\\\x00-\x1f]*"|-?(0|[1-9][0-9]{0,17})|true|false|null)'
FLAT = rf"^\{{({_MEMBER}(,{_MEMBER})*)?\}}$"
"""The JSON text of an object of plain values, as gateways write entities."""


@dataclass(frozen=True)
class Watermark:
    """When a window counts as labelled. ``within`` after its end, labels are taken to be complete."""

    within: timedelta
    min_share: float = 0.8
    min_rows: int = 200


@dataclass(frozen=True)
class LabelState:
    """What the labels of a window allow. ``share`` is of all its answers, in [0, 1]."""

    status: Status
    share: float
    reason: str


def join_labels(
    predictions: "pd.DataFrame", labels: "pd.DataFrame", join_keys: Sequence[str]
) -> "pd.DataFrame":
    """``predictions`` with three columns more, ``label``, ``has_keys`` and ``ambiguous_label``; same rows,
    same order, same index.

    ``predictions`` has a column ``entity``: JSON text like ``{"flight_id":"UA1545"}``, or missing.
    ``labels`` has the join keys and a column ``label``; rows whose label or key is missing label nothing.
    Keys are compared as text, so 7, 7.0 and "7" are one key; times as ISO 8601. A label that comes several
    times counts once. Labels of one key that differ all count as missing, and ``ambiguous_label`` is true for
    the answers. ``has_keys`` says whether the answer carries every join key.

    Raises DataError when a column is not there, or when an entity is not the JSON text of an object.
    """
    if ENTITY not in predictions.columns:
        raise _lacking("predictions", predictions, ENTITY, join_keys)
    import pandas as pd
    import pyarrow as pa

    known = known_labels(labels, join_keys)
    texts = [text if isinstance(text, str) else None for text in predictions[ENTITY]]
    found = pd.Series(entity_keys(pa.array(texts, pa.string()), join_keys).to_pylist(), dtype=object)
    single = ~known.ambiguous
    joined = predictions.copy()
    labelled = pd.Series(known.values[single], index=known.keys[single])
    joined[LABEL] = labelled.reindex(found).to_numpy()
    joined[HAS_KEYS] = found.notna().to_numpy()
    joined[AMBIGUOUS] = found.isin(known.keys[known.ambiguous]).to_numpy()
    return joined


@dataclass(frozen=True)
class KnownLabels:
    """Every key once, its label, and whether labels of that key differ: such labels do not count."""

    keys: NDArray[np.object_]
    values: NDArray[Any]
    ambiguous: NDArray[np.bool_]


def known_labels(labels: "pd.DataFrame", join_keys: Sequence[str]) -> KnownLabels:
    """The label of each key, by the joined text of the key; as ``join_labels`` takes them.

    Raises DataError when a column is not there.
    """
    for name in (*join_keys, LABEL):
        if name not in labels.columns:
            raise _lacking("labels", labels, name, join_keys)
    import pandas as pd

    known = labels.loc[labels[[*join_keys, LABEL]].notna().all(axis=1)]
    keys = pd.Series(_keys_of(known, join_keys), dtype=object)
    again = keys.duplicated()
    if not again.any():
        return KnownLabels(keys.to_numpy(), known[LABEL].to_numpy(), np.zeros(len(keys), dtype=np.bool_))
    pairs = pd.DataFrame({"key": keys, "label": known[LABEL].to_numpy()}).drop_duplicates()
    differ = pairs["key"].duplicated(keep=False)
    first = ~pairs["key"].duplicated()
    return KnownLabels(
        pairs.loc[first, "key"].to_numpy(), pairs.loc[first, "label"].to_numpy(), differ[first].to_numpy()
    )


def entity_keys(texts: "pa.StringArray", join_keys: Sequence[str]) -> "pa.StringArray":
    """The joined key of each entity's JSON text; null where it is missing or lacks one of the join keys.

    Raises DataError for a text that is not that of an object.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    plain = _plain_keys(texts, join_keys)
    if plain is not None:
        return plain
    encoded = pc.dictionary_encode(texts)
    distinct = [_key_of(text, join_keys) for text in encoded.dictionary.to_pylist()]
    return pa.array(distinct, pa.string()).take(encoded.indices)


def _plain_keys(texts: "pa.StringArray", join_keys: Sequence[str]) -> "pa.StringArray | None":
    """The keys, where every entity is a flat object that has all of them as text or whole numbers, as nearly
    all are; else None. Arrow reads a million of them in the time that Python needs for a hundred thousand.
    """
    import pyarrow.compute as pc

    if not pc.all(pc.match_substring_regex(texts, FLAT), min_count=0).as_py():
        return None
    parts = []
    for name in join_keys:
        pattern = rf'"{re.escape(name)}":(?:"(?P<text>[^"]*)"|(?P<number>-?[1-9][0-9]{{0,17}}|0))[,}}]'
        found = pc.extract_regex(texts, pattern)
        text, number = pc.struct_field(found, "text"), pc.struct_field(found, "number")
        if found.null_count > texts.null_count or _needs_escape(name):
            return None
        # A member that is text has no number, and the other way round; Arrow gives "" for what did not match.
        value = pc.if_else(pc.equal(number, ""), text, number)
        parts.append(pc.binary_join_element_wise(pc.utf8_length(value).cast("string"), value, ":"))
    return parts[0] if len(parts) == 1 else pc.binary_join_element_wise(*parts, "")


def _needs_escape(name: str) -> bool:
    return json.dumps(name, ensure_ascii=False) != f'"{name}"'


def label_codes(
    labels: "pd.Series[Any]", *, task: Task, classes: Sequence[str] | None
) -> NDArray[np.float64]:
    """Labels as ``encode_target`` gives them, (n,); NaN where one is missing or the task cannot use it.

    The task cannot use a label outside ``classes``, nor in a regression one that is not a finite number.
    Without ``classes``, the distinct labels are the classes: DataError when they do not fit the task.
    """
    import pandas as pd

    if task != "regression" and len(labels) > len(classes or ()):
        # A label's code does not depend on the others, and few labels are distinct.
        places, distinct = _distinct(labels)
        if len(distinct) < len(labels):
            return np.append(label_codes(distinct, task=task, classes=classes), np.nan)[places]
    codes = np.full(len(labels), np.nan)
    known = labels.notna().to_numpy(dtype=bool)
    if task == "regression":
        # The rules of training decide which labels are numbers; the others are missing.
        return conform(pd.DataFrame({LABEL: labels}), {LABEL: "number"}).frame[LABEL].to_numpy(np.float64)
    parts = [known]
    if classes is not None:
        plain = labels.astype(object)
        names = plain.map(lambda label: class_name(label, classes))
        named = known & names.isin(list(classes)).to_numpy(dtype=bool)
        coded = known & ~named & plain.isin([0, 1]).to_numpy(dtype=bool)
        parts = [named, coded & (task == "binary" and are_codes(classes))]
    for part in parts:
        if part.any():
            codes[part] = encode_target(labels[part], task=task, classes=classes)[0]
    return codes


def label_state(
    *, end: datetime, now: datetime, answers: int, with_keys: int, labelled: int, watermark: Watermark
) -> LabelState:
    """Whether a window that ends at ``end`` can be judged at ``now``, and why.

    Waiting: the window is not over, or labels can still come and fewer than ``min_share`` of the answers
    with keys have one. Otherwise judged with at least ``min_rows`` labels, too_few with some, unlabelled
    with none; no_keys when no answer says which entity it is about.
    """
    share = labelled / answers if answers else 0.0
    counted = f"{labelled:,} of {answers:,} answers are labelled ({share:.1%})"
    if with_keys < answers:
        counted += f"; {answers - with_keys:,} came without keys and cannot be labelled"

    def state(status: Status, why: str) -> LabelState:
        return LabelState(status, share, f"{why}: {counted}" if answers else why)

    if now < end:
        return state("waiting", f"the window runs until {end.isoformat()}")
    if answers < watermark.min_rows:
        return state("too_few", f"{answers:,} answers, {watermark.min_rows:,} are needed")
    if not with_keys:
        return state("no_keys", "no answer carries the keys that labels are joined by (`entity`)")
    complete_at = end + watermark.within
    enough = labelled >= watermark.min_share * with_keys and labelled >= watermark.min_rows
    if not enough and now < complete_at:
        return state(
            "waiting",
            f"labels may come until {complete_at.isoformat()}; the window waits for "
            f"{watermark.min_share:.0%} of the answers with keys and at least {watermark.min_rows:,} labels",
        )
    if not labelled:
        return state("unlabelled", f"no label came by {complete_at.isoformat()}")
    if labelled < watermark.min_rows:
        return state(
            "too_few",
            f"{watermark.min_rows:,} labels are needed, and none counts after {complete_at.isoformat()}",
        )
    return state("judged", "enough labels came" if enough else "no more labels can come")


def _distinct(labels: "pd.Series[Any]") -> "tuple[NDArray[np.intp], pd.Series[Any]]":
    """Position of each label (n,) among the distinct ones, -1 where it is missing, and the distinct labels.

    Labels of dtype object are all kept: True and 1 are equal and can mean different classes.
    """
    import pandas as pd

    places, distinct = pd.factorize(labels)
    if labels.dtype != object or pd.api.types.infer_dtype(labels, skipna=True) == "string":
        return places, pd.Series(distinct)
    return np.arange(len(labels)), labels


def _lacking(which: str, frame: "pd.DataFrame", column: str, join_keys: Sequence[str]) -> DataError:
    return DataError(
        f"{which} have no column {column!r}, which the join by {', '.join(join_keys)} needs; "
        f"their columns are {', '.join(map(str, frame.columns))}"
    )


def _keys_of(frame: "pd.DataFrame", join_keys: Sequence[str]) -> list[str]:
    columns = [map(_part, frame[name].tolist()) for name in join_keys]
    return list(columns[0]) if len(columns) == 1 else ["".join(parts) for parts in zip(*columns, strict=True)]


def _part(value: Any) -> str:
    """A value's text with its length, so that joined ones fall apart in one way only."""
    text = value if type(value) is str else _text(value)
    return f"{len(text)}:{text}"


def _key_of(text: str | None, join_keys: Sequence[str]) -> str | None:
    """The joined key of an entity's JSON text; None when it is missing or lacks one of the keys."""
    if text is None:
        return None
    try:
        entity = json.loads(text)
    except ValueError as error:
        raise DataError(f"the entity {text[:80]!r} of an answer is not JSON: {error}") from error
    if not isinstance(entity, dict):
        raise DataError(f"the entity {text[:80]!r} of an answer is not an object of keys")
    values = [entity.get(name) for name in join_keys]
    return None if any(value is None for value in values) else "".join(map(_part, values))


def _text(value: Any) -> str:
    """A key as text. A column of integers with a missing value holds floats, so 7.0 is the key 7."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
