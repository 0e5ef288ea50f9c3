"""Feast as a store, in the environment that it needs: ``make test-feast``."""

import importlib.util
import os
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from mlops_assets.testing.conformance.online_stores import FIRST, SECOND, OnlineStoreConformance, Outage
from mlops_assets.testing.site import Site, run
from mlops_assets_tests.serve.online.test_served import VIEW, body, fill, keyed
from serve.online.held import HEAD
from serve.online.stores import StoreLost, StoreMoved
from serve.online.stores import feast as feast_store
from serve.online.stores.feast import VARIABLE, FeastStore

if importlib.util.find_spec("feast") is None:
    pytest.skip("Feast takes older packages: `make test-feast` runs these", allow_module_level=True)
# Feast's own code, against newer libraries.
pytestmark = [pytest.mark.filterwarnings("default")]
THIRD = b"third"


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "features"
    folder.mkdir()
    (folder / feast_store.SETTINGS).write_text(
        f"""\
project: mlops
provider: local
registry: {folder}/registry.db
online_store: {{type: sqlite, path: {folder}/online.db}}
entity_key_serialization_version: 3
"""
    )
    monkeypatch.setenv(VARIABLE, str(folder))
    return folder


class TestFeast(OnlineStoreConformance):
    store = FeastStore

    @pytest.fixture
    def uri(self, repository: Path, monkeypatch: pytest.MonkeyPatch) -> str:
        # So that commits of the suite have several.
        monkeypatch.setattr(feast_store, "PIECE_ROWS", 70)
        return ""

    @pytest.fixture
    def outage(self, repository: Path) -> Outage:
        @contextmanager
        def away() -> Iterator[None]:
            kept = repository.rename(repository.with_name("kept"))
            yield
            kept.rename(repository)

        return away


def opened() -> FeastStore:
    return FeastStore("", view="flights-1")


def held(store: FeastStore) -> dict[str, bytes]:
    found = dict(store.scan(""))
    assert store.read([*found, "gone"]) == [*found.values(), found.get("gone")]
    return found


BEFORE = {**{f"key {n}": b"1" for n in range(30)}, "gone": b"1"}
PUTS = {**{f"key {n}": b"2" for n in range(20, 50)}, "gone": None}
AFTER = {f"key {n}": b"1" if n < 20 else b"2" for n in range(50)}


class Ended(BaseException):
    """The writer's process ends here, for Feast."""


class Ending(FeastStore):
    """Ends before, or after, the given write."""

    def __init__(self, *, at: int, ran: bool) -> None:
        super().__init__("", view="flights-1")
        self.writes, self._at, self._ran = 0, at, ran

    def _push(self, rows: Mapping[str, bytes], generation: int) -> None:
        self.writes += 1
        if self.writes == self._at and not self._ran:
            raise Ended
        super()._push(rows, generation)
        if self.writes == self._at:
            raise Ended


@pytest.mark.parametrize("clear", [False, True])
def test_a_commit_that_ends_anywhere_left_all_or_nothing_and_the_next_goes_on(
    repository: Path, monkeypatch: pytest.MonkeyPatch, clear: bool
) -> None:
    monkeypatch.setattr(feast_store, "PIECE_ROWS", 25)
    before = {**BEFORE, HEAD: FIRST}
    shown = {key: value for key, value in PUTS.items() if value} if clear else AFTER
    after, seen = {**shown, HEAD: SECOND}, []
    opened().commit(BEFORE, head=FIRST, expected=None)
    for at in range(1, 100):
        # Twice, so that of two that ended one after the other neither shows in what the next one writes.
        for ran in (False, True):
            writer = Ending(at=at, ran=ran)
            with suppress(Ended):
                writer.commit(PUTS, head=SECOND, expected=FIRST, clear=clear)
            if writer.writes < at:
                break
        left = held(opened())
        seen.append(left[HEAD])
        assert left == (before if left[HEAD] == FIRST else after)
        if writer.writes < at:
            break
        opened().commit({"other": b"3"}, head=THIRD, expected=left[HEAD])
        assert held(opened()) == {**left, "other": b"3", HEAD: THIRD}
        opened().commit(BEFORE, head=FIRST, expected=THIRD, clear=True)
        assert held(opened()) == before
    assert len(seen) > 3 and seen == sorted(seen) and set(seen) == {FIRST, SECOND}


def test_of_two_writers_at_once_the_first_is_refused_and_leaves_nothing(repository: Path) -> None:
    opened().commit(BEFORE, head=FIRST, expected=None)

    class Overtaken(FeastStore):
        def _push(self, rows: Mapping[str, bytes], generation: int) -> None:
            super()._push(rows, generation)
            if "k:key 20" in rows:
                opened().commit({"key 1": b"3"}, head=THIRD, expected=FIRST)

    with pytest.raises(StoreMoved, match="was written meanwhile"):
        Overtaken("", view="flights-1").commit(PUTS, head=SECOND, expected=FIRST)
    assert held(opened()) == {**BEFORE, "key 1": b"3", HEAD: THIRD}


def test_a_reader_goes_on_when_two_commits_overtake_it(repository: Path) -> None:
    opened().commit(BEFORE, head=FIRST, expected=None)

    class Slow(FeastStore):
        reads = 0

        def _get(self, keys: Any) -> Any:
            self.reads += 1
            if self.reads == 2:
                for old, new in ((FIRST, SECOND), (SECOND, THIRD)):
                    opened().commit({"key 1": new, "key 2": new}, head=new, expected=old)
            return super()._get(keys)

    reader = Slow("", view="flights-1")
    assert reader.read(["key 1", HEAD, "key 2"]) == [THIRD] * 3
    # From then on one call of Feast is one look-up.
    assert reader.reads == 3
    reader.read(["key 1"])
    assert reader.reads == 4


def test_feast_knows_an_entity_a_view_and_a_service_of_each_view(repository: Path) -> None:
    from feast import FeatureStore

    opened().commit(BEFORE, head=FIRST, expected=None)
    FeastStore("", view="trips-2").commit({}, head=FIRST, expected=None)
    store = FeatureStore(repo_path=str(repository))
    assert [one.name for one in store.list_feature_services()] == ["mlops_flights_1", "mlops_trips_2"]
    view = store.get_feature_view("mlops_flights_1")
    assert [(one.name, str(one.dtype)) for one in view.features] == [("value", "Bytes")]
    assert (view.entities, view.tags["view"]) == (["mlops_flights_1_key"], "flights-1")
    # Feast's numbers must not turn those of this process into files.
    assert "PROMETHEUS_MULTIPROCESS_DIR" not in os.environ


def test_a_folder_without_settings_or_a_broken_database_is_lost_and_told_without_secrets(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened().commit(BEFORE, head=FIRST, expected=None)
    settings = repository / feast_store.SETTINGS
    whole = settings.read_text()
    monkeypatch.setenv("SHOP_PASSWORD", "s3cret")
    settings.write_text(whole.replace("type: sqlite", "type: sqlite, password: ${SHOP_PASSWORD}"))
    with pytest.raises(
        StoreLost, match=r"in Feast at .*features .*cannot be used: .*SHOP_PASSWORD"
    ) as caught:
        opened().read(["key 1"])
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))
    settings.unlink()
    with pytest.raises(StoreLost, match=f"has no {feast_store.SETTINGS}"):
        opened().read(["key 1"])
    settings.write_text(whole)
    assert opened().read([HEAD]) == [FIRST]


def test_a_gateway_answers_from_feast_as_from_sqlite(repository: Path, tmp_path: Path) -> None:
    answers = []

    async def story(site: Site) -> None:
        for one in (body(), body(carrier="DL"), body(at="2013-12-31T20:30:00Z")):
            answers.append((await site.post("/predict", one)).json()["probability"])
        assert (await site.http.get("/ready")).json()["routes"]["v1"]["online"]["state"] == "fresh"

    for name in ("sqlite", "feast"):
        view = VIEW.model_copy(update={"store": name})
        fill(tmp_path, view)
        run(story, keyed(tmp_path, view))
    assert answers[:3] == answers[3:] and len(set(answers)) > 1
