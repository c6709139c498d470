"""The `vllm` backend on the real engine, against our own: run by `make test-vllm`, skipped where vLLM is not installed.

The engine runs in float32 without compilation, which would take a minute and more.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch

pytest.importorskip("vllm", reason="vLLM has an environment of its own: make test-vllm")

from dereason.errors import DereasonError
from dereason.lm.base import Completion, Sampling
from dereason.lm.load import load_model
from dereason.lm.local.model import LocalModel, ModelSettings
from dereason.lm.vllm import VllmModel

STARTED = {"eager": True, "max_length": 512, "memory": 0.2}
CHATS = [[{"role": "user", "content": f"What is {i} + {3 * i}?" + " Think." * (i % 5)}] for i in range(8)]
DIGITS = ("1", "2", "3", "4", "5")


def engine() -> VllmModel:
    model = load_model(ModelSettings(backend="vllm", dtype="float32", vllm=STARTED))
    assert isinstance(model, VllmModel)
    return model


def sampling(batch_size: int, temperature: float = 1.0) -> Sampling:
    return Sampling(temperature=temperature, max_new_tokens=24, batch_size=batch_size)


def drawn(lm: VllmModel | LocalModel, how: Sampling, n: int = 2) -> dict[tuple[int, int], Completion]:
    return {(c.request, c.index): c for _, batch in lm.generate(CHATS, n, how, 3) for c in batch}


@pytest.fixture(scope="module")
def vllm() -> Iterator[VllmModel]:
    began = time.perf_counter()
    model = engine()
    print(f"\nstart: {time.perf_counter() - began:.1f} s")
    yield model
    model.close()


@pytest.fixture(scope="module")
def local() -> LocalModel:
    return LocalModel(ModelSettings(dtype="float32"))


def test_a_resumed_call_gives_exactly_the_missing_batches(vllm: VllmModel) -> None:
    whole = dict(vllm.generate(CHATS, 2, sampling(6), 3))
    assert sorted(whole) == list(range(vllm.batches(CHATS, 2, sampling(6)))) == [0, 1, 2]
    rest = dict(vllm.generate(CHATS, 2, sampling(6), 3, frozenset({0, 2})))
    assert rest == {1: whole[1]}


def test_samples_do_not_depend_on_what_is_in_their_batch(vllm: VllmModel) -> None:
    small, large = drawn(vllm, sampling(6)), drawn(vllm, sampling(64))
    assert {k: c.token_ids for k, c in small.items()} == {k: c.token_ids for k, c in large.items()}
    assert small[0, 0].token_ids != small[0, 1].token_ids


def test_greedy_responses_and_choices_are_those_of_our_engine(vllm: VllmModel, local: LocalModel) -> None:
    assert vllm.template_hash() == local.template_hash()
    theirs, ours = drawn(vllm, sampling(64, 0.0), 1), drawn(local, sampling(64, 0.0), 1)
    assert {k: (c.token_ids, c.text, c.hit_limit) for k, c in theirs.items()} == {
        k: (c.token_ids, c.text, c.hit_limit) for k, c in ours.items()
    }
    (theirs_BC,) = vllm.choice_probabilities(CHATS, DIGITS, 8)
    (ours_BC,) = local.choice_probabilities(CHATS, DIGITS, 8)
    assert theirs_BC == pytest.approx(ours_BC, abs=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_log_probabilities_are_those_of_the_transformers_model(
    vllm: VllmModel, local: LocalModel, temperature: float
) -> None:
    gaps: list[float] = []
    for (request, _), c in drawn(vllm, sampling(64, temperature), 4).items():
        prompt = local.encode(CHATS[request])
        with torch.inference_mode():
            logits = local.model(torch.tensor([prompt + list(c.token_ids)])).logits[0, len(prompt) - 1 : -1]
        logps = torch.log_softmax(logits.double() / temperature, -1)
        gaps += (logps.gather(1, torch.tensor([c.token_ids]).T)[:, 0] - torch.tensor(c.logps)).abs().tolist()
    print(f"\n|Δ log p| at temperature {temperature}: mean {np.mean(gaps):.1e}, max {max(gaps):.1e}, n {len(gaps)}")
    assert np.mean(gaps) < 1e-4
    assert max(gaps) < 1e-3


def test_what_does_not_fit_is_refused_before_anything_is_drawn(vllm: VllmModel) -> None:
    long = [[{"role": "user", "content": "word " * 600}]]
    with pytest.raises(DereasonError, match="vLLM's limit of 512"):
        next(vllm.generate(long, 1, sampling(1), 0))
    with pytest.raises(DereasonError, match="vLLM's limit of 512"):
        next(vllm.choice_probabilities(long, DIGITS, 1))


def test_an_engine_that_cannot_start_says_so_in_one_line() -> None:
    with pytest.raises(DereasonError, match="vLLM cannot serve") as caught:
        load_model(ModelSettings(backend="vllm", vllm={"eager": True, "max_length": 10_000_000}))
    assert "\n" not in caught.value.line()


def test_a_second_engine_starts_after_the_first_and_nothing_is_left_behind(vllm: VllmModel) -> None:
    """Profile, train, evaluate: one process starts several engines, with training in between."""
    first = drawn(vllm, sampling(64))
    vllm.close()
    watched = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "LD_PRELOAD")
    assert not torch.distributed.is_initialized()
    assert all(name not in os.environ for name in watched)
    vllm.__dict__.update(engine().__dict__)
    assert drawn(vllm, sampling(64)) == first
    assert all(name not in os.environ for name in watched)
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)  # vLLM makes this do nothing on a CPU
    assert torch.get_num_threads() == threads + 1
    torch.set_num_threads(threads)
