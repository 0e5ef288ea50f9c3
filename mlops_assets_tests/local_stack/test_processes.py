"""The declared processes: quiet, local, and told apart by the environment."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mlops_assets import environment
from mlops_assets.errors import StackError
from mlops_assets.local_stack.layout import Layout, make_private
from mlops_assets.local_stack.processes import (
    MARKER,
    SWITCHES,
    declared_processes,
    settings_from_environment,
    shared_environment,
)

PORTS_OF_RAY = (
    "RAY_SERVE_HAPROXY_METRICS_PORT",
    "RAY_SERVE_HAPROXY_STATS_PORT",
    "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT",
    "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT",
    "AUTOSCALER_METRIC_PORT",
    "DASHBOARD_METRIC_PORT",
)


@pytest.fixture
def settings(monkeypatch, tmp_path):
    for variable in environment.VARIABLES:
        monkeypatch.delenv(variable.name, raising=False)
    monkeypatch.setenv("MLOPS_STATE_DIR", str(tmp_path / "state"))
    settings = settings_from_environment()
    yield settings
    shutil.rmtree(settings.layout.sockets, ignore_errors=True)


def test_every_process_is_marked_and_sends_nothing_home(settings):
    for spec in declared_processes(settings):
        assert spec.environment[MARKER] == str(settings.state)
        assert {name: spec.environment.get(name) for name in SWITCHES} == dict(SWITCHES), spec.name


def test_every_port_has_a_variable_of_the_environment_table(settings):
    ports = [port for spec in declared_processes(settings) for port in spec.ports]

    assert {port.variable for port in ports} <= {variable.name for variable in environment.VARIABLES}
    assert sorted(port.number for port in ports) == [3000, 5000, 6379, 8000, 8265, 9464]


def test_webserver_and_daemon_ask_the_one_code_server(settings):
    settings.layout.prepare(dagster_yaml=environment.PROJECT_ROOT / "dagster.yaml")
    (entry,) = yaml.safe_load(settings.layout.workspace.read_text())["load_from"]
    commands = {spec.name: spec.command for spec in declared_processes(settings)}

    assert f"--socket={entry['grpc_server']['socket']}" in commands["dagster-code-server"]
    assert f"--location-name={entry['grpc_server']['location_name']}" in commands["dagster-code-server"]
    for name in ("dagster-webserver", "dagster-daemon"):
        assert f"--workspace={settings.layout.workspace}" in commands[name]


def test_remote_services_are_not_started_here(settings, monkeypatch):
    assert [spec.name for spec in declared_processes(settings)] == [
        "ray",
        "mlflow",
        "exporter",
        "dagster-code-server",
        "dagster-webserver",
        "dagster-daemon",
    ]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example.com")
    monkeypatch.setenv("MLOPS_RAY_DASHBOARD_URL", "http://ray.example.com:8265")

    elsewhere = settings_from_environment()

    assert [spec.name for spec in declared_processes(elsewhere)] == [
        "exporter",
        "dagster-code-server",
        "dagster-webserver",
        "dagster-daemon",
    ]
    assert elsewhere.mlflow_url == "https://mlflow.example.com"


def test_every_process_goes_by_the_same_replayed_clock(settings, monkeypatch, tmp_path):
    assert shared_environment(settings)["MLOPS_CLOCK_FILE"] == ""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLOPS_CLOCK_FILE", "clock")

    replayed = settings_from_environment()

    for spec in declared_processes(replayed):
        assert spec.environment["MLOPS_CLOCK_FILE"] == str(tmp_path / "clock"), spec.name


@pytest.mark.parametrize("text", ["http", "0", "65536", "-1", "80.5"])
def test_a_port_that_is_none_is_named(settings, monkeypatch, text):
    monkeypatch.setenv("MLOPS_SERVE_PORT", text)

    with pytest.raises(
        StackError, match=r"MLOPS_SERVE_PORT is '.*'; it must be a whole number from 1 to 65535"
    ):
        settings_from_environment()


def test_an_address_of_another_ray_is_not_handed_on(settings, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "ray.example.com:6379")

    for spec in declared_processes(settings_from_environment()):
        assert "RAY_ADDRESS" not in spec.environment


def test_the_environment_file_survives_a_shell(settings, tmp_path):
    layout = settings.layout
    layout.prepare(dagster_yaml=settings.root / "dagster.yaml")
    values = {**shared_environment(settings), "ODD": "a 'b' $c"}

    layout.write_environment(values)

    shown = subprocess.run(
        ["sh", "-c", f'. "{layout.environment_file}" && printf "%s|%s" "$ODD" "$DAGSTER_HOME"'],
        capture_output=True,
        text=True,
        check=True,
        env={},
    )
    assert shown.stdout == f"a 'b' $c|{layout.dagster_home}"
    assert MARKER not in values


def test_the_instance_configuration_is_linked_not_copied(settings):
    for _ in range(2):
        settings.layout.prepare(dagster_yaml=settings.root / "dagster.yaml")

    assert (settings.layout.dagster_home / "dagster.yaml").resolve() == settings.root / "dagster.yaml"


@pytest.mark.parametrize(
    "temporary", ["/tmp", "/var/tmp", "/home/ana/.cache", "/somewhere/very/" + "long" * 20]
)
def test_every_socket_has_a_path_that_the_kernel_takes(monkeypatch, tmp_path, temporary):
    deep = Layout(tmp_path / ("deep" * 30))
    monkeypatch.setattr("tempfile.tempdir", temporary)
    node, session = "a" * 56, "session_2026-11-29_19-02-00_482771_4194304"

    for socket in (
        deep.haproxy / node / "admin.sock.4194304.tmp",
        deep.ray_temp / session / "sockets" / "dash_MetricsHead",
    ):
        assert len(str(socket)) <= 107, socket
    assert deep.sockets != Layout(tmp_path / "other").sockets


def test_only_the_owner_enters_the_folder_of_sockets(settings):
    settings.layout.prepare(dagster_yaml=settings.root / "dagster.yaml")
    layout, sockets = settings.layout, settings.layout.sockets

    assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
    for folder in (layout.ray_temp, layout.haproxy, layout.temporary):
        assert folder.is_relative_to(sockets)
    for spec in declared_processes(settings):
        assert spec.environment["TMPDIR"] == str(layout.temporary)

    sockets.chmod(0o777)
    layout.prepare(dagster_yaml=settings.root / "dagster.yaml")
    assert stat.S_IMODE(sockets.stat().st_mode) == 0o700


def test_ray_asks_for_a_token_that_only_the_owner_can_read(settings):
    settings.layout.prepare(dagster_yaml=settings.root / "dagster.yaml")
    file = settings.layout.ray_token
    token = file.read_text()

    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(token) == 64
    assert list(file.parent.glob("ray_token*")) == [file]
    for spec in declared_processes(settings):
        assert spec.environment["RAY_AUTH_MODE"] == "token"
        assert spec.environment["RAY_AUTH_TOKEN_PATH"] == str(file)
        # Where others look: the command line, and what a shell sources.
        assert token not in repr(spec)
    assert token not in repr(shared_environment(settings))
    settings.layout.prepare(dagster_yaml=settings.root / "dagster.yaml")
    assert file.read_text() != token


def test_a_token_of_the_shell_does_not_reach_the_ray_of_this_machine(settings, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "of another cluster")

    for spec in declared_processes(settings_from_environment()):
        assert spec.environment["RAY_AUTH_TOKEN"] == ""


def test_a_cluster_elsewhere_keeps_the_token_of_the_shell(settings, monkeypatch):
    monkeypatch.setenv("MLOPS_RAY_DASHBOARD_URL", "http://ray.example.com:8265")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/secrets/ray")

    elsewhere = settings_from_environment()

    for spec in declared_processes(elsewhere):
        assert spec.environment["RAY_AUTH_TOKEN_PATH"] == "/secrets/ray"
    assert not {name for name in shared_environment(elsewhere) if name.startswith("RAY_AUTH")}


@pytest.mark.parametrize("kind", ["link", "file"])
def test_a_name_that_is_not_a_folder_of_ours_is_refused(tmp_path, kind):
    name = tmp_path / "taken"
    name.symlink_to(tmp_path) if kind == "link" else name.write_text("")

    with pytest.raises(StackError, match=r"taken is not a folder of this user"):
        make_private(name)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


def test_a_folder_of_somebody_else_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)

    with pytest.raises(StackError, match=r"owner: uid \d+"):
        make_private(tmp_path)


def test_rays_ports_are_all_chosen_and_all_different(settings):
    (ray,) = [spec for spec in declared_processes(settings) if spec.name == "ray"]
    given = [argument.split("=")[1] for argument in ray.command if "port=" in argument]
    given += [value for name, value in ray.environment.items() if name in PORTS_OF_RAY]

    chosen = [port for port in given if port != "0"]

    assert len(set(chosen)) == len(chosen) == 6 + len(PORTS_OF_RAY)
    assert "--node-ip-address=127.0.0.1" in ray.command
    assert "--dashboard-host=127.0.0.1" in ray.command


def test_what_ray_leaves_open_is_closed(settings):
    (ray,) = [spec for spec in declared_processes(settings) if spec.name == "ray"]

    # The wrapper that closes HAProxy's ports, and Ray's keeping to the node's address.
    assert Path(ray.environment["RAY_SERVE_HAPROXY_BINARY_PATH"]).name == "mlops-haproxy"
    assert os.access(ray.environment["RAY_SERVE_HAPROXY_BINARY_PATH"], os.X_OK)
    assert ray.environment["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"
    # A log target with a port would be a UDP socket on all interfaces.
    assert Path(ray.environment["RAY_SERVE_HAPROXY_LOG_TARGET"]).is_relative_to(settings.layout.sockets)


def test_dagster_accepts_the_instance_configuration(settings):
    settings.layout.prepare(dagster_yaml=settings.root / "dagster.yaml")
    program = (
        "import dagster as dg\n"
        "with dg.DagsterInstance.get() as instance:\n"
        "    print(instance.telemetry_enabled, instance.nux_enabled, instance.run_retries_enabled,\n"
        "          instance.run_monitoring_enabled, instance.run_retries_max_retries)\n"
    )

    told = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=settings.state,
        env={**settings.inherited, **shared_environment(settings)},
    )

    assert told.stdout.split() == ["False", "False", "True", "True", "1"]


def test_the_state_folder_is_the_only_place_that_is_written(settings):
    for spec in declared_processes(settings):
        assert Path(spec.folder).is_relative_to(settings.state)
