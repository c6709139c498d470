"""What the `api` backend itself takes: calls a second to a server on this machine that answers after a set time.

    python benchmarks/api_backend.py [--calls 2000] [--concurrency 64] [--delay 0.05]

Left out: a network, and a model. The server is a process of its own on the same cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from dereason.lm.api.model import ApiModel
from dereason.lm.base import Sampling
from dereason.lm.local.model import ModelSettings

TEXT = "word " * 400  # about what a short worked solution has


async def serve(delay: float) -> None:
    """Answer every request alike, and say on which port."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": TEXT}}
    usage = {"prompt_tokens": 50, "completion_tokens": 400}
    body = json.dumps({"model": "m", "choices": [choice], "usage": usage}).encode()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            (length,) = [int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            await reader.readexactly(length)
            await asyncio.sleep(delay)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            await writer.drain()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def timed(url: str, calls: int, concurrency: int, store: Path | None) -> float:
    """Seconds for so many calls."""
    api = {"base_url": url, "concurrency": concurrency}
    lm = ApiModel(ModelSettings(name="m", backend="api", api=api), store=store)
    chats = [[{"role": "user", "content": f"question {i}"}] for i in range(calls)]
    began = time.perf_counter()
    assert sum(1 for _ in lm.generate(chats, 1, Sampling(), 0)) == calls  # type: ignore[arg-type]
    return time.perf_counter() - began


def main() -> None:
    """Print calls a second, without and with a store, and reading the store back."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--delay", type=float, default=0.05, help="seconds until the server answers")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        asyncio.run(serve(args.delay))
        return
    command = [sys.executable, __file__, "--serve", "--delay", str(args.delay)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert server.stdout is not None
    try:
        url = f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
        timed(url, args.concurrency, args.concurrency, None)  # imports
        for repeat in range(3):
            plain = timed(url, args.calls, args.concurrency, None)
            with tempfile.TemporaryDirectory(dir=".") as folder:
                kept = timed(url, args.calls, args.concurrency, Path(folder))
                again = timed(url, args.calls, args.concurrency, Path(folder))
            rates = [args.calls / seconds for seconds in (plain, kept, again)]
            print(f"{repeat}: {rates[0]:.0f} calls/s, {rates[1]:.0f} with a store, {rates[2]:.0f} read back from it")
    finally:
        server.kill()


if __name__ == "__main__":
    main()
