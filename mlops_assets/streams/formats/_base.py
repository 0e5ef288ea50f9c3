"""What every format of records does: what is declared gives a function; bytes in, a document out.

Belongs here: the interface. Does not belong here: declared columns (``streams/records.py``), asking a schema
registry (``resources/schema_registry.py``).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field


class Undecodable(ValueError):
    """The bytes of one record are not what the format says; the message is the reason."""


Decode = Callable[[bytes], Mapping[str, Any]]
"""The document in a record's value. Raises Undecodable, which is about this record alone, and nothing else
that is."""

Registered = Callable[[str, int], Sequence[str]]
"""The schema of that number in the registry whose address stands in that environment variable, as text,
behind the schemas that it refers to. Undecodable when the registry has none of it, SourceUnavailable when it
does not answer."""


class RecordFormat(BaseModel, ABC):
    """What stands under ``value:`` of a stream: the member of a family, found by its ``format``.

    Fields of a format's own are declared as in any pydantic model. Other fields are refused.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), hide_input_in_errors=True)

    name: ClassVar[str]
    """What YAML calls the format."""

    format: str = Field(description="The format of the records' values.")

    @abstractmethod
    def decoder(self, folder: Path, registered: Registered) -> Decode:
        """Reads values as declared; files lie relative to ``folder``. DataError for one that is no use."""
