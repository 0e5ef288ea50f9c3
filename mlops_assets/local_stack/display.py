"""What a person sees while the platform starts: a live view in a terminal, one line per change elsewhere.

Belongs here: turning progress into text. Does not belong here: what progresses (``up.py``).
"""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)


class Display:
    """Progress of a start. Use it as a context manager; every method may be called in any order."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._started = time.monotonic()
        self._live = console.is_terminal
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[detail]}"),
            console=console,
            disable=not self._live,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "Display":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def begin(self, name: str, *, total: int = 1, detail: str = "") -> None:
        """Something started that ends after ``total`` parts."""
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=total, detail=detail)
        self._say(f"{name} …{f' {detail}' if detail else ''}")

    def advance(self, name: str, *, done: int, total: int, detail: str = "") -> None:
        """Shows a line as ``done`` of ``total`` parts far; ``detail`` is what happens now."""
        self._progress.update(self._tasks[name], completed=done, total=total, detail=detail)
        self._say(f"{name} {done}/{total}{f' {detail}' if detail else ''}")

    def finish(self, name: str, detail: str = "") -> None:
        """Shows that a line ended well."""
        task = self._tasks[name]
        total = next(entry.total for entry in self._progress.tasks if entry.id == task) or 1
        self._progress.update(task, completed=total, detail=detail)
        self._say(f"{name} ✓{f' {detail}' if detail else ''}")

    def note(self, line: str) -> None:
        """One line that stays on the screen."""
        if self._live:
            self._progress.console.print(line, highlight=False, markup=False)
        else:
            self._say(line)

    def _say(self, line: str) -> None:
        if not self._live:
            elapsed = time.monotonic() - self._started
            self.console.print(f"{elapsed:6.1f} s  {line}", highlight=False, markup=False, soft_wrap=True)
