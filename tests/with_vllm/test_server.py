"""The `api` backend against real servers with the embedded model: vLLM's, and `transformers serve`.

Run by `make test-vllm`, whose environment has both; skipped where vLLM is not installed.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("vllm", reason="vLLM has an environment of its own: make test-vllm")

from dereason.difficulty.judge import SCORES, Judge
from dereason.errors import DereasonError
from dereason.lm import embedded
from dereason.lm.api.model import ApiModel
from dereason.lm.base import Sampling
from dereason.lm.load import load_model
from dereason.lm.local.model import LocalModel, ModelSettings

CHATS = [[{"role": "user", "content": f"What is {i} + {3 * i}?"}] for i in range(4)]
GREEDY = Sampling(temperature=0, max_new_tokens=24)
DRAWN = Sampling(temperature=1, max_new_tokens=24)


@contextmanager
def serving(command: list[str], log: Path) -> Iterator[str]:
    """A server in a process of its own, from its first sign of life on; gives its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    began = time.perf_counter()
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"},
            start_new_session=True,
        )
        try:
            while True:
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).close()
                    break
                except OSError:
                    assert process.poll() is None, log.read_text()[-2000:]
                    assert time.perf_counter() - began < 240, log.read_text()[-2000:]
                    time.sleep(0.5)
            print(f"\n{Path(command[0]).name} answers after {time.perf_counter() - began:.0f} s")
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    options = "--dtype float32 --max-model-len 512 --enforce-eager --gpu-memory-utilization 0.2 --max-logprobs 2000"
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(embedded.ensure())]
    with serving(
        [*command, "--served-model-name", "smol", *options.split()], tmp_path_factory.mktemp("v") / "log"
    ) as url:
        yield url


@pytest.fixture(scope="module")
def transformers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    command = [str(Path(sys.executable).with_name("transformers")), "serve", "--device", "cpu", "--dtype", "float32"]
    with serving(command, tmp_path_factory.mktemp("t") / "log") as url:
        yield url


@pytest.fixture(scope="module")
def local() -> LocalModel:
    return LocalModel(ModelSettings(dtype="float32", device="cpu"))


def model(url: str, store: Path | None = None, name: str = "smol", **api: Any) -> ApiModel:
    settings = ModelSettings(name=name, backend="api", api={"base_url": url, "retries": 1, **api})
    lm = load_model(settings, store=store)
    assert isinstance(lm, ApiModel)
    return lm


def test_vllm_gives_our_greedy_responses_and_choices(vllm: str, local: LocalModel) -> None:
    theirs = dict(model(vllm).generate(CHATS, 1, GREEDY, 0))
    ours = {c.request: c for _, batch in local.generate(CHATS, 1, GREEDY, 0) for c in batch}
    for i, (c,) in theirs.items():
        mine = ours[i]
        assert (c.text, c.tokens, c.prompt_tokens) == (mine.text, mine.tokens, mine.prompt_tokens)
        assert c.hit_limit == mine.hit_limit
    asked = [Judge().messages(chat[0]["content"], None) for chat in CHATS]
    (ours_BC,) = local.choice_probabilities(asked, SCORES, 4)
    (theirs_BC,) = model(vllm, top_logprobs=2000).choice_probabilities(asked, SCORES, 4)
    assert theirs_BC == pytest.approx(ours_BC, abs=1e-4)
    (few_BC,) = model(vllm).choice_probabilities(asked, SCORES, 4)  # of the 20 likeliest first tokens alone
    print(f"\nexpected score, from all and from 20 tokens: {ours_BC @ np.arange(1, 6)} {few_BC @ np.arange(1, 6)}")


def test_vllm_draws_several_choices_a_call_and_the_same_again(vllm: str, tmp_path: Path) -> None:
    lm = model(vllm, tmp_path)
    first = dict(lm.generate(CHATS, 3, DRAWN, 5))
    assert lm.usage.calls == 4
    assert all(len({c.text for c in batch}) == 3 for batch in first.values())
    assert lm.usage.tokens == sum(c.tokens for batch in first.values() for c in batch)
    assert all(c.tokens == 24 for batch in first.values() for c in batch if c.hit_limit)
    assert dict(model(vllm, concurrency=1).generate(CHATS, 3, DRAWN, 5)) == first  # each call has a seed of its own
    assert dict(model(vllm).generate(CHATS, 3, DRAWN, 6)) != first
    again = model(vllm, tmp_path)
    assert dict(again.generate(CHATS, 3, DRAWN, 5)) == first
    assert (again.usage.calls, again.usage.stored) == (0, 12)


def test_vllm_refuses_a_prompt_that_is_too_long_and_the_others_go_on(vllm: str) -> None:
    long = [{"role": "user", "content": "word " * 600}]
    found = dict(model(vllm).generate([*CHATS[:2], long], 2, DRAWN, 0))
    assert found[2][1].refusal.startswith("HTTP 400: This model's maximum context length is 512")
    assert not found[1][1].refusal
    with pytest.raises(DereasonError, match="has no model 'other'"):
        next(model(vllm, name="other").generate(CHATS, 1, DRAWN, 0))


def test_transformers_serve_ignores_n_and_log_probabilities(transformers: str, local: LocalModel) -> None:
    name = str(embedded.ensure())
    lm = model(transformers, name=name)
    (greedy,) = [c for _, batch in lm.generate(CHATS[2:3], 1, GREEDY, 0) for c in batch]
    ((_, (mine,)),) = local.generate(CHATS[2:3], 1, GREEDY, 0)
    assert (greedy.text, greedy.tokens, greedy.hit_limit) == (mine.text, mine.tokens, mine.hit_limit)
    # It is greedy whatever the temperature, unless a generation config says otherwise.
    sampling = model(transformers, name=name, extra={"generation_config": '{"do_sample": true}'})
    found = dict(sampling.generate(CHATS[:2], 3, DRAWN, 5))
    assert sampling.usage.calls == 6  # one call a choice
    assert all(len({c.text for c in batch}) == 3 for batch in found.values())
    with pytest.raises(DereasonError, match="gives no log-probabilities"):
        next(lm.choice_probabilities(CHATS[:1], SCORES, 1))
