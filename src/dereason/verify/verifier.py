"""From responses to verdicts: span, then comparison; alone or in batches.

Extraction and the fast rules run in the caller's process. What they leave undecided goes to the killable workers
of :mod:`dereason.verify.workers`, each pair under a time and a memory limit. Comparisons are remembered, the
failed ones too, so that one bomb in a group of rollouts costs its limit once.

The rule for responses that were cut off: an answer that says it is one (a box, "final answer", ``####``, a
choice letter as the conclusion) counts whatever comes after it. A bare number in the middle of a cut-off
calculation is no answer, and neither is one that ends where the text was cut: "the answer is 4" may have been
going to be 42. Truncation alone never makes a response wrong.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from pydantic import Field, ValidationError

from dereason.errors import DereasonError
from dereason.problems.schema import Verdict
from dereason.settings import Settings
from dereason.verify.equivalence import Comparison, compare
from dereason.verify.kinds import Kind
from dereason.verify.locate import Span, locate
from dereason.verify.reading import kind_of
from dereason.verify.span import Mark
from dereason.verify.tolerance import Tolerance
from dereason.verify.verdict import Judgement
from dereason.verify.workers import Pool

_HOW = {
    "boxed": "boxed",
    "final_answer": "stated as the answer",
    "hash": "after ####",
    "letter": "concluding letter",
    "number": "last number",
    "tag": "in <answer> tags",
    "alone": "by itself",
}


class VerifierSettings(Settings):
    """What the verifier forgives, and its limits, which never change what is right, only when it gives up."""

    tolerance: Tolerance = Tolerance()
    """How far numbers may be from the reference, where neither the problem nor its source says; exact by default."""
    tolerance_by_source: dict[str, Tolerance] = Field(default_factory=dict)
    """The same for the problems of one source each, by the name in the problems' `source` column."""

    time_limit: float = Field(default=5.0, gt=0)
    """Seconds of wall time that one symbolic comparison may take; beyond it the verdict is `error`."""
    memory_limit: int = Field(default=1024, ge=64)
    """MiB that one symbolic comparison may take beyond its worker's imports; beyond it the verdict is `error`."""
    workers: int = Field(default=0, ge=0)
    """Worker processes for symbolic comparison, started when first needed; 0 means one a core, up to 4."""
    cache_size: int = Field(default=100_000, ge=0)
    """Comparisons that are remembered in memory, the least recently used forgotten first."""

    def key(self) -> dict[str, Any]:
        """The settings that can change a verdict, for step keys."""
        names = {"time_limit", "memory_limit", "tolerance", "tolerance_by_source"}
        return self.model_dump(mode="json", include=names)


@dataclass(frozen=True)
class Item:
    """One response to judge."""

    response: str
    """The generated text, without the prompt."""
    hit_limit: bool
    """Whether generation stopped at the length limit."""
    reference: str
    """The problem's answer."""
    options: Sequence[str] | None = None
    """The choices of a multiple-choice problem, in order; none or empty for a free-form one."""
    accepted: Sequence[str] = ()
    """Other references that count as well."""
    tolerance: Tolerance | None = None
    """How far numbers may be from the reference; None for what the verifier's settings say."""
    source: str = ""
    """The problem's source, by which the settings may give a tolerance."""


JUDGED = ("answer", "options", "source", "metadata")
"""The columns of the PROBLEM table that decide a verdict."""


def item_of(response: str, hit_limit: bool, problem: Mapping[str, Any]) -> Item:
    """What is judged of a response to a row of the PROBLEM table.

    Its ``metadata`` (JSON) may have ``accepted``, a list of further references, and ``tolerance``, an object with the
    fields of :class:`~dereason.verify.tolerance.Tolerance`.

    Raises:
        DereasonError: one of these is something else.
    """
    more: Any = {}
    raw = problem.get("metadata")
    named = str(problem.get("id") or problem.get("problem_id") or "a problem")
    # a data set that TRL is given may have a column of that name and of any type
    if isinstance(raw, str) and ('"accepted"' in raw or '"tolerance"' in raw):
        try:
            more = json.loads(raw)
        except (ValueError, RecursionError):
            more = None
    if not isinstance(more, dict):
        raise DereasonError(f"{named}: metadata is no JSON object", "write the metadata again, or leave it out")
    accepted, tolerance = more.get("accepted"), more.get("tolerance")
    accepted = [] if accepted is None else accepted
    if not isinstance(accepted, list) or not all(isinstance(one, str) and one.strip() for one in accepted):
        raise DereasonError(
            f"{named}: 'accepted' is no list of texts",
            "give the further references as a list of texts, or name that field otherwise",
        )
    try:
        limits = None if tolerance is None else Tolerance.model_validate(tolerance)
    except ValidationError as exc:
        raise DereasonError(
            f"{named}: 'tolerance' is not understood ({exc.errors()[0]['msg']})",
            "give an object with 'relative', 'absolute' or 'significant', or name that field otherwise",
        ) from exc
    options = problem.get("options") or None
    return Item(
        response, hit_limit, problem["answer"], options, tuple(accepted), limits, str(problem.get("source") or "")
    )


Pair = tuple[str, str, Sequence[str] | None]
"""Answer, reference, options."""
_Asked = tuple[str, str, Sequence[str] | None, Tolerance]


class ComparisonError(Exception):
    """A comparison that could not be finished; the message is the cause."""


class Verifier:
    """Judges responses under the limits of its settings.

    Worker processes start with the first comparison that needs one. They end with :meth:`close`, with the last
    reference to the verifier, or with the process. Safe to use from several threads and after a fork.
    """

    def __init__(self, settings: VerifierSettings | None = None) -> None:
        self.settings = settings or VerifierSettings()
        self._pool = Pool(
            time_limit=self.settings.time_limit,
            memory_limit=self.settings.memory_limit,
            workers=self.settings.workers,
        )
        self._remembered: OrderedDict[Any, Comparison] = OrderedDict()
        self._lock = threading.Lock()
        _verifiers.add(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the worker processes. The next comparison that needs one would start it again."""
        self._pool.close()

    def judge(
        self,
        response: str,
        hit_limit: bool,
        reference: str,
        options: Sequence[str] | None = None,
        *,
        accepted: Sequence[str] = (),
        tolerance: Tolerance | None = None,
    ) -> Judgement:
        """Judge one response.

        Args:
            response: the generated text, without the prompt.
            hit_limit: whether generation stopped at the length limit.
            reference: the problem's answer.
            options: the choices of a multiple-choice problem, in order.
            accepted: other references that count as well.
            tolerance: how far numbers may be from the reference; None for what the settings say.

        Never raises: whatever goes wrong becomes the verdict ``error`` with its cause.
        """
        return self.judge_many([Item(response, hit_limit, reference, options, accepted, tolerance)])[0]

    def judge_many(self, items: Sequence[Item], marks: Collection[Mark] | None = None) -> list[Judgement]:
        """Judge a batch, in order; pairs that need symbolic comparison run in parallel.

        Never raises for anything that a response holds; see :meth:`judge`. Of several references that one decides
        which the response meets, else the first.

        Args:
            items: the responses.
            marks: an answer counts only at one of these; elsewhere it is none, so that the verdict is ``unparsable``
                or ``truncated``. None: any answer counts.
        """
        judged = self._judge_against([replace(item, accepted=()) for item in items], marks)
        more = [
            (i, replace(item, reference=other, accepted=()))
            for i, item in enumerate(items)
            if item.accepted and judged[i].verdict is not Verdict.CORRECT
            for other in item.accepted
        ]
        for (i, _), other in zip(more, self._judge_against([item for _, item in more], marks), strict=True):
            if other.verdict is Verdict.CORRECT:
                judged[i] = other
        return judged

    def rewarded(
        self, items: Sequence[Item], judged: Sequence[Judgement], marks: Collection[Mark] | None
    ) -> list[Judgement]:
        """What :meth:`judge_many` says of the items under marks, given what it said of them without.

        Where an answer stands at a mark that counts, the two are one judgement; only the rest is looked at again.
        """
        out = list(judged)
        again = [
            i
            for i, (item, judgement) in enumerate(zip(items, judged, strict=True))
            if marks is not None
            and judgement.verdict is not Verdict.UNPARSABLE
            and (judgement.how not in marks or (item.accepted and judgement.verdict is not Verdict.CORRECT))
        ]
        for i, judgement in zip(again, self.judge_many([items[i] for i in again], marks), strict=True):
            out[i] = judgement
        return out

    def tolerance_of(self, item: Item) -> Tolerance:
        """The tolerance that an item is judged with."""
        if item.tolerance is not None:
            return item.tolerance
        return self.settings.tolerance_by_source.get(item.source, self.settings.tolerance)

    def _judge_against(self, items: Sequence[Item], marks: Collection[Mark] | None) -> list[Judgement]:
        """Judge each item against its one reference."""
        none = "no answer found" if marks is None else "no answer found at a mark that counts"
        judged: list[Judgement | None] = [None] * len(items)
        found: list[tuple[int, Span, Kind]] = []
        for i, item in enumerate(items):
            kind: Kind | None = None
            # A response is arbitrary text. Whatever it does to the verifier must cost one sample, not the run,
            # and must not count against the model.
            try:
                kind = kind_of(item.reference, item.options or None)
                span = locate(item.response, kind=kind, options=item.options or None, marks=marks)
            except Exception as exc:
                judged[i] = Judgement(Verdict.ERROR, None, _failure(exc), kind)
                continue
            if span is not None and (not item.hit_limit or span.survives_cut(item.response)):
                found.append((i, span, kind))
            elif item.hit_limit:
                judged[i] = Judgement(Verdict.TRUNCATED, None, "the length limit came before any answer", kind)
            else:
                judged[i] = Judgement(Verdict.UNPARSABLE, None, none, kind)
        comparisons = self.equivalent_many(
            [(e.text, items[i].reference, items[i].options) for i, e, _ in found],
            [self.tolerance_of(items[i]) for i, _, _ in found],
        )
        for (i, span, kind), comparison in zip(found, comparisons, strict=True):
            if comparison.equal is None:
                verdict, reason = Verdict.ERROR, comparison.reason
            else:
                verdict = Verdict.CORRECT if comparison.equal else Verdict.WRONG
                reason = f"{_HOW.get(span.how, span.how)}: {comparison.reason}"
            judged[i] = Judgement(verdict, span.text, reason, kind, span.how, span.start, span.end)
        return [j for j in judged if j is not None]

    def equivalent(
        self, answer: str, reference: str, options: Sequence[str] | None = None, tolerance: Tolerance | None = None
    ) -> tuple[bool, str]:
        """Whether an answer equals the reference, and why, in words.

        Raises:
            ComparisonError: a limit was reached, or the reference is empty or names none of the options.
        """
        comparison = self.equivalent_many([(answer, reference, options)], [tolerance] if tolerance else None)[0]
        if comparison.equal is None:
            raise ComparisonError(comparison.reason)
        return comparison.equal, comparison.reason

    def equivalent_many(self, pairs: Sequence[Pair], tolerances: Sequence[Tolerance] | None = None) -> list[Comparison]:
        """Compare a batch of (answer, reference, options), in order. Never raises.

        Args:
            pairs: what is compared.
            tolerances: one for each pair; None for what the settings say.

        Returns:
            For each pair a comparison; ``equal`` is None where it failed, with the cause as its reason.
        """
        out: list[Comparison | None] = []
        undecided: dict[Any, tuple[_Asked, list[int]]] = {}
        limits = tolerances if tolerances is not None else [self.settings.tolerance] * len(pairs)
        for i, ((answer, reference, options), tolerance) in enumerate(zip(pairs, limits, strict=True)):
            pair = (answer, reference, options or None, tolerance)
            key = _key(pair)
            known = self._recall(key)
            if known is None and key not in undecided:
                known = _fast(pair)
                if known is not None:
                    self._remember(key, known)
            out.append(known)
            if known is None:
                undecided.setdefault(key, (pair, []))[1].append(i)
        if undecided:
            self._ask_workers(undecided, out)
        return [c for c in out if c is not None]

    def _ask_workers(self, undecided: dict[Any, tuple[_Asked, list[int]]], out: list[Comparison | None]) -> None:
        tasks = [
            [answer, reference, list(options or []) or None, tolerance.model_dump()]
            for (answer, reference, options, tolerance), _ in undecided.values()
        ]
        outcomes = self._pool.run(tasks)
        for (key, (_, places)), outcome in zip(undecided.items(), outcomes, strict=True):
            if outcome.failure is None:
                equal, reason = outcome.value
                comparison = Comparison(equal, reason)
            else:
                comparison = Comparison(None, outcome.failure)
            if outcome.lasting:
                self._remember(key, comparison)
            for i in places:
                out[i] = comparison

    def _recall(self, key: Any) -> Comparison | None:
        with self._lock:
            known = self._remembered.get(key)
            if known is not None:
                self._remembered.move_to_end(key)
            return known

    def _remember(self, key: Any, comparison: Comparison) -> None:
        with self._lock:
            self._remembered[key] = comparison
            while len(self._remembered) > self.settings.cache_size:
                self._remembered.popitem(last=False)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()  # a thread that is not in this process may have held it


def _fast(pair: _Asked) -> Comparison | None:
    """What the rules say that need no worker; None where they leave it open."""
    try:
        answer, reference, options, tolerance = pair
        comparison = compare(answer, reference, options, tolerance=tolerance)
    except Exception as exc:
        return Comparison(None, _failure(exc))
    return None if comparison.equal is None else comparison


def _failure(exc: Exception) -> str:
    # A ValueError says in words what is wrong with the reference.
    cause = str(exc) if isinstance(exc, ValueError) else f"{type(exc).__name__}: {exc}"
    return f"verifier failed: {cause}"[:300]


def _key(pair: _Asked) -> Any:
    """A pair as a key of bounded size: an answer may have a megabyte."""
    answer, reference, options, tolerance = pair
    if len(answer) + len(reference) <= 200 and options is None and not tolerance:
        return answer, reference
    text = repr((answer, reference, options and tuple(options), tolerance))
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest()


_verifiers: weakref.WeakSet[Verifier] = weakref.WeakSet()
_default: Verifier | None = None
_default_lock = threading.Lock()


def default_verifier() -> Verifier:
    """The verifier of this process with the default settings, made when first asked for."""
    global _default
    with _default_lock:
        if _default is None:
            _default = Verifier()
        return _default


def _after_fork() -> None:
    global _default_lock
    _default_lock = threading.Lock()
    for verifier in _verifiers:
        verifier._after_fork()


os.register_at_fork(after_in_child=_after_fork)
