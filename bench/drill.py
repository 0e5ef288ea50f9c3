"""Breaks a running canary on purpose and watches the gateway take it out.

``python -m bench.drill flights`` sends traffic to a deployment of the local platform, kills every replica
of its canary (or shadow) over and over, and reports how long the gateway let it go on and how many callers
did not get an answer. The rollout sensor then records the abort. Belongs here: the drill for people. Does
not belong here: the measured fault injection (``mlops_assets/testing/life_cycle.py``).
"""

import argparse
import contextlib
import os
import signal
import sys
import threading
import time
from collections import Counter
from typing import Any

import httpx

from mlops_assets import environment

KILL_INTERVAL_S = 1.0
DEADLINE_S = 60.0


class Traffic:
    """Callers with units of their own, in threads, until stopped."""

    def __init__(self, url: str, rows: list[dict[str, Any]], callers: int, rate: float) -> None:
        self.answers: Counter[str] = Counter()
        self._url, self._rows, self._stopped = url, rows, threading.Event()
        self._between_s = callers / rate
        self._threads = [threading.Thread(target=self._call, args=(n,)) for n in range(callers)]

    def __enter__(self) -> "Traffic":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _call(self, caller: int) -> None:
        headers = {"x-api-key": environment.API_KEY.read()} if environment.API_KEY.read() else {}
        with httpx.Client(base_url=self._url, timeout=30, trust_env=False, headers=headers) as client:
            number = 0
            while not self._stopped.wait(self._between_s):
                body = {
                    "features": self._rows[number % len(self._rows)],
                    "unit": f"caller-{caller}-{number}",
                }
                try:
                    answer = client.post("/predict", json=body)
                except httpx.TransportError as error:
                    self.answers[type(error).__name__] += 1
                    continue
                told = (
                    answer.headers.get("x-variant", "") if answer.is_success else f"HTTP {answer.status_code}"
                )
                self.answers[told] += 1
                number += 1


def main() -> None:
    """Exit code 0 when every caller was answered (and, unless only traffic was asked for, it tripped)."""
    parser = argparse.ArgumentParser(prog="python -m bench.drill", description=__doc__)
    parser.add_argument("deployment")
    parser.add_argument("--callers", type=int, default=4)
    parser.add_argument("--rate", type=float, default=40.0, help="Requests per second of all callers.")
    parser.add_argument(
        "--traffic-only", type=float, metavar="SECONDS", help="Send traffic and kill nothing."
    )
    options = parser.parse_args()
    url = f"{environment.serve_url()}/{options.deployment}"
    rows = [_example(url)]
    with Traffic(url, rows, options.callers, options.rate) as traffic:
        if options.traffic_only:
            time.sleep(options.traffic_only)
            passed = True
        else:
            passed = _break(url, options.deployment)
    lost = {told: count for told, count in traffic.answers.items() if told not in ("stable", "canary")}
    total = sum(traffic.answers.values())
    print(f"{total} requests: {dict(traffic.answers)}; not answered: {sum(lost.values())}")
    sys.exit(0 if passed and not lost else 1)


def _break(url: str, deployment: str) -> bool:
    canary = next(
        (
            version
            for version, route in _ready(url)["routes"].items()
            if route["variant"] != "stable" and (route["weight"] or route["shadow"])
        ),
        None,
    )
    if canary is None:
        print(f"{deployment} has no canary: start a rollout first (docs/rollouts.md)")
        return False
    started = time.monotonic()
    print(f"breaking {canary}: every replica of it is killed each second")
    while time.monotonic() - started < DEADLINE_S:
        for pid in _pids(f"{deployment}--{canary}"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        reached = time.monotonic() + KILL_INTERVAL_S
        while time.monotonic() < reached:
            route = _ready(url)["routes"].get(canary)
            if route is None or route["tripped"]:
                told = route["tripped"] if route else "the rollout was aborted"
                print(f"{canary} is out after {time.monotonic() - started:.1f} s: {told}")
                return True
            time.sleep(0.1)
    print(f"{canary} still gets traffic after {DEADLINE_S:.0f} s")
    return False


def _ready(url: str) -> dict[str, Any]:
    return dict(httpx.get(f"{url}/ready", timeout=10, trust_env=False).json())


def _pids(application: str) -> list[int]:
    answer = httpx.get(
        f"{environment.ray_dashboard_url()}/api/serve/applications/", timeout=10, trust_env=False
    )
    known = answer.json()["applications"].get(application, {})
    return [
        replica["pid"]
        for part in known.get("deployments", {}).values()
        for replica in part["replicas"]
        if replica.get("pid")
    ]


def _example(url: str) -> dict[str, Any]:
    document = httpx.get(f"{url}/openapi.json", timeout=10, trust_env=False).json()
    content = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
    return dict((content.get("example") or next(iter(content["examples"].values()))["value"])["features"])


if __name__ == "__main__":
    main()
