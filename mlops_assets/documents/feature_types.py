"""Which types of features can be made of a column of which type, without a transform.

Belongs here: the rule, and what is wrong in words. Pure. Does not belong here: making them of values
(``features/declared.py``), which columns there are (``view_columns.py``).
"""

from collections.abc import Mapping

from mlops_assets.data.schema import ColumnType
from serve.schema import FeatureSpec, FeatureType, is_whole_number

MADE_OF: Mapping[FeatureType, tuple[ColumnType, ...]] = {
    "number": ("number", "integer"),
    "integer": ("integer", "number"),
    "boolean": ("boolean", "integer", "number"),
    "category": ("string", "integer"),
}
"""Types of a column that a feature can be made of as it is."""


def type_problem(feature: FeatureSpec, column: ColumnType) -> str:
    """Why the feature cannot be made of a column of this type as it is; "" when it can."""
    if feature.type == "category" and column == "integer":
        return _never_made(feature)
    if column in MADE_OF[feature.type]:
        return ""
    return (
        f"feature {feature.name!r} is declared as {feature.type}, but its column as {column}; a "
        f"{feature.type} can be made of: {', '.join(MADE_OF[feature.type])}. Or convert it in a transform."
    )


def _never_made(feature: FeatureSpec) -> str:
    impossible = [name for name in feature.categories or () if not is_whole_number(name)]
    if not impossible:
        return ""
    return (
        f"feature {feature.name!r} is made of a column of integers, which never gives the category "
        f"{impossible[0]!r}: categories are then written like 3, 0 or -12"
    )
