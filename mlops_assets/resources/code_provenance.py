"""Which code is running: the commit recorded with models and runs.

Belongs here: asking git once. Does not belong here: code versions of assets
(``assets/code_version.py``).
"""

import functools
import shutil
import subprocess

from mlops_assets import environment


@functools.cache
def git_sha() -> str:
    """MLOPS_GIT_SHA, or HEAD of the checkout with ``-dirty`` when files differ; ``unknown`` outside git."""
    declared = environment.GIT_SHA.read()
    if declared:
        return declared
    if shutil.which("git") is None or not (environment.PROJECT_ROOT / ".git").exists():
        return "unknown"
    head = _git("rev-parse", "HEAD")
    if head is None:
        return "unknown"
    return f"{head}-dirty" if _git("status", "--porcelain", "--untracked-files=no") else head


def _git(*arguments: str) -> str | None:
    """Output of a git command, or None when git refuses (e.g. a checkout owned by another user)."""
    found = subprocess.run(
        ["git", "-C", str(environment.PROJECT_ROOT), *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return found.stdout.strip() if found.returncode == 0 else None
