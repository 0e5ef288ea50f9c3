"""Jobs that tell how they were started, for the tests of warm runs."""

import os
import sys
import time

import dagster as dg

STARTED = "started"


@dg.op
def tell(context: dg.OpExecutionContext) -> None:
    context.log.info(f"parent {os.getppid()}, Evidently imported {'evidently' in sys.modules}")


@dg.op
def wait(context: dg.OpExecutionContext) -> None:
    context.log.info(STARTED)
    while True:
        time.sleep(0.05)


@dg.op
def die() -> None:
    os._exit(7)


@dg.job(executor_def=dg.in_process_executor)
def telling() -> None:
    tell()


@dg.job(executor_def=dg.in_process_executor)
def waiting() -> None:
    wait()


@dg.job(executor_def=dg.in_process_executor)
def dying() -> None:
    die()
