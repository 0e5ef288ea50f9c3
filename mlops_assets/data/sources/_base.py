"""What every source format does: bytes of one file in, a DataFrame out, or a DataError.

Belongs here: the interface. Does not belong here: finding files (``data/locations.py``) and declared
types (``data/schema.py``).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


class SourceFormat(ABC):
    """Reads whole files. Half a file is never half a table: it is an error."""

    @abstractmethod
    def read(self, content: bytes, *, name: str, text_columns: Sequence[str] = ()) -> "pd.DataFrame":
        """Rows of one file; ``name`` is what errors call it.

        ``text_columns`` stay text even where every value looks like a number ("00501"); names the
        file lacks are ignored. Raises DataError when the file is empty, cut off or malformed.
        """
