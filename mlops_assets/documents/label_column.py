"""What a model says of its labels, held against the datasets that have them.

Belongs here: keys that cannot join labels to features, columns that are no label of the task; all of it
known from documents alone. Pure. Does not belong here: rules within the model's document (``model.py``),
making labels (``training/label.py``).
"""

from mlops_assets.data.schema import ColumnType
from mlops_assets.documents.contradictions import Contradiction
from mlops_assets.documents.feature_view import FeatureViewDeclaration
from mlops_assets.documents.model import ModelDeclaration
from mlops_assets.documents.view_columns import LocatedDataset, key_problem
from mlops_assets.errors import UnknownName
from serve.schema import Task

LABEL_TYPES: dict[Task, tuple[ColumnType, ...]] = {
    "binary": ("boolean", "string", "integer", "number"),
    "multiclass": ("string", "integer", "number"),
    "regression": ("number", "integer"),
}
"""Types of a column that can be the label."""


def label_problem(
    model: ModelDeclaration,
    view: FeatureViewDeclaration,
    *,
    base: LocatedDataset | None,
    outcomes: LocatedDataset | None,
) -> Contradiction | None:
    """Why the labels cannot be joined, or why their column is no label of the task; None when both are well.

    ``base`` and ``outcomes`` are the datasets of the view and of the label. Of one that no document declares
    (None: plain definitions may make it) no column is known.
    """
    if outcomes is None:
        return None
    at = ("label", "dataset")
    for key in view.entity.join_keys:
        if key not in outcomes.declaration.columns:
            unknown = UnknownName(
                f"column of dataset {model.label.dataset!r}",
                key,
                outcomes.declaration.columns,
                next_step=f"Labels are joined by the join keys of feature view {view.name!r}.",
            )
            return Contradiction(at, str(unknown))
        if base is not None and (said := key_problem(key, base, outcomes)):
            return Contradiction(at, said)
    return _column_problem(model, outcomes)


def _column_problem(model: ModelDeclaration, outcomes: LocatedDataset) -> Contradiction | None:
    column, dataset, columns = model.label.column, model.label.dataset, outcomes.declaration.columns
    if column is None:
        return None
    at = ("label", "column")
    if column not in columns:
        return Contradiction(at, str(UnknownName(f"column of dataset {dataset!r}", column, columns)))
    kind = columns[column]
    if kind in LABEL_TYPES[model.task]:
        return None
    said = (
        f"column {column!r} of dataset {dataset!r} is a {kind}, which is no label of a {model.task} task; it "
        f"takes: {', '.join(LABEL_TYPES[model.task])}. Or make the label by a function."
    )
    return Contradiction(at, said)
