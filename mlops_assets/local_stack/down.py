"""``mlops down``: stop the platform of a state folder, whatever is left of it.

Belongs here: ending a platform from outside. Does not belong here: the order in which its processes
stop (``supervisor.py``).
"""

import shutil
import signal
import time
from collections.abc import Callable

from mlops_assets.local_stack import process_table, record
from mlops_assets.local_stack.layout import Layout
from mlops_assets.local_stack.processes import MARKER

PATIENCE_S = 60.0


def down(layout: Layout, report: Callable[[str], None], *, patience_s: float = PATIENCE_S) -> bool:
    """Stops everything; False when nothing was running. Calling it again does no harm."""
    running = record.owner(layout)
    if running is not None:
        report(f"stopping the platform (pid {running.pid})")
        process_table.end(running.identity, signal.SIGTERM)
        deadline = time.monotonic() + patience_s
        while process_table.is_alive(running.identity) and time.monotonic() < deadline:
            time.sleep(0.1)
        if process_table.is_alive(running.identity):
            report(f"pid {running.pid} does not stop; killing it")
            process_table.end(running.identity, signal.SIGKILL)
    # A supervisor that was killed could not clean up.
    left = process_table.end_marked(MARKER, str(layout.state))
    for command in left:
        report(f"stopped what was left: {command}")
    shutil.rmtree(layout.sockets, ignore_errors=True)
    return running is not None or bool(left)
