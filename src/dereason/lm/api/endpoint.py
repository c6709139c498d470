"""One call of an OpenAI-compatible endpoint: what is tried again, and what is given up.

What is left out: streaming, tools, images, batch endpoints.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any

from dereason.characters import whole_text
from dereason.errors import DereasonError
from dereason.lm.api.reply import NoReply, Reply, read_reply
from dereason.lm.api.settings import ApiSettings
from dereason.lm.base import Usage

LONGEST_WAIT = 600.0
"""Seconds; an endpoint that asks to wait longer ends the run, which goes on when it is started again."""

TROUBLE = 4
"""Failed tries of one call after which it is said on the screen that there is trouble."""

_BACKOFF = 60.0  # longest wait between two tries that nobody asked for, in seconds
_CONNECT = 20.0  # seconds until a connection that is not made is given up: it takes no thinking
_TRIED_AGAIN = (408, 409, 425, 429)
_ABOUT_THE_PROMPT = (400, 413, 422)

_log = logging.getLogger(__name__)


class Transient(Exception):
    """A try that failed and may do better later; ``wait``: seconds that the endpoint asks for."""

    def __init__(self, cause: str, wait: float | None = None) -> None:
        super().__init__(cause)
        self.wait = wait


class Rejected(Exception):
    """The endpoint does not take this request, and would not the next time."""


class Stopped(Exception):
    """The session ended before this call was made."""


class Endpoint:
    """A session of calls in one event loop, entered with ``async with``."""

    def __init__(self, api: ApiSettings, key: str | None, usage: Usage) -> None:
        """Keep what calls need.

        Args:
            api: where and how.
            key: of the endpoint, or None.
            usage: counts calls, retries and tokens.
        """
        self._api = api
        self._key = key
        self._usage = usage
        self._stop = asyncio.Event()
        self._held_until = 0.0

    async def __aenter__(self) -> Endpoint:
        """Open the client."""
        from openai import AsyncOpenAI, Timeout

        # Without a key of ours the client would look for one in OPENAI_API_KEY and send it to whoever is asked.
        self._client = AsyncOpenAI(
            api_key=self._key or "none",
            base_url=self._api.base_url,
            timeout=Timeout(self._api.timeout_s, connect=min(_CONNECT, self._api.timeout_s)),
            max_retries=0,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the client."""
        await self._client.close()

    def stop(self) -> None:
        """Let tries that are under way end, and make no others: waiting calls raise :class:`Stopped`."""
        self._stop.set()

    async def call(self, body: dict[str, Any]) -> Reply:
        """Make one call, again where it may help.

        Args:
            body: of the request.

        Raises:
            Rejected: the endpoint does not take it (400, 413, 422).
            Stopped: :meth:`stop` was called.
            DereasonError: the endpoint takes no such calls at all, or all tries failed.
        """
        from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt
        from tenacity.wait import wait_random_exponential

        backoff = wait_random_exponential(max=_BACKOFF)

        def wait(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked = error.wait if isinstance(error, Transient) else None
            return backoff(state) if asked is None else asked + random.uniform(0, 1)

        tries = self._api.retries + 1

        def count(state: RetryCallState) -> None:
            self._usage.retries += 1
            if state.attempt_number == TROUBLE and state.outcome:
                _log.warning("%d tries of one call failed: %s", TROUBLE, state.outcome.exception())

        retrying = AsyncRetrying(
            sleep=self._sleep,
            stop=stop_after_attempt(tries),
            wait=wait,
            retry=retry_if_exception_type(Transient),
            before_sleep=count,
            reraise=True,
        )
        try:
            return await retrying(self._try, body)
        except Transient as error:
            raise DereasonError(
                f"{self._api.base_url} gave no reply in {tries} tries of one call; the last: {error}",
                "see that the endpoint answers, and start again; raise api.retries or api.timeout_s, or lower "
                "api.concurrency, if it is only slow",
            ) from error

    async def _sleep(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)
        if self._stop.is_set():
            raise Stopped

    async def _try(self, body: dict[str, Any]) -> Reply:
        from openai import APIConnectionError, APIStatusError, APITimeoutError

        while (held := self._held_until - time.monotonic()) > 0:
            await self._sleep(held + random.uniform(0, 1))  # a 429 is meant for all callers
        if self._stop.is_set():
            raise Stopped
        rest = {name: value for name, value in body.items() if name not in ("model", "messages")}
        self._usage.calls += 1
        try:
            # The client's limit is between bytes; this one is for the whole reply.
            async with asyncio.timeout(self._api.timeout_s):
                raw = await self._client.chat.completions.with_raw_response.create(
                    model=body["model"], messages=body["messages"], extra_body=rest
                )
        except (TimeoutError, APITimeoutError) as error:
            raise Transient(f"no whole reply within {self._api.timeout_s:g} s") from error
        except APIConnectionError as error:
            raise Transient(f"no connection: {error.__cause__ or error}") from error
        except APIStatusError as error:
            raise self._failure(error, body) from error
        try:
            return read_reply(raw.content, body[self._api.length_field])
        except NoReply as error:
            raise Transient(self._without_key(str(error))) from error

    def _failure(self, error: Any, body: dict[str, Any]) -> Exception:
        """What a status other than success means."""
        status, url = error.status_code, self._api.base_url
        said = self._without_key(f"HTTP {status}: {_said(error)}")
        if error.code == "insufficient_quota" or status == 402:
            return DereasonError(f"{url} wants to be paid: {said}", "see your account there, and start again")
        if status in _TRIED_AGAIN or status >= 500:
            wait = asked_wait(error.response.headers)
            if wait is not None and wait > LONGEST_WAIT:
                return DereasonError(f"{url} asks to wait {wait:.0f} s: {said}", "start again then; what came is kept")
            if wait is not None and status in (429, 503):
                if wait >= 10 and self._held_until < time.monotonic():
                    _log.warning("%s asks to wait %.0f s: %s", url, wait, said)
                self._held_until = max(self._held_until, time.monotonic() + wait)
            return Transient(said, wait)
        if status in _ABOUT_THE_PROMPT:
            return Rejected(said)
        if status in (401, 403):
            mend = f"put a valid key into ${self._api.key_env}" if self._key else "name the key's variable: api.key_env"
            return DereasonError(f"{url} refuses the key: {said}", mend)
        if status == 404:
            return DereasonError(
                f"{url} has no model {body['model']!r}, or no /chat/completions: {said}",
                "set name as the endpoint lists its models, and api.base_url to end in its version, usually /v1",
            )
        return DereasonError(f"{url} takes no calls: {said}", "see that api.base_url is right")

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


def asked_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds that an endpoint asks to wait, from its headers; None where it does not say."""
    with suppress(ValueError):
        if (ms := headers.get("retry-after-ms")) is not None:
            return max(0.0, float(ms) / 1000)
    after = headers.get("retry-after")
    if after is None:
        return None
    with suppress(ValueError):
        return max(0.0, float(after))
    with suppress(ValueError, TypeError, OverflowError):
        return max(0.0, parsedate_to_datetime(after).timestamp() - time.time())
    return None


def _said(error: Any) -> str:
    """What the endpoint says about an error, on one line."""
    body = error.body
    text = body.get("message") or body.get("detail") or body if isinstance(body, dict) else body or error.message
    return whole_text(" ".join(str(text).split())[:300])
