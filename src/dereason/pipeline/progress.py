"""What a person sees while it works: bars on a terminal, a line now and then elsewhere; always on stderr."""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO

from dereason.lm.base import Progress
from dereason.verify.confusion import Confusion, lines


class Screen:
    """Progress of the steps of a run."""

    def __init__(self, quiet: bool = False, stream: TextIO | None = None) -> None:
        from rich.console import Console

        self.quiet = quiet
        self.console = Console(file=stream or sys.stderr, highlight=False)
        self._bar: Any = None

    def say(self, text: str, style: str | None = None) -> None:
        """Print one line (data and model text in it is not read as markup)."""
        if not self.quiet:
            self.console.print(text, style=style, markup=False, soft_wrap=True)

    def step(self, label: str) -> Progress:
        """Begin a step; call the result with (done, total, words) as it goes, and :meth:`end` after it."""
        if self.quiet:
            return lambda done, total, words: None
        if self.console.is_terminal:
            return self._terminal(label)
        return self._plain(label)

    def end(self, label: str, words: str) -> None:
        """A step is over."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        self.say(f"  {label:<34} {words}")

    def confusion(self, table: Confusion | None) -> None:
        """What the verifier said in a step, by kind of answer; nothing where it judged nothing."""
        for line in lines(table) if table else []:
            self.say(f"      {line}", style="dim")

    def stop(self) -> None:
        """Take down a bar that an error left standing."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _terminal(self, label: str) -> Progress:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Bars

        bars = Bars(
            TextColumn("  {task.description:<34}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[words]}", markup=False),
            console=self.console,
            transient=True,
        )
        bars.start()
        task = bars.add_task(label, total=None, words="")
        self._bar = bars
        return lambda done, total, words: bars.update(task, completed=done, total=total, words=words)

    def _plain(self, label: str) -> Progress:
        last = time.monotonic()
        self.say(f"  {label} ...")

        def tell(done: int, total: int, words: str) -> None:
            nonlocal last
            if time.monotonic() - last > 15 and done < total:
                last = time.monotonic()
                self.say(f"  {label:<34} {done}/{total} {words}")

        return tell
