"""What every source must do that picks the asked days itself (``data/sources/_base.py`` says it in words).

class TestSqlite(PushedDownConformance):
    @pytest.fixture
    def store(self, tmp_path): ...  # a RowStore of this source
"""

import datetime as dt
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from mlops_assets.data.conversion import ColumnType
from mlops_assets.data.schema import conform
from mlops_assets.data.sources import SOURCES, WHOLE, Asked, SourceDeclaration, SourceReader
from mlops_assets.errors import DataError, SourceUnavailable
from mlops_assets.resources.lake import Lake
from mlops_assets.testing.conformance.sources import COLUMNS

ROWS: dict[str, ColumnType] = {"id": "integer", "name": "string", "day": "string"}
LAKE = Lake(uri="unused")
Row = tuple[int, str | None, str]
"""Id, name, and the day."""


class RowStore(ABC):
    """A place that such a source reads: rows of ``id``, ``name`` and a day, put there as programs do."""

    secret: str
    """A part of what it takes to be let in."""

    @abstractmethod
    def declared(self, **fields: Any) -> SourceDeclaration:
        """The source as YAML declares it."""

    @abstractmethod
    def put(self, rows: Sequence[Row]) -> None:
        """Adds rows."""

    @abstractmethod
    def remove(self, *ids: int) -> None: ...

    @abstractmethod
    def rename(self, id_: int, name: str) -> None:
        """Changes a row, as a program does that says when it changed it."""

    @abstractmethod
    def hold(self, kind: ColumnType, values: Sequence[Any]) -> SourceDeclaration:
        """A source of one column, called like its type, whose values are in order and on no day."""

    @abstractmethod
    def end(self) -> None:
        """The place answers no more."""

    def reader(self, **fields: Any) -> SourceReader:
        return self.declared(**fields).reader(Path("/unused"))

    def read(self, *days: str, columns: Mapping[str, ColumnType] = ROWS, infer: bool = False) -> pa.Table:
        return self.reader().read(Asked(columns, infer, "day", days), LAKE)

    def states(self, *days: str) -> Mapping[str, str]:
        return self.reader().states(Asked(ROWS, False, "day", days or None), LAKE)


def day(number: int) -> str:
    return (dt.date(2024, 1, 1) + dt.timedelta(days=number)).isoformat()


def ids(table: pa.Table) -> list[int]:
    return sorted(table.column("id").to_pylist())


class AskedDaysConformance:
    """One source that is asked for days, and gives no rows of others."""

    @pytest.fixture
    def store(self) -> RowStore:
        raise NotImplementedError

    @pytest.fixture
    def filled(self, store: RowStore) -> RowStore:
        """Two rows on each of ten days; ids tell the day."""
        store.put(
            [(10 * number + more, f"n{number}", day(number)) for number in range(10) for more in (1, 2)]
        )
        return store

    def test_yaml_finds_it_by_its_name_and_refuses_a_field_it_does_not_have(self, store: RowStore) -> None:
        declared = store.declared()
        assert SOURCES[declared.format] is type(declared)
        assert type(declared).model_validate(declared.model_dump()) == declared
        with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
            type(declared).model_validate({**declared.model_dump(), "no_such": 1})

    def test_neighbouring_days_have_all_their_rows_and_no_others(self, filled: RowStore) -> None:
        table = filled.read(*map(day, range(2, 6)))
        assert ids(table) == [21, 22, 31, 32, 41, 42, 51, 52]

    def test_scattered_days_have_all_their_rows_and_no_others(self, filled: RowStore) -> None:
        assert ids(filled.read(day(9), day(0), day(4))) == [1, 2, 41, 42, 91, 92]

    def test_each_row_says_its_day_as_the_key_of_the_partition(self, filled: RowStore) -> None:
        table = filled.read(day(3), day(4))
        of_row = dict(zip(table.column("id").to_pylist(), table.column("day").to_pylist(), strict=True))
        assert of_row == {31: day(3), 32: day(3), 41: day(4), 42: day(4)}

    def test_days_without_rows_have_the_columns(self, filled: RowStore) -> None:
        table = filled.read(day(500))
        assert table.num_rows == 0 and set(table.column_names) == set(ROWS)

    def test_a_transform_gets_every_column(self, filled: RowStore) -> None:
        table = filled.read(day(1), columns={"id": "integer", "day": "string"}, infer=True)
        assert set(table.column_names) >= {*ROWS} and ids(table) == [11, 12]
        assert set(table.column("day").to_pylist()) == {day(1)}

    def test_only_declared_columns_are_read(self, filled: RowStore) -> None:
        table = filled.read(day(1), columns={"id": "integer", "day": "string"})
        assert sorted(table.column_names) == ["day", "id"]

    @pytest.mark.parametrize("kind", COLUMNS)
    def test_a_declared_type_keeps_every_value(self, store: RowStore, kind: ColumnType) -> None:
        reader = store.hold(kind, COLUMNS[kind][1]).reader(Path("/unused"))
        conformed = conform(reader.read(Asked({kind: kind}), LAKE), {kind: kind})
        assert conformed.misfits == {} and conformed.missing == ()
        values = conformed.frame[kind]
        found = [None if gone else value for value, gone in zip(values, values.isna(), strict=True)]
        if kind == "timestamp":
            found = [value and value.to_pydatetime() for value in found]
        assert found == COLUMNS[kind][1]

    def test_a_whole_number_beside_a_missing_one_stays_whole(self, store: RowStore) -> None:
        reader = store.hold("integer", [2**53 + 1, None]).reader(Path("/unused"))
        assert reader.read(Asked({"integer": "integer"}), LAKE).to_pydict() == {"integer": [2**53 + 1, None]}

    def test_a_place_that_does_not_answer_is_said_without_its_secret(self, filled: RowStore) -> None:
        reader = filled.reader()
        filled.end()
        for ask in (reader.read, reader.states) if filled.declared().probed else (reader.read,):
            with pytest.raises(SourceUnavailable) as caught:
                ask(Asked(ROWS, False, "day", [day(1)]), LAKE)
            assert reader.where in str(caught.value)
            assert (
                filled.secret not in f"{caught.value!r}{caught.value.__cause__!r}{caught.value.__context__!r}"
            )

    def test_nothing_that_is_shown_holds_the_secret(self, store: RowStore) -> None:
        assert store.secret
        for shown in (store.declared(), store.reader(), store.reader().where):
            assert store.secret not in repr(shown)


class PushedDownConformance(AskedDaysConformance):
    """The same, of one that says the day of each row by itself and in which state a day is."""

    def test_it_is_probed(self, store: RowStore) -> None:
        assert store.declared().probed

    def test_many_scattered_days_are_read(self, filled: RowStore) -> None:
        assert ids(filled.read(*map(day, range(0, 1200, 2)))) == [1, 2, 21, 22, 41, 42, 61, 62, 81, 82]

    def test_a_source_without_any_row_has_the_columns(self, store: RowStore) -> None:
        assert set(store.read(day(0)).column_names) == set(ROWS) and store.states() == {}

    def test_a_declared_column_that_is_not_there_is_an_error_that_names_it(self, filled: RowStore) -> None:
        with pytest.raises(DataError, match="nowhere"):
            filled.read(day(1), columns={**ROWS, "nowhere": "string"})

    def test_a_dataset_without_days_has_all_rows_and_one_state(self, filled: RowStore) -> None:
        asked = Asked({"id": "integer", "name": "string"})
        assert len(ids(filled.reader(day_column=None).read(asked, LAKE))) == 20
        before = filled.reader(day_column=None).states(asked, LAKE)
        assert list(before) == [WHOLE]
        filled.remove(1)
        assert filled.reader(day_column=None).states(asked, LAKE) != before

    def test_states_are_of_days_with_rows_and_stay_while_nothing_happens(self, filled: RowStore) -> None:
        states = filled.states()
        assert sorted(states) == [day(number) for number in range(10)] and all(states.values())
        assert filled.states() == states
        asked = [day(2), day(3), day(7), day(400)]
        assert filled.states(*asked) == {key: states[key] for key in asked[:3]}

    def test_the_state_of_a_day_changes_with_its_rows_and_with_no_others(self, filled: RowStore) -> None:
        before = filled.states()

        def changed() -> set[str]:
            nonlocal before
            earlier, before = before, filled.states()
            return {key for key in {*earlier, *before} if earlier.get(key) != before.get(key)}

        filled.put([(99, "late", day(4))])
        assert changed() == {day(4)}
        filled.rename(31, "other")
        assert changed() == {day(3)}
        filled.remove(51)
        assert changed() == {day(5)}
        filled.remove(61, 62)
        assert changed() == {day(6)} and day(6) not in before
