"""The engine against ``transformers.generate`` and against the softmax it samples from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from dereason.lm.local.engine import decode, plan_batches, prefill, sample_tokens, shared_prefix, uniforms

HEAD = list(range(100, 120))  # longer than what counts as a shared prefix


@pytest.fixture(scope="module")
def double(tiny_model: Path) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float64).eval()


def run(model: torch.nn.Module, prompts: list[list[int]], n: int = 1, **kw: object) -> list[list[list[int]]]:
    settings = {"temperature": 0.0, "max_new_tokens": 12, "stop_ids": [2], "pad_id": 2, "seed": 0, **kw}
    return decode(model, prompts, n, **settings)  # type: ignore[arg-type]


def reference(model: torch.nn.Module, prompt: list[int], length: int, stops: list[int]) -> list[int]:
    out = model.generate(
        input_ids=torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        do_sample=False,
        max_new_tokens=length,
        eos_token_id=stops,
        pad_token_id=2,
    )
    return out[0, len(prompt) :].tolist()


def test_greedy_is_transformers_generate_token_for_token_in_float64(double: torch.nn.Module) -> None:
    prompts = [[*HEAD, 7, 8, 9], [*HEAD, 500], [*HEAD, 40, 41, 42, 43, 44, 45]]
    expected = [reference(double, p, 12, [2]) for p in prompts]
    # a token in the middle of one answer made a stop token: rows now finish at different times
    stops = [2, expected[1][4]]
    expected = [reference(double, p, 12, stops) for p in prompts]
    assert len({len(e) for e in expected}) > 1
    got = run(double, prompts, stop_ids=stops)
    assert [g[0] for g in got] == expected


def test_prompts_without_a_shared_prefix_are_decoded_alike(double: torch.nn.Module) -> None:
    prompts = [[7, 8, 9], [500, 3], [40, 41, 42, 43, 44, 45]]
    assert shared_prefix(prompts) == 0
    assert [g[0] for g in run(double, prompts)] == [reference(double, p, 12, [2]) for p in prompts]


def test_prefill_logits_equal_a_plain_forward_pass(double: torch.nn.Module) -> None:
    prompts = [[*HEAD, 7, 8, 9], [*HEAD, 500], [*HEAD, 40, 41]]
    assert shared_prefix(prompts) == len(HEAD)
    with torch.inference_mode():
        _, logits, mask, positions = prefill(double, prompts, 2)
        plain = torch.stack([double(input_ids=torch.tensor([p])).logits[0, -1] for p in prompts])
    torch.testing.assert_close(logits, plain, rtol=1e-9, atol=1e-9)
    assert positions.tolist() == [len(p) for p in prompts]
    assert mask.sum(1).tolist() == [len(p) for p in prompts]


@pytest.mark.parametrize(
    ("prompts", "expected"),
    [
        ([[*HEAD, 1], [*HEAD, 2]], 20),
        ([HEAD, [*HEAD, 2]], 19),  # every prompt keeps a token of its own
        ([HEAD, HEAD], 19),
        ([HEAD], 0),
        ([[1, 2, 3, 4], [1, 2, 3, 5]], 0),  # too short to pay
    ],
)
def test_shared_prefix(prompts: list[list[int]], expected: int) -> None:
    assert shared_prefix(prompts) == expected


def test_a_sample_does_not_depend_on_its_neighbours(double: torch.nn.Module) -> None:
    prompts = [[*HEAD, 7, 8, 9], [*HEAD, 500], [*HEAD, 40, 41, 42]]
    together = run(double, prompts, n=3, temperature=1.0, seed=5)
    alone = [run(double, [p], n=3, temperature=1.0, seed=5)[0] for p in prompts]
    assert together == alone
    assert run(double, prompts, n=3, temperature=1.0, seed=6) != together
    assert len({tuple(s) for s in together[0]}) > 1, "samples of one prompt must differ"


def test_sampling_follows_the_softmax() -> None:
    torch.manual_seed(0)
    logits = torch.randn(1, 6)
    draws = 20_000
    grid = (torch.arange(draws, dtype=torch.float64) + 0.5) / draws
    tokens = sample_tokens(logits.expand(draws, -1), 0.7, grid)
    found = torch.bincount(tokens, minlength=6) / draws
    torch.testing.assert_close(found.double(), torch.softmax(logits[0].double() / 0.7, -1), atol=1e-4, rtol=0)


def test_sampling_never_picks_an_impossible_token() -> None:
    logits = torch.tensor([[-torch.inf, 0.0, 0.0, -torch.inf]])
    ends = torch.tensor([0.0, 0.5, 1 - 2**-53], dtype=torch.float64)
    assert set(sample_tokens(logits.expand(3, -1), 1.0, ends).tolist()) <= {1, 2}


def test_uniform_streams_belong_to_seed_prompt_and_index() -> None:
    base = uniforms([1, 2], 0, 0, 8)
    assert np.array_equal(base, uniforms([1, 2], 0, 0, 8))
    assert np.array_equal(base[:4], uniforms([1, 2], 0, 0, 4)), "a longer limit must not change the start"
    for other in (uniforms([1, 3], 0, 0, 8), uniforms([1, 2], 1, 0, 8), uniforms([1, 2], 0, 1, 8)):
        assert not np.array_equal(base, other)


def test_batches_hold_every_prompt_once_shortest_first() -> None:
    plan = plan_batches([5, 3, 9, 3, 1], n=2, batch_size=4)
    assert plan == [[4, 1], [3, 0], [2]]
    assert plan_batches([1, 1], n=8, batch_size=4) == [[0], [1]]


def test_model_skips_finished_batches_and_gives_the_same_rest(tiny_model: Path) -> None:
    from dereason.lm.base import Sampling
    from dereason.lm.local.model import LocalModel, ModelSettings

    lm = LocalModel(ModelSettings(name=str(tiny_model)))
    chats = [[{"role": "user", "content": f"What is {i} + {i}?"}] for i in range(5)]
    sampling = Sampling(temperature=1.0, max_new_tokens=6, batch_size=2)
    whole = dict(lm.generate(chats, 1, sampling, seed=3))
    assert lm.batches(chats, 1, sampling) == len(whole) == 3
    rest = dict(lm.generate(chats, 1, sampling, seed=3, finished=frozenset({1})))
    assert rest == {0: whole[0], 2: whole[2]}
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    for completions in whole.values():
        for c in completions:
            assert c.hit_limit == (c.token_ids[-1] != tokenizer.eos_token_id)
            assert c.prompt_tokens == len(lm.encode(chats[c.request]))
