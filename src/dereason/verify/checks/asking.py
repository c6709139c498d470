"""Asking checks, from the process that judges: which check decides, and what the workers say."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from dereason.problems.gym import GYM
from dereason.verify.checks.names import Check, built_in, is_function
from dereason.verify.checks.source import find, search_path
from dereason.verify.equivalence import Comparison
from dereason.verify.workers import Outcome, Pool

if TYPE_CHECKING:
    from dereason.verify.verifier import Item, VerifierSettings

BACKSTOP = 5.0
"""Seconds beyond the time limit after which a worker that should have ended a call of a function is ended itself."""


def identity(names: Sequence[str]) -> dict[str, str]:
    """What identifies checks in keys and provenance: a hash of each function's file, and reasoning-gym's version.

    Raises:
        DereasonError: a function is not there.
    """
    found = {name: find(name).digest for name in sorted(set(names)) if is_function(name)}
    try:
        return found | {GYM: version("reasoning-gym")}
    except PackageNotFoundError:
        return found


class Checks:
    """The checks of one verifier; their workers start with the first call."""

    def __init__(self, settings: VerifierSettings) -> None:
        self.settings = settings
        self._known = {name: self._named(name) for name in settings.check_names()}
        self._pools = {name: self._pool(name) for name in (GYM, *filter(is_function, self._known))}

    def of(self, item: Item) -> Check | None:
        """What decides on an item: the settings' check of its source, else theirs for all, else its own, else nothing.

        None means equality with the reference.
        """
        name = self.settings.answer_check_by_source.get(item.source) or self.settings.answer_check
        return self._known[name] if name else item.check

    def ask(self, asked: Sequence[tuple[Check, Item, str | None]]) -> list[tuple[Comparison, bool]]:
        """Ask checks about answers, in order.

        Args:
            asked: the check, the item, and the answer that was found in its response; None for a check that reads the
                whole of it.

        Returns:
            For each a comparison (``equal`` is None where the check failed), and whether it would fare the same again.
        """
        told: list[tuple[Comparison, bool] | None] = [None] * len(asked)
        for name in dict.fromkeys(GYM if check.family else check.name for check, _, _ in asked):
            places = [i for i, (check, _, _) in enumerate(asked) if (GYM if check.family else check.name) == name]
            tasks: dict[int, Any] = {}
            for i in places:
                try:
                    tasks[i] = _task(*asked[i])
                except (ValueError, RecursionError):
                    told[i] = Comparison(None, f"{asked[i][0].name}: the problem's metadata is no JSON object"), True
            for i, outcome in zip(tasks, self._pools[name].run(list(tasks.values())), strict=True):
                told[i] = _comparison(asked[i][0], outcome), outcome.lasting
        return [each for each in told if each is not None]

    def close(self) -> None:
        """End the worker processes."""
        for pool in self._pools.values():
            pool.close()

    def _named(self, name: str) -> Check | None:
        return Check(name, find(name).parameters) if is_function(name) else built_in(name, "verifier.answer_check")

    def _pool(self, name: str) -> Pool:
        settings = self.settings
        limits: dict[str, Any] = {
            "memory_limit": settings.memory_limit,
            "workers": settings.workers,
            "what": "the check",
        }
        if name == GYM:
            return Pool(time_limit=settings.time_limit, target="dereason.verify.checks.gym:load", **limits)
        unguarded = "yes" if settings.answer_check_unguarded else "no"
        return Pool(
            time_limit=settings.time_limit + BACKSTOP,
            target="dereason.verify.checks.function:load",
            arguments=[name, json.dumps(search_path()), str(settings.time_limit), unguarded],
            scratch=True,
            **limits,
        )


def _task(check: Check, item: Item, answer: str | None) -> Any:
    metadata = json.loads(item.metadata) if item.metadata else {}
    if not isinstance(metadata, dict):
        raise ValueError
    if check.family:
        return [check.family, answer or "", item.reference, metadata]
    wanted = {
        "answer": answer,
        "response": item.response,
        "reference": item.reference,
        "metadata": metadata,
        "options": list(item.options or []) or None,
        "source": item.source,
    }
    return {name: wanted[name] for name in check.parameters}


def _comparison(check: Check, outcome: Outcome) -> Comparison:
    if outcome.failure is not None:
        return Comparison(None, f"{check.name}: {outcome.failure}"[:300])
    if check.family:
        right, reason = outcome.value
        return Comparison(right, f"{check.name}: {reason}"[:300])
    return Comparison(outcome.value, f"{check.name} {'accepts' if outcome.value else 'refuses'} it")
