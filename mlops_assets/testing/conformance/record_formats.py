"""What every format of records must do (``streams/formats/_base.py`` says it in words).

class TestJson(RecordFormatConformance):
declared = JsonRecords(format="json")

def written(self, document): ...  # the bytes of one record, as producers write it
"""

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import pytest
from pydantic import ValidationError

from mlops_assets.streams.formats import RECORD_FORMATS, RecordFormat, Undecodable

DOCUMENTS: tuple[Mapping[str, Any], ...] = (
    {"id": 2**53 + 1, "amount": 0.1, "note": 'ü, "quoted"\nline', "gift": True},
    {"id": -(2**63), "amount": -1e300, "note": "", "gift": False},
)
"""Documents of one schema, with values that a careless reader changes."""


class RecordFormatConformance:
    """One format, as declared."""

    declared: ClassVar[RecordFormat]

    @abstractmethod
    def written(self, document: Mapping[str, Any]) -> bytes:
        """One record with this document, as producers write it."""

    def registered(self, variable: str, number: int) -> Any:
        """The registry's answer, where the format asks one."""
        return _no_registry(variable, number)

    def read(self, value: bytes) -> Mapping[str, Any]:
        return self.declared.decoder(Path(__file__).parent, self.registered)(value)

    def test_yaml_finds_it_by_its_name(self) -> None:
        assert RECORD_FORMATS[self.declared.format] is type(self.declared)
        assert type(self.declared).model_validate(self.declared.model_dump()) == self.declared

    def test_a_field_it_does_not_have_is_refused(self) -> None:
        with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
            type(self.declared).model_validate({**self.declared.model_dump(), "no_such": 1})

    @pytest.mark.parametrize("document", DOCUMENTS)
    def test_a_document_is_read_as_it_was_written(self, document: Mapping[str, Any]) -> None:
        assert self.read(self.written(document)) == document

    @pytest.mark.parametrize("value", [b"", b"\xff\xfe", b"\x00", b"}{", b"\x00\x00\x00\x00\x01"])
    def test_other_bytes_are_undecodable(self, value: bytes) -> None:
        with pytest.raises(Undecodable):
            self.read(value)

    def test_a_record_that_was_cut_off_or_goes_on_is_undecodable(self) -> None:
        value = self.written(DOCUMENTS[0])
        for wrong in (*(value[:end] for end in range(len(value))), value + value):
            with pytest.raises(Undecodable):
                self.read(wrong)


def _no_registry(variable: str, number: int) -> NoReturn:
    raise AssertionError(f"nobody is to be asked for schema {number} at {variable}")
