"""Processes start, are watched, and leave nothing behind: tried on real, small processes."""

import os
import signal
import subprocess
import sys
import time

import pytest

from mlops_assets.errors import StackError
from mlops_assets.local_stack import process_table, record
from mlops_assets.local_stack.down import down
from mlops_assets.local_stack.layout import Layout
from mlops_assets.local_stack.ports import Port, unused
from mlops_assets.local_stack.processes import MARKER, ProcessSpec
from mlops_assets.local_stack.supervisor import Supervisor

SERVER = """
import http.server, subprocess, sys
# A grandchild in a session of its own, as Ray's are.
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler).serve_forever()
"""
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(600)
"""
DYING = "import sys; print('the reason it died', flush=True); sys.exit(3)"


@pytest.fixture
def layout(tmp_path):
    layout = Layout(tmp_path / "state")
    for folder in (layout.logs, layout.run):
        folder.mkdir(parents=True)
    yield layout
    process_table.end_marked(MARKER, str(layout.state), patience_s=0.0)


def spec(layout, name, program, *arguments, **more):
    return ProcessSpec(
        name=name,
        command=(sys.executable, "-c", program, *map(str, arguments)),
        environment={"PATH": os.environ["PATH"], MARKER: str(layout.state)},
        folder=layout.run,
        **more,
    )


def server(layout, port):
    return spec(
        layout,
        "server",
        SERVER,
        port,
        ports=(Port(port, "MLOPS_TEST_PORT", "a test"),),
        ready_url=f"http://127.0.0.1:{port}/",
        stop_deadline_s=3.0,
    )


def wait_until_ready(supervisor, seconds=20.0):
    deadline = time.monotonic() + seconds
    names = []
    while supervisor.waiting_for:
        names += [running.spec.name for running in supervisor.poll()]
        assert time.monotonic() < deadline, f"not ready: {supervisor.waiting_for}"
        time.sleep(0.05)
    return names


def test_stop_leaves_no_descendant_behind(layout):
    supervisor = Supervisor([server(layout, unused(1)[0])], layout)
    supervisor.start("first")

    assert wait_until_ready(supervisor) == ["server"]
    assert len(process_table.marked(MARKER, str(layout.state))) == 2
    supervisor.stop()

    assert process_table.marked(MARKER, str(layout.state)) == []


def test_a_descendant_that_lost_its_mark_is_ended_too(layout):
    child = "import time; print('up', flush=True); time.sleep(600)"
    program = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {child!r}], start_new_session=True, env={{}})
print(f"child {{child.pid}}", flush=True)
time.sleep(600)
"""
    supervisor = Supervisor([spec(layout, "titled", program, ready_text="up", stop_deadline_s=3.0)], layout)
    supervisor.start("first")
    wait_until_ready(supervisor)
    pid = int((layout.logs / "titled.log").read_text().split("child ")[1].split()[0])
    assert process_table.identity(pid) is not None
    assert pid not in {process.pid for process in process_table.marked(MARKER, str(layout.state))}

    supervisor.stop()

    assert process_table.identity(pid) is None


def test_what_ignores_sigterm_is_killed(layout):
    stubborn = spec(layout, "stubborn", STUBBORN, ready_text="deaf", stop_deadline_s=0.3)
    supervisor = Supervisor([stubborn], layout)
    supervisor.start("first")
    wait_until_ready(supervisor)
    said = []

    supervisor.stop(said.append)

    assert said == ["stopping stubborn", "stubborn does not stop; killing it"]
    assert process_table.marked(MARKER, str(layout.state)) == []


def test_a_dead_process_is_named_with_the_end_of_its_log(layout):
    supervisor = Supervisor([spec(layout, "dying", DYING, ready_text="never")], layout)
    supervisor.start("first")
    supervisor.running[0].process.wait(timeout=20)

    with pytest.raises(StackError, match=r"dying ended with exit code 3(?s:.*)the reason it died"):
        supervisor.poll()


def test_a_process_that_is_never_ready_is_an_error_that_says_what_was_awaited(layout):
    late = spec(layout, "late", STUBBORN, ready_text="the word", ready_deadline_s=0.0, stop_deadline_s=0.1)
    supervisor = Supervisor([late], layout)
    supervisor.start("first")

    try:
        with pytest.raises(StackError, match=r"late did not answer within 0 s \('the word'\)"):
            supervisor.poll()
    finally:
        supervisor.stop()


def test_a_taken_port_starts_nothing(layout):
    port = unused(1)[0]
    first = Supervisor([server(layout, port)], layout)
    first.start("first")
    wait_until_ready(first)

    try:
        with pytest.raises(StackError, match="set MLOPS_TEST_PORT to a free port"):
            Supervisor([server(layout, port)], layout).require_ports()
    finally:
        first.stop()


def test_a_stage_starts_only_its_own(layout):
    later = spec(layout, "later", STUBBORN, ready_text="deaf", stage="after the graph", stop_deadline_s=0.1)
    supervisor = Supervisor([later], layout)

    assert supervisor.start("first") == []
    assert process_table.marked(MARKER, str(layout.state)) == []


def test_processes_of_another_platform_are_left_alone(layout, tmp_path):
    other = Layout(tmp_path / "state-2")
    environment = {"PATH": os.environ["PATH"], MARKER: str(other.state)}
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], env=environment)
    try:
        assert not down(layout, print)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_down_ends_what_a_killed_supervisor_left(layout):
    supervisor = Supervisor([server(layout, unused(1)[0])], layout)
    supervisor.start("first")
    wait_until_ready(supervisor)
    orphan = supervisor.running[0].process
    said = []

    assert down(layout, said.append)
    orphan.wait(timeout=20)

    assert any("what was left" in line for line in said)
    assert process_table.marked(MARKER, str(layout.state)) == []
    assert not down(layout, said.append)


def test_a_stale_record_is_not_believed(layout):
    with record.held(layout):
        record.write(layout, "ready", ("flights",))
        mine = record.owner(layout)
        text = (layout.run / "owner.json").read_text(encoding="utf-8")
    assert mine is not None
    assert (mine.pid, mine.phase, mine.deployments) == (os.getpid(), "ready", ("flights",))

    # The same pid after a reboot, or reused: another start.
    (layout.run / "owner.json").write_text(text.replace(mine.started, f"{mine.started}0"), encoding="utf-8")

    assert record.owner(layout) is None
    assert not down(layout, print)


def test_only_one_supervisor_holds_a_platform(layout):
    program = (
        "import sys, time, pathlib\n"
        "from mlops_assets.local_stack import record\n"
        "from mlops_assets.local_stack.layout import Layout\n"
        "layout = Layout(pathlib.Path(sys.argv[1]))\n"
        "with record.held(layout):\n"
        "    record.write(layout, 'starting')\n"
        "    print('held', flush=True)\n"
        "    time.sleep(600)\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program, str(layout.state)], stdout=subprocess.PIPE, env={**os.environ}
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(StackError, match=f"already being run by pid {other.pid}"), record.held(layout):
            pass
    finally:
        other.send_signal(signal.SIGKILL)
        other.communicate()

    # A killed owner's lock is free at once, whatever its record says.
    with record.held(layout):
        assert record.owner(layout) is None
