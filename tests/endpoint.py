"""A loopback OpenAI-compatible server that does what a test scripts, and remembers what it was asked."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from dereason.lm.api.model import ApiModel
from dereason.lm.base import Completion, Message, Sampling
from dereason.lm.load import load_model
from dereason.lm.local.model import ModelSettings

Act = tuple[int, dict[str, str], bytes]
"""Status, headers, body of a reply."""


def reply(*texts: str | None, tokens: int | None = None, **fields: Any) -> Act:
    """A completion with these choices; ``fields`` go into each choice, ``message`` into its message."""
    message = fields.pop("message", {})
    choices = [
        {"index": i, "finish_reason": "stop", "message": {"role": "assistant", "content": text, **message}, **fields}
        for i, text in enumerate(texts)
    ]
    usage = {"prompt_tokens": 10, "completion_tokens": 5 * len(texts) if tokens is None else tokens}
    return 200, {}, json.dumps({"model": "served", "choices": choices, "usage": usage}).encode()


def error(status: int, message: str, **headers: str) -> Act:
    """An error as OpenAI words it."""
    return (
        status,
        {k.replace("_", "-"): v for k, v in headers.items()},
        json.dumps({"error": {"message": message}}).encode(),
    )


class Endpoint:
    """The server. ``act(body, times)`` answers a request that was made ``times`` times before.

    Attributes:
        bodies: of all requests, in order.
        keys: what they brought as Authorization.
        most: requests that were in flight at once, at most.
    """

    def __init__(self, act: Callable[[dict[str, Any], int], Act]) -> None:
        self.act = act
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.times: list[float] = []
        self.most = 0
        self._now = 0
        self._seen: Counter[str] = Counter()
        self._lock = threading.Lock()
        self.closing = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer._lock:
                    outer.times.append(time.monotonic())
                    outer.bodies.append(body)
                    outer.keys.append(self.headers["Authorization"])
                    outer._now += 1
                    outer.most = max(outer.most, outer._now)
                    asked = json.dumps(body, sort_keys=True)
                    times, outer._seen[asked] = outer._seen[asked], outer._seen[asked] + 1
                try:
                    status, headers, content = outer.act(body, times)
                    self.send_response(status)
                    for name, value in {"Content-Length": str(len(content)), **headers}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    slowly = outer.closing.wait(0.3) if "X-Slowly" in headers else True
                    while not slowly:
                        self.wfile.write(b" ")  # no bytes for long enough would be a time limit of another kind
                        slowly = outer.closing.wait(0.3)
                    self.wfile.write(content)
                    self.close_connection = "Content-Length" in headers  # less than was promised
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True
                finally:
                    with outer._lock:
                        outer._now -= 1

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> Endpoint:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *args: Any) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    def asked(self) -> Counter[str]:
        """How often each user's message was asked."""
        return Counter(user(body) for body in self.bodies)


def user(body: dict[str, Any]) -> str:
    """What the user says in a request."""
    return str(body["messages"][-1]["content"])


HOW = Sampling(max_new_tokens=20)


def chats(count: int) -> list[list[Message]]:
    return [[{"role": "user", "content": f"question {i}"}] for i in range(count)]


def model(url: str, store: Path | None = None, kwargs: dict[str, Any] | None = None, **api: Any) -> ApiModel:
    settings = ModelSettings(name="teacher", backend="api", api={"base_url": url, "retries": 3, **api})
    lm = load_model(settings, kwargs, store=store)
    assert isinstance(lm, ApiModel)
    return lm


def drawn(lm: ApiModel, asked: list[list[Message]], n: int = 1, how: Sampling = HOW) -> dict[int, list[Completion]]:
    return dict(lm.generate(asked, n, how, seed=7))


def texts(body: dict[str, Any]) -> list[str]:
    """Answers that tell which request got them."""
    return [f"{user(body)}: answer {body['seed']}.{i}" for i in range(body.get("n", 1))]


def answers(body: dict[str, Any], times: int = 0) -> Act:
    return reply(*texts(body))


def lines(store: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in store.glob("*.jsonl") for line in path.read_text().splitlines()]
