"""The view's function on one row of plain values, as its package brings it.

Belongs here: loading the function, its result as features of the contract, proving it on examples. Does not
belong here: whether features are valid (``serve/validation.py``), what goes into it (``evaluate.py``).

The source travels in the model's package, so each version computes with the function that it was trained
with, whatever is installed where it answers. It needs the standard library only. Whoever may write packages
may therefore run code where they are served, as with every package that brings its own preparation.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

from serve.online.held import held_value, plain_value
from serve.online.request import value_of
from serve.schema import ColumnKind, FeatureSpec, FeatureType, FeatureValue, OnlineTransform, OnlineView

Plain = Mapping[str, Any]
"""A row as a transform takes and gives it: None where missing, datetimes in UTC, dates, else plain values."""
Row = dict[str, FeatureValue]
_EXACT = 2**53


class TransformFailed(RuntimeError):
    """The view's function failed, or gave what is no feature; the message says which function and why."""


class ExampleMismatch(RuntimeError):
    """The view's function does not give the features that it gave offline."""


def function_of(transform: OnlineTransform) -> Callable[[Plain], Plain]:
    """The function, from a module of its own. Raises TransformFailed."""
    digest = hashlib.sha256(transform.source.encode()).hexdigest()[:12]
    module = ModuleType(f"online_transform_{digest}")
    try:
        code = compile(transform.source, f"<transform {digest}>", "exec")
        exec(code, module.__dict__)  # noqa: S102 - the package's own code, see the charter
        found: Callable[[Plain], Plain] = getattr(module, transform.function)
    except Exception as error:
        raise TransformFailed(
            f"transform {transform.function} cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    return found


class Transformed:
    """From the columns of one event to the features of a model."""

    def __init__(self, view: OnlineView, features: Sequence[FeatureSpec]) -> None:
        self._name = view.transform.function if view.transform else ""
        self._function = function_of(view.transform) if view.transform else None
        self._features = [(one.name, one.type, _MAKERS[one.type]) for one in features]

    def row(self, columns: Plain) -> Row:
        """The features in their declared types, None where missing. Raises TransformFailed."""
        found = columns
        if self._function is not None:
            try:
                found = self._function(columns)
            except Exception as error:
                raise TransformFailed(
                    f"transform {self._name} failed: {type(error).__name__}: {error}"
                ) from error
        row: Row = {}
        for name, kind, make in self._features:
            try:
                value = found[name]
                row[name] = None if value is None or value != value else make(value)
            except (KeyError, TypeError) as error:
                given = f"{found[name]!r}" if name in found else "nothing"
                raise TransformFailed(
                    f"transform {self._name} gives {given} for feature {name!r}, declared as {kind}"
                ) from error
        return row


def verify_examples(view: OnlineView, features: Sequence[FeatureSpec]) -> int:
    """How many examples of a view give their offline features; ExampleMismatch at the first that does not."""
    transformed, kinds = Transformed(view, features), column_kinds(view)
    for number, example in enumerate(view.examples):
        row = {
            name: plain_value(held_value(value_of(value, kinds[name]), kinds[name]), kinds[name])
            for name, value in example.row.items()
        }
        found = transformed.row(row)
        for name, value in found.items():
            if value != example.features[name]:
                raise ExampleMismatch(
                    f"example {number} of view {view.name}: feature {name!r} is {value!r} here, offline it "
                    f"was {example.features[name]!r}. The transform on one row and the one on frames differ."
                )
    return len(view.examples)


def column_kinds(view: OnlineView) -> dict[str, ColumnKind]:
    """The type of every column that a transform is given."""
    kinds: dict[str, ColumnKind] = dict(view.columns)
    for join in view.joins:
        kinds |= {f"{join.prefix}{name}": kind for name, kind in join.kinds.items()}
    return kinds | dict.fromkeys((one.name for one in view.rolling), "number")


def _number(value: Any) -> float:
    if isinstance(value, (bool, str)):
        raise TypeError
    return float(value)


def _integer(value: Any) -> int:
    if type(value) is float and value.is_integer() and abs(value) < _EXACT:
        return int(value)
    if type(value) is not int:
        raise TypeError
    return value


def _boolean(value: Any) -> bool:
    if value not in (0, 1):
        raise TypeError
    return bool(value)


def _category(value: Any) -> str:
    if type(value) is int:
        return str(value)
    if type(value) is not str:
        raise TypeError
    return value


_MAKERS: Mapping[FeatureType, Callable[[Any], FeatureValue]] = {
    "number": _number,
    "integer": _integer,
    "boolean": _boolean,
    "category": _category,
}
"""What a value becomes as a feature; TypeError for one that is none."""
