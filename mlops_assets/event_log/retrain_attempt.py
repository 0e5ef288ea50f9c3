"""What became of the newest granted retrain, by the events and runs that came after its grant.

Belongs here: reading these facts. Does not belong here: what follows from them (``monitoring/episodes.py``),
the grant itself (``retrain_requests.py``).
"""

from datetime import UTC, datetime, timedelta

import dagster as dg

from mlops_assets.asset_keys import asset_key
from mlops_assets.event_log.episode_records import requests_key
from mlops_assets.event_log.records import latest, read_version
from mlops_assets.event_log.retrain_requests import newest_grant
from mlops_assets.monitoring.episodes import AttemptFacts
from mlops_assets.monitoring.governor import AttemptOutcome

WILL_RETRY_TAG, PARENT_TAG = "dagster/will_retry", "dagster/parent_run_id"
OUTCOMES: dict[str, AttemptOutcome] = {
    "promote": "promoted",
    "reject": "rejected",
    "inconclusive": "inconclusive",
}
"""What a verdict of the gate makes of the attempt."""


def attempt_facts(
    instance: dg.DagsterInstance, model: str, in_flight: str | None, now: float
) -> AttemptFacts:
    """What became of the newest granted retrain at ``now`` (real time, Unix seconds).

    ``in_flight``: id of a run of the model's chain that has not ended.
    """
    newest = newest_grant(instance, model)
    if newest is None:
        return AttemptFacts()
    grant, reported_since = newest
    request = grant.data_version
    set_key = asset_key("training_set", model)
    made = latest(instance, set_key)
    read = read_version(instance, set_key, requests_key(model))
    # After a report by hand, Dagster names that one as what was read; the run is the grant's all the same.
    is_read = made is not None and (read == request or reported_since) and made.timestamp >= grant.timestamp
    if in_flight is not None:
        return AttemptFacts("running", f"run {in_flight} is under way", request=request)
    since = made.timestamp if is_read and made is not None else grant.timestamp
    judged = latest(instance, asset_key("evaluation", model))
    if is_read and judged is not None and judged.timestamp >= since and "outcome" in judged.metadata:
        return AttemptFacts(
            OUTCOMES[str(judged.metadata["outcome"])],
            str(judged.metadata["reason"]),
            f"v{int(judged.metadata['model_version'])}",
            request=request,
        )
    failed, retried = _failed_run(instance, set_key, grant.timestamp)
    if retried:
        return AttemptFacts("running", f"{retried} crashed and is tried again", request=request)
    if failed:
        return AttemptFacts("failed", failed, request=request)
    if is_read:
        why = "a run read the request and no candidate came of it"
        return AttemptFacts("failed", why, request=request)
    # Automation works in real time, whatever the data's clock says.
    unread_for = timedelta(seconds=max(0.0, now - grant.timestamp))
    return AttemptFacts(unread_for=unread_for, request=request)


def _failed_run(instance: dg.DagsterInstance, key: dg.AssetKey, since: float) -> tuple[str, str]:
    """The newest run of the asset after ``since`` that failed or was cancelled, in words; or one that Dagster
    is about to try again. Empty texts for none.
    """
    ended = (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
    after = datetime.fromtimestamp(since, UTC)
    for run in instance.get_runs(filters=dg.RunsFilter(statuses=list(ended), created_after=after), limit=50):
        if run.asset_selection is not None and key in run.asset_selection:
            if run.tags.get(WILL_RETRY_TAG) == "true":
                retries = instance.get_runs(filters=dg.RunsFilter(tags={PARENT_TAG: run.run_id}), limit=1)
                if not retries:
                    return "", f"run {run.run_id}"
                continue
            return f"run {run.run_id} ended as {run.status.value.lower()}; its log says why", ""
    return "", ""
