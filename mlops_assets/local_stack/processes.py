"""Which processes the local platform consists of: command, environment, ports, when it is ready.

Belongs here: declarations, made from plain settings. Does not belong here: starting, watching and
stopping them (``supervisor.py``) or reading the environment (``mlops_assets/environment.py``).
"""

import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from mlops_assets import environment
from mlops_assets.errors import StackError
from mlops_assets.local_stack.layout import LOCATION, Layout
from mlops_assets.local_stack.ports import Port, unused

MARKER = "MLOPS_STACK"
"""Every process of a platform, and every descendant, carries this variable with the state folder."""


def _binary(name: str) -> str:
    return str(Path(sys.executable).parent / name)


SWITCHES: Mapping[str, str] = {
    # MLflow knows "true" only; "1" does not switch it off.
    "DO_NOT_TRACK": "true",
    # Threads of OpenMP, and of numpy's OpenBLAS, that wait by spinning take the cores from Ray and Dagster.
    "OMP_WAIT_POLICY": "passive",
    "OPENBLAS_THREAD_TIMEOUT": "4",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DAGSTER_DISABLE_TELEMETRY": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
    "GX_ANALYTICS_ENABLED": "false",
    # Despite its name: Ray then keeps to the loopback address here too, instead of the machine's address,
    # which changes when a laptop does networks.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}
"""Telemetry off, and what every process must agree on."""

SERVE_SWITCHES: Mapping[str, str] = {
    # HAProxy in front of the replicas carries 6 to 15 times what Serve's Python proxy does.
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    # Without it Serve leaves HAProxy's statistics on all interfaces, its admin socket to every user.
    "RAY_SERVE_HAPROXY_BINARY_PATH": _binary("mlops-haproxy"),
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    # Requests go straight to the endpoint: Serve's own request path costs more than answering.
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serve.shortcut:middlewares",
    # A prediction may be asked twice: a crashed replica then costs no request.
    "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
    "RAY_SERVE_HAPROXY_RETRIES": "3",
    # Notices a dead proxy within seconds instead of half a minute.
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "3",
    # Ray gives its workers niceness 15: a replica would answer once a build leaves it a core.
    "RAY_worker_niceness": "0",
    # An idle cluster looks ten times a second by default; four times still replaces a replica at once.
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.25",
    # Ray's own metrics, ten times a second and replica by default.
    "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": "5000",
    # Fifteen processes wake a hundred times a second to look for signals; each wake is timed and counted.
    "RAY_event_stats": "0",
    # Every process sends its metrics every ten seconds, whoever reads them.
    "RAY_metrics_report_interval_ms": "30000",
    # What Ray's pages show of tasks, every second by default.
    "RAY_task_events_report_interval_ms": "10000",
    # CPU and memory of every process, from the process table, every five seconds by default. Whoever places a
    # version counts the replicas that are younger than the last look.
    "REPORTER_UPDATE_INTERVAL_MS": "15000",
    # The dashboard's metrics of itself, and its search for new files of events.
    "METRICS_RECORD_INTERVAL_S": "60",
    "SCAN_EVENT_DIR_INTERVAL_SECONDS": "60",
    # Do not wait half a minute for a node that is going away anyway.
    "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "5",
}

DEFAULT_RAY_CPUS = 8
"""Logical: replicas mostly wait, and a machine with two cores must hold gateways and versions."""

OBJECT_STORE_BYTES = 150_000_000
"""Serve passes requests directly; the store stays nearly empty."""


Stage = Literal["first", "after Ray", "after the graph"]


@dataclass(frozen=True)
class ProcessSpec:
    """One process: it is ready when ``ready_url`` answers 200, or ``ready_text`` stands in its log.

    ``ready_token``: the file with what the URL asks for.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    folder: Path
    ports: tuple[Port, ...] = ()
    ready_url: str = ""
    ready_token: Path | None = None
    ready_text: str = ""
    ready_deadline_s: float = 300.0
    stop_deadline_s: float = 15.0
    stage: Stage = "first"


@dataclass(frozen=True)
class StackSettings:
    """What the environment says about the local platform."""

    state: Path
    root: Path
    dagster_port: int
    mlflow_port: int
    serve_port: int
    ray_dashboard_port: int
    ray_gcs_port: int
    metrics_port: int
    ray_cpus: int
    mlflow_tracking_uri: str
    mlflow_artifacts: str
    serve_url: str
    ray_dashboard_url: str
    inherited: Mapping[str, str] = field(repr=False)
    definitions_module: str = "mlops_assets.definitions"
    clock_file: str = ""

    @property
    def layout(self) -> Layout:
        return Layout(self.state)

    @property
    def dagster_url(self) -> str:
        return f"http://127.0.0.1:{self.dagster_port}"

    @property
    def mlflow_url(self) -> str:
        """The UI: the tracking server itself when tracking is remote."""
        return self.mlflow_tracking_uri if self.remote_tracking else f"http://127.0.0.1:{self.mlflow_port}"

    @property
    def metrics_url(self) -> str:
        """Where the exporter of `make up` tells its series."""
        return f"http://127.0.0.1:{self.metrics_port}/metrics"

    @property
    def remote_tracking(self) -> bool:
        return self.mlflow_tracking_uri.startswith(("http://", "https://"))

    @property
    def local_ray(self) -> bool:
        """Whether deployments go to a Ray of this platform, rather than to a cluster elsewhere."""
        return self.ray_dashboard_url == f"http://127.0.0.1:{self.ray_dashboard_port}"


def settings_from_environment() -> StackSettings:
    """Reads the environment table; StackError when a number is not one."""
    return StackSettings(
        state=environment.state_dir(),
        root=environment.PROJECT_ROOT,
        dagster_port=_port(environment.DAGSTER_PORT),
        mlflow_port=_port(environment.MLFLOW_PORT),
        serve_port=_port(environment.SERVE_PORT),
        ray_dashboard_port=_port(environment.RAY_DASHBOARD_PORT),
        ray_gcs_port=_port(environment.RAY_GCS_PORT),
        metrics_port=_port(environment.METRICS_PORT),
        ray_cpus=_number(environment.RAY_CPUS, default=DEFAULT_RAY_CPUS, largest=4096),
        mlflow_tracking_uri=environment.MLFLOW_TRACKING_URI.read(),
        mlflow_artifacts=environment.MLFLOW_ARTIFACTS.read(),
        serve_url=environment.serve_url(),
        ray_dashboard_url=environment.ray_dashboard_url(),
        clock_file=environment.clock_file(),
        inherited=environment.process_environment(),
    )


def own_settings(
    state: Path,
    inherited: Mapping[str, str],
    *,
    ray_cpus: int = DEFAULT_RAY_CPUS,
    clock_file: str = "",
    kept: Collection[str] = (),
) -> StackSettings:
    """A platform beside any other: its state in the folder, ports that nobody uses, and of the inherited
    environment no variable of the platform or of Ray, except those ``kept``.
    """
    dagster, mlflow, serve, dashboard, gcs, metrics = unused(6)
    foreign = {variable.name for variable in environment.VARIABLES} - set(kept)
    return StackSettings(
        state=state,
        root=environment.PROJECT_ROOT,
        dagster_port=dagster,
        mlflow_port=mlflow,
        serve_port=serve,
        ray_dashboard_port=dashboard,
        ray_gcs_port=gcs,
        metrics_port=metrics,
        ray_cpus=ray_cpus,
        mlflow_tracking_uri=f"sqlite:///{state}/mlflow/mlflow.db",
        mlflow_artifacts=f"{state}/mlflow/artifacts",
        serve_url=f"http://127.0.0.1:{serve}",
        ray_dashboard_url=f"http://127.0.0.1:{dashboard}",
        clock_file=clock_file,
        inherited={
            name: value
            for name, value in inherited.items()
            if name not in foreign and not name.startswith("RAY_")
        },
    )


def shared_environment(settings: StackSettings) -> dict[str, str]:
    """What a shell needs to use this platform; ``<state>/env`` holds exactly this."""
    return {
        **SWITCHES,
        environment.STATE_DIR.name: str(settings.state),
        "DAGSTER_HOME": str(settings.layout.dagster_home),
        environment.MLFLOW_TRACKING_URI.name: settings.mlflow_tracking_uri,
        environment.MLFLOW_ARTIFACTS.name: settings.mlflow_artifacts,
        environment.DAGSTER_PORT.name: str(settings.dagster_port),
        environment.MLFLOW_PORT.name: str(settings.mlflow_port),
        environment.SERVE_PORT.name: str(settings.serve_port),
        environment.RAY_DASHBOARD_PORT.name: str(settings.ray_dashboard_port),
        environment.RAY_GCS_PORT.name: str(settings.ray_gcs_port),
        environment.METRICS_PORT.name: str(settings.metrics_port),
        # Everything listens on loopback here; elsewhere somebody has to decide.
        environment.API_KEYS_FILE.name: settings.inherited.get(environment.API_KEYS_FILE.name)
        or environment.KEYS_OFF,
        # Gateways, sensors and the command line must agree on what time it is.
        environment.CLOCK_FILE.name: settings.clock_file,
        **_ray_token(settings),
    }


def _ray_token(settings: StackSettings) -> dict[str, str]:
    """Loopback keeps other machines out, the token other users of this one: Ray runs what it is sent.

    The token of a cluster elsewhere is in the shell's own environment.
    """
    if not settings.local_ray:
        return {}
    return {
        "RAY_AUTH_MODE": "token",
        environment.RAY_TOKEN_FILE.name: str(settings.layout.ray_token),
        # It would come before the file.
        environment.RAY_TOKEN.name: "",
    }


def process_environment(settings: StackSettings) -> dict[str, str]:
    """The environment of every process: inherited, shared, marked, and able to import the project."""
    binaries = str(Path(sys.executable).parent)
    inherited = dict(settings.inherited)
    # An address of another cluster would make every client of ours talk to that one.
    inherited.pop("RAY_ADDRESS", None)
    return {
        **inherited,
        **shared_environment(settings),
        "PATH": f"{binaries}:{inherited.get('PATH', '/usr/bin:/bin')}",
        # Top-level `serve` is this project's package; Ray's is ray.serve.
        "PYTHONPATH": str(settings.root),
        "PYTHONUNBUFFERED": "1",
        # Code servers put their sockets there.
        "TMPDIR": str(settings.layout.temporary),
        MARKER: str(settings.state),
    }


def declared_processes(settings: StackSettings) -> list[ProcessSpec]:
    """The processes in the order they start; they stop in reverse."""
    specs = [_ray(settings)] if settings.local_ray else []
    if not settings.remote_tracking:
        specs.append(_mlflow(settings))
    return [
        *specs,
        _exporter(settings),
        _dagster_code_server(settings),
        _dagster_webserver(settings),
        _dagster_daemon(settings),
    ]


def _ray(settings: StackSettings) -> ProcessSpec:
    haproxy = settings.layout.haproxy
    # Ports that only Ray's own parts use are whatever is unused, so that two platforms fit one machine.
    agent, agent_grpc, client, metrics, *others = map(str, unused(10))
    proxy_metrics, proxy_stats, fallback, fallback_grpc, monitor_metrics, dashboard_metrics = others
    return ProcessSpec(
        name="ray",
        command=(
            _binary("ray"), "start", "--head", "--block",
            "--node-ip-address=127.0.0.1",
            f"--port={settings.ray_gcs_port}",
            "--dashboard-host=127.0.0.1",
            f"--dashboard-port={settings.ray_dashboard_port}",
            f"--dashboard-agent-listen-port={agent}",
            f"--dashboard-agent-grpc-port={agent_grpc}",
            f"--ray-client-server-port={client}",
            # It copies replicas' logs to drivers; there are none.
            "--include-log-monitor=false",
            f"--metrics-export-port={metrics}",
            "--min-worker-port=0", "--max-worker-port=0",
            f"--num-cpus={settings.ray_cpus}",
            f"--object-store-memory={OBJECT_STORE_BYTES}",
            f"--temp-dir={settings.layout.ray_temp}",
            "--disable-usage-stats", "--log-style=record", "--log-color=false",
        ),
        environment={
            **process_environment(settings),
            **SERVE_SWITCHES,
            "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(haproxy / "haproxy.cfg"),
            "RAY_SERVE_HAPROXY_SOCKET_PATH": str(haproxy / "admin.sock"),
            "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(haproxy),
            "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(haproxy / "server-state"),
            "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(haproxy / "metrics.sock"),
            # Nobody reads it: HAProxy's own log would go to UDP port 514, by sockets on all interfaces.
            "RAY_SERVE_HAPROXY_LOG_TARGET": str(haproxy / "log.sock"),
            "RAY_SERVE_HAPROXY_METRICS_PORT": proxy_metrics,
            "RAY_SERVE_HAPROXY_STATS_PORT": proxy_stats,
            "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": fallback,
            "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": fallback_grpc,
            "AUTOSCALER_METRIC_PORT": monitor_metrics,
            "DASHBOARD_METRIC_PORT": dashboard_metrics,
        },
        folder=settings.layout.run,
        ports=(
            Port(settings.ray_gcs_port, environment.RAY_GCS_PORT.name, "Ray's control store"),
            Port(settings.ray_dashboard_port, environment.RAY_DASHBOARD_PORT.name, "Ray's dashboard"),
            Port(settings.serve_port, environment.SERVE_PORT.name, "the HTTP endpoint"),
        ),
        ready_url=f"http://127.0.0.1:{settings.ray_dashboard_port}/api/serve/applications/",
        ready_token=settings.layout.ray_token,
        stop_deadline_s=10.0,
    )  # fmt: skip


def _mlflow(settings: StackSettings) -> ProcessSpec:
    return ProcessSpec(
        name="mlflow",
        command=(
            _binary("mlflow"), "server",
            "--host=127.0.0.1",
            f"--port={settings.mlflow_port}",
            "--workers=1",
            f"--backend-store-uri={settings.mlflow_tracking_uri}",
            "--no-serve-artifacts",
            f"--default-artifact-root={settings.mlflow_artifacts}",
        ),
        environment={
            **process_environment(settings),
            # The job runner of MLflow's evaluation features: a second process that nothing here uses.
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        },
        folder=settings.layout.run,
        ports=(Port(settings.mlflow_port, environment.MLFLOW_PORT.name, "the MLflow UI"),),
        ready_url=f"http://127.0.0.1:{settings.mlflow_port}/health",
        # Ray gives itself half a minute to start; on two cores nothing else should start meanwhile.
        stage="after Ray",
    )  # fmt: skip


def _exporter(settings: StackSettings) -> ProcessSpec:
    return ProcessSpec(
        name="exporter",
        command=(_binary("mlops"), "exporter", f"--port={settings.metrics_port}"),
        environment=process_environment(settings),
        folder=settings.layout.run,
        ports=(Port(settings.metrics_port, environment.METRICS_PORT.name, "metrics"),),
        # Asking for its health collects nothing.
        ready_url=settings.metrics_url.removesuffix("metrics") + "healthy",
        stage="after Ray",
    )


def _dagster_code_server(settings: StackSettings) -> ProcessSpec:
    """One process holds the definitions for the webserver and the daemon.

    Named in their workspace as a module, the daemon would start a new one every minute, and each imports
    everything anew. Its socket lies in a folder that only its owner may enter: it runs what it is asked to.
    """
    return ProcessSpec(
        name="dagster-code-server",
        command=(
            _binary("dagster"), "code-server", "start",
            f"--socket={settings.layout.code_socket}",
            f"--module-name={settings.definitions_module}",
            f"--location-name={LOCATION}",
        ),
        environment=process_environment(settings),
        folder=settings.layout.run,
        ready_text="Started Dagster code proxy server",
        # It waits for the server that it started, which is ended with it.
        stop_deadline_s=5.0,
        stage="after Ray",
    )  # fmt: skip


def _dagster_webserver(settings: StackSettings) -> ProcessSpec:
    return ProcessSpec(
        name="dagster-webserver",
        command=(
            # Dagster's own program would do what any web page in the owner's browser asks.
            *(sys.executable, "-m", "mlops_assets.local_stack.webserver"),
            "--host=127.0.0.1",
            f"--port={settings.dagster_port}",
            f"--workspace={settings.layout.workspace}",
            "--suppress-warnings",
        ),
        environment=process_environment(settings),
        folder=settings.layout.run,
        ports=(Port(settings.dagster_port, environment.DAGSTER_PORT.name, "the Dagster UI"),),
        ready_url=f"{settings.dagster_url}/server_info",
        # Two processes that create Dagster's tables at once collide; the graph's process creates them.
        stage="after Ray",
    )


def _dagster_daemon(settings: StackSettings) -> ProcessSpec:
    return ProcessSpec(
        name="dagster-daemon",
        command=(_binary("dagster-daemon"), "run", f"--workspace={settings.layout.workspace}"),
        environment=process_environment(settings),
        folder=settings.layout.run,
        # Its sensors would start runs of their own for assets that are just being made for the first time.
        stage="after the graph",
        ready_text="Instance is configured with the following daemons",
    )


def _port(variable: environment.Variable) -> int:
    return _number(variable, default=None, largest=65535)


def _number(variable: environment.Variable, *, default: int | None, largest: int) -> int:
    text = variable.read()
    if not text and default is not None:
        return default
    if not text.isdecimal() or not 1 <= int(text) <= largest:
        raise StackError(f"{variable.name} is {text!r}; it must be a whole number from 1 to {largest}.")
    return int(text)
