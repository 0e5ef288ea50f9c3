"""The lake: one Delta Lake table per asset, on a local path or in S3.

Belongs here: every read and write of a table, storage credentials, where packages lie. Does not belong
here: what is valid (``data/``), content versions (``data/content.py``), events (``components/``).

Assets call ``Lake`` in their bodies; there is no IO manager beside it. An IO manager is handed one output
per step and may fail or store it whole, while a range of days must keep the good days, leave the bad
ones as they were, and report a version per day. So this class is the one way in and out of a table.

Guarantees: a write is one atomic commit that replaces exactly the partitions it names, or the whole
table; concurrent writers of different partitions both succeed; earlier versions stay readable. The types of
the rows are the types of the table: nothing is cast on the way, and a table whose columns would change their
type is written only as a whole. Needs a store with conditional writes (AWS S3 and SeaweedFS have them),
without which Delta loses commits.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from mlops_assets.asset_names import asset_name, asset_of_table, read_asset_name
from mlops_assets.data.file_stores import CONNECTIONS
from mlops_assets.data.locations import S3, s3_filesystem
from mlops_assets.data.schema import frame_of, type_name
from mlops_assets.errors import DataError
from mlops_assets.resources import s3_session

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from dagster_aws.s3 import S3Resource
    from deltalake import DeltaTable


GROUP_ROWS = 65_536
"""Rows of a group in a file: each is in memory as a whole when it is written, and when it is read."""
BATCH_ROWS = 16_384
"""Rows that are handed on together; of a wide table about 10 MB."""


@dataclass(frozen=True)
class TableWrite:
    """What one commit did: Delta version, rows it wrote, and where the table is."""

    version: int
    rows: int
    uri: str


@dataclass(frozen=True)
class RowBatches:
    """Rows that are not in memory at once: ``make`` gives them from the first on, each time it is called."""

    schema: "pa.Schema"
    make: "Callable[[], Iterable[pa.RecordBatch]]"


class S3Config(dg.Config):
    """The fields of ``dagster_aws.s3.S3Resource``, by the same names and with the same meaning.

    They are repeated because importing dagster-aws takes 2.6 s, which only a run on S3 should pay; a test
    compares the two. Without credentials here, boto's usual chain (environment, profile, role) is asked.
    """

    endpoint_url: str | None = Field(
        default=None, description="Endpoint of an S3-compatible store; unset: AWS."
    )
    region_name: str | None = Field(default=None, description="Region of the store.")
    profile_name: str | None = Field(default=None, description="Profile that holds the credentials.")
    aws_access_key_id: str | None = Field(default=None, description="Access key; better left to the chain.")
    aws_secret_access_key: str | None = Field(
        default=None, description="Secret key; better left to the chain."
    )
    aws_session_token: str | None = Field(default=None, description="Token of temporary credentials.")
    use_unsigned_session: bool = Field(default=False, description="Read a public bucket without credentials.")

    def resource(self) -> "S3Resource":
        """The dagster-aws resource with this configuration; its ``get_client()`` is a boto3 client."""
        from dagster_aws.s3 import S3Resource

        return S3Resource(**self.model_dump())


class Lake(dg.ConfigurableResource):  # type: ignore[type-arg]  # generic over the value it yields: itself
    """Delta tables by kind and name (``datasets/flights``) under one root."""

    uri: str = Field(description="Root of all tables: a local path or s3://bucket/prefix.")
    s3: S3Config = Field(
        default_factory=S3Config, description="The store, when the root is s3://. Not used otherwise."
    )

    def table_uri(self, table: str) -> str:
        """Where the table is, absolute."""
        return self._under(table)

    def package_uri(self, *parts: str) -> str:
        """Where a model package is: ``packages/<parts>`` under the same root."""
        return self._under("packages", *parts)

    def write(
        self,
        table: str,
        rows: "pa.Table | RowBatches",
        *,
        partition_column: str | None,
        partitions: Sequence[str] | None,
        commit: Mapping[str, str],
    ) -> TableWrite:
        """Replaces exactly ``partitions`` with ``rows``, or the whole table if None.

        Rows in batches are written as they come: few of them are in memory at once.

        A named partition without rows becomes empty. ``commit`` goes into the table's history. A column that
        the table has and ``rows`` have not is missing in the written partitions, and a new one in the others.
        Raises DataError when a row belongs to no named partition, and when a column has another type than in
        the table while partitions of the old type would remain.
        """
        counted = _Counted(table, rows, partition_column, partitions)
        existing, how = self._planned(table, rows.schema, partition_column, partitions)
        how["partition_by"] = [] if partition_column is None else [partition_column]
        uri = self._under(table)
        if existing is None:
            try:
                _make_folder(uri)
                self._commit(table, uri, counted, commit, mode="error", **how)
            except DataError:
                # Another run may have made the table meanwhile: then only these partitions are replaced.
                existing, how = self._planned(table, rows.schema, partition_column, partitions)
                if existing is None:
                    raise
            else:
                return TableWrite(version=0, rows=counted.rows, uri=uri)
        self._commit(table, existing, counted, commit, mode="overwrite", **how)
        # An open table knows its own commit's version, whatever others write meanwhile.
        return TableWrite(version=int(existing.version()), rows=counted.rows, uri=uri)

    def require_writable(
        self,
        table: str,
        schema: "pa.Schema",
        *,
        partition_column: str | None,
        partitions: Sequence[str] | None,
    ) -> None:
        """DataError when ``write`` would refuse rows of ``schema`` for what the table holds now."""
        self._planned(table, schema, partition_column, partitions)

    def _planned(
        self,
        table: str,
        schema: "pa.Schema",
        partition_column: str | None,
        partitions: Sequence[str] | None,
    ) -> "tuple[DeltaTable | None, dict[str, Any]]":
        """The table, and how such rows replace what it holds."""
        if partitions is not None and partition_column is None:
            raise ValueError("partitions need a partition_column")
        existing = self._open_or_none(table)
        if existing is None:
            return None, {}
        return existing, _replacement(table, existing, schema, partition_column, partitions)

    def _commit(
        self,
        table: str,
        target: "DeltaTable | str",
        rows: "_Counted",
        commit: Mapping[str, str],
        *,
        whole: bool = False,
        **how: Any,
    ) -> None:
        """One commit. ``whole``: refused when another came in between, which it would not have replaced."""
        from deltalake import CommitProperties, PostCommitHookProperties, WriterProperties, write_deltalake
        from deltalake.exceptions import DeltaError

        try:
            write_deltalake(
                target,
                rows.given(),
                storage_options=self.storage_options() if isinstance(target, str) else None,
                commit_properties=CommitProperties(
                    custom_metadata=dict(commit), max_commit_retries=0 if whole else None
                ),
                writer_properties=WriterProperties(max_row_group_size=GROUP_ROWS),
                # Delta would forget versions after 30 days, and registered models pin theirs.
                post_commithook_properties=PostCommitHookProperties(cleanup_expired_logs=False),
                **how,
            )
        except DeltaError as error:
            uri = self._under(table)
            failed = f"Cannot write {rows.rows} rows to table {table!r} ({uri}): {error}"
            raise rows.refused or DataError(failed) from error

    def read(
        self,
        table: str,
        *,
        partitions: Sequence[str] | None = None,
        partition_column: str | None = None,
        columns: Sequence[str] | None = None,
        version: int | None = None,
    ) -> "pd.DataFrame":
        """Rows of the named partitions (all if None) and columns (all if None), in no particular order.

        ``version`` reads the table as it was then. Integers and booleans with missing values come as
        pandas' nullable types, so that they stay integers and booleans; timestamps are UTC microseconds.
        """
        delta = self._open(table, version)
        if partitions is not None and partition_column is None:
            raise ValueError("partitions need a partition_column")
        known = [field.name for field in delta.schema().fields]
        absent = sorted(set(columns or ()) - set(known))
        if absent:
            raise DataError(f"Table {table!r} has no columns {absent}. It has: {', '.join(known)}.")
        filters = None if partitions is None else [(str(partition_column), "in", list(partitions))]
        if partitions is not None and not partitions:
            return frame_of(_empty(delta, columns))
        return frame_of(delta.to_pyarrow_table(filters=filters, columns=list(columns) if columns else None))

    def batches(
        self,
        table: str,
        *,
        partitions: Sequence[str],
        partition_column: str,
        columns: Sequence[str],
        condition: Any = None,
        version: int | None = None,
    ) -> "Iterator[pa.Table]":
        """The rows that ``read`` gives, a row group of a file at a time: two are in memory at once.

        ``condition`` is an expression of ``pyarrow.compute`` that rows have to meet.
        """
        import pyarrow.compute as pc

        delta = self._open(table, version)
        if not partitions:
            return
        wanted = pc.field(partition_column).isin(list(partitions))
        if condition is not None:
            wanted &= condition
        dataset = delta.to_pyarrow_dataset()
        # Arrow's own scanner reads up to a gigabyte ahead of whoever is slower than it.
        groups = (
            group
            for file in dataset.get_fragments(filter=wanted)
            for group in file.split_by_row_group(wanted, dataset.schema)
        )

        def read(group: Any) -> "pa.Table":
            return group.to_table(schema=dataset.schema, columns=list(columns), filter=wanted)

        with ThreadPoolExecutor(1) as ahead:
            waiting: list[Future[pa.Table]] = []
            for group in groups:
                waiting.append(ahead.submit(read, group))
                if len(waiting) > 1:
                    yield waiting.pop(0).result()
            for last in waiting:
                yield last.result()

    def rows_of(
        self, table: str, column: str, partitions: Sequence[str], columns: Sequence[str] | None
    ) -> "pa.Table":
        """Rows of these partitions of a table that is partitioned by ``column``, in its own types. Of
        ``columns`` (None: all) those that it has.
        """
        delta = self._open(table)
        held = [field.name for field in delta.schema().fields]
        wanted = held if columns is None else [name for name in columns if name in held]
        if not partitions:
            return _empty(delta, wanted)
        return delta.to_pyarrow_table(filters=[(column, "in", list(partitions))], columns=wanted)

    def row_counts(self, table: str, column: str) -> dict[str, int]:
        """Rows of each partition of a table that is partitioned by ``column``, as its log counts them."""
        import pyarrow as pa

        files = pa.table(self._open(table).get_add_actions(flatten=True))
        keys, counts = (files.column(name).to_pylist() for name in (f"partition.{column}", "num_records"))
        found: dict[str, int] = {}
        for key, rows in zip(keys, counts, strict=True):
            if key is not None:
                found[key] = found.get(key, 0) + rows
        return found

    def write_text(self, uri: str, text: str) -> None:
        """Puts a whole UTF-8 file at ``uri``, which lies under this lake (``package_uri``)."""
        path = uri.removeprefix(S3)
        filesystem = self._filesystem()
        filesystem.create_dir(path.rpartition("/")[0], recursive=True)
        with filesystem.open_output_stream(path) as stream:
            stream.write(text.encode())

    def read_text(self, uri: str) -> str | None:
        """The UTF-8 file at ``uri``, or None when there is none."""
        from pyarrow import fs

        path = uri.removeprefix(S3)
        filesystem = self._filesystem()
        if filesystem.get_file_info(path).type != fs.FileType.File:
            return None
        with filesystem.open_input_file(path) as stream:
            return str(stream.read(), "utf-8")

    def columns(self, table: str, *, version: int | None = None) -> "pa.Schema":
        """The columns of the table with their types, now or at ``version``."""
        import pyarrow as pa

        return pa.schema(self._open(table, version).schema()).remove_metadata()

    def partition_keys(self, table: str, *, version: int | None = None) -> list[str]:
        """The keys of the partitions that hold rows, sorted; none for a table without partitions."""
        delta = self._open(table, version)
        columns = list(delta.metadata().partition_columns)
        return sorted({str(one[columns[0]]) for one in delta.partitions()}) if columns else []

    def version(self, table: str) -> int:
        """Delta version of the table now."""
        return int(self._open(table).version())

    def history(self, table: str) -> list[dict[str, Any]]:
        """Commits of the table, newest first, each with what ``write`` was given as ``commit``."""
        return self._open(table).history()

    def exists(self, table: str) -> bool:
        """Whether the table was ever written."""
        return self._open_or_none(table) is not None

    def storage_options(self) -> dict[str, str]:
        """Options for deltalake's object store; empty for a local root. Holds credentials: never log it."""
        if not self.uri.startswith(S3):
            return {}
        import boto3

        region = self.s3.region_name
        key, secret, token = (
            self.s3.aws_access_key_id,
            self.s3.aws_secret_access_key,
            self.s3.aws_session_token,
        )
        if not (key and secret):
            session = boto3.session.Session(profile_name=self.s3.profile_name)
            found = session.get_credentials()
            if found is None and not self.s3.use_unsigned_session:
                raise DataError(
                    f"No credentials for {self.uri} in boto's usual places. Set AWS_ACCESS_KEY_ID and "
                    "AWS_SECRET_ACCESS_KEY, a profile, or a role."
                )
            if found is not None:
                frozen = found.get_frozen_credentials()
                key, secret, token = frozen.access_key, frozen.secret_key, frozen.token
            region = region or session.region_name
        endpoint = self.s3.endpoint_url
        options = {
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_SESSION_TOKEN": token,
            "AWS_REGION": region or "us-east-1",
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ALLOW_HTTP": "true" if (endpoint or "").startswith("http://") else None,
            "AWS_SKIP_SIGNATURE": "true" if self.s3.use_unsigned_session else None,
            "aws_conditional_put": "etag",
        }
        return {name: value for name, value in options.items() if value}

    def public_storage_options(self) -> dict[str, str]:
        """Endpoint and region of the store for ``serve.scoring``, {} for a local root. Holds no secret."""
        if not self.uri.startswith(S3):
            return {}
        options = {"endpoint_url": self.s3.endpoint_url, "region": self.s3.region_name}
        return {name: value for name, value in options.items() if value}

    def s3_client(self) -> Any:
        """A botocore client of the configured store, wherever the root is: for sources in S3.

        Its credentials are found when it first asks, and renewed. Threads may share it.
        """
        from botocore import UNSIGNED
        from botocore.config import Config

        session = s3_session.session(self.s3.profile_name)
        return session.create_client(
            "s3",
            region_name=self.s3.region_name or session.get_config_variable("region") or "us-east-1",
            endpoint_url=self.s3.endpoint_url,
            aws_access_key_id=self.s3.aws_access_key_id,
            aws_secret_access_key=self.s3.aws_secret_access_key,
            aws_session_token=self.s3.aws_session_token,
            config=Config(
                max_pool_connections=CONNECTIONS,
                retries={"mode": "standard", "total_max_attempts": 4},
                signature_version=UNSIGNED if self.s3.use_unsigned_session else None,
            ),
        )

    def _under(self, *parts: str) -> str:
        import os.path

        root = self.uri if self.uri.startswith(S3) else os.path.abspath(self.uri)
        return "/".join([root.rstrip("/"), *parts])

    def _open_or_none(self, table: str, version: int | None = None) -> "DeltaTable | None":
        from deltalake import DeltaTable
        from deltalake.exceptions import TableNotFoundError

        try:
            return DeltaTable(self._under(table), version=version, storage_options=self.storage_options())
        except TableNotFoundError:
            return None

    def _open(self, table: str, version: int | None = None) -> "DeltaTable":
        from deltalake.exceptions import DeltaError

        try:
            found = self._open_or_none(table, version)
        except DeltaError as error:
            raise DataError(f"Cannot read table {table!r} at version {version}: {error}") from error
        if found is None:
            kind, _, _ = table.partition("/")
            known = ", ".join(self._tables(kind)) or "none"
            raise DataError(
                f"There is no table {table!r} under {self.uri}. Tables of kind {kind!r}: {known}. "
                f"Materialize it with: dg launch --assets 'key:\"{_made_with(table)}\"'"
            )
        return found

    def _tables(self, kind: str) -> list[str]:
        from pyarrow import fs

        selector = fs.FileSelector(self._path(kind), allow_not_found=True)
        return sorted(f"{kind}/{found.base_name}" for found in self._filesystem().get_file_info(selector))

    def _path(self, kind: str) -> str:
        return self._under(kind).removeprefix(S3)

    def _filesystem(self) -> Any:
        from pyarrow import fs

        if not self.uri.startswith(S3):
            return fs.LocalFileSystem()
        return s3_filesystem(self.storage_options())


class _Counted:
    """Rows on their way into a table: how many were given, and why they were refused, if they were."""

    def __init__(
        self,
        table: str,
        source: "pa.Table | RowBatches",
        partition_column: str | None,
        partitions: Sequence[str] | None,
    ) -> None:
        self._table, self._source, self._column, self._partitions = (
            table,
            source,
            partition_column,
            partitions,
        )
        self.rows = 0
        self.refused: DataError | None = None
        if not isinstance(source, RowBatches):
            self.rows = len(source)
            self._check(source)

    def given(self) -> "pa.Table | pa.RecordBatchReader":
        """The rows, from the first on."""
        if not isinstance(self._source, RowBatches):
            return self._source
        import pyarrow as pa

        return pa.RecordBatchReader.from_batches(self._source.schema, self._batches(self._source))

    def _batches(self, source: RowBatches) -> "Iterator[pa.RecordBatch]":
        self.rows = 0
        for batch in source.make():
            try:
                self._check(batch)
            except DataError as refused:
                # Delta tells of it in words of its own.
                self.refused = refused
                raise
            self.rows += batch.num_rows
            yield batch

    def _check(self, rows: "pa.Table | pa.RecordBatch") -> None:
        if self._partitions is not None and self._column is not None:
            _only_these(self._table, rows, self._column, self._partitions)


def _make_folder(uri: str) -> None:
    from pathlib import Path

    if not uri.startswith(S3):
        Path(uri).mkdir(parents=True, exist_ok=True)


def _only_these(
    table: str, rows: "pa.Table | pa.RecordBatch", column: str, partitions: Sequence[str]
) -> None:
    import pyarrow.compute as pc

    found = pc.unique(rows.column(column)).to_pylist()
    missing = rows.column(column).null_count
    strangers = sorted({str(key) for key in found if key is not None} - set(partitions))
    if strangers or missing:
        raise DataError(
            f"Cannot write table {table!r}: {missing} rows have no {column}, and rows of partitions outside "
            f"those to be replaced were given: {strangers[:5] or 'none'}."
        )


def _replacement(
    table: str,
    existing: "DeltaTable",
    schema: "pa.Schema",
    partition_column: str | None,
    partitions: Sequence[str] | None,
) -> dict[str, Any]:
    """How rows of ``schema`` replace partitions of the table: some, or all and with them its types."""
    whole = {"schema_mode": "overwrite", "whole": True}
    if partitions is None:
        return whole
    held_by = list(existing.metadata().partition_columns)
    changed = _changed_types(existing, schema)
    if not changed and held_by == [partition_column]:
        return {"predicate": _predicate(str(partition_column), partitions), "schema_mode": "merge"}
    if changed:
        what = "; ".join(
            f"column {name!r} is {old} in the table and {new} as declared" for name, old, new in changed
        )
    else:
        what = (
            f"it is partitioned by {', '.join(held_by) or 'nothing'}, and as declared by {partition_column}"
        )
    held = _held_keys(existing, str(partition_column))
    if held is None:
        raise DataError(
            f"Table {table!r} cannot change for a part of its rows: {what}, which its rows do not have, so "
            f"nobody can say which of them would remain. Delete {existing.table_uri} to begin anew, or give "
            "the dataset another name."
        )
    remaining = sorted(held - set(partitions))
    if not remaining:
        return whole
    span = sorted({*held, *partitions})
    raise DataError(
        f"Table {table!r} cannot change for a part of its partitions: {what}. {len(remaining)} partitions of "
        f"the old form would remain, {remaining[0]} first. Make all of them anew in one run: dg launch "
        f"--assets 'key:\"{_made_with(table)}\"' --partition-range {span[0]}...{span[-1]}"
    )


def _made_with(table: str) -> str:
    """The asset whose run writes the table: a quarantine is written with its dataset."""
    kind, name = read_asset_name(asset_of_table(table))
    return asset_name("dataset" if kind == "quarantine" else kind, name)


def _held_keys(existing: "DeltaTable", column: str) -> set[str] | None:
    """Keys of the partitions that the table holds: by ``column``, or by its own partition column.

    None when it has neither, and rows: nobody can say then of which partitions they are.
    """
    import pyarrow.compute as pc

    held_by = list(existing.metadata().partition_columns)
    if held_by != [column] and column in {field.name for field in existing.schema().fields}:
        return set(map(str, pc.unique(existing.to_pyarrow_table(columns=[column]).column(0)).to_pylist()))
    if held_by:
        return {str(one[held_by[0]]) for one in existing.partitions()}
    return None if existing.to_pyarrow_dataset().count_rows() else set()


def _predicate(column: str, partitions: Sequence[str]) -> str:
    """Delta's SQL for the rows of these partitions; any name is a name when it stands in double quotes."""
    quoted = column.replace('"', '""')
    keys = ", ".join("'" + key.replace("'", "''") + "'" for key in partitions)
    return f'"{quoted}" IN ({keys})'


def _changed_types(existing: "DeltaTable", schema: "pa.Schema") -> list[tuple[str, str, str]]:
    """(column, type in the table, type of the rows) of every column that both have with different types."""
    import pyarrow as pa

    held = {field.name: field.type for field in pa.schema(existing.schema())}
    return [
        (field.name, type_name(held[field.name]), type_name(field.type))
        for field in schema
        if field.name in held and type_name(held[field.name]) != type_name(field.type)
    ]


def _empty(delta: "DeltaTable", columns: Sequence[str] | None) -> "pa.Table":
    import pyarrow as pa

    schema = pa.schema(delta.schema())
    wanted = pa.schema([schema.field(name) for name in columns] if columns else list(schema))
    return wanted.empty_table()
