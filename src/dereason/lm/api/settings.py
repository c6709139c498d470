"""Settings of the ``api`` backend. Imports nothing heavy: every recipe reads them."""

from __future__ import annotations

from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from dereason.settings import Settings

OURS = {
    "chat_template_kwargs",
    "logprobs",
    "max_completion_tokens",
    "max_tokens",
    "messages",
    "min_p",
    "model",
    "n",
    "seed",
    "stream",
    "temperature",
    "top_k",
    "top_logprobs",
    "top_p",
}
"""Fields of a request that other settings fill."""


class ApiSettings(Settings):
    """How the `api` backend reaches its endpoint, and what it may spend there."""

    base_url: str | None = None
    """Address up to the version, such as `http://localhost:8000/v1`; needed, and no part of the model's identity."""
    key_env: str | None = None
    """Environment variable that holds the key; null where the endpoint needs none. The key itself is kept nowhere."""
    concurrency: int = Field(default=8, gt=0, le=1000)
    """Calls in flight at once, at most."""
    timeout_s: float = Field(default=600, gt=0)
    """Seconds after which a call without a whole reply is given up and tried again."""
    retries: int = Field(default=8, ge=0)
    """Tries after the first of one call: after 429, 5xx, timeouts, lost connections and broken replies."""
    length_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What the endpoint calls the length limit; OpenAI's reasoning models want `max_completion_tokens`."""
    seed: bool = True
    """Whether to send a seed, another one for each call."""
    top_logprobs: int = Field(default=20, gt=0)
    """How many first tokens a judge reads the probabilities of; most endpoints allow 20, some 5."""
    extra: dict[str, Any] = {}
    """More fields of the request's body, for example `reasoning_effort: low`; part of what identifies a call."""
    price_in: float | None = Field(default=None, ge=0)
    """Price of a million prompt tokens, in dollars; null where it is not known."""
    price_out: float | None = Field(default=None, ge=0)
    """Price of a million generated tokens, in dollars; null where it is not known."""
    budget: float | None = Field(default=None, gt=0)
    """Most that this model may cost in one run, in dollars; a call that might pass it is not made. Null: no limit."""

    @field_validator("base_url")
    @classmethod
    def _address(cls, url: str | None) -> str | None:
        if url is None:
            return None
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("an address such as http://localhost:8000/v1 is wanted")
        if parts.username is not None or parts.query:
            raise ValueError("the address must hold no user, password or query; name the key's variable in key_env")
        if parts.path.rstrip("/").endswith("/completions"):
            raise ValueError("the address must end before /chat/completions")
        return url.rstrip("/")

    @field_validator("extra")
    @classmethod
    def _not_ours(cls, extra: dict[str, Any]) -> dict[str, Any]:
        if clash := sorted(OURS & extra.keys()):
            raise ValueError(f"{', '.join(clash)} cannot be set here: sampling and other settings fill it")
        return extra

    @model_validator(mode="after")
    def _priced(self) -> ApiSettings:
        if (self.price_in is None) != (self.price_out is None):
            raise ValueError("price_in and price_out go together")
        if self.budget is not None and self.price_in is None:
            raise ValueError("a budget needs price_in and price_out")
        return self

    def price(self, prompt_tokens: float, tokens: float) -> float | None:
        """What so many prompt and generated tokens cost, in dollars; None where the prices are not known."""
        if self.price_in is None or self.price_out is None:
            return None
        return (prompt_tokens * self.price_in + tokens * self.price_out) / 1e6
