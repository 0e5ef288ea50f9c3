"""Tables and queries of a database that SQLAlchemy has a dialect for: PostgreSQL, SQLite and others.

Belongs here: what YAML may say about them, connecting, reading days by their predicate in batches, probing.
Does not belong here: days as bounds and keys (``_sql_days.py``), values (``_object_values.py``), what a
refusal means (``_sql_errors.py``).

The address of the database, with its password, stands in an environment variable. It is read when rows are,
and is in no error, log, event or repr.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from pydantic import ConfigDict, Field, field_validator, model_validator

from mlops_assets.data.conversion import ColumnType
from mlops_assets.data.sources._base import WHOLE, Asked, LakeAccess, SourceDeclaration, SourceReader
from mlops_assets.data.sources._object_values import ColumnValues
from mlops_assets.data.sources._spans import Span, spans
from mlops_assets.data.sources._sql_days import UTC, Days, day_text
from mlops_assets.data.sources._sql_errors import Refusals
from mlops_assets.errors import DataError, SourceUnavailable
from mlops_assets.secrets import VariableName, secret

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")
BATCH_ROWS = 20_000
SPANS_AT_ONCE = 200
"""Spans of days in one statement; databases limit bound values and the depth of expressions."""
CONNECT_TIMEOUT_S = 15
DAY = "mlops_day"
"""What a statement calls the day of a row, beside the columns."""


class SqlSource(SourceDeclaration):
    """A table or a query of a database."""

    model_config = ConfigDict(hide_input_in_errors=True)

    name: ClassVar[str] = "sql"

    connection_variable: VariableName = Field(
        description="Name of the environment variable that holds the database's address, like "
        "postgresql://user:password@host/database. Never the address itself."
    )
    table: str | None = Field(default=None, description="The table or view; SCHEMA.TABLE where it needs one.")
    query: str | None = Field(default=None, description="A SELECT instead of a table.")
    day_column: str | None = Field(
        default=None,
        description="Column that says the day of a row: a date, a timestamp, or ISO 8601 text. Left out: the "
        "partition column.",
    )
    time_zone: str = Field(default=UTC, description="Days of timestamps begin at midnight of this zone.")
    changed_at: str | None = Field(
        default=None, description="Column that says when a row was changed last; makes the source probed."
    )
    timeout_s: float = Field(default=600.0, gt=0, description="Seconds that reading may take.")

    @field_validator("time_zone")
    @classmethod
    def _zone_exists(cls, zone: str) -> str:
        try:
            ZoneInfo(zone)
        except (KeyError, ValueError, OSError):
            raise ValueError(f"{zone!r} is no time zone; write one like UTC or Europe/Berlin") from None
        return zone

    @model_validator(mode="after")
    def _one_place(self) -> "SqlSource":
        if (self.table is None) == (self.query is None):
            raise ValueError("declare either table or query")
        return self

    @property
    def probed(self) -> bool:
        return self.changed_at is not None

    def reader(self, folder: Path) -> "SqlReader":
        return SqlReader(self)

    def problem(
        self, columns: Mapping[str, ColumnType], *, transformed: bool, partitioned: bool
    ) -> str | None:
        return "day_column needs partitions" if self.day_column and not partitioned else None


@dataclass(frozen=True)
class SqlReader(SourceReader):
    """Rows of the wanted days by one predicate; nothing is kept between two reads."""

    declared: SqlSource

    @property
    def where(self) -> str:
        what = f"table {self.declared.table}" if self.declared.table else "the query"
        return f"{what} of the database in {self.declared.connection_variable}"

    def read(self, asked: Asked, lake: LakeAccess) -> "pa.Table":
        return self._with_connection(lambda session: self._rows(session, asked))

    def states(self, asked: Asked, lake: LakeAccess) -> Mapping[str, str]:
        return self._with_connection(lambda session: self._states(session, asked))

    def _rows(self, session: "_Session", asked: Asked) -> "pa.Table":
        import pyarrow as pa

        days = self._days(session, asked)
        declared = [name for name in asked.columns if name != asked.partition_column]
        columns: list[Any] = (
            [sa.literal_column("source.*")] if asked.infer else [sa.column(name) for name in declared]
        )
        if asked.partition_column is None or asked.partitions is None:
            return session.table([sa.select(*columns).select_from(self._source())])
        day: sa.Label[Any] = sa.column(self._day_column(asked)).label(DAY)
        select = sa.select(*columns, day).select_from(self._source())
        if days is None:
            table = session.table([select.where(sa.false())])
        else:
            table = session.table([select.where(days.within(some)) for some in _portions(asked.partitions)])
        keys = (
            table.column(DAY).cast(pa.string())
            if days is None
            else days.keys(table.column(DAY), asked.partitions)
        )
        return self._with_partition(table.drop_columns([DAY]), asked.partition_column, keys, asked)

    def _with_partition(
        self, table: "pa.Table", column: str, keys: "pa.Array[Any]", asked: Asked
    ) -> "pa.Table":
        if column not in table.column_names:
            return table.append_column(column, keys)
        if column != self._day_column(asked):
            raise DataError(
                f"{self.where} has a column {column!r}, which the partition column made of "
                f"{self._day_column(asked)!r} would replace. Give one of them another name."
            )
        return table.set_column(table.column_names.index(column), column, keys)

    def _states(self, session: "_Session", asked: Asked) -> Mapping[str, str]:
        changed: sa.ColumnClause[Any] = sa.column(self.declared.changed_at or "")
        if asked.partition_column is None:
            statement = sa.select(sa.func.count(), sa.func.max(changed)).select_from(self._source())
            ((count, newest),) = session.rows(statement)
            return {WHOLE: _state(count, newest)} if count else {}
        days = self._days(session, asked)
        if days is None:
            return {}
        day = days.expression(session.dialect).label("day")
        select = sa.select(day, changed.label("changed")).select_from(self._source())
        select = select.where(sa.column(days.column).is_not(None))
        found: dict[str, str] = {}
        for some in _portions(asked.partitions) if asked.partitions is not None else [None]:
            inner = (select if some is None else select.where(days.within(some))).subquery("rows_of_days")
            counted = sa.select(inner.c.day, sa.func.count(), sa.func.max(inner.c.changed))
            for key, count, newest in session.rows(counted.group_by(inner.c.day)):
                found[day_text(key)] = _state(count, newest)
        return found

    def _day_column(self, asked: Asked) -> str:
        return self.declared.day_column or asked.partition_column or ""

    def _days(self, session: "_Session", asked: Asked) -> Days | None:
        """What the column of days holds, as one value of it tells; None where there is no value."""
        if asked.partition_column is None:
            return None
        name = self._day_column(asked)
        column: sa.ColumnClause[Any] = sa.column(name)
        first = sa.select(column).select_from(self._source()).where(column.is_not(None)).limit(1)
        found = session.rows(first)
        return Days.told_by(found[0][0], name, self.declared.time_zone, self.where) if found else None

    def _source(self) -> sa.FromClause:
        if self.declared.table is not None:
            schema, _, table = self.declared.table.rpartition(".")
            return sa.table(table, schema=schema or None).alias("source")
        text = (self.declared.query or "").strip().removesuffix(";")
        # A colon is the query's own: it has no values to bind.
        return sa.text(text.replace("\\", "\\\\").replace(":", "\\:")).columns().subquery("source")

    def _with_connection(self, work: "Callable[[_Session], T]") -> T:
        """What ``work`` gives; whatever a driver refuses becomes a DataError without a cause."""
        url = self._url()
        refusals = Refusals(self.where, self.declared.connection_variable, _secrets_of(url))
        fault: DataError
        try:
            engine = _engine(url, self.declared.timeout_s)
            connection = engine.connect()
        except Exception as error:  # noqa: BLE001 (whatever a driver raises; its text may hold a secret)
            fault = refusals.connecting(error)
        else:
            try:
                with connection:
                    return work(_Session(connection, self.where, self.declared.timeout_s))
            except DataError:
                raise
            except Exception as error:  # noqa: BLE001 (whatever a driver raises; its text may hold a secret)
                fault = refusals.stating(error)
            finally:
                engine.dispose()
        # Outside of the handler, so that the driver's error is no context of this one.
        raise fault

    def _url(self) -> sa.URL:
        variable = self.declared.connection_variable
        text = secret(variable)
        if not text:
            raise SourceUnavailable(
                f"{self.where}: the environment variable {variable} is not set where this runs. Set it to "
                "the database's address, like postgresql://user:password@host/database."
            )
        try:
            # Where an @ of the password is not escaped, the rest of the password would be taken for the host.
            url = sa.make_url(text if text.count("@") < 2 or text.startswith("sqlite") else "")
            dialect = url.get_dialect()
            if dialect.name == "postgresql" and "+" not in url.drivername:
                url = url.set(drivername="postgresql+psycopg")
        except ModuleNotFoundError as error:
            missing: str | None = error.name
        except Exception:  # noqa: BLE001 (its text may hold a secret, and there is none to show)
            missing = None
        else:
            return self._existing(url)
        if missing:
            raise SourceUnavailable(f"{self.where}: the driver {missing!r} is not installed.")
        raise SourceUnavailable(
            f"{self.where}: what {variable} holds is no address of a database that SQLAlchemy knows. It "
            "looks like postgresql://user:password@host:5432/database (not postgres://), and signs in the "
            "password other than letters and digits are written as %40 (for @) and so on."
        )

    def _existing(self, url: sa.URL) -> sa.URL:
        """The same; SourceUnavailable for a file of SQLite that is not there, which connecting would make."""
        file = url.database if url.get_backend_name() == "sqlite" else None
        if file and not file.startswith(("file:", ":")) and not Path(file).is_file():
            raise SourceUnavailable(f"{self.where}: there is no file {file}.")
        return url


@dataclass(frozen=True)
class _Session:
    """One connection, read within a deadline."""

    connection: sa.Connection
    where: str
    timeout_s: float

    @property
    def dialect(self) -> str:
        return self.connection.dialect.name

    def rows(self, statement: sa.Select[*tuple[Any, ...]]) -> Sequence[Any]:
        return self.connection.execute(statement).fetchall()

    def table(self, statements: Sequence[sa.Select[*tuple[Any, ...]]]) -> "pa.Table":
        """The rows of statements with the same columns, fetched in batches."""
        import pyarrow as pa

        deadline = time.monotonic() + self.timeout_s
        streamed = self.connection.execution_options(stream_results=True, yield_per=BATCH_ROWS)
        columns: list[ColumnValues] = []
        for statement in statements:
            with streamed.execute(statement) as result:
                columns = columns or self._columns(list(result.keys()))
                for batch in result.partitions():
                    for column, values in zip(columns, zip(*batch, strict=True), strict=True):
                        column.add(values)
                    if time.monotonic() > deadline:
                        raise SourceUnavailable(f"{self.where}: reading took longer than timeout_s.")
        return pa.table({column.name: column.whole() for column in columns})

    def _columns(self, names: Sequence[str]) -> list[ColumnValues]:
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise DataError(
                f"{self.where} has columns twice: {', '.join(map(repr, repeated))}. Name each by itself."
            )
        return [ColumnValues(name) for name in names]


def _portions(keys: Sequence[str]) -> Iterator[Sequence[Span]]:
    found = spans(keys)
    for start in range(0, len(found), SPANS_AT_ONCE):
        yield found[start : start + SPANS_AT_ONCE]


def _state(count: int, newest: Any) -> str:
    return f"{count} rows, changed {newest.isoformat() if hasattr(newest, 'isoformat') else newest}"


def _secrets_of(url: sa.URL) -> set[str]:
    """What must not be told of an address, written as it is and as it stands in the address."""
    from urllib.parse import quote, quote_plus

    values = [str(url.password or "")]
    for name, value in url.query.items():
        if any(part in name.lower() for part in ("pass", "pwd", "secret", "token", "key")):
            values += [value] if isinstance(value, str) else list(value)
    return {form for value in values if value for form in (value, quote(value, safe=""), quote_plus(value))}


def _engine(url: sa.URL, timeout_s: float) -> sa.Engine:
    """Connections that only read, and whose statements end in time; of each kind of database as it can."""
    milliseconds = max(1, round(timeout_s * 1000))
    if url.get_backend_name() != "postgresql":
        engine = sa.create_engine(url, poolclass=sa.NullPool)
        if url.get_backend_name() == "sqlite":
            sa.event.listen(engine, "connect", _sqlite_session(timeout_s))
        return engine
    engine = sa.create_engine(
        url,
        poolclass=sa.NullPool,
        isolation_level="REPEATABLE READ",
        connect_args={
            "connect_timeout": CONNECT_TIMEOUT_S,
            "application_name": "mlops-assets",
            # A server that is gone without a word is noticed within a minute.
            "keepalives_idle": 20,
            "keepalives_interval": 10,
            "keepalives_count": 3,
        },
    ).execution_options(postgresql_readonly=True)

    def connected(connection: Any, _: object) -> None:
        if engine.dialect.driver == "psycopg":
            from psycopg.types.string import TextLoader

            # As they are written: parsed, numbers of JSON would lose digits.
            for kind in ("json", "jsonb", "uuid"):
                connection.adapters.register_loader(kind, TextLoader)
        with connection.cursor() as cursor:
            cursor.execute(f"SET statement_timeout = {milliseconds}")
            cursor.execute("SET TIME ZONE 'UTC'")
        connection.commit()

    sa.event.listen(engine, "connect", connected)
    return engine


def _sqlite_session(timeout_s: float) -> Callable[[Any, object], None]:
    def connected(connection: Any, _: object) -> None:
        deadline = time.monotonic() + timeout_s
        connection.execute("PRAGMA query_only = ON")
        connection.set_progress_handler(lambda: time.monotonic() > deadline, 10_000)

    return connected
