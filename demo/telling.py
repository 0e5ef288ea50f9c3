"""The story's text: scenes, one line per transition with virtual and real time, tables.

Belongs here: how a line looks, in a terminal and in a log. Does not belong here: what happened
(``changes.py``), what is waited for (``story.py``).
"""

import time
from collections.abc import Callable, Sequence
from datetime import datetime

from rich.console import Console
from rich.markup import escape
from rich.table import Table

MARKS = {"done": "[green]✓[/]", "seen": "·", "doing": "[cyan]▸[/]", "bad": "[red]✗[/]"}


class Teller:
    """Prints the story. ``virtual`` gives the virtual time of a line."""

    def __init__(
        self,
        console: Console,
        virtual: Callable[[], datetime | None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console, self._virtual, self._clock = console, virtual, clock
        self._started = clock()

    @property
    def elapsed(self) -> float:
        """Real seconds since the story began."""
        return self._clock() - self._started

    def scene(self, title: str, text: str = "") -> None:
        """A new part of the story."""
        self._console.print()
        self._console.print(f"[bold]{escape(title)}[/]", highlight=False)
        if text:
            self._console.print(f"[dim]{escape(text)}[/]", highlight=False, soft_wrap=True)

    def line(self, what: str, detail: str = "", *, mark: str = "seen") -> None:
        """One line: virtual time, real time, a mark, what happened, and the platform's own words."""
        now = self._virtual()
        at = f"{now:%a %d %b %H:%M}" if now else " " * 16
        head = f"[dim]{at}  {self.elapsed:6.1f} s[/]  {MARKS[mark]} "
        text = f"{head}{escape(what)}" + (f"[dim]  {escape(detail)}[/]" if detail else "")
        self._console.print(text, highlight=False, soft_wrap=True)

    def item(self, what: str, detail: str) -> None:
        """A line of a list, without a time."""
        self._console.print(f"  {escape(what)}  [dim]{escape(detail)}[/]", highlight=False, soft_wrap=True)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table; the first column is text, the others are numbers."""
        shown = Table(box=None, padding=(0, 2), header_style="dim")
        for position, column in enumerate(columns):
            shown.add_column(column, justify="right" if position else "left", no_wrap=True)
        for row in rows:
            shown.add_row(*row)
        self.scene(title)
        self._console.print(shown)

    def end(self, text: str, *, good: bool) -> None:
        """The last words."""
        self._console.print()
        self._console.print(
            f"[bold {'green' if good else 'red'}]{escape(text)}[/]", highlight=False, soft_wrap=True
        )
