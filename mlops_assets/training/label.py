"""The label of each row of outcomes: a column, or what the declared function makes of the rows. Pure.

Belongs here: holding a label function to one label per row. Does not belong here: importing the function
(``components/model.py``), joining labels to features and encoding them (``training_set.py``).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlops_assets.errors import DataError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Label:
    """The column called ``name``, or the function of that dotted path."""

    name: str
    function: Callable[..., Any] | None = None

    def of(self, outcomes: "pd.DataFrame") -> "pd.Series[Any]":
        """The label of each row of the label's dataset; missing where there is none (yet).

        Raises DataError when the function raises, or does not give one label per row.
        """
        import pandas as pd

        if self.function is None:
            return outcomes[self.name]
        try:
            made = self.function(outcomes.copy())
        except Exception as error:  # the declaration's own code: whatever it raises is about these rows
            raise DataError(f"{self.name} failed with {type(error).__name__}: {error}") from error
        if not isinstance(made, pd.Series):
            raise DataError(f"{self.name} returned a {type(made).__name__}, not a Series")
        if not made.index.equals(outcomes.index):
            raise DataError(
                f"{self.name} returned {len(made)} labels for {len(outcomes)} rows; it must keep rows, order "
                "and index"
            )
        return made
