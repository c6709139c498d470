"""The engine against ``transformers.generate`` and plain forward passes: tokens, log-probabilities, places."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from dereason.lm.local import engine, fallback, fit, packed, places
from dereason.lm.local.engine import decode, plan_batches, stream
from dereason.lm.local.packed import PackedLinears
from dereason.lm.local.prefill import prefill, shared_prefix
from dereason.lm.local.sampling import Drawn, sample_tokens, uniforms

HEAD = list(range(100, 120))  # longer than what counts as a shared prefix
PROMPTS = [[*HEAD, 7, 8, 9], [*HEAD, 500], [*HEAD, 40, 41, 42, 43, 44, 45], [*HEAD, 7, 9], [*HEAD, 600, 601, 602, 3]]
UNLIKE = [[7, 8, 9], [500, 3], [40, 41, 42, 43, 44, 45], [90, 7, 9, 9, 4], [600, 601, 602, 3]]

SMALL = {
    "vocab_size": 700,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "initializer_range": 0.5,
    "pad_token_id": 2,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


@pytest.fixture(scope="module")
def double(tiny_model: Path) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float64).eval()


def make(name: str, **config: Any) -> Any:
    """A random small model of an architecture, in float64."""
    torch.manual_seed(0)
    made = getattr(transformers, f"{name}Config")(**config)
    return AutoModelForCausalLM.from_config(made).double().eval()


def run(model: Any, prompts: list[list[int]], n: int = 1, **kw: Any) -> list[list[Drawn]]:
    settings = {"temperature": 0.0, "max_new_tokens": 12, "stop_ids": [2], "pad_id": 2, "seed": 0, "batch_size": 64}
    return decode(model, prompts, n, **{**settings, **kw})  # type: ignore[arg-type]


def ids(drawn: list[list[Drawn]]) -> list[list[list[int]]]:
    return [[s.ids for s in group] for group in drawn]


def reference(model: Any, prompt: list[int], length: int, stops: list[int]) -> list[int]:
    out = model.generate(
        input_ids=torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        do_sample=False,
        max_new_tokens=length,
        eos_token_id=stops,
        pad_token_id=2,
    )
    return out[0, len(prompt) :].tolist()


@contextmanager
def watched(model: Any) -> Iterator[list[tuple[int, int]]]:
    """(rows, tokens a row) of every forward pass inside."""
    shapes: list[tuple[int, int]] = []
    hook = model.register_forward_pre_hook(
        lambda _, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    try:
        yield shapes
    finally:
        hook.remove()


def check_greedy(model: Any, prompts: list[list[int]], kind: type | None, length: int = 14) -> None:
    """Greedy with fewer places than prompts and rows that end at different times."""
    plain = [reference(model, p, length, [2]) for p in prompts]
    stops = [2, plain[1][3], plain[2][6]]  # tokens in the middle of answers made stop tokens
    expected = [reference(model, p, length, stops) for p in prompts]
    assert len({len(e) for e in expected}) > 1
    got = run(model, prompts, stop_ids=stops, batch_size=2, max_new_tokens=length)
    assert ids(got) == [[e] for e in expected]
    assert fit._known[model] is kind


@pytest.mark.parametrize("kind", ["GroupedCache", "PlaceCache"])
@pytest.mark.parametrize("prompts", [PROMPTS, UNLIKE])
def test_greedy_is_transformers_generate_token_for_token_in_float64(
    double: Any, prompts: list[list[int]], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dereason.lm.local.grouped import GroupedCache

    cache = GroupedCache if kind == "GroupedCache" else places.PlaceCache
    monkeypatch.setitem(fit._known, double, cache)
    monkeypatch.setattr(places, "_SPARE", 3)  # the columns run out, move and grow
    check_greedy(double, prompts, cache)


@pytest.mark.parametrize(
    ("name", "config", "kind"),
    [
        ("Qwen2", SMALL, "GroupedCache"),
        ("Qwen3", SMALL, "GroupedCache"),
        ("Gemma2", {**SMALL, "sliding_window": 6, "query_pre_attn_scalar": 8}, "PlaceCache"),
        (
            "Gemma3Text",
            {
                **SMALL,
                "sliding_window": 6,
                "query_pre_attn_scalar": 8,
                "layer_types": ["sliding_attention", "full_attention"],
            },
            "PlaceCache",
        ),
        ("Mistral", {**SMALL, "sliding_window": 6}, "PlaceCache"),
        ("GPT2", {"vocab_size": 700, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}, "GroupedCache"),
        ("Bloom", {"vocab_size": 700, "hidden_size": 32, "n_layer": 2, "n_head": 4}, "PlaceCache"),
    ],
)
def test_architectures(name: str, config: dict[str, Any], kind: str) -> None:
    from dereason.lm.local.grouped import GroupedCache

    check_greedy(make(name, **config), PROMPTS, GroupedCache if kind == "GroupedCache" else places.PlaceCache)


class WithCache(transformers.LlamaForCausalLM):
    """The argument's name since transformers 5.24, whichever is installed."""

    def forward(  # type: ignore[override]
        self, input_ids: Any, attention_mask: Any = None, position_ids: Any = None, cache: Any = None, **more: Any
    ) -> Any:
        return forwarded(self, cache, input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids)


class WithPastKeyValues(transformers.LlamaForCausalLM):
    """The name before."""

    def forward(  # type: ignore[override]
        self,
        input_ids: Any,
        attention_mask: Any = None,
        position_ids: Any = None,
        past_key_values: Any = None,
        **more: Any,
    ) -> Any:
        return forwarded(
            self, past_key_values, input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids
        )


def forwarded(model: Any, cache: Any, **inputs: Any) -> Any:
    plain = transformers.LlamaForCausalLM.forward
    name = "cache" if "cache" in inspect.signature(plain).parameters else "past_key_values"
    return plain(model, **{name: cache}, **inputs)


@pytest.mark.parametrize("kind", [WithCache, WithPastKeyValues])
def test_a_cache_goes_under_the_name_that_the_model_knows(kind: Any) -> None:
    from dereason.lm.local.grouped import GroupedCache
    from dereason.training.rewards.scoring import answer_logps

    plain = make("Llama", **SMALL)
    model = kind(plain.config).double().eval()
    model.load_state_dict(plain.state_dict())
    assert ids(run(model, PROMPTS)) == ids(run(plain, PROMPTS))
    assert fit._known[model] is fit._known[plain] is GroupedCache
    found, wanted = (answer_logps(m, PROMPTS, [[5, 6], [7]], temperature=1, pad_id=2) for m in (model, plain))
    np.testing.assert_array_equal(*(np.concatenate([x for row in side for x in row]) for side in (found, wanted)))


@pytest.mark.parametrize(
    ("name", "config", "reason"),
    [
        (
            "Mamba",
            {"vocab_size": 700, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
            "takes no cache|layers of kind linear_attention",  # before transformers 5.24, and since
        ),
        (
            "Lfm2",
            {**SMALL, "layer_types": ["conv", "full_attention"]},
            "layers of kind conv",
        ),
    ],
)
def test_other_caches_fall_back_to_generate_and_say_so(
    name: str, config: dict[str, Any], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = make(name, **config)
    model.generation_config.repetition_penalty = 1.7  # of the model's maker; what is asked for is the plain model
    with caplog.at_level(logging.WARNING, "dereason"):
        drawn = run(model, UNLIKE, 2, temperature=0.8, batch_size=3, max_new_tokens=[[5, 9]] * len(UNLIKE))
        assert ids(drawn) == ids(run(model, UNLIKE, 2, temperature=0.8, max_new_tokens=[[5, 9]] * len(UNLIKE)))
    (record,) = [r for r in caplog.records if r.name.startswith("dereason")]
    assert re.search(reason, record.getMessage())
    assert model.generation_config.repetition_penalty == 1.7
    assert [[len(s) for s in group] for group in ids(drawn)] == [[5, 9]] * len(UNLIKE)
    with watched(model) as shapes:
        run(model, UNLIKE)
    assert [shape for shape in shapes if shape[1] > 1] == [(5, 6)], "prompts of several lengths are one batch, padded"
    check_logps(model, UNLIKE, drawn, 0.8, tolerance=1e-5)  # generate hands out float32
    model.generation_config.repetition_penalty = 1.0
    check_greedy(model, UNLIKE, None)


def test_a_model_that_the_trial_contradicts_falls_back(double: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from dereason.lm.local.grouped import GroupedCache

    honest = places.PlaceCache.mask_and_positions
    for kind in (places.PlaceCache, GroupedCache):  # positions off by the row: as if the model counted them itself
        own = kind.mask_and_positions

        def shifted(self: Any, device: Any, own: Any = own) -> Any:
            mask, positions = own(self, device)
            return mask, positions + 3 * torch.arange(len(positions))[:, None] + 1

        monkeypatch.setattr(kind, "mask_and_positions", shifted)
    reason = fit._trial(double, places.PlaceCache, UNLIKE[2], 2)
    assert reason is not None
    assert "differed from a plain forward pass" in reason
    monkeypatch.setattr(places.PlaceCache, "mask_and_positions", honest)
    assert fit._trial(double, places.PlaceCache, UNLIKE[2], 2) is None


def test_a_recurrent_model_whose_state_padding_reaches_is_given_none() -> None:
    plain, leaky = (make("Mamba", vocab_size=700, hidden_size=32, num_hidden_layers=2, state_size=4) for _ in range(2))
    leaky.backbone.register_forward_pre_hook(
        lambda _, args, kwargs: (args, {**kwargs, "attention_mask": None}), with_kwargs=True
    )
    assert ids(run(leaky, UNLIKE, max_new_tokens=4)) == ids(run(plain, UNLIKE, max_new_tokens=4))
    assert fallback._padded[plain]
    assert not fallback._padded[leaky]


@pytest.mark.parametrize("way", ["autocast", "weights"])
def test_the_trial_is_in_float32_whatever_decodes(tiny_model: Path, way: str) -> None:
    """An RL phase on a GPU has float32 weights and bfloat16 by autocast, evaluation bfloat16 weights.

    In both the engine's layout differs from a plain pass by some per cent, and is right.
    """
    from dereason.lm.local.grouped import GroupedCache

    dtype = torch.float32 if way == "autocast" else torch.bfloat16
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=dtype).eval()
    before = {name: p.clone() for name, p in model.named_parameters()}
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=way == "autocast")
    model.forward = wrapper = autocast(model.forward)  # as accelerate prepares a model
    with autocast, torch.no_grad():
        rounded = fit._trial_gap(model, GroupedCache, UNLIKE[2], 2)
        run(model, UNLIKE, max_new_tokens=2)
    assert rounded > 1e-3, "what a bound for float32 refuses"
    assert fit._known[model] is GroupedCache
    assert model.forward is wrapper
    for name, p in model.named_parameters():
        assert p.dtype == dtype
        assert torch.equal(p, before[name])


def check_logps(
    model: Any, prompts: list[list[int]], drawn: list[list[Drawn]], temperature: float, tolerance: float
) -> None:
    for prompt, group in zip(prompts, drawn, strict=True):
        for sample in group:
            with torch.inference_mode():
                logits = model(torch.tensor([prompt + sample.ids])).logits[0, len(prompt) - 1 : -1]
            plain = torch.log_softmax(logits / temperature, -1).gather(1, torch.tensor(sample.ids)[:, None])[:, 0]
            np.testing.assert_allclose(sample.logps, plain.numpy(), atol=tolerance)


@pytest.mark.parametrize(("temperature", "of"), [(0.7, 0.7), (0.0, 1.0)])
def test_logps_are_those_of_a_plain_forward_pass(double: Any, temperature: float, of: float) -> None:
    drawn = run(double, PROMPTS, 3, temperature=temperature, batch_size=4)
    # float32 sums in the sampler's normaliser, float64 elsewhere
    check_logps(double, PROMPTS, drawn, of, tolerance=1e-9)


def test_places_are_never_more_than_allowed_and_are_filled_again(double: Any) -> None:
    limits = [[2, 9, 3], [1, 1, 12], [5, 2, 2], [8, 1, 4], [3, 3, 3]]
    run(double, PROMPTS[:1])  # the trial run is over
    with watched(double) as shapes:
        drawn = run(double, PROMPTS, 3, temperature=1.0, batch_size=4, max_new_tokens=limits, stop_ids=[])
    assert [[len(s) for s in group] for group in ids(drawn)] == limits
    decoding = [rows for rows, width in shapes if width == 1]
    assert max(rows for rows, _ in shapes) <= 4
    steps = sum(sum(row) for row in limits) - 15  # the first token comes from the prompt's logits
    assert sum(decoding) == steps, "no row runs that has ended"
    assert decoding == sorted(decoding, reverse=True), "places stay full until nothing waits"
    assert decoding.count(4) >= steps // 4 - 3


@pytest.mark.parametrize("kind", ["GroupedCache", "PlaceCache"])
def test_where_memory_is_short_samples_wait_and_are_gone_on_with(
    double: Any, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One long sample among short ones: storage is never larger than it may be, every sample what it would be."""
    from dereason.lm.local.grouped import GroupedCache

    cache = GroupedCache if kind == "GroupedCache" else places.PlaceCache
    monkeypatch.setitem(fit._known, double, cache)
    monkeypatch.setattr(places, "_SPARE", 3)
    limits = [[40, 9, 12], [14, 25, 3], [15, 8, 11], [9, 20, 30]]
    asked: dict[str, Any] = {"temperature": 1.0, "max_new_tokens": limits, "stop_ids": [], "batch_size": 8}
    plain = run(double, PROMPTS[:4], 3, **asked)
    sizes: list[int] = []
    grow, halt, halted = places.PlaceCache._make_room, engine._Decoder._halt, []

    def watch(self: Any, *args: Any) -> int:
        low = grow(self, *args)
        sizes.append(self.places * self.columns)
        return low

    cells = 4 * 6 + 60 if kind == "GroupedCache" else 3 * 45  # prompts have a storage of their own, or none
    cell = 2 * 2 * 2 * 8 * 8  # layers, keys and values, heads, head size, bytes
    monkeypatch.setattr(places, "cache_bytes", lambda device: cells * cell)
    monkeypatch.setattr(places.PlaceCache, "_make_room", watch)
    monkeypatch.setattr(engine._Decoder, "_halt", lambda self, row: halted.append(row) or halt(self, row))
    short = run(double, PROMPTS[:4], 3, **asked)
    assert ids(short) == ids(plain)
    check_logps(double, PROMPTS[:4], short, 1.0, tolerance=1e-9)
    assert halted, "nothing had to wait"
    assert max(sizes) <= cells


def test_samples_come_as_soon_as_their_prompt_is_done(double: Any) -> None:
    limits = [[2, 3], [9, 9], [1, 1]]
    kw: dict[str, Any] = {"temperature": 1.0, "stop_ids": [], "pad_id": 2, "seed": 0, "batch_size": 6}
    order = []
    for number, samples in stream(double, UNLIKE[:3], 2, max_new_tokens=limits, **kw):
        assert not torch.is_inference_mode_enabled(), "the caller's own code runs in its own mode"
        assert [len(s.ids) for s in samples] == limits[number]
        order.append(number)
    assert order == [2, 0, 1]


def test_a_sample_does_not_depend_on_its_neighbours(double: Any) -> None:
    together = ids(run(double, PROMPTS, n=3, temperature=1.0, seed=5))
    assert together == [ids(run(double, [p], n=3, temperature=1.0, seed=5))[0] for p in PROMPTS]
    assert together == ids(run(double, PROMPTS, n=3, temperature=1.0, seed=5, batch_size=2))
    assert ids(run(double, PROMPTS, n=3, temperature=1.0, seed=6)) != together
    assert len({tuple(s) for s in together[0]}) > 1, "samples of one prompt must differ"


@pytest.mark.parametrize("bias", [False, True])
def test_packed_linears_compute_the_same_and_leave_no_trace(bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "_MIN_WEIGHTS", 1)
    model = make("Qwen2", **SMALL) if bias else make("Llama", **SMALL)
    model = model.float()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    x = torch.tensor([HEAD])
    with torch.inference_mode():
        plain = model(x).logits
        linears = PackedLinears(model, 10_000)
        with linears.active():
            layer = model.model.layers[0]
            assert "forward" in vars(model.lm_head), "nothing was packed"
            parts = [vars(layer.self_attn.get_submodule(f"{k}_proj"))["forward"].func.__self__ for k in "qkv"]
            assert parts[0] is parts[1] is parts[2], "one product for the three"
            torch.testing.assert_close(model(x).logits, plain, rtol=1e-4, atol=1e-4)
            other = torch.randn(3, 32)
            projections = layer.mlp.gate_proj, layer.mlp.up_proj
            for input_, linear in [(other, 0), (other, 0), (other, 1), (-other, 1), (-other, 0), (other, 1)]:
                expected = torch.nn.functional.linear(input_, projections[linear].weight)
                torch.testing.assert_close(projections[linear](input_), expected, rtol=1e-4, atol=1e-4)
    assert not any("forward" in vars(m) for m in model.modules())
    with torch.no_grad():
        model.lm_head.weight.zero_()
    assert not model(x).logits.any(), "after the call the layers follow their weights again"


def test_a_peft_model_is_decoded_with_its_adapter(tiny_model: Path) -> None:
    from peft import LoraConfig, get_peft_model

    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float64).eval()
    before = ids(run(model, PROMPTS))
    wrapped = get_peft_model(model, LoraConfig(target_modules=["q_proj", "up_proj"], init_lora_weights=False)).double()
    after = ids(run(wrapped.eval(), PROMPTS))
    assert after != before
    assert after == [[reference(wrapped, p, 12, [2])] for p in PROMPTS]


def test_prefill_logits_equal_a_plain_forward_pass(double: Any) -> None:
    prompts = PROMPTS[:3]
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


@pytest.mark.parametrize("vocabulary", [6, 256, 700])
def test_sampling_follows_the_softmax(vocabulary: int) -> None:
    torch.manual_seed(0)
    logits = torch.randn(1, vocabulary)
    draws = 20_000
    grid = (torch.arange(draws, dtype=torch.float64) + 0.5) / draws
    tokens, logps = sample_tokens(logits.repeat(draws, 1), 0.7, grid)
    found = torch.bincount(tokens, minlength=vocabulary) / draws
    plain = torch.log_softmax(logits[0].double() / 0.7, -1)
    torch.testing.assert_close(found.double(), plain.exp(), atol=1e-4, rtol=0)
    torch.testing.assert_close(logps.double(), plain[tokens], atol=1e-5, rtol=0)


def test_sampling_never_picks_an_impossible_token() -> None:
    ends = torch.tensor([0.0, 0.5, 1 - 2**-53], dtype=torch.float64)
    for possible in ([1, 2], [300, 301], [0, 699]):
        logits = torch.full((1, 700), -torch.inf)
        logits[0, possible] = 0.0
        tokens, logps = sample_tokens(logits.repeat(3, 1), 1.0, ends)
        assert set(tokens.tolist()) == set(possible)
        assert logps.tolist() == pytest.approx([-np.log(2)] * 3)


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


def test_nothing_to_draw(double: Any) -> None:
    assert run(double, [], 4) == []
    assert run(double, PROMPTS[:1], 0) == [[]]


def test_model_skips_finished_batches_and_gives_the_same_rest(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dereason.lm.base import Sampling
    from dereason.lm.local.model import LocalModel, ModelSettings

    lm = LocalModel(ModelSettings(name=str(tiny_model)))
    chats = [[{"role": "user", "content": f"What is {i} + {i}?"}] for i in range(11)]
    sampling = Sampling(temperature=1.0, max_new_tokens=6, batch_size=2)
    whole = dict(lm.generate(chats, 1, sampling, seed=3))
    assert lm.batches(chats, 1, sampling) == len(whole) == 6
    rest = dict(lm.generate(chats, 1, sampling, seed=3, finished=frozenset({1, 4})))
    assert rest == {k: v for k, v in whole.items() if k not in (1, 4)}
    steps: list[int] = []
    advance = engine._Decoder.advance
    monkeypatch.setattr(engine._Decoder, "advance", lambda self: steps.append(1) or advance(self))
    assert set(dict(lm.generate(chats, 1, sampling, seed=3, finished=frozenset({0, 1, 2, 3})))) == {4, 5}
    assert len(steps) <= 4, "batches that are decoded together and all stored are not decoded again"
    assert sorted(c.request for batch in whole.values() for c in batch) == list(range(11))
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    for completions in whole.values():
        for c in completions:
            assert c.hit_limit == (c.token_ids[-1] != tokenizer.eos_token_id)
            assert c.prompt_tokens == len(lm.encode(chats[c.request]))
            assert len(c.logps) == len(c.token_ids)
