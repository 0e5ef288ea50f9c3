"""The sensor ``probe_<dataset>``: asks again for the days of a source that are new, changed or gone.

Belongs here: asking the source for states, launching the runs. Does not belong here: which days are due
(``data/probing.py``), states (``data/sources``).

What was judged stands in the event log; the cursor holds what was read of it so far, and can be reset.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import dagster as dg

from mlops_assets.asset_keys import asset_key
from mlops_assets.data.loading import Source
from mlops_assets.data.probing import Due, digest, due
from mlops_assets.data.sources import WHOLE, Asked
from mlops_assets.documents.dataset import DatasetDeclaration
from mlops_assets.event_log.runs import LAUNCHED_BY_TAG, back_off, unfinished_run
from mlops_assets.event_log.source_states import judged_since
from mlops_assets.resources.lake import Lake

INTERVAL_S = 60
REST = 20
"""A look is followed by a rest of at least so many times as long: probing takes a source 5 % of its time."""
PROBE_TAG = "mlops/probe"
PROBE = "probe sensor"


@dataclass
class ProbeCursor:
    """What was read of the event log (up to ``read``): states by partition, shortened.

    ``asked``: states in which partitions were asked for and are not judged yet. ``asks`` counts, so that a
    state that comes back is asked for again. ``rest_until``: Unix seconds.
    """

    read: int = 0
    judged: dict[str, str] = field(default_factory=dict)
    asked: dict[str, str] = field(default_factory=dict)
    asks: int = 0
    rest_until: float = 0.0

    @staticmethod
    def of(text: str | None) -> "ProbeCursor":
        return ProbeCursor(**json.loads(text)) if text else ProbeCursor()

    def read_on(self, instance: dg.DagsterInstance, key: dg.AssetKey) -> None:
        """Takes in what was judged since."""
        states, self.read = judged_since(instance, key, self.read)
        for partition, state in states.items():
            self.judged[partition] = digest(state)
            self.asked.pop(partition, None)


def probe_sensor(declared: DatasetDeclaration, source: Source) -> dg.SensorDefinition:
    """The sensor of a dataset whose source is probed."""
    key = asset_key("dataset", declared.name)
    partitions = declared.partitions.definition() if declared.partitions else None
    asked = Asked(
        declared.columns,
        source.transform is not None,
        declared.partitions.column if declared.partitions else None,
    )

    @dg.sensor(
        name=f"probe_{declared.name}",
        target=dg.AssetSelection.assets(key),
        minimum_interval_seconds=INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Reads what changed in {source.where}, when it changed.",
    )
    def probe(context: dg.SensorEvaluationContext, lake: Lake) -> dg.SensorResult:
        instance = context.instance
        cursor = ProbeCursor.of(context.cursor)
        started = time.time()
        if started < cursor.rest_until:
            return dg.SensorResult(skip_reason=f"the next look is in {cursor.rest_until - started:.0f} s")
        unfinished = unfinished_run(instance, key)
        if unfinished is not None:
            return dg.SensorResult(skip_reason=f"run {unfinished} is reading")
        states = source.reader.states(asked, lake)
        cursor.rest_until = started + REST * (time.time() - started)
        cursor.read_on(instance, key)
        found = due(
            {partition: digest(state) for partition, state in states.items()},
            cursor.judged,
            cursor.asked,
            declared=partitions.get_partition_keys() if partitions else [WHOLE],
            again=back_off(instance, {PROBE_TAG: declared.name}, started) <= 0,
        )
        if found.ranges:
            cursor.asks += 1
            cursor.asked.update(found.asked)
        return dg.SensorResult(
            run_requests=_requests(declared.name, found, cursor.asks),
            skip_reason=None if found.ranges else found.why,
            cursor=json.dumps(asdict(cursor)),
        )

    return probe


def _requests(name: str, found: Due, asks: int) -> Sequence[dg.RunRequest]:
    requests = []
    for first, last in found.ranges:
        of_range = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
        requests.append(
            dg.RunRequest(
                run_key=f"{name}/{asks}/{found.token}/{first}",
                asset_selection=[asset_key("dataset", name)],
                partition_key=first if first and first == last else None,
                tags={
                    LAUNCHED_BY_TAG: PROBE,
                    PROBE_TAG: name,
                    "mlops/reason": found.why,
                    **(of_range if first != last else {}),
                },
            )
        )
    return requests
