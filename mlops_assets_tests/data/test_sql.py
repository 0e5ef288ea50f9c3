"""SQL sources on SQLite and on a real PostgreSQL: all promises of a source, and each fault by its name."""

import datetime as dt
import itertools
import logging
import sqlite3
import sys
import traceback
from urllib.parse import quote

import dagster as dg
import psycopg
import pytest
from psycopg import sql
from pydantic import ValidationError

from mlops_assets.asset_keys import asset_key
from mlops_assets.assets.dataset import dataset_asset, quarantine_asset
from mlops_assets.data.loading import Source
from mlops_assets.data.schema import conform
from mlops_assets.data.sources import Asked
from mlops_assets.data.sources.sql import SqlSource
from mlops_assets.documents.dataset import DatasetDeclaration
from mlops_assets.errors import DataError, SourceUnavailable
from mlops_assets.testing.conformance.pushed_down import LAKE, ROWS, PushedDownConformance, RowStore, day
from mlops_assets.testing.ports import unused_ports

VARIABLE = "SHOP_DATABASE_URL"
PASSWORD = "p@ss/w:rd%41"
NUMBERS = itertools.count(1)
CHANGED = itertools.count(1)
REFUSED = object()


def moment():
    """Later than the one before."""
    return dt.datetime(2024, 6, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=next(CHANGED))


class SqliteStore(RowStore):
    def __init__(self, folder, monkeypatch):
        # Parts of such an address that SQLite does not know are nothing to it.
        self.secret = "in-secret"
        self.file = folder / "shop.db"
        monkeypatch.setenv(VARIABLE, f"sqlite:///file:{self.file}?mode=ro&uri=true&token={self.secret}")
        self.run("CREATE TABLE sales (id INTEGER, name TEXT, sold TEXT, changed TEXT)")

    def run(self, statement, rows=((),)):
        with sqlite3.connect(self.file) as connection:
            connection.executemany(statement, rows)
        connection.close()

    def declared(self, **fields):
        return SqlSource.model_validate(
            {
                "format": "sql",
                "connection_variable": VARIABLE,
                "table": "sales",
                "day_column": "sold",
                "changed_at": "changed",
                **fields,
            }
        )

    def put(self, rows):
        self.run(
            "INSERT INTO sales VALUES (?, ?, ?, ?)",
            [(one, name, f"{key}T12:00:00", str(moment())) for one, name, key in rows],
        )

    def remove(self, *ids):
        self.run("DELETE FROM sales WHERE id = ?", [(one,) for one in ids])

    def rename(self, id_, name):
        self.run("UPDATE sales SET name = ?, changed = ? WHERE id = ?", [(name, str(moment()), id_)])

    def hold(self, kind, values):
        self.run(f'CREATE TABLE held ("{kind}")')
        stored = [
            value if value is None or isinstance(value, (int, float, str)) else value.isoformat()
            for value in values
        ]
        self.run("INSERT INTO held VALUES (?)", [(value,) for value in stored])
        return self.declared(table="held", day_column=None, changed_at=None)

    def end(self):
        self.file.unlink()


TYPES = {
    "string": "text",
    "integer": "bigint",
    "number": "float8",
    "boolean": "boolean",
    "timestamp": "timestamptz",
    "date": "date",
}


class PostgresStore(RowStore):
    """A table of a role that may read nothing else, and has a password full of signs."""

    sold = "timestamptz"

    def __init__(self, server, monkeypatch):
        self.secret, self.server, self.monkeypatch = PASSWORD, server, monkeypatch
        self.name = f"shop{next(NUMBERS)}"
        server.run(
            f"CREATE SCHEMA {self.name}",
            f"CREATE ROLE {self.name} LOGIN PASSWORD '{PASSWORD}'",
            f"ALTER ROLE {self.name} SET search_path TO {self.name}",
            f"GRANT USAGE ON SCHEMA {self.name} TO {self.name}",
        )
        self.run(
            f"CREATE TABLE sales (id bigint, name text, sold {self.sold}, changed timestamptz)",
            f"GRANT SELECT ON sales TO {self.name}",
        )
        monkeypatch.setenv(VARIABLE, self.url())

    def url(self, **changed):
        given = {"user": self.name, "password": quote(PASSWORD, safe=""), **changed}
        return self.server.url(**given).replace("+psycopg", "")

    def run(self, *statements):
        self.server.run(f"SET search_path TO {self.name}", *statements)

    def execute(self, statement, rows):
        with psycopg.connect(self.server.url().replace("+psycopg", "")) as connection:
            connection.execute(f"SET search_path TO {self.name}".encode())
            with connection.cursor() as cursor:
                cursor.executemany(statement, rows)

    def declared(self, **fields):
        return SqliteStore.declared(self, **fields)

    def put(self, rows):
        self.execute(
            "INSERT INTO sales VALUES (%s, %s, %s, %s)",
            [(one, name, f"{key} 12:00:00+00", moment()) for one, name, key in rows],
        )

    def remove(self, *ids):
        self.execute("DELETE FROM sales WHERE id = %s", [(one,) for one in ids])

    def rename(self, id_, name):
        self.execute("UPDATE sales SET name = %s, changed = %s WHERE id = %s", [(name, moment(), id_)])

    def hold(self, kind, values):
        column = sql.Identifier(kind)
        self.run(f'CREATE TABLE held ("{kind}" {TYPES[kind]})', f"GRANT SELECT ON held TO {self.name}")
        statement = sql.SQL("INSERT INTO held ({}) VALUES (%s)").format(column)
        self.execute(statement, [(value,) for value in values])
        return self.declared(table="held", day_column=None, changed_at=None)

    def end(self):
        (port,) = unused_ports(1)
        self.monkeypatch.setenv(VARIABLE, self.url().replace(str(self.server.port), str(port)))


class TestSqlite(PushedDownConformance):
    @pytest.fixture
    def store(self, tmp_path, monkeypatch):
        return SqliteStore(tmp_path, monkeypatch)


class TestPostgres(PushedDownConformance):
    @pytest.fixture
    def store(self, postgres, monkeypatch):
        return PostgresStore(postgres, monkeypatch)


@pytest.fixture
def shop(postgres, monkeypatch):
    """A database with rows on three days."""
    store = PostgresStore(postgres, monkeypatch)
    store.put([(number, f"n{number}", day(number // 2)) for number in range(6)])
    return store


# -- days ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("held", ["date", "timestamp", "timestamptz", "text"])
def test_a_column_of_days_may_hold(postgres, monkeypatch, held):
    monkeypatch.setattr(PostgresStore, "sold", held)
    store = PostgresStore(postgres, monkeypatch)
    days = ["2024-02-28", "2024-02-29", "2024-03-01", "2024-03-02"]
    if held == "text":
        store.execute("INSERT INTO sales VALUES (%s, '', %s, now())", list(enumerate(days)))
    else:
        store.put([(number, "", key) for number, key in enumerate(days)])
    table = store.read(*days[1:3])
    assert table.sort_by("id").select(["id", "day"]).to_pydict() == {"id": [1, 2], "day": days[1:3]}
    assert sorted(store.states()) == days and sorted(store.states(*days[:2])) == days[:2]


BERLIN = {
    "2024-03-30": ["2024-03-29T23:00Z", "2024-03-30T22:59:59.999999Z"],
    "2024-03-31": ["2024-03-30T23:00Z", "2024-03-31T21:59:59.999999Z"],
    "2024-04-01": ["2024-03-31T22:00Z", "2024-04-01T21:59:59.999999Z"],
}
"""First and last instant of days around the change to summer time, whose day has 23 hours."""


@pytest.mark.parametrize("held", ["timestamp", "timestamptz"])
def test_a_day_of_a_time_zone_begins_at_its_midnight(postgres, monkeypatch, held):
    monkeypatch.setattr(PostgresStore, "sold", held)
    store = PostgresStore(postgres, monkeypatch)
    rows = [(0, "", at, moment()) for instants in BERLIN.values() for at in instants]
    store.execute("INSERT INTO sales VALUES (%s, %s, %s::timestamptz AT TIME ZONE 'UTC', %s)"
                  if held == "timestamp" else "INSERT INTO sales VALUES (%s, %s, %s, %s)", rows)  # fmt: skip
    reader = store.reader(time_zone="Europe/Berlin")
    for key, instants in BERLIN.items():
        found = reader.read(Asked({"sold": "timestamp"}, False, "day", [key]), LAKE)
        assert found.column("day").to_pylist() == [key, key]
        at = [value.replace(tzinfo=dt.UTC) for value in found.column("sold").to_pylist()]
        assert sorted(at) == [dt.datetime.fromisoformat(text) for text in instants]
    states = reader.states(Asked(ROWS, False, "day"), LAKE)
    assert {key: text[:6] for key, text in states.items()} == dict.fromkeys(BERLIN, "2 rows")


def test_rows_without_a_day_belong_to_no_day(shop):
    shop.execute("INSERT INTO sales VALUES (%s, 'x', NULL, now())", [(77,)])
    assert 77 not in shop.read(*map(day, range(5)))["id"].to_pylist() and len(shop.states()) == 3


def test_the_partition_column_may_be_the_column_of_days_itself(shop):
    reader = shop.reader(day_column=None, query="SELECT id, sold::date AS day FROM sales", table=None)
    for infer in (False, True):
        table = reader.read(Asked({"id": "integer", "day": "string"}, infer, "day", [day(1)]), LAKE)
        assert table.to_pydict() == {"id": [2, 3], "day": [day(1)] * 2}


def test_a_transform_is_not_robbed_of_a_column(shop):
    reader = shop.reader(query="SELECT id, sold, 'monday' AS day FROM sales", table=None)
    with pytest.raises(
        DataError, match="has a column 'day', which the partition column made of 'sold' would"
    ):
        reader.read(Asked({}, True, "day", [day(1)]), LAKE)


def test_numbers_are_no_days(tmp_path, monkeypatch):
    store = SqliteStore(tmp_path, monkeypatch)
    store.run("INSERT INTO sales VALUES (1, 'x', 1706745600, '')")
    store.run("CREATE VIEW numbers AS SELECT id, name, CAST(sold AS INTEGER) AS sold FROM sales")
    with pytest.raises(DataError, match="column 'sold' holds int, like '1706745600', which says no day"):
        store.reader(table="numbers").read(Asked(ROWS, False, "day", [day(1)]), LAKE)


def test_text_has_no_days_of_a_zone(tmp_path, monkeypatch):
    store = SqliteStore(tmp_path, monkeypatch)
    store.put([(1, "x", day(1))])
    with pytest.raises(DataError, match="holds text, like '2024-01-02T12:00:00', whose days are written out"):
        store.reader(time_zone="Asia/Tokyo").read(Asked(ROWS, False, "day", [day(1)]), LAKE)


# -- statements ------------------------------------------------------------------------------------------


def test_a_range_is_one_statement_with_bound_values(shop, caplog):
    caplog.set_level(logging.INFO, logger="sqlalchemy.engine")
    shop.read(*map(day, range(3)))
    said = [record.getMessage() for record in caplog.records if "FROM sales" in record.getMessage()]
    selects = [text for text in said if "mlops_day" in text]
    assert len(selects) == 1 and "2024-01-01" not in selects[0]
    assert PASSWORD not in caplog.text


def test_a_query_is_taken_as_it_stands(shop):
    query = "SELECT id, name, sold FROM sales WHERE '10:30' LIKE '%:30' AND sold::date >= '2024-01-02' ; "
    reader = shop.reader(query=query, table=None)
    table = reader.read(Asked(ROWS, False, "day", [day(number) for number in range(3)]), LAKE)
    assert sorted(table["id"].to_pylist()) == [2, 3, 4, 5]


def test_a_table_of_a_schema_with_a_name_like_a_word_of_sql(shop):
    shop.run(
        "CREATE SCHEMA east",
        'CREATE TABLE east."order" AS SELECT id AS "Id", sold FROM sales',
        f'GRANT USAGE ON SCHEMA east TO {shop.name}; GRANT SELECT ON east."order" TO {shop.name}',
    )
    reader = shop.reader(table="east.order")
    table = reader.read(Asked({"Id": "integer", "day": "string"}, False, "day", [day(2)]), LAKE)
    assert sorted(table["Id"].to_pylist()) == [4, 5]


def test_a_column_that_comes_twice_is_an_error(shop):
    reader = shop.reader(query="SELECT a.id, b.id, a.sold FROM sales a JOIN sales b USING (sold)", table=None)
    with pytest.raises(DataError, match="has columns twice: 'id'"):
        reader.read(Asked({}, True, "day", [day(1)]), LAKE)


def test_a_column_of_many_batches_is_one(postgres, monkeypatch):
    store = PostgresStore(postgres, monkeypatch)
    store.run(
        "INSERT INTO sales SELECT i, CASE WHEN i > 45000 THEN 'x' END, timestamptz '2024-01-01 12:00+00', "
        "now() FROM generate_series(1, 50000) i"
    )
    table = store.read(day(0))
    assert table.num_rows == 50_000 and table["name"].null_count == 45_000
    assert str(table.schema.field("name").type) == "string"


POSTGRES_VALUES = [
    ("12345678901234567890.123456789::numeric(40, 9)", "number", REFUSED),
    ("0.1::numeric", "number", 0.1),
    ("'NaN'::numeric", "number", None),
    ("42::numeric(38, 0)", "integer", 42),
    ("'0f8fad5b-d9cb-469f-a165-70867728950e'::uuid", "string", "0f8fad5b-d9cb-469f-a165-70867728950e"),
    ("'{\"a\":  1.10}'::json", "string", '{"a":  1.10}'),
    ("'{\"a\":  1.10}'::jsonb", "string", '{"a": 1.10}'),
    ("'x'::char(3)", "string", "x  "),
    ("7::smallint", "integer", 7),
    ("7::oid", "integer", 7),
    ("true", "boolean", True),
    ("1", "boolean", True),
    ("1", "string", REFUSED),
    ("'2024-03-31 02:30:00+02'::timestamptz", "timestamp", dt.datetime(2024, 3, 31, 0, 30, tzinfo=dt.UTC)),
    ("'2024-03-31 02:30:00'::timestamp", "timestamp", dt.datetime(2024, 3, 31, 2, 30, tzinfo=dt.UTC)),
    ("ARRAY[1, 2]", "string", REFUSED),
    ("'1 day'::interval", "number", REFUSED),
    ("'1 day'::interval", "string", REFUSED),
    ("'\\x00ff'::bytea", "string", REFUSED),
    ("'10:00'::time", "string", REFUSED),
]


def test_a_value_of_postgres_is_kept_or_refused(shop):
    columns = {f"c{number}": kind for number, (_, kind, _) in enumerate(POSTGRES_VALUES)}
    values = ", ".join(f"{value} AS c{number}" for number, (value, *_) in enumerate(POSTGRES_VALUES))
    reader = shop.reader(query=f"SELECT {values}", table=None, day_column=None)
    conformed = conform(reader.read(Asked(columns), LAKE), columns)
    for name, (value, _, expected) in zip(columns, POSTGRES_VALUES, strict=True):
        assert (name in conformed.misfits) == (expected is REFUSED), value
        found = conformed.frame[name].iloc[0]
        assert expected is REFUSED or found == expected or (expected is None and found != found), value
    assert conformed.misfits["c0"].example == "12345678901234567890.123456789"


@pytest.mark.parametrize("value", ["'10.0.0.1'::inet", "int4range(1, 5)"])
def test_a_value_that_arrow_has_no_type_for_is_refused_with_its_column(shop, value):
    reader = shop.reader(query=f"SELECT {value} AS x", table=None, day_column=None)
    with pytest.raises(DataError, match=r"Column 'x' holds values of type .* Cast it at the source"):
        reader.read(Asked({"x": "string"}), LAKE)


# -- a dataset -------------------------------------------------------------------------------------------


def run(source, lake, instance, *, days=None, columns=None):
    """A run of the dataset over the days."""
    document = {"name": "shop", "source": source, "columns": columns or ROWS}
    if days is not None:
        document["partitions"] = {"start": "2024-01-01", "end": "2024-02-01", "column": "day"}
    declared = DatasetDeclaration.model_validate(document)
    made = Source(source.reader(None), probed=source.probed)
    defs = dg.Definitions(
        assets=[dataset_asset("shop", declared, made), quarantine_asset("shop", declared)],
        resources={"lake": lake},
    )
    job = defs.resolve_implicit_global_asset_job_def().get_subset(
        asset_selection={asset_key("dataset", "shop")}
    )
    tags = {}
    if days is not None:
        names = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
        tags = dict(zip(names, (days[0], days[-1]), strict=True))
    return job.execute_in_process(instance=instance, tags=tags, raise_on_error=False)


def told(result):
    """All that the event log says."""
    return "\n".join(str(event) for event in result.all_events)


def test_a_bad_day_is_left_out_and_the_others_are_written(shop, lake, instance):
    shop.execute("INSERT INTO sales VALUES (%s, NULL, '2024-01-02 10:00+00', now())", [(9,)])
    source = shop.declared(query="SELECT *, CASE id WHEN 9 THEN 'x' ELSE '1' END AS n FROM sales", table=None)
    result = run(source, lake, instance, days=[day(0), day(1), day(2)], columns={**ROWS, "n": "integer"})
    assert not result.success
    assert sorted(lake.read("datasets/shop")["id"]) == [0, 1, 4, 5]
    states = {
        record.asset_materialization.partition: record.asset_materialization.metadata["source_state"].value
        for record in instance.fetch_materializations(asset_key("dataset", "shop"), limit=2).records
    }
    assert states == {key: text for key, text in shop.states().items() if key != day(1)}
    (record,) = instance.fetch_observations(asset_key("dataset", "shop"), limit=9).records
    bad = record.event_log_entry.asset_observation
    assert (bad.partition, bad.metadata["source_state"].value) == (day(1), shop.states()[day(1)])


# -- faults ----------------------------------------------------------------------------------------------


def unset(shop, monkeypatch):
    monkeypatch.delenv(VARIABLE)
    return {}


def no_address(shop, monkeypatch):
    monkeypatch.setenv(VARIABLE, f"postgresql://{shop.name}:{PASSWORD}@127.0.0.1/shop")
    return {}


def no_dialect(shop, monkeypatch):
    monkeypatch.setenv(VARIABLE, shop.url().replace("postgresql", "postgres"))
    return {}


def no_driver(shop, monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    return {}


def other_driver(shop, monkeypatch):
    monkeypatch.setenv(VARIABLE, f"mysql+pymysql://shop:{quote(PASSWORD, safe='')}@127.0.0.1/shop")
    return {}


def unreachable(shop, monkeypatch):
    shop.end()
    return {}


def no_host(shop, monkeypatch):
    monkeypatch.setenv(VARIABLE, shop.url().replace("127.0.0.1", "no-such-host.invalid"))
    return {}


def wrong_password(shop, monkeypatch):
    shop.run(f"ALTER ROLE {shop.name} PASSWORD 'another'")
    return {}


def no_database(shop, monkeypatch):
    monkeypatch.setenv(VARIABLE, shop.url(database="nowhere"))
    return {}


def not_permitted(shop, monkeypatch):
    shop.run(f"REVOKE SELECT ON sales FROM {shop.name}")
    return {}


def table_gone(shop, monkeypatch):
    shop.run("DROP TABLE sales")
    return {}


def schema_gone(shop, monkeypatch):
    return {"table": "west.sales"}


def column_gone(shop, monkeypatch):
    shop.run("ALTER TABLE sales DROP COLUMN name")
    return {}


def too_long(shop, monkeypatch):
    return {"query": "SELECT sales.* FROM sales, pg_sleep(20)", "table": None, "timeout_s": 0.2}


def no_statement(shop, monkeypatch):
    return {"query": f"SELECT id FORM sales -- {PASSWORD}", "table": None}


def lost_midway(shop, monkeypatch):
    shop.run(
        "INSERT INTO sales SELECT 9, 'x', timestamptz '2024-01-01 12:00+00', now() "
        "FROM generate_series(1, 45000)",
        "INSERT INTO sales VALUES (-1, 'x', timestamptz '2024-01-01 12:00+00', now())",
    )
    ending = "CASE id WHEN -1 THEN pg_terminate_backend(pg_backend_pid())::text ELSE name END"
    return {"query": f"SELECT id, sold, {ending} AS name FROM sales", "table": None}


def writing(shop, monkeypatch):
    return {"query": "SELECT id, name, sold, lo_create(1) FROM sales", "table": None}


def division(shop, monkeypatch):
    return {
        "query": "SELECT id, name, sold + (interval '1 day' / (id - id)) AS sold FROM sales",
        "table": None,
    }


FAULTS = [
    (unset, "the environment variable SHOP_DATABASE_URL is not set where this runs", SourceUnavailable),
    (no_address, "what SHOP_DATABASE_URL holds is no address of a database", SourceUnavailable),
    (no_dialect, "what SHOP_DATABASE_URL holds is no address of a database", SourceUnavailable),
    (no_driver, r"'psycopg'.* is not installed. .*pip install 'mlops-assets\[sql\]'", SourceUnavailable),
    (
        other_driver,
        "'pymysql'.* is not installed. Install the package that brings pymysql",
        SourceUnavailable,
    ),
    (unreachable, "the server cannot be reached. Start it, or mend the address", SourceUnavailable),
    (no_host, "the server cannot be reached. Start it, or mend the address", SourceUnavailable),
    (wrong_password, "it does not let this user in: wrong user or password", SourceUnavailable),
    (no_database, "there is no such database", SourceUnavailable),
    (not_permitted, "permission denied: the user may not read this. Grant SELECT", SourceUnavailable),
    (table_gone, "there is no such table", DataError),
    (schema_gone, "there is no such table|permission denied", DataError),
    (column_gone, 'a column is not there.*"name" does not exist', DataError),
    (too_long, "the statement took longer than timeout_s", SourceUnavailable),
    (no_statement, "the statement is not understood", DataError),
    (lost_midway, "the connection was lost midway", SourceUnavailable),
    (writing, "the statement writes; a source is only read", DataError),
    (division, "it cannot be read. .*division by zero", DataError),
]


def forms(password=PASSWORD):
    return [password, quote(password, safe="")]


@pytest.mark.parametrize(("fault", "said", "kind"), FAULTS, ids=[fault.__name__ for fault, *_ in FAULTS])
def test_a_fault_is_named_and_no_secret_with_it(shop, monkeypatch, lake, instance, caplog, fault, said, kind):
    source = shop.declared(**{"changed_at": None, **fault(shop, monkeypatch)})
    with pytest.raises(DataError, match=said) as caught:
        source.reader(None).read(Asked(ROWS, False, "day", [day(0), day(1)]), LAKE)
    assert type(caught.value) is kind
    assert caught.value.__cause__ is None and caught.value.__context__ is None
    if fault is no_statement:  # a secret that somebody wrote into the YAML is in the document anyway
        return
    result = run(source, lake, instance, days=[day(0), day(1)])
    assert not result.success
    logged = [str(entry) for entry in instance.all_logs(result.run_id)]
    shown = [*traceback.format_exception(caught.value), told(result), *logged, caplog.text, repr(source)]
    assert not [form for form in forms() for text in shown if form in text]
    assert any(VARIABLE in text for text in logged)


SQLITE_FAULTS = [
    ({"table": "nowhere"}, "there is no such table", DataError),
    ({"query": "SELECT id, sold FROM sales", "table": None}, "a column is not there.*name", DataError),
    ({"query": "SELECT id FORM sales", "table": None}, "the statement is not understood", DataError),
    (
        {
            "query": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
            "SELECT i AS id, '' AS name, '2024-01-02' AS sold FROM n WHERE i < 0",
            "table": None,
            "timeout_s": 0.2,
        },
        "the statement took longer than timeout_s",
        SourceUnavailable,
    ),
]


@pytest.mark.parametrize(("fields", "said", "kind"), SQLITE_FAULTS)
def test_a_fault_of_sqlite_is_named(tmp_path, monkeypatch, fields, said, kind):
    store = SqliteStore(tmp_path, monkeypatch)
    store.put([(1, "x", day(1))])
    with pytest.raises(DataError, match=said) as caught:
        store.reader(**fields).read(Asked(ROWS, False, "day", [day(1)]), LAKE)
    assert type(caught.value) is kind


def test_a_file_that_is_not_there_is_not_made(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, f"sqlite:///{tmp_path}/nowhere.db")
    source = SqlSource(format="sql", connection_variable=VARIABLE, table="sales")
    with pytest.raises(SourceUnavailable, match=r"there is no file .*nowhere\.db"):
        source.reader(tmp_path).read(Asked({"id": "integer"}), LAKE)
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_database_is_said(tmp_path, monkeypatch):
    store = SqliteStore(tmp_path, monkeypatch)
    store.file.write_bytes(b"no database" * 1000)
    with pytest.raises(DataError, match="file is not a database"):
        store.read(day(1))


# -- what YAML may say -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"query": "SELECT 1"}, "declare either table or query"),
        ({"table": None}, "declare either table or query"),
        ({"time_zone": "Mars/Base"}, "'Mars/Base' is no time zone"),
        ({"timeout_s": 0}, "greater than 0"),
        ({"connection_variable": "postgresql://a:hidden-word@b/c"}, "no name of an environment variable"),
    ],
)
def test_a_mistake_in_the_document_is_named_and_what_was_written_for_the_variable_is_not_repeated(
    fields, said
):
    right = {"format": "sql", "connection_variable": VARIABLE, "table": "sales"}
    with pytest.raises(ValidationError, match=said) as caught:
        SqlSource.model_validate({**right, **fields})
    assert "hidden-word" not in str(caught.value)


def test_a_column_of_days_needs_days():
    right = {"format": "sql", "connection_variable": VARIABLE, "table": "sales", "day_column": "sold"}
    with pytest.raises(ValidationError, match="day_column needs partitions"):
        DatasetDeclaration.model_validate({"name": "shop", "source": right, "columns": {"id": "integer"}})
