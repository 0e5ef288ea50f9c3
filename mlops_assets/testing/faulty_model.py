"""A model version that fails as told, to see what a gateway does about it. For the bench only.

Belongs here: the faults. Does not belong here: declaring it and judging the outcome
(``life_cycle.py``). It says hello like any version and loads a real package: what fails is scoring,
or loading, and nothing but the deployment's name tells the gateway which class this is.
"""

import asyncio
import math
import os
import signal
from collections.abc import Mapping, Sequence
from typing import Any

from ray import serve
from ray.serve import Application

from serve.builder import CPUS_PER_REPLICA, LOGGING, MODEL_ONGOING, MODEL_QUEUED
from serve.model import Model
from serve.validation import Row
from serve.versions import Scores

FAULTS = ("errors", "some errors", "slow", "hang", "nan", "memory", "crash on load")


class FaultyModel(Model):
    """``fault`` is one of FAULTS; ``memory`` ends the process as the kernel does when memory is out."""

    def __init__(self, args: Mapping[str, Any], fault: str) -> None:
        if fault == "crash on load":
            os.kill(os.getpid(), signal.SIGKILL)
        super().__init__(args)
        self._fault, self._calls = fault, 0

    async def score_rows(self, rows: Sequence[Row]) -> Scores:
        self._calls += 1
        scores = await super().score_rows(rows)
        if self._fault == "errors" or (self._fault == "some errors" and self._calls % 5 == 0):
            raise RuntimeError("this version fails on purpose")
        if self._fault == "slow":
            await asyncio.sleep(0.6)
        elif self._fault == "hang":
            await asyncio.sleep(3_600)
        elif self._fault == "nan":
            return [math.nan for _ in scores]
        elif self._fault == "memory":
            os.kill(os.getpid(), signal.SIGKILL)
        return scores


def build(args: dict[str, Any]) -> Application:
    """The application of a faulty version, declared like ``serve.builder:build_model``, plus ``fault``."""
    fault = args["fault"]
    model = {name: value for name, value in args.items() if name != "fault"}
    return serve.deployment(
        FaultyModel,
        name="Model",
        num_replicas=model.get("num_replicas", 1),
        ray_actor_options={"num_cpus": CPUS_PER_REPLICA},
        max_ongoing_requests=MODEL_ONGOING,
        max_queued_requests=MODEL_QUEUED,
        health_check_period_s=2,
        health_check_timeout_s=5,
        graceful_shutdown_wait_loop_s=1,
        graceful_shutdown_timeout_s=5,
        logging_config=LOGGING,
    ).bind(model, fault)
