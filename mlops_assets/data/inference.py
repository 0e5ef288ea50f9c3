"""What a file of rows seems to be: how it is read, its columns, key, time, and what can be learned. Pure.

Belongs here: guesses about one file, each with its reason and how to say otherwise. Does not belong here:
how files of a format are written (``sources/``), the text of documents (``documents/written.py``), asking
people and writing files (``commands/new.py``), what a value of a type is (``conversion.py``).

Every guess is made on all rows and with the platform's own readers, so that what is declared from it loads.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_assets.data.conversion import ColumnType, convert, family_of
from mlops_assets.data.guess import Guess
from mlops_assets.data.sources import SOURCES, FileSource
from mlops_assets.data.sources.csv_format import CsvSource
from mlops_assets.errors import DataError, UnknownName
from serve.schema import FeatureType, Task

if TYPE_CHECKING:
    import pyarrow as pa

ROW_ID = "row_id"
MOST_CLASSES = 30
MOST_CODES = 10
"""Whole numbers of so few values are taken for the codes of classes."""
MOST_CATEGORIES = 1_000
FEWEST_ROWS = 40
FEWEST_DAYS = 28
"""With fewer days, days that are kept from training leave too little of it."""

_KEY_NAME = re.compile(
    r"(^|[_\s.-])(id|key|uuid|guid|nr|no|number|index)$|^(id|key|uuid|guid)([_\s.-]|$)|[a-z](Id|ID|Key)$",
    re.IGNORECASE,
)
_LABEL_NAME = re.compile(
    r"^(target|label|class|outcome|y|churn(ed)?|default(ed)?|survived|species)$", re.IGNORECASE
)
_BIRTH = re.compile(r"birth|born|(^|[_\s])dob($|[_\s])", re.IGNORECASE)
_NEGATIVE = frozenset({"no", "n", "false", "f", "0", "none", "negative", "ok", "normal", "good", "-1"})
_FAMILIES: Mapping[str, ColumnType] = {
    "text": "string",
    "integer": "integer",
    "float": "number",
    "decimal": "number",
    "boolean": "boolean",
    "timestamp": "timestamp",
    "date": "date",
}
FEATURES: Mapping[ColumnType, FeatureType] = {
    "string": "category",
    "integer": "integer",
    "number": "number",
    "boolean": "boolean",
}


@dataclass(frozen=True)
class Column:
    """One declared column: its name in the file, its type, and what its values are like."""

    name: str
    original: str
    type: ColumnType
    missing: int
    distinct: int
    values: tuple[Any, ...] = ()
    """The distinct values, sorted, where there are few."""
    days: int = 0
    """Distinct days, of times."""
    example: Any = None
    beyond: bool = False
    """Whole numbers that a 64-bit float does not hold."""


@dataclass(frozen=True)
class InferredRows:
    """A file as it is to be declared: ``source`` is its format, ``options`` its fields beside the default."""

    source: str
    rows: int
    options: Mapping[str, Any]
    columns: tuple[Column, ...]
    renamed: Mapping[str, str]
    key: str
    key_made: bool
    key_why: str
    """Why that is the key; of one that is made, why no column is."""
    guesses: tuple[Guess, ...] = ()

    def column(self, name: str) -> Column:
        """The column of that name, in the file or as declared. UnknownName when there is none."""
        for one in self.columns:
            if name in (one.name, one.original):
                return one
        raise UnknownName("column", name, [one.original for one in self.columns])

    @property
    def types(self) -> dict[str, ColumnType]:
        """Every declared column and its type, a key that is made included."""
        made: dict[str, ColumnType] = {self.key: "integer"} if self.key_made else {}
        return {**made, **{one.name: one.type for one in self.columns}}


@dataclass(frozen=True)
class Question:
    """What is to be learned from rows: the label, the features, the time that splits them."""

    label: str
    task: Task
    classes: tuple[str, ...] | None
    features: Mapping[str, FeatureType]
    event_timestamp: str | None
    evaluation_window_days: int | None
    evaluation_fraction: float | None
    min_rows: int | None
    guesses: tuple[Guess, ...] = field(default=())


def format_of(file: Path) -> str:
    """The source format whose files have such names, packed ones included; CSV where none has."""
    name = file.name.lower()
    plain = name.removesuffix(".gz").removesuffix(".zip")
    return next((one.name for one in SOURCES.members() if plain.endswith(one.suffixes)), CsvSource.name)


# -- the file ------------------------------------------------------------------------------------------


def infer_rows(content: bytes, *, source: str, name: str, reserved: Collection[str] = ()) -> InferredRows:
    """The file as it can be declared, from all its rows.

    ``source``: the name of its format. ``reserved``: names that no column can have. Raises UnknownName for a
    format that there is not; DataError for an empty file, no header, columns of one name, nothing to learn
    from.
    """
    if not content.strip():
        raise DataError(f"{name} is empty: the first line has to name the columns, the others are the rows.")
    options, guesses = _file_source(source).guessed(content, name)
    table = _read(content, source, name, options, {})
    if table.num_rows == 0:
        raise DataError(f"{name} has {table.num_columns} columns and no row: there is nothing to learn from.")
    renamed = _renamed(table.column_names, reserved)
    columns, left_out = _columns(content, source, name, options, table, renamed)
    guesses += left_out
    guesses += [
        Guess(
            f"column {old!r} is called {new}",
            "its own name is empty or taken, or differs from another only in upper and lower case",
            "RENAMED in rows.py",
        )
        for old, new in renamed.items()
    ]
    key, made, guess = _key(columns, table.num_rows)
    guesses.append(guess)
    return InferredRows(
        source, table.num_rows, options, tuple(columns), renamed, key, made, guess.why, tuple(guesses)
    )


def _read(
    content: bytes, source: str, name: str, options: Mapping[str, Any], columns: Mapping[str, ColumnType]
) -> "pa.Table":
    declared = _file_source(source)(format=source, path=name, **options)
    return declared.file_format().read(content, name=name, columns=columns, infer=not columns)


def _file_source(name: str) -> type[FileSource]:
    found = SOURCES[name]
    if not issubclass(found, FileSource):
        files = [one.name for one in SOURCES.members() if issubclass(one, FileSource)]
        raise UnknownName("format of files", name, files)
    return found


def _renamed(names: Sequence[str], reserved: Collection[str]) -> dict[str, str]:
    """New names of the columns whose own a table cannot have."""
    taken = {one.lower() for one in reserved}
    used: set[str] = set()
    renamed = {}
    for position, original in enumerate(names):
        lower = original.lower()
        if original.strip() and original.isprintable() and lower not in taken | used:
            used.add(lower)
            continue
        stem = re.sub(r"[^0-9a-z]+", "_", lower).strip("_") or f"column_{position + 1}"
        candidates = (stem if number == 1 else f"{stem}_{number}" for number in range(1, len(names) + 3))
        others = {one.lower() for one in names}
        renamed[original] = next(one for one in candidates if one not in taken | used | others)
        used.add(renamed[original])
    return renamed


def _columns(
    content: bytes,
    source: str,
    name: str,
    options: Mapping[str, Any],
    table: "pa.Table",
    renamed: Mapping[str, str],
) -> tuple[list[Column], list[Guess]]:
    """The columns that can be declared, and what is said of those that cannot, or only as text."""
    from pyarrow import types as types_of

    types: dict[str, ColumnType] = {}
    guesses = []
    for column in table.column_names:
        held = table.column(column)
        if types_of.is_dictionary(held.type):
            held = held.cast(held.type.value_type)
        family = family_of(held.type)
        declared = "string" if family is None else _FAMILIES.get(family)
        if declared is None:
            guesses.append(
                Guess(
                    f"column {column} is left out",
                    f"it holds {held.type}",
                    "a transform can turn it into columns",
                )
            )
            continue
        if declared == "date":
            declared = "timestamp"
        if held.null_count == len(held) or convert(held.combine_chunks(), declared).refused.any():
            why = "it has no value" if held.null_count == len(held) else f"not all of it is one {declared}"
            guesses.append(Guess(f"column {column} is left out", why, "a transform can mend it"))
            continue
        types[column] = declared
    if not types:
        raise DataError(
            f"{name} has no column that can be declared: {'; '.join(one.why for one in guesses)}."
        )
    # As the declaration will read it: text is what it is there, which inference may have taken for more.
    read = _read(content, source, name, options, types) if not renamed else table
    columns = []
    for column, declared in list(types.items()):
        made = convert(read.column(column), declared)
        if made.refused.any():
            guesses.append(Guess(f"column {column} is left out", made.reason, "a transform can mend it"))
            continue
        columns.append(_column(renamed.get(column, column), column, declared, made.values))
        if declared == "string":
            guesses += _odd_text(column, made.values)
    return columns, guesses


def _column(name: str, original: str, declared: ColumnType, values: "pa.Array[Any]") -> Column:
    import pyarrow as pa
    import pyarrow.compute as pc

    distinct = pc.unique(values.drop_null())
    few = tuple(sorted(distinct.to_pylist())) if len(distinct) <= MOST_CLASSES else ()
    days = len(pc.unique(values.drop_null().cast(pa.date32()))) if declared == "timestamp" else 0
    beyond = (
        declared == "integer"
        and len(distinct) > 0
        and max(abs(one) for one in pc.min_max(distinct).as_py().values()) > 2**53
    )
    return Column(
        name, original, declared, values.null_count, len(distinct), few, days, distinct[0].as_py(), beyond
    )


def _odd_text(column: str, values: "pa.Array[Any]") -> list[Guess]:
    """What people read as numbers or days, and the platform as text."""
    import pyarrow.compute as pc

    forms = {
        r"^-?[0-9]{1,3}([.][0-9]{3})*,[0-9]+$": "numbers with a decimal comma",
        r"^-?[0-9]{1,3}(,[0-9]{3})+([.][0-9]+)?$": "numbers with separators of thousands",
        r"^-?[0-9.]+ ?%$": "percentages",
        r"^[0-9]{1,2}[./-][0-9]{1,2}[./-]([0-9]{2}|[0-9]{4})( .*)?$": "days in another form than 2024-01-31",
    }
    present = values.drop_null()
    for form, what in forms.items():
        if pc.all(pc.match_substring_regex(present, form)).as_py():
            return [
                Guess(f"{column} is text", f"it holds {what}", "convert it in a transform (docs/types.md)")
            ]
    return []


def _key(columns: Sequence[Column], rows: int) -> tuple[str, bool, Guess]:
    """The column that identifies a row; one that is made where there is none."""
    whole = [
        one
        for one in columns
        if one.type in ("string", "integer") and one.missing == 0 and one.distinct == rows
    ]
    otherwise = "primary_key of the dataset and join_keys of the feature view"
    named = [one for one in whole if _KEY_NAME.search(one.original)]
    if named:
        return (
            named[0].name,
            False,
            Guess(f"{named[0].name} identifies a row", "every row has its own", otherwise),
        )
    taken = {one.name.lower() for one in columns}
    made = next(name for name in (ROW_ID, *(f"{ROW_ID}_{n}" for n in range(2, 99))) if name not in taken)
    repeated = [one.name for one in columns if _KEY_NAME.search(one.original)]
    why = f"{', '.join(repeated)} repeats or is missing" if repeated else "no column is named like an id"
    return made, True, Guess(f"rows are numbered as {made}", why, f"{otherwise}, and transform")


# -- the question --------------------------------------------------------------------------------------


def likely_label(rows: InferredRows) -> str:
    """The column that a person most likely wants predicted: one that is named so, else the last."""
    possible = [one for one in rows.columns if one.name != rows.key and one.type != "timestamp"]
    named = [one for one in possible if _LABEL_NAME.search(one.original)]
    return (named or possible or list(rows.columns))[-1].original


def infer_question(rows: InferredRows, label: str, task: Task | None = None) -> Question:
    """What can be learned about ``label``, by ``task`` or the one that fits it.

    Raises UnknownName for a label that is no column, DataError for one that nothing can be learned about.
    """
    answer = rows.column(label)
    if not rows.key_made and answer.name == rows.key:
        raise DataError(f"{label} identifies a row: every row has its own, so there is nothing to learn.")
    labelled = rows.rows - answer.missing
    if labelled < FEWEST_ROWS:
        raise DataError(
            f"{labelled} of {rows.rows} rows have a value in {label}; with fewer than {FEWEST_ROWS} nothing "
            "can be trained and judged."
        )
    if answer.distinct < 2:
        raise DataError(f"{label} has one value only, {answer.example!r}: there is nothing to learn.")
    fits, why = _task_of(answer)
    _require_possible(answer, task or fits, label)
    guesses = []
    if task is None:
        guesses.append(Guess(f"the task is {fits}", why, "--task, or task of the model"))
    if answer.missing:
        guesses.append(
            Guess(f"{answer.missing} rows are left out of training", f"they have no {label}", "the file")
        )
    classes = None
    if (task or fits) == "binary" and answer.type == "string":
        classes, why = _ordered(answer.values)
        guesses.append(Guess(f"{classes[1]} is the positive class", why, "classes of the model"))
    features, left_out = _features(rows, answer)
    guesses += left_out
    time, guessed = _event_time(rows)
    guesses += guessed
    days = rows.column(time).days if time else 0
    return Question(
        label=answer.name,
        task=task or fits,
        classes=classes,
        features=features,
        event_timestamp=time,
        evaluation_window_days=min(14, max(1, days // 5)) if time else None,
        evaluation_fraction=None if time else _fraction(labelled),
        min_rows=20 if labelled < 500 else None,
        guesses=tuple(guesses),
    )


def _task_of(answer: Column) -> tuple[Task, str]:
    if answer.type == "boolean" or (answer.distinct == 2 and answer.type != "number"):
        return "binary", f"{answer.original} has two values"
    if (
        answer.type == "number"
        and answer.distinct == 2
        and all(float(one).is_integer() for one in answer.values)
    ):
        return "binary", f"{answer.original} has two values"
    if answer.type == "string":
        return "multiclass", f"{answer.original} has {answer.distinct} different texts"
    if answer.type == "integer" and answer.distinct <= MOST_CODES:
        return (
            "multiclass",
            f"{answer.original} has {answer.distinct} different whole numbers, which look like codes",
        )
    return "regression", f"{answer.original} is a number with {answer.distinct} different values"


def _require_possible(answer: Column, task: Task, label: str) -> None:
    """DataError when the task cannot learn the label."""
    if answer.type == "timestamp":
        raise DataError(
            f"{label} holds times. A label is a number, a text or a boolean; choose another column."
        )
    if task == "regression" and answer.type == "string":
        raise DataError(f"{label} is text, and task regression predicts numbers. Choose --task multiclass.")
    if task == "binary" and answer.distinct != 2:
        fitting = "regression" if answer.type in ("integer", "number") else "multiclass"
        raise DataError(
            f"{label} has {answer.distinct} values, and task binary two. Choose --task {fitting}."
        )
    if task == "multiclass" and answer.distinct < 3:
        raise DataError(f"{label} has two values, and task multiclass three or more. Choose --task binary.")
    if task == "multiclass" and answer.distinct > MOST_CLASSES:
        raise DataError(
            f"{label} has {answer.distinct} different values; more than {MOST_CLASSES} classes are too many "
            "to learn from one file. Choose a column with fewer, or group them in a transform."
        )


def _ordered(values: Sequence[Any]) -> tuple[tuple[str, str], str]:
    """Two classes, the negative one first: that which sounds so, else the first in the alphabet."""
    first, second = (str(one) for one in values)
    if _says_no(second) and not _says_no(first):
        return (second, first), f"{second} sounds like the negative one"
    why = f"{first} sounds like the negative one" if _says_no(first) else "it comes second in the alphabet"
    return (first, second), why


def _says_no(name: str) -> bool:
    lower = name.lower()
    return lower in _NEGATIVE or lower.startswith(("no_", "no ", "not_", "not ", "non_", "non-", "un"))


def _features(rows: InferredRows, answer: Column) -> tuple[dict[str, FeatureType], list[Guess]]:
    """What the model sees, and what it does not, with the reason."""
    features: dict[str, FeatureType] = {}
    guesses = []
    for one in rows.columns:
        if one.name in (answer.name, rows.key):
            continue
        why = _no_feature(one, rows.rows)
        if why:
            guesses.append(Guess(f"{one.name} is no feature", why, "features of the feature view"))
        else:
            features[one.name] = FEATURES[one.type]
    if not features:
        said = "; ".join(f"{guess.what}: {guess.why}" for guess in guesses) or "there is no other column"
        raise DataError(f"No column is left to learn {answer.original} from ({said}).")
    return features, guesses


def _no_feature(one: Column, rows: int) -> str:
    """Why a model should not see a column; "" when it may."""
    if one.type == "timestamp":
        return "a time is not a feature by itself; derive one in a transform (hour, weekday, age)"
    if one.distinct == 1:
        return f"it has one value only, {one.example!r}"
    if one.beyond:
        return "its whole numbers are larger than a model can tell apart"
    if one.type in ("string", "integer") and _KEY_NAME.search(one.original) and one.distinct > rows // 2:
        return "it is named like an id, and most rows have their own"
    if one.type == "string" and (one.distinct > MOST_CATEGORIES or one.distinct > rows // 2):
        return f"it has {one.distinct} different texts: too many to learn from"
    return ""


def _event_time(rows: InferredRows) -> tuple[str | None, list[Guess]]:
    """The time that splits training from judging, and what is said of it."""
    times = [one for one in rows.columns if one.type == "timestamp"]
    for one in times:
        if one.missing == 0 and one.days >= FEWEST_DAYS and not _BIRTH.search(one.original):
            why = f"every row has one, over {one.days} days: the newest days are judged on, never trained on"
            return one.name, [
                Guess(f"{one.name} is when an answer is needed", why, "event_timestamp of the view")
            ]
    why = (
        f"of {', '.join(one.name for one in times)} none has a value in every row, over {FEWEST_DAYS} days "
        "or more, and is no birth"
        if times
        else "there is no column of times"
    )
    return None, [
        Guess("a share of the rows, drawn by key, is judged on", why, "event_timestamp of the view")
    ]


def _fraction(labelled: int) -> float:
    """Of few rows more are judged on: a fifth would leave one bad guess to decide."""
    return 0.5 if labelled < 500 else 0.3 if labelled < 2_000 else 0.2
