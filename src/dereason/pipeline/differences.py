"""What has changed since finished steps were made, and that their keys do not hold: said at a start, a line each."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from dereason.pipeline.progress import Screen
from dereason.pipeline.store import Log, Step, begun_with, finished, partial_of


@dataclass(frozen=True)
class Difference:
    """One thing that is another one now.

    Attributes:
        what: a package, ``python``, ``processor``, ``device``, ``threads``, a repository of the hub, or a setting that
            is in no key.
        then: its version, name or commit when the steps were made.
        now: the present one.
        made: labels of finished steps.
        begun: labels of steps that were begun and will be continued.
    """

    what: str
    then: str
    now: str
    made: tuple[str, ...]
    begun: tuple[str, ...]

    def words(self) -> str:
        """One line for people."""
        parts = [f"{_named(labels)} made" for labels in (self.made,) if labels]
        parts += [f"{_named(labels)} begun" for labels in (self.begun,) if labels]
        return f"{self.what} was {_short(self.then)} when {' and '.join(parts)}; now it is {_short(self.now)}"


def _short(value: str) -> str:
    """A commit by its first twelve digits, as everywhere."""
    return value[:12] if re.fullmatch("[0-9a-f]{40}", value) else value


def _named(labels: tuple[str, ...]) -> str:
    if len(labels) == 1:
        return f"the step '{labels[0]}' was"
    return f"{len(labels)} steps ('{labels[0]}', ...) were"


def differences(steps: Iterable[tuple[Step, Path]]) -> list[Difference]:
    """What differs from when steps were made, or begun; one entry for each value that something had then.

    Args:
        steps: with their folders; those that are neither finished nor begun have nothing to differ from.

    What is not known then or now, such as the commit of a model that this machine has not loaded, is no difference.
    """
    found: dict[tuple[str, str, str], tuple[list[str], list[str]]] = {}
    for step, folder in steps:
        record = finished(folder)
        begun = begun_with(partial_of(folder)) if record is None else None
        then = begun or {} if record is None else record.get("made_with", {})
        now = step.made_with() if then else {}
        for what in then.keys() & now.keys():
            if then[what] != now[what]:
                labels = found.setdefault((what, then[what], now[what]), ([], []))
                labels[record is None].append(step.label)
    return [Difference(*key, tuple(made), tuple(begun)) for key, (made, begun) in sorted(found.items())]


def say_differences(steps: Iterable[tuple[Step, Path]], screen: Screen, log: Log) -> None:
    """Say what :func:`differences` finds, on the screen and as events ``differs`` of the log."""
    for found in differences(steps):
        screen.say(f"  note: {found.words()}", style="yellow")
        log.event("differs", **asdict(found))
