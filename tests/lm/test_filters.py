"""top_p, top_k and min_p: the engine's own against transformers' logits processors, and what each backend is asked."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForCausalLM
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from dereason.errors import DereasonError
from dereason.evaluation.evaluate import Evaluation
from dereason.lm.base import Filters, Sampling
from dereason.lm.local import fallback, fit, sampling
from dereason.lm.local.engine import decode
from dereason.lm.local.model import LocalModel, ModelSettings
from dereason.lm.local.sampling import filtered_logps, sample_tokens
from dereason.training.rl import RL

CASES: list[dict[str, Any]] = [
    {"top_p": 0.9},
    {"top_p": 0.05},  # less than one token
    {"top_k": 1},
    {"top_k": 50},
    {"top_k": 10_000},  # more than there are
    {"min_p": 0.2},
    {"top_k": 40, "top_p": 0.7, "min_p": 0.1},
]


def theirs(logits: torch.Tensor, temperature: float, how: dict[str, Any]) -> torch.Tensor:
    """Log-probabilities by transformers, in the order in which ``generate`` applies them."""
    steps = LogitsProcessorList([TemperatureLogitsWarper(temperature)])
    if "top_k" in how:
        steps.append(TopKLogitsWarper(min(how["top_k"], logits.size(-1))))
    if "top_p" in how:
        steps.append(TopPLogitsWarper(how["top_p"]))
    if "min_p" in how:
        steps.append(MinPLogitsWarper(how["min_p"]))
    return torch.log_softmax(steps(torch.zeros(1, 1, dtype=torch.long), logits.clone()), -1)


@pytest.mark.parametrize("how", CASES, ids=str)
@pytest.mark.parametrize("spread", [0.01, 1.0, 6.0])
def test_filters_leave_what_transformers_leaves(how: dict[str, Any], spread: float, monkeypatch: Any) -> None:
    """Every token that is left, its probability, and those that are drawn; flat and steep distributions."""
    monkeypatch.setattr(sampling, "_LIKELIEST", 16)  # the nucleus is searched for in several rounds
    torch.manual_seed(3)
    logits = spread * torch.randn(4, 300, dtype=torch.float64)
    wanted = theirs(logits, 0.8, how)
    filters = Filters(**how)
    tokens = torch.arange(300).repeat(4)
    got = filtered_logps(logits.repeat_interleave(300, 0), tokens, 0.8, filters).view(4, 300)
    assert torch.equal(got.isnan(), wanted.isinf())
    torch.testing.assert_close(got[~got.isnan()], wanted[~wanted.isinf()], rtol=1e-9, atol=1e-9)
    draws = 1000
    grid = (torch.arange(draws, dtype=torch.float64) + 0.5) / draws
    drawn, logps = sample_tokens(logits[:1].repeat(draws, 1), 0.8, grid, filters)
    shares = torch.bincount(drawn, minlength=300).double() / draws
    torch.testing.assert_close(shares, wanted[0].exp(), atol=1.1 / draws, rtol=0)
    torch.testing.assert_close(logps, wanted[0][drawn], rtol=1e-9, atol=1e-9)


def test_tokens_as_probable_as_the_last_one_are_left_too() -> None:
    logits = torch.tensor([[2.0, 1.0, 1.0, 1.0, 0.0]])
    for how in ({"top_k": 2}, {"top_p": 0.5}):
        got = filtered_logps(logits.repeat(5, 1), torch.arange(5), 1.0, Filters(**how))
        assert got.isnan().tolist() == [False, False, False, False, True]


@pytest.mark.parametrize("engine", [True, False])
def test_what_is_drawn_has_the_probability_that_is_told(tiny_model: Path, engine: bool, monkeypatch: Any) -> None:
    """By the engine and by the fallback, the same tokens; log-probabilities by transformers' own processors."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float64).eval()
    how = {"top_k": 30, "top_p": 0.8}
    asked: dict[str, Any] = {"temperature": 0.9, "max_new_tokens": 8, "stop_ids": [2], "pad_id": 2, "seed": 0}
    prompts = [[7, 8, 9], [500, 3, 7, 7]]
    found = decode(model, prompts, 3, **asked, batch_size=4, filters=Filters(**how))
    monkeypatch.setitem(fit._known, model, None)
    calls: list[int] = []
    plain = fallback._generate
    monkeypatch.setattr(fallback, "_generate", lambda *args: calls.append(1) or plain(*args))
    assert [[s.ids for s in of] for of in decode(model, prompts, 3, **asked, batch_size=4, filters=Filters(**how))] == [
        [s.ids for s in of] for of in found
    ]
    assert calls
    for prompt, of in zip(prompts, found, strict=True):
        for sample in of:
            with torch.inference_mode():
                logits = model(torch.tensor([[*prompt, *sample.ids]])).logits[0, len(prompt) - 1 : -1]
            wanted = theirs(logits, 0.9, how)[range(len(sample.ids)), sample.ids]
            assert sample.logps == pytest.approx(wanted.tolist(), abs=1e-9)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Sampling(temperature=0, top_p=0.9), "top_p would change nothing"),
        (lambda: Evaluation(sampling={"min_p": 0.1}), "min_p would change nothing"),  # greedy unless said otherwise
        (lambda: Sampling(temperature=1e-40), r"temperature 1e-40 is below 0\.01"),
        (lambda: RL(temperature=1e-40), r"greater than or equal to 0\.01"),
        (lambda: Sampling(top_p=0), "greater than 0"),
        (lambda: Sampling(min_p=1), "less than 1"),
        (lambda: RL(top_p=0.9, rewards={"of": [{"name": "verifree"}]}), "verifree's loss takes reasonings"),
    ],
)
def test_settings_that_draw_nothing_sensible_are_refused(build: Any, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        build()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("engine", [True, False])
def test_logits_that_are_no_numbers_end_in_one_line(
    tiny_model: Path, bad: float, temperature: float, engine: bool, monkeypatch: Any
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    if not engine:
        monkeypatch.setitem(fit._known, model, None)
    else:
        from dereason.lm.local.grouped import GroupedCache

        monkeypatch.setitem(fit._known, model, GroupedCache)  # the trial would not pass
    monkeypatch.setattr(model, "lm_head", Spoilt(model.lm_head, bad))
    with pytest.raises(DereasonError, match="logits are NaN or infinite"):
        decode(
            model, [[7, 8]], 1, temperature=temperature, max_new_tokens=3, stop_ids=[], pad_id=2, seed=0, batch_size=1
        )
    for extreme in (1e-40, 0.001):
        with pytest.raises(ValueError, match="below"):
            decode(model, [[7]], 1, temperature=extreme, max_new_tokens=3, stop_ids=[], pad_id=2, seed=0, batch_size=1)


class Spoilt(torch.nn.Module):
    """A head that makes one row's logits no numbers."""

    def __init__(self, head: torch.nn.Module, value: float) -> None:
        super().__init__()
        self.head, self.value = head, value

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return torch.full_like(self.head(hidden), self.value)


def test_problems_with_one_text_have_streams_of_their_own(tiny_model: Path) -> None:
    lm = LocalModel(ModelSettings(name=str(tiny_model)))
    chats = [[{"role": "user", "content": text}] for text in ("one", "two", "one", "one")]
    how = Sampling(max_new_tokens=6, batch_size=2)
    found = {c.request: c.token_ids for _, batch in lm.generate(chats, 1, how, seed=1) for c in batch}
    assert len({found[0], found[2], found[3]}) == 3
    alone = [c.token_ids for _, batch in lm.generate(chats[:2], 1, how, seed=1) for c in batch]
    assert {found[0], found[1]} == set(alone), "the first of a text is drawn as it would be alone"
    rest = dict(lm.generate(chats, 1, how, seed=1, finished=frozenset({0})))
    assert all(c.token_ids == found[c.request] for batch in rest.values() for c in batch)
