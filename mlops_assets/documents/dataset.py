"""What the YAML of a dataset may say.

Belongs here: the declaration and its own rules. Does not belong here: what is read (``data/loading.py``), the
assets (``components/dataset.py``), rules over several documents (``contradictions.py``).
"""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from mlops_assets.asset_names import AssetName
from mlops_assets.data.expectation_arguments import typed
from mlops_assets.data.locations import PARTITION
from mlops_assets.data.schema import ColumnType
from mlops_assets.data.sources import CsvFormat, Missing, ParquetFormat, SourceFormat
from mlops_assets.data.sources.csv_format import NULL_VALUES, TEXT_NULL_VALUES
from mlops_assets.data.validation import REASONS, Rules
from mlops_assets.documents._base import Declaration
from mlops_assets.documents.declared_table import DeclaredTable
from mlops_assets.documents.fields import (
    ColumnName,
    DailyPartitions,
    Delimiter,
    Encoding,
    Name,
    RowRule,
    SuiteExpectation,
    require_distinct_names,
)

if TYPE_CHECKING:
    pass


class CsvSource(Declaration):
    """CSV with a header line; ``.zip`` and ``.gz`` are decompressed."""

    format: Literal["csv"]
    path: str = Field(
        description="package://DISTRIBUTION/file, a path relative to this file, an absolute path or s3://; "
        "{partition} in it means one file per partition."
    )
    delimiter: Delimiter = Field(default=",", description="Field separator.")
    encoding: Encoding = Field(default="utf-8", description="Python's name of the file's encoding.")
    null_values: tuple[str, ...] = Field(
        default=NULL_VALUES, description="Unquoted texts that mean missing in numbers, booleans and times."
    )
    text_null_values: tuple[str, ...] = Field(
        default=TEXT_NULL_VALUES, description="Unquoted texts that mean missing in columns of text."
    )
    column_null_values: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="The same for single columns of the file, instead of the above."
    )
    text_columns: tuple[str, ...] = Field(
        default=(),
        description="With a transform: columns of the file that stay text whatever they look like.",
    )
    final_newline: Literal["required", "optional"] = Field(
        default="required", description="A file whose last line has no end was cut off, unless optional."
    )

    def reader(self) -> SourceFormat:
        return CsvFormat(
            delimiter=self.delimiter,
            missing=Missing(self.null_values, self.text_null_values, self.column_null_values),
            final_newline=self.final_newline,
            encoding=self.encoding,
            text_columns=self.text_columns,
        )


class ParquetSource(Declaration):
    """Parquet files."""

    format: Literal["parquet"]
    path: str = Field(description="As for csv.")

    def reader(self) -> SourceFormat:
        return ParquetFormat()


class DatasetDeclaration(Declaration):
    """Attributes of a ``DatasetComponent`` document."""

    name: Name
    description: str = ""
    source: Annotated[CsvSource | ParquetSource, Field(discriminator="format")] = Field(
        description="Where the rows come from."
    )
    partitions: DailyPartitions | None = Field(
        default=None, description="How the table is partitioned; left out: it is replaced as a whole."
    )
    transform: str | None = Field(
        default=None,
        description="Dotted path of a function DataFrame -> DataFrame that makes the declared columns.",
    )
    columns: dict[ColumnName, ColumnType] = Field(
        min_length=1, description="Every column and its type. A missing one fails; others are dropped."
    )
    primary_key: tuple[str, ...] = Field(
        default=(),
        description="Columns that identify a row in its partition; rows with a missing or repeated key go "
        "to quarantine.",
    )
    row_rules: tuple[RowRule, ...] = Field(
        default=(), description="Expectations on single rows; a row that breaks one goes to quarantine."
    )
    max_quarantine_share: float = Field(
        default=0.0, ge=0, le=1, description="Share of a partition's rows that may be in quarantine."
    )
    suite: tuple[SuiteExpectation, ...] = Field(
        default=(), description="Expectations on the kept rows of each partition."
    )

    @model_validator(mode="after")
    def _columns_exist(self) -> "DatasetDeclaration":
        unknown = sorted(set(self.primary_key) - set(self.columns))
        if unknown:
            raise ValueError(
                f"unknown columns in primary_key: {', '.join(unknown)}; declared: {', '.join(self.columns)}"
            )
        require_distinct_names(self.columns, reserved={REASONS: "the quarantine's own column"})
        partitioned = self.partitions is not None
        if self.partitions is not None and self.columns.get(self.partitions.column) != "string":
            raise ValueError(f"the partition column {self.partitions.column!r} must be declared as a string")
        if PARTITION in self.source.path and not partitioned:
            raise ValueError(f"{PARTITION} in the path needs partitions")
        if isinstance(self.source, CsvSource) and self.source.text_columns and self.transform is None:
            raise ValueError("text_columns go with a transform; without one, declare the columns as string")
        if isinstance(self.source, CsvSource) and self.transform is None:
            unknown = sorted(set(self.source.column_null_values) - set(self.columns))
            if unknown:
                raise ValueError(
                    f"unknown columns in column_null_values: {', '.join(unknown)}; declared: "
                    f"{', '.join(self.columns)}"
                )
        return self

    def table(self) -> DeclaredTable:
        """The dataset's table, as declared."""
        return DeclaredTable(AssetName("dataset", self.name), tuple(self.columns), self.partitions)

    def rules(self) -> Rules:
        """The same declaration for ``data/validation.py``."""
        known_empty = self.partitions.known_empty if self.partitions else ()
        return Rules(
            primary_key=self.primary_key,
            row_rules=[typed(rule.expectation(), self.columns) for rule in self.row_rules],
            max_quarantine_share=self.max_quarantine_share,
            suite=[typed(expectation.expectation(), self.columns) for expectation in self.suite],
            known_empty=frozenset(day.isoformat() for day in known_empty),
        )
