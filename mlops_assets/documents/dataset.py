"""What the YAML of a dataset may say.

Belongs here: the declaration and its own rules. Does not belong here: reading (``data/loading.py``), what a
format of sources declares (``data/sources/``), the assets (``components/dataset.py``), rules over several
documents (``contradictions.py``).
"""

from typing import Annotated

from pydantic import Field, InstanceOf, SerializeAsAny, model_validator

from mlops_assets.asset_names import AssetName
from mlops_assets.data.expectation_arguments import typed
from mlops_assets.data.schema import ColumnType
from mlops_assets.data.sources import SOURCES, SourceDeclaration
from mlops_assets.data.validation import REASONS, Rules
from mlops_assets.documents._base import Declaration
from mlops_assets.documents.declared_table import DeclaredTable
from mlops_assets.documents.fields import (
    ColumnName,
    DailyPartitions,
    Name,
    ReadBy,
    RowRule,
    SuiteExpectation,
    require_distinct_names,
)


class DatasetDeclaration(Declaration):
    """Attributes of a ``DatasetComponent`` document."""

    name: Name
    description: str = ""
    source: Annotated[SerializeAsAny[InstanceOf[SourceDeclaration]], ReadBy(SOURCES, "format")] = Field(
        description="Where the rows come from; ``format`` says what else can be declared."
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
        if self.partitions is not None and self.columns.get(self.partitions.column) != "string":
            raise ValueError(
                f"the partition column {self.partitions.column!r} must be declared as a string: its text is "
                f"the partition, 2024-01-31; write `{self.partitions.column}: string` under columns"
            )
        problem = self.source.problem(
            self.columns, transformed=self.transform is not None, partitioned=self.partitions is not None
        )
        if problem:
            raise ValueError(problem)
        return self

    def table(self) -> DeclaredTable:
        """The dataset's table, as declared."""
        return DeclaredTable(AssetName("dataset", self.name), tuple(self.columns), self.partitions)

    def rules(self) -> Rules:
        """The same declaration for ``data/validation.py``."""
        days = self.partitions
        known_empty = days.known_empty if days else ()
        return Rules(
            primary_key=self.primary_key,
            row_rules=[typed(rule.expectation(), self.columns) for rule in self.row_rules],
            max_quarantine_share=self.max_quarantine_share,
            suite=[typed(expectation.expectation(), self.columns) for expectation in self.suite],
            known_empty=frozenset(day.isoformat() for day in known_empty),
            may_be_empty=days is not None and days.empty_days == "allow",
        )
