"""Fixtures that several test folders share. Fixtures of one folder live in that folder."""

import base64
import contextlib
import functools
import gc
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import hypothesis
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from dagster._core.storage.event_log import in_memory as events_in_memory
from dagster._core.storage.runs import in_memory as runs_in_memory
from dagster.components.core import load_defs
from dagster.components.core.component_tree import ComponentTree
from dagster.components.testing import create_defs_folder_sandbox
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.pool import QueuePool

import mlops_assets.backtest.report
import mlops_assets.evaluation.plots
import mlops_assets.monitoring.plots
import mlops_assets.training.plots
from mlops_assets.evaluation import drawing
from mlops_assets.resources import mlflow_store
from mlops_assets.resources.clock import Clock
from mlops_assets.resources.lake import Lake, S3Config
from mlops_assets.testing.kafka_broker import KafkaBroker, running_kafka_broker
from mlops_assets.testing.postgres_server import PostgresServer, running_postgres
from mlops_assets.testing.ray_cluster import RayCluster, local_ray
from mlops_assets.testing.redis_server import RedisServer, running_redis
from mlops_assets.testing.s3_server import ACCESS_KEY, SECRET_KEY, S3Server, running_s3_server
from serve.online.stores import redis as redis_store

pytest.register_assert_rewrite("mlops_assets.testing.conformance")

# An example that takes long on a busy machine is no failure. A profile of the command line comes after this.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


def pytest_collection() -> None:
    """Begins what ``pytest_collection_finish`` ends.

    Everything that is imported stays: looking for garbage among it took a quarter of the collection.
    """
    gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With ``-m ray`` alone, files without such a test are not even imported: they are all but six."""
    asked = config.getoption("markexpr") == "ray" and collection_path.name.startswith("test_")
    return True if asked and "mark.ray" not in collection_path.read_text(encoding="utf-8") else None


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[RayCluster]:
    """One real local Ray with Serve for the whole session; tests declare what they need on it."""
    with local_ray() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One real PostgreSQL for the whole session; a test makes a database or tables of its own."""
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with running_s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3_config(s3_server: S3Server) -> S3Config:
    return S3Config(
        endpoint_url=s3_server.endpoint_url,
        region_name="us-east-1",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
    )


@pytest.fixture(scope="session")
def kafka_broker() -> Iterator[KafkaBroker]:
    """One real Kafka broker for the whole session; tests make topics of their own."""
    with running_kafka_broker() as broker:
        yield broker


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One real server that speaks Redis' protocol for the whole session; empty for each test (``redis``)."""
    # A password that is something else in an address; small hashes, which a server scans at once, are rare.
    options = ("--hash-max-listpack-entries", "8")
    with running_redis(password="se:cr/et", options=options) as server:
        yield server


@pytest.fixture
def redis(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> RedisServer:
    """The same, empty, and where stores of this test look for it."""
    monkeypatch.setenv(redis_store.VARIABLE, redis_server.url)
    with redis_server.client() as client:
        client.flushall()
    return redis_server


@pytest.fixture(scope="session", autouse=True)
def component_types_described_once() -> Iterator[None]:
    """Dagster describes every component type, for its UI, each time that definitions load: .3 s a test.

    The types are the same throughout a session, and so is what is said of them.
    """
    describe = load_defs.get_library_json_enriched_defs
    said = functools.cache(lambda: describe(None).metadata)

    def described(tree: ComponentTree | None) -> dg.Definitions:
        return dg.Definitions(metadata=said(), component_tree=tree)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load_defs, "get_library_json_enriched_defs", described)
        yield


@pytest.fixture(scope="session", autouse=True)
def migrations_read_once() -> Iterator[None]:
    """Dagster loads the 89 scripts of its migrations twice for an instance: in memory most of what it costs.

    MLflow loads its own for each store that it opens.
    """
    read, known = ScriptDirectory.from_config, dict[str | None, ScriptDirectory]()

    def scripts(config: Config) -> ScriptDirectory:
        place = config.get_main_option("script_location")
        if place not in known:
            known[place] = read(config)
        return known[place]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScriptDirectory, "from_config", scripts)
        yield


@pytest.fixture(scope="session", autouse=True)
def memory_stays_connected() -> Iterator[None]:
    """Dagster connects anew to its databases in memory for each event, and SQLAlchemy compiles each statement
    anew for each instance: a fifth of what a run costs.

    Here connections are kept, and every instance takes the statements of the first.
    """
    known: dict[str, Any] = {}

    def engine(address: str, poolclass: object) -> Engine:
        made = create_engine(address, poolclass=QueuePool, connect_args={"check_same_thread": False})
        first = known.setdefault("engine", made)
        made.dialect, made._compiled_cache = first.dialect, first._compiled_cache
        return made

    with pytest.MonkeyPatch.context() as patch:
        for storages in (events_in_memory, runs_in_memory):
            patch.setattr(storages, "create_engine", engine)
        yield


@pytest.fixture(scope="session", autouse=True)
def databases_forgotten_in_a_power_cut() -> Iterator[None]:
    """SQLite waits for the disk at each commit, 5 ms and more; no test asks for what was there before a crash
    of the machine.
    """

    def relax(connection: Any, _: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous = OFF")

    event.listen(Engine, "connect", relax)
    yield
    event.remove(Engine, "connect", relax)


WHITE_DOT = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR42mP4DwABAQEAHLCMmQAAAABJRU5ErkJggg=="
)
DRAWING = (
    mlops_assets.backtest.report,
    mlops_assets.evaluation.plots,
    mlops_assets.monitoring.plots,
    mlops_assets.training.plots,
)


@pytest.fixture(scope="session", autouse=True)
def figures_not_rendered() -> Iterator[None]:
    """Rendering a figure takes .1 s, and a tenth of all tests: figures are composed as ever, but their bytes
    are one white dot, except where a test asks for ``rendered`` ones.
    """
    with pytest.MonkeyPatch.context() as patch:
        for module in DRAWING:
            patch.setattr(module, "png", lambda figure: WHITE_DOT)
        yield


@pytest.fixture
def rendered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes of a plot are the plot."""
    for module in DRAWING:
        monkeypatch.setattr(module, "png", drawing.png)


@pytest.fixture(scope="session")
def empty_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow store with its tables: making them takes seconds of a core, copying the file nothing."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    mlflow_store.client(f"sqlite:///{path}")
    return path


@pytest.fixture
def mlflow_uri(empty_mlflow: Path, tmp_path: Path) -> str:
    """Address of an empty MLflow store of the test's own."""
    shutil.copy(empty_mlflow, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"


Load = Callable[..., dg.Definitions]


@pytest.fixture
def use_case(request: pytest.FixtureRequest) -> Iterator[Path]:
    """Folder of the use case ``shop``; relative source paths start here."""
    with create_defs_folder_sandbox() as sandbox:
        folder = sandbox.defs_folder_path / "shop"
        folder.mkdir()
        request.node.sandbox = sandbox
        yield folder


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(uri=str(tmp_path / "lake"))


@pytest.fixture
def load(request: pytest.FixtureRequest, use_case: Path, lake: Lake) -> Iterator[Load]:
    """Writes ``defs.yaml`` and returns its definitions, with the lake, the machine's clock and more."""
    with contextlib.ExitStack() as stack:

        def build(text: str, **resources: Any) -> dg.Definitions:
            (use_case / "defs.yaml").write_text(text, encoding="utf-8")
            loaded = stack.enter_context(request.node.sandbox.build_all_defs())
            given = {"lake": lake, "clock": Clock(), **resources}
            return dg.Definitions.merge(loaded, dg.Definitions(resources=given))

        yield build


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """An instance in memory: the same SQL, 2 s a test quicker than files, which have tests of their own."""
    with dg.DagsterInstance.ephemeral() as found:
        yield found
