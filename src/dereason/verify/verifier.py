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

import contextlib
import hashlib
import json
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from pydantic import Field, ValidationError, field_validator

from dereason.errors import DereasonError
from dereason.problems.schema import Verdict
from dereason.settings import Settings
from dereason.verify.checks.asking import Checks, identity
from dereason.verify.checks.names import Check, is_check, own_check
from dereason.verify.equivalence import Comparison, compare
from dereason.verify.kinds import Kind
from dereason.verify.locate import Span, locate
from dereason.verify.reading import kind_of
from dereason.verify.span import Mark
from dereason.verify.tolerance import Tolerance
from dereason.verify.verdict import WHOLE, Judgement
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

    answer_check: str | None = None
    """A function `package.module:function` that decides whether an answer is right, or a built-in check
    (`reasoning_gym:countdown`), for all problems; null leaves it to each problem's own check, or to equality."""
    answer_check_by_source: dict[str, str] = Field(default_factory=dict)
    """The same for the problems of one source each, by the name in the problems' `source` column."""
    answer_check_unguarded: bool = False
    """Call functions even where this system cannot keep them from other files and the network."""

    @field_validator("answer_check", "answer_check_by_source")
    @classmethod
    def _named(cls, given: str | dict[str, str] | None) -> str | dict[str, str] | None:
        for name in given.values() if isinstance(given, dict) else [given]:
            if name is not None and not is_check(name):
                raise ValueError(f"{name!r} is neither package.module:function nor a built-in check")
        return given

    def check_names(self) -> list[str]:
        """The checks that the settings name, each once."""
        return list(dict.fromkeys([*filter(None, [self.answer_check]), *self.answer_check_by_source.values()]))

    def key(self) -> dict[str, Any]:
        """What can change a verdict, for step keys: settings, functions' sources, reasoning-gym's version.

        Raises:
            DereasonError: a function that the settings name is not there.
        """
        names = {"time_limit", "memory_limit", "tolerance", "tolerance_by_source"}
        names |= {"answer_check", "answer_check_by_source"}
        return self.model_dump(mode="json", include=names) | {"checks": identity(self.check_names())}


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
    """The problem's source, by which the settings may give a tolerance or a check."""
    check: Check | None = None
    """What the problem itself says decides; None for equality with the reference."""
    metadata: str | None = None
    """The problem's metadata (JSON), for checks."""


JUDGED = ("answer", "options", "source", "metadata")
"""The columns of the PROBLEM table that decide a verdict."""


def item_of(response: str, hit_limit: bool, problem: Mapping[str, Any]) -> Item:
    """What is judged of a response to a row of the PROBLEM table.

    Its ``metadata`` (JSON) may have ``accepted``, a list of further references, ``tolerance``, an object with the
    fields of :class:`~dereason.verify.tolerance.Tolerance`, and ``answer_check``, the name of a built-in check.

    Raises:
        DereasonError: one of these is something else.
    """
    more: Any = {}
    raw = problem.get("metadata")
    named = str(problem.get("id") or problem.get("problem_id") or "a problem")
    # a data set that TRL is given may have a column of that name and of any type
    if isinstance(raw, str) and ('"accepted"' in raw or '"tolerance"' in raw or "answer_check" in raw):
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
    check = own_check(more, named)
    metadata = raw if isinstance(raw, str) else None
    source = str(problem.get("source") or "")
    return Item(response, hit_limit, problem["answer"], options, tuple(accepted), limits, source, check, metadata)


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
        self.checks = Checks(self.settings)
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
        self.checks.close()

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
        checks = [self.checks.of(item) for item in items]
        whole = [(i, check, None) for i, check in enumerate(checks) if check and check.whole]
        for i, comparison in self._checked(whole, items).items():
            judged[i] = _whole(comparison, items[i])
        for i, item in enumerate(items):
            if judged[i] is not None:
                continue
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
        equality = [(i, span) for i, span, _ in found if checks[i] is None]
        compared = self.equivalent_many(
            [(span.text, items[i].reference, items[i].options) for i, span in equality],
            [self.tolerance_of(items[i]) for i, _ in equality],
        )
        comparisons = dict(zip([i for i, _ in equality], compared, strict=True))
        comparisons |= self._checked([(i, c, span.text) for i, span, _ in found if (c := checks[i])], items)
        for i, span, kind in found:
            comparison = comparisons[i]
            if comparison.equal is None:
                verdict, reason = Verdict.ERROR, comparison.reason
            else:
                verdict = Verdict.CORRECT if comparison.equal else Verdict.WRONG
                reason = f"{_HOW.get(span.how, span.how)}: {comparison.reason}"
            judged[i] = Judgement(verdict, span.text, reason, kind, span.how, span.start, span.end)
        return [j for j in judged if j is not None]

    def _checked(self, asked: Sequence[tuple[int, Check, str | None]], items: Sequence[Item]) -> dict[int, Comparison]:
        """What checks say of answers (None: of whole responses), by the items' places; each question is asked once."""
        told: dict[int, Comparison] = {}
        places: dict[Any, list[int]] = {}
        open_: list[tuple[Check, Item, str | None]] = []
        for i, check, answer in asked:
            item = items[i]
            read = item.response if answer is None or "response" in check.parameters else ""
            key = _digest((check.name, answer, read, item.reference, item.metadata, item.options, item.source))
            known = self._recall(key)
            if known is not None:
                told[i] = known
                continue
            if key not in places:
                open_.append((check, item, answer))
            places.setdefault(key, []).append(i)
        for (key, at), (comparison, lasting) in zip(places.items(), self.checks.ask(open_), strict=True):
            if lasting:
                self._remember(key, comparison)
            told |= dict.fromkeys(at, comparison)
        return told

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


def _whole(comparison: Comparison, item: Item) -> Judgement:
    """The judgement of a check that reads whole responses: in one that it refuses and that was cut off is no answer."""
    kind: Kind | None = None
    with contextlib.suppress(ValueError):  # such a check may need no reference that can be read
        kind = kind_of(item.reference, item.options or None)
    if comparison.equal is None:
        return Judgement(Verdict.ERROR, None, comparison.reason, kind)
    if item.hit_limit and not comparison.equal:
        return Judgement(Verdict.TRUNCATED, None, comparison.reason, kind)
    return Judgement(Verdict.CORRECT if comparison.equal else Verdict.WRONG, None, comparison.reason, kind, WHOLE)


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
    return _digest((answer, reference, options and tuple(options), tolerance))


def _digest(parts: tuple[Any, ...]) -> bytes:
    text = repr(parts)
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
