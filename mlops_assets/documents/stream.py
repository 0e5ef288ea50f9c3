"""What the YAML of a stream may say.

Belongs here: the declaration and its own rules. Does not belong here: what a format of records declares
(``streams/formats/``), reading a topic (``resources/kafka.py``), the asset (``components/stream.py``).
"""

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, InstanceOf, SerializeAsAny, model_validator

from mlops_assets.asset_names import table_name
from mlops_assets.data.schema import ColumnType
from mlops_assets.documents._base import Declaration
from mlops_assets.documents.fields import ColumnName, Duration, Name, ReadBy, TimeZone, require_distinct_names
from mlops_assets.resources.kafka import OWN, Broker
from mlops_assets.secrets import VariableName
from mlops_assets.streams.formats import RECORD_FORMATS, RecordFormat
from mlops_assets.streams.offsets import Loss
from mlops_assets.streams.records import OWN_COLUMNS, Wanted


class AcceptedLoss(Declaration):
    """Records that the topic removed before they were read, and who goes on without them."""

    partition: int = Field(ge=0, description="Partition of the topic.")
    first: int = Field(ge=0, description="Offset of the first lost record.")
    before: int = Field(ge=1, description="The offset after the last lost record.")
    by: str = Field(min_length=1, description="Who says so.")
    reason: str = Field(min_length=1, description="Why that is right.")


class StreamDeclaration(Declaration):
    """Attributes of a ``StreamComponent`` document."""

    model_config = ConfigDict(hide_input_in_errors=True)

    name: Name
    description: str = ""
    topic: str = Field(min_length=1, description="The Kafka topic.")
    bootstrap_servers: VariableName = Field(
        description="Environment variable with the brokers' addresses, like host:9092."
    )
    client: dict[str, VariableName] = Field(
        default_factory=dict,
        description="Settings of librdkafka (sasl.username, ...), each by the variable that holds its value.",
    )
    value: Annotated[SerializeAsAny[InstanceOf[RecordFormat]], ReadBy(RECORD_FORMATS, "format")] = Field(
        description="How the records' values are read; ``format`` says what else can be declared."
    )
    columns: dict[ColumnName, ColumnType] = Field(
        min_length=1, description="Columns decoded from the values. One that a record lacks is missing there."
    )
    fields: dict[ColumnName, str] = Field(
        default_factory=dict,
        description="Where in a record a column is, like payload.amount; left out: the field of its name.",
    )
    event_time: str | None = Field(
        default=None, description="Column that says when the event was; left out: the record's timestamp."
    )
    timezone: TimeZone = Field(
        default="UTC", description="In which zone the days of event_date are, like America/New_York."
    )
    read_by: Literal["runs", "consumer"] = Field(
        default="runs",
        description="Who reads the topic: runs that a sensor starts, or the command `mlops stream`.",
    )
    every: Duration | None = Field(
        default=None,
        description="How often, at most, the sensor starts a run (30s), or the consumer commits (5s).",
    )
    max_rows: int = Field(default=100_000, ge=1, description="Records of one commit, at most.")
    max_duration: Duration = Field(
        default=timedelta(seconds=60), description="How long a run reads, at most."
    )
    accepted_losses: tuple[AcceptedLoss, ...] = Field(
        default=(), description="Lost records that a person goes on without."
    )

    @model_validator(mode="after")
    def _fits_together(self) -> "StreamDeclaration":
        require_distinct_names(
            self.columns,
            reserved=dict.fromkeys(
                OWN_COLUMNS, "the stream's own column; `fields` says where a column is found"
            ),
        )
        unknown = sorted(set(self.fields) - set(self.columns))
        if unknown:
            raise ValueError(
                f"unknown columns in fields: {', '.join(unknown)}; declared: {', '.join(self.columns)}"
            )
        if self.event_time is not None and self.columns.get(self.event_time) != "timestamp":
            times = ", ".join(name for name, kind in self.columns.items() if kind == "timestamp") or "none"
            raise ValueError(
                f"event_time {self.event_time!r} is no declared timestamp column. There are: {times}"
            )
        own = sorted(set(self.client) & {*OWN, "bootstrap.servers"})
        if own:
            raise ValueError(
                f"client settings {', '.join(own)} are the platform's own: exactly once rests on them"
            )
        return self

    @property
    def table(self) -> str:
        """The table in the lake."""
        return table_name("stream", self.name)

    @property
    def interval(self) -> timedelta:
        """``every`` as declared, or what fits who reads the topic."""
        return self.every or timedelta(seconds=30 if self.read_by == "runs" else 5)

    def broker(self) -> Broker:
        """Where the topic is."""
        return Broker(self.bootstrap_servers, self.client)

    def wanted(self) -> Wanted:
        """The same declaration for ``streams/records.py``."""
        return Wanted(self.topic, self.columns, self.fields, self.event_time, self.timezone)

    def losses(self) -> list[Loss]:
        """The accepted losses for ``streams/offsets.py``."""
        return [Loss(one.partition, one.first, one.before) for one in self.accepted_losses]
