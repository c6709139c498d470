"""Many questions put to an endpoint at once, from a thread of its own: what is asked, kept, and asked no more.

A question may want several answers. They are asked for in one call where the endpoint gives several, else one call
each; whatever comes back is stored before anything else happens.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import re
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from dereason.errors import DereasonError
from dereason.lm.api.endpoint import Endpoint, Rejected, Stopped
from dereason.lm.api.reply import Reply
from dereason.lm.api.settings import ApiSettings
from dereason.lm.base import Filters, Usage
from dereason.lm.calls import Answer, Call, CallStore, runs

REJECTED = 5
"""Calls that are rejected before any is answered: then it is the settings, not the prompts."""

ALIKE, ALIKE_LENGTH, ALIKE_TEMPERATURE = 5, 40, 0.5
"""Prompts whose responses, of at least so many characters and at least so hot, are all the same before it is said."""

_log = logging.getLogger(__name__)


@dataclass
class Endpoints:
    """What is known of an endpoint, over all questions put to it.

    Attributes:
        api: its settings.
        key: what opens it, or None.
        store: keeps finished calls; None keeps none.
        usage: what was asked so far.
        answered: whether it answered a call.
        several: whether it gives several choices a call; None: not seen yet.
        rejected: calls that it rejected before it answered one.
        alike: questions whose sampled answers were all the same; None: not so, or said already.
    """

    api: ApiSettings
    key: str | None = field(repr=False)
    store: CallStore | None
    usage: Usage
    answered: bool = False
    several: bool | None = None
    rejected: int = 0
    alike: int | None = 0

    def spent(self) -> float:
        """What the run has cost, in dollars: what is stored was paid for, by this process or one before."""
        if self.store is None:
            return self.usage.price or 0.0
        self.store.refresh()  # the model may be asked elsewhere too, with other settings
        return self.api.price(self.store.prompt_tokens, self.store.tokens) or 0.0


@dataclass
class Question:
    """Something to ask.

    Attributes:
        key: identifies it; see :func:`~dereason.lm.calls.question_key`.
        body: of the request, without the number of choices and the seed.
        n: answers wanted.
        length: most tokens of an answer.
        wants_first: whether an answer without the likeliest first tokens is none.
        got: the answers so far, by number, with the prompt's tokens.
    """

    key: str
    body: dict[str, Any]
    n: int
    length: int
    wants_first: bool = False
    got: dict[int, tuple[Answer, int]] = field(default_factory=dict)

    def prompt_bytes(self) -> int:
        """Length of its messages."""
        return sum(len(message["content"].encode("utf-8", "replace")) for message in self.body["messages"])


@dataclass(frozen=True)
class Asked:
    """A call to make: ``count`` answers of a question from number ``at`` on.

    ``covers`` answers from there on are settled if the endpoint rejects it.
    """

    question: Question
    at: int
    count: int
    covers: int


class Run:
    """Puts questions to an endpoint: ``with Run(...) as run``, and :meth:`answered` gives them back."""

    def __init__(self, known: Endpoints, questions: Sequence[Question]) -> None:
        """Plan the calls that are missing.

        Args:
            known: the endpoint.
            questions: no key twice; each lacks an answer.
        """
        self._known = known
        self._calls: deque[Asked] = deque()
        for question in questions:
            for at, count in runs([i for i in range(question.n) if i not in question.got]):
                self._calls.append(Asked(question, at, count, count))
        self._held: list[tuple[Question, Call]] = []  # rejections, until the endpoint has answered something
        self._out: queue.SimpleQueue[Question | Exception | None] = queue.SimpleQueue()

    def __enter__(self) -> Run:
        """Begin to call, in a thread."""
        self._loop = asyncio.new_event_loop()
        self._task = self._loop.create_task(self._drive())
        self._thread = threading.Thread(target=_finish, args=(self._loop, self._task), name="dereason-api", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Cancel the calls in flight; what came back is stored."""
        with suppress(RuntimeError):  # the loop is closed: all is done
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join()

    def answered(self) -> Iterator[Question]:
        """The questions, each as soon as all its answers are there, while calls go on.

        Raises:
            DereasonError: the endpoint gives no answers, or the budget is reached; all that came back is stored.
        """
        while (said := self._out.get()) is not None:
            if isinstance(said, Exception):
                raise self._with_rest(said)
            yield said

    def _with_rest(self, error: Exception) -> Exception:
        store = self._known.store
        if not isinstance(error, DereasonError) or store is None or not store.calls:
            return error
        return DereasonError(
            f"{error.cause}; {store.calls:,} finished calls are stored in {store.path}",
            f"{error.mend} (the same command asks for the rest alone)",
        )

    async def _drive(self) -> None:
        stopped: Exception | None = None
        pending: dict[asyncio.Task[None], float] = {}
        known = self._known
        try:
            async with Endpoint(known.api, known.key, known.usage) as endpoint:
                try:
                    while pending or (self._calls and stopped is None):
                        while self._calls and stopped is None and len(pending) < known.api.concurrency:
                            call = self._next()
                            most = self._most(call)
                            if self._too_much(most + sum(pending.values())):
                                self._calls.appendleft(call)
                                if not pending:
                                    stopped = self._budget_reached(most)
                                break
                            pending[asyncio.create_task(self._ask(endpoint, call))] = most
                        if not pending:
                            continue
                        for task in (await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED))[0]:
                            del pending[task]
                            try:
                                task.result()
                            except Stopped:
                                pass
                            except Exception as error:
                                stopped = stopped or error
                                endpoint.stop()
                finally:
                    for task in pending:
                        task.cancel()
                    await asyncio.gather(*pending, return_exceptions=True)
            if stopped is None and self._held:
                self._settle_held()
        except Exception as error:
            stopped = error
        finally:
            self._out.put(stopped)

    def _next(self) -> Asked:
        """The next call, with one choice where the endpoint gives no more, or where all would be the same."""
        call = self._calls.popleft()
        if call.count > 1 and (self._known.several is False or call.question.body.get("temperature") == 0):
            self._one_each(call.question, call.at, call.count)
            call = self._calls.popleft()
        return call

    def _one_each(self, question: Question, at: int, count: int) -> None:
        self._calls.extendleft(Asked(question, i, 1, 1) for i in reversed(range(at, at + count)))

    def _most(self, call: Asked) -> float:
        """Most that a call may cost, in dollars: a token has hardly fewer than three bytes on average."""
        prompt = call.question.prompt_bytes() / 3 + 16 * len(call.question.body["messages"])
        return self._known.api.price(prompt, call.count * call.question.length) or 0.0

    def _too_much(self, more: float) -> bool:
        budget = self._known.api.budget
        return budget is not None and self._known.spent() + more > budget

    def _budget_reached(self, most: float) -> DereasonError:
        return DereasonError(
            f"api.budget is ${self._known.api.budget:g}: ${self._known.spent():.4f} are spent, and the next call may "
            f"cost ${most:.4f}",
            "raise api.budget, or ask for less",
        )

    async def _ask(self, endpoint: Endpoint, call: Asked) -> None:
        """Make a call and keep what it gives. Nothing is awaited between the two, so nothing can come between."""
        body = dict(call.question.body)
        if call.count > 1:
            body["n"] = call.count
        if self._known.api.seed:
            body["seed"] = call_seed(call.question.key, call.at)
        try:
            reply = await endpoint.call(body)
        except Rejected as error:
            self._check_filters(body, str(error))
            if call.count > 1 and not self._known.several:  # perhaps it is the number
                self._calls.appendleft(Asked(call.question, call.at, 1, call.covers))
            else:
                self._reject(call, str(error))
            return
        self._take(call, reply)

    def _take(self, call: Asked, reply: Reply) -> None:
        known, usage, question = self._known, self._known.usage, call.question
        if question.wants_first and reply.answers[0].first is None:
            raise DereasonError(
                f"{known.api.base_url} gives no log-probabilities of first tokens, which a judge reads",
                "use a server that does (vLLM), or a judge with backend local",
            )
        answers = reply.answers[: call.count]
        prompt_tokens = reply.prompt_tokens or -(-question.prompt_bytes() // 4)  # a guess where nothing is told
        self._keep(question, Call(question.key, call.at, answers, prompt_tokens, reply.served))
        if reply.replaced and not usage.replaced:
            _log.warning(
                "%s sends characters that are no Unicode (halves of surrogate pairs): each becomes U+FFFD",
                known.api.base_url,
            )
        usage.replaced += reply.replaced
        usage.prompt_tokens += prompt_tokens
        usage.tokens += sum(a.tokens for a in reply.answers)
        usage.price = known.api.price(usage.prompt_tokens, usage.tokens)
        if call.covers > 1:  # several were asked for, now or in the call that was rejected before
            known.several = len(answers) > 1
            at, rest = call.at + len(answers), call.covers - len(answers)
            if rest and known.several:  # some were broken, or it gives no more at once
                self._calls.appendleft(Asked(question, at, rest, rest))
            elif rest:
                self._one_each(question, at, rest)
        if not known.answered:
            known.answered = True
            self._settle_held()

    def _check_filters(self, body: Mapping[str, Any], said: str) -> None:
        """Not every endpoint takes top_k and min_p: OpenAI's does not.

        Raises:
            DereasonError: it names a filter in its rejection, and has answered nothing yet.
        """
        refused = [name for name in Filters.model_fields if name in body and re.search(rf"\b{name}\b", said)]
        if refused and not self._known.answered:
            raise DereasonError(
                f"{self._known.api.base_url} does not take {refused[0]}: {said}",
                f"leave sampling.{refused[0]} out, or ask an endpoint that has it (vLLM has top_p, top_k and min_p)",
            )

    def _reject(self, call: Asked, said: str) -> None:
        answers = (Answer("", 0, refusal=said),) * call.covers
        self._held.append((call.question, Call(call.question.key, call.at, answers, 0)))
        if self._known.answered:
            self._settle_held()
            return
        self._known.rejected += 1
        if self._known.rejected >= REJECTED:
            raise DereasonError(
                f"{self._known.api.base_url} rejected the first {self._known.rejected} calls; the last: {said}",
                "see what it wants: api.length_field, api.seed, api.extra, sampling, the prompts' length",
            )

    def _settle_held(self) -> None:
        """Keep the rejections as answers, once it is known that the endpoint answers others.

        Raises:
            DereasonError: it has not, now or in a process before.
        """
        known = self._known
        if not known.answered and not (known.store and known.store.calls):
            said = self._held[0][1].answers[0].refusal
            raise DereasonError(
                f"{known.api.base_url} rejected every call: {said}",
                "see what it wants: api.length_field, api.seed, api.extra, sampling, the prompts' length",
            )
        for question, call in self._held:
            self._keep(question, call)
        self._held.clear()

    def _keep(self, question: Question, call: Call) -> None:
        store = self._known.store
        if store is not None:
            if call.served and store.served and call.served not in store.served:
                _log.warning(
                    "%s: %s answers now, and %s answered the stored calls; set revision to keep them apart",
                    self._known.api.base_url,
                    call.served,
                    ", ".join(sorted(store.served)),
                )
            store.add(call)
        for i, answer in enumerate(call.answers):
            question.got[call.at + i] = answer, call.prompt_tokens
        if len(question.got) == question.n:
            self._watch_sampling(question)
            self._out.put(question)

    def _watch_sampling(self, question: Question) -> None:
        """Say it once if the endpoint does not sample: n equal responses cost as much as n others."""
        known = self._known
        temperature = question.body.get("temperature", 1.0)
        if known.alike is None or question.n < 2 or temperature < ALIKE_TEMPERATURE:
            return
        texts = {answer.text for answer, _ in question.got.values() if not answer.refusal}
        if len(texts) > 1:
            known.alike = None
        elif texts and len(next(iter(texts))) >= ALIKE_LENGTH:
            known.alike += 1
            if known.alike == ALIKE:
                _log.warning(
                    "%s gave the same response %d times to each of %d prompts: it seems to ignore the temperature; see "
                    "what it wants in api.extra",
                    known.api.base_url,
                    question.n,
                    ALIKE,
                )
                known.alike = None


def call_seed(key: str, at: int) -> int:
    """Seed of the call for a question's answers from ``at`` on; the question's key holds the caller's seed.

    31 bits, because some servers take no more.
    """
    return (int(key[:16], 16) + at * 0x9E3779B9) % (2**31 - 1)


def _finish(loop: asyncio.AbstractEventLoop, task: asyncio.Task[None]) -> None:
    """The thread: run the loop until the task is done or cancelled."""
    try:
        with suppress(asyncio.CancelledError):
            loop.run_until_complete(task)
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
