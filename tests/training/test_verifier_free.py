r"""Verifier-free rewards: exact probabilities, the CER identity by enumeration, and the group across processes."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM

from dereason.errors import DereasonError
from dereason.lm.local.model import ModelSettings, load_tokenizer
from dereason.training.rewards import scoring
from dereason.training.rewards.scoring import answer_logps, encode_answer, split_at_box
from dereason.training.rewards.settings import RLPR
from dereason.training.rewards.verifier_free import (
    CERReward,
    RLPRReward,
    RuleThenCERReward,
    VeriFreeReward,
    cer_rewards,
    moving_threshold,
    rlpr_reward,
    splice_reference,
)
from dereason.verify.kinds import Kind
from dereason.verify.verdict import judge_response


@pytest.fixture(scope="module")
def small() -> Any:
    """A random model of seven words in float64."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=7,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.6,
    )
    return LlamaForCausalLM(config).double().eval()


def one_by_one(model: Any, prefix: list[int], answer: list[int], temperature: float) -> list[float]:
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prefix, *answer]])).logits[0] / temperature
    logp = logits.log_softmax(-1)
    return [float(logp[len(prefix) + k - 1, token]) for k, token in enumerate(answer)]


PREFIXES = [[1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 0], [1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 5, 2], [1, 2, 3, 4, 5, 6, 1, 2, 3, 4]]
ANSWERS = [[3], [3, 4], [], [5, 5, 5, 1, 2], [3, 4, 6], [0]]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("budget", [1, 60, 1 << 26])
@pytest.mark.parametrize("rows", [1, 2, 64])
def test_packed_answers_are_scored_as_whole_sequences(
    small: Any, temperature: float, budget: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "MAX_LOGITS", budget)
    scored = answer_logps(small, PREFIXES, ANSWERS, temperature=temperature, pad_id=0, rows=rows)
    for prefix, row in zip(PREFIXES, scored, strict=True):
        for answer, logps in zip(ANSWERS, row, strict=True):
            assert logps.tolist() == pytest.approx(one_by_one(small, prefix, answer, temperature), abs=1e-12)


def test_the_eager_attention_gives_the_same(small: Any) -> None:
    want = answer_logps(small, PREFIXES, ANSWERS, temperature=1.0, pad_id=0)
    small.set_attn_implementation("eager")
    got = answer_logps(small, PREFIXES, ANSWERS, temperature=1.0, pad_id=0)
    small.set_attn_implementation("sdpa")
    for a, b in zip(want, got, strict=True):
        for x, y in zip(a, b, strict=True):
            assert x == pytest.approx(y, abs=1e-5)  # eager attention takes its softmax in float32


def test_answers_are_kept_apart_under_bfloat16_autocast() -> None:
    """On a GPU: float32 weights under autocast, where the mask's lowest number becomes -inf."""
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=7, initializer_range=0.1, **shape)).eval()
    with torch.autocast("cpu", torch.bfloat16):
        together = answer_logps(model, PREFIXES, ANSWERS, temperature=1.0, pad_id=0)
        alone = [answer_logps(model, PREFIXES, [a], temperature=1.0, pad_id=0) for a in ANSWERS]
    exact = answer_logps(model, PREFIXES, ANSWERS, temperature=1.0, pad_id=0)
    for p in range(len(PREFIXES)):
        for u in range(len(ANSWERS)):
            assert together[p][u] == pytest.approx(alone[u][p][0], abs=5e-3)  # a leak costs 0.3
            assert together[p][u] == pytest.approx(exact[p][u], abs=2e-2)


TINY: dict[str, Any] = {"vocab_size": 7, "hidden_size": 16, "num_hidden_layers": 2, "initializer_range": 0.6}
HEADS = {"intermediate_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0}


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("Mamba", {"state_size": 4}),
        ("Lfm2", {**HEADS, "layer_types": ["conv", "full_attention"]}),
        ("Mistral", {**HEADS, "sliding_window": 6}),
        (
            "Phi3",
            {
                **HEADS,
                "rope_parameters": {
                    "rope_type": "longrope",
                    "rope_theta": 1e4,
                    "short_factor": [1.0, 1.0],
                    "long_factor": [2.0, 5.0],
                    "original_max_position_embeddings": 14,
                },
            },
        ),
    ],
)
def test_models_that_take_no_answers_side_by_side_score_them_one_by_one(kind: str, config: dict[str, Any]) -> None:
    """State spaces, convolutions, a window shorter than the text, positions that depend on the longest row."""
    torch.manual_seed(0)
    made = getattr(transformers, f"{kind}Config")(**TINY, **config)
    model = transformers.AutoModelForCausalLM.from_config(made).double().eval()
    scored = answer_logps(model, PREFIXES, ANSWERS, temperature=0.7, pad_id=0, rows=4)
    for prefix, row in zip(PREFIXES, scored, strict=True):
        for answer, logps in zip(ANSWERS, row, strict=True):
            assert logps.tolist() == pytest.approx(one_by_one(model, prefix, answer, 0.7), abs=1e-5)


def test_the_mean_reward_of_a_group_is_the_mean_probability_of_the_reference(small: Any) -> None:
    """The identity of CER by enumeration: all answers are one token, so that they are a complete set."""
    vocabulary = range(7)
    scored = answer_logps(small, PREFIXES, [[a] for a in vocabulary], temperature=1.0, pad_id=0)
    logp = np.array([[float(x.sum()) for x in row] for row in scored])
    for reference in vocabulary:
        expectation = 0.0
        for sampled in itertools.product(vocabulary, repeat=len(PREFIXES)):
            probability = math.exp(sum(logp[i, a] for i, a in enumerate(sampled)))
            expectation += probability * float(cer_rewards(logp, sampled, reference).mean())
        assert expectation == pytest.approx(float(np.exp(logp[:, reference]).mean()), abs=1e-12)
    # It is no property of one group, and the mean over the answers that a group happens to hold is not it.
    one = cer_rewards(logp, (0, 1, 2), 3).mean()
    assert abs(one - np.exp(logp[:, 3]).mean()) > 1e-3


def test_cer_by_its_formula() -> None:
    generator = np.random.default_rng(0)
    p = generator.random((5, 4))
    got = cer_rewards(np.log(p), [0, 1, None, 3, 1], 2)
    want = [
        0.0 if a is None else sum(p[j, a] * p[j, 2] for j in range(5)) / sum(p[j, a] for j in range(5))
        for a in [0, 1, None, 3, 1]
    ]
    assert got.tolist() == pytest.approx(want, abs=1e-14)


def test_cer_survives_probabilities_below_the_smallest_float() -> None:
    logp = np.array([[-900.0, -950.0], [-2000.0, -1.0]])
    assert cer_rewards(logp, [0, 1], 1).tolist() == pytest.approx([math.exp(-950), math.exp(-1)], rel=1e-9)
    assert cer_rewards(np.array([[-np.inf, -1.0]]), [0], 1).tolist() == [0.0]
    assert cer_rewards(np.zeros((0, 0)), [None, None], 0).tolist() == [0.0, 0.0]


def test_rlpr_by_its_formula() -> None:
    with_reasoning, without = np.log([0.9, 0.5]), np.log([0.2, 0.4])
    assert rlpr_reward(with_reasoning, without) == pytest.approx(0.7 - 0.3)
    assert rlpr_reward(without, with_reasoning) == 0.0
    assert rlpr_reward(np.zeros(0), np.zeros(0)) == 0.0


def test_the_threshold_begins_at_the_eleventh_generation_as_released() -> None:
    """0.99, from the mean of generations 6 to 10, times beta."""
    numbers = {"beta": 0.5, "decay": 0.99, "seen": 6, "start": 11}
    assert RLPR().model_dump(include=set(numbers)) == numbers
    means = [9.0] * 5 + [0.1, 0.2, 0.3, 0.4, 0.5]
    assert moving_threshold(means[:9], **numbers) is None
    assert moving_threshold(means, **numbers) == pytest.approx(0.5 * 0.3)
    assert moving_threshold([*means, 0.7, 0.2], **numbers) == pytest.approx(
        0.5 * (0.99 * (0.99 * 0.3 + 0.01 * 0.7) + 0.01 * 0.2)
    )


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    return load_tokenizer(ModelSettings(name=str(tiny_model)))


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"So \boxed{12}.", "12"),
        (r"First \boxed{1}, but no: \boxed{\frac{3}{4}} it is", r"\frac{3}{4}"),
        (r"\boxed{(2, 3)}", "(2, 3)"),
        (r"über \boxed{é}", "é"),
        ("$\\boxed{ 7 }$", " 7 "),
    ],
)
def test_a_rollout_is_cut_at_its_last_box(tokenizer: Any, text: str, answer: str) -> None:
    ids = [*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]
    found = split_at_box(tokenizer, ids)
    assert found is not None
    head, content = found
    assert content == answer
    assert tokenizer.decode(head) == text[: text.rindex("\\boxed{") + 7]
    assert tokenizer.decode([*head, *encode_answer(tokenizer, content)]) == text[: text.rindex(answer) + len(answer)]


@pytest.mark.parametrize("text", ["no box", r"\boxed{12", r"\boxed{}", ""])
def test_a_rollout_without_a_closed_box_has_no_cut(tokenizer: Any, text: str) -> None:
    assert split_at_box(tokenizer, tokenizer.encode(text, add_special_tokens=False)) is None


def test_special_tokens_inside_a_rollout_stay_in_its_reasoning(tokenizer: Any) -> None:
    """As sampled before the answer; of the answer, its text alone."""
    special = tokenizer.convert_tokens_to_ids("<|im_start|>")
    pieces = [tokenizer.encode(t, add_special_tokens=False) for t in ("So ", r"it is \boxed{", "12", "} I say")]
    ids = [*pieces[0], special, *pieces[1], special, *pieces[2], special, *pieces[3], tokenizer.eos_token_id]
    assert split_at_box(tokenizer, ids) == ([*pieces[0], special, *pieces[1]], "12")


@pytest.mark.parametrize("reward", [CERReward(), RLPRReward(), VeriFreeReward(), RuleThenCERReward(no_rule=[])])
def test_a_reward_without_a_trainer_says_so(reward: Any) -> None:
    """As in plain TRL."""
    columns = {"prompt_ids": [[1]], "judgements": [None], "log_metric": None}
    with pytest.raises(DereasonError, match=f"{reward.__name__} asks the model in training"):
        reward(prompts=[""], completions=[""], completion_ids=[[2]], answer=["3"], **columns)


def bound(reward: Any, model: Any, tokenizer: Any, group_size: int) -> Any:
    reward.bind(
        SimpleNamespace(
            model=model,
            accelerator=SimpleNamespace(process_index=0, unwrap_model=lambda m: m, autocast=nullcontext),
            args=SimpleNamespace(temperature=0.8),
            phase=SimpleNamespace(rollout_batch=2),
            processing_class=tokenizer,
            num_generations=group_size,
            eos_token_ids=[tokenizer.eos_token_id],
            state=SimpleNamespace(global_step=0),
        )
    )
    if isinstance(reward, RLPRReward):
        reward.without = {str(i): [-50.0] for i in range(12)}
    return reward


TEXTS = [
    r"It is \boxed{12}",
    r"I say \boxed{5}",
    "nothing",
    r"Well, \boxed{12}",
    r"\boxed{a red ball}",
    r"It must be \boxed{red}",
    r"Hm: \boxed{blue}",
    r"\boxed{red}",
]
REFERENCES = ["12"] * 4 + ["red"] * 4


def rows(tokenizer: Any) -> dict[str, Any]:
    prompts = ["<|im_start|>user\nCount.<|im_end|>\n<|im_start|>assistant\n", "Colour?"]
    return {
        "prompts": [None] * 8,
        "completions": [None] * 8,
        "completion_ids": [[*tokenizer.encode(t, add_special_tokens=False), tokenizer.eos_token_id] for t in TEXTS],
        "prompt_ids": [tokenizer.encode(prompts[i // 4]) for i in range(8)],
        "answer": REFERENCES,
        "problem_id": [str(i // 4) for i in range(8)],
        "options": [[]] * 8,
        "judgements": [judge_response(t, False, a) for t, a in zip(TEXTS, REFERENCES, strict=True)],
    }


@pytest.fixture(scope="module")
def tiny(tiny_model: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float64).eval()


def by_hand(tiny: Any, tokenizer: Any, batch: dict[str, Any], reasonings: list[int], answer: str) -> list[float]:
    """log π(answer | prompt, reasoning) for some rows, each by a forward pass of its own."""
    out = []
    for i in reasonings:
        cut = split_at_box(tokenizer, batch["completion_ids"][i])
        assert cut is not None
        prefix = [*batch["prompt_ids"][i], *cut[0]]
        out.append(sum(one_by_one(tiny, prefix, encode_answer(tokenizer, answer), 0.8)))
    return out


def test_cer_of_real_rollouts(tiny: Any, tokenizer: Any) -> None:
    batch = rows(tokenizer)
    assert tokenizer.convert_tokens_to_ids("<|im_start|>") in batch["prompt_ids"][0]  # special tokens stay
    got = bound(CERReward(), tiny, tokenizer, 4)(**batch)
    for group, answers in ((0, ["12", "5", None, "12"]), (4, ["a red ball", "red", "blue", "red"])):
        inside = [group + i for i in range(4) if answers[i] is not None]
        star = np.array(by_hand(tiny, tokenizer, batch, inside, REFERENCES[group]))
        for i, answer in enumerate(answers):
            if answer is None:
                assert got[group + i] == 0
                continue
            own = np.array(by_hand(tiny, tokenizer, batch, inside, answer))
            want = np.exp(np.logaddexp.reduce(own + star) - np.logaddexp.reduce(own))
            assert got[group + i] == pytest.approx(float(want), rel=1e-9)


@pytest.mark.parametrize("reward", [CERReward(), RLPRReward(), VeriFreeReward(), CERReward(keep_unboxed=True)])
def test_a_group_without_a_box_earns_nothing(reward: Any, tiny: Any, tokenizer: Any) -> None:
    """Also rollouts that are their end token alone."""
    batch = rows(tokenizer)
    batch["completion_ids"] = [[tokenizer.eos_token_id]] * 4 + batch["completion_ids"][4:]
    got = bound(reward, tiny, tokenizer, 4)(**batch, log_metric=lambda name, value: None)
    assert got[:4] == [0, 0, 0, 0]
    assert max(got[4:]) > 0


def test_each_unique_answer_is_scored_once_and_the_prompt_run_once(
    tiny: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[list[int]]] = []
    widths: list[tuple[int, int]] = []
    original = scoring.answer_logps
    monkeypatch.setattr(
        "dereason.training.rewards.verifier_free.answer_logps",
        lambda model, prefixes, answers, **kw: (asked.append(answers), original(model, prefixes, answers, **kw))[1],
    )
    forward = tiny.forward
    monkeypatch.setattr(tiny, "forward", lambda **kw: (widths.append(tuple(kw["input_ids"].shape)), forward(**kw))[1])
    reward = bound(CERReward(), tiny, tokenizer, 4)
    reward.trainer.phase.rollout_batch = 64
    batch = rows(tokenizer)
    reward(**batch)
    assert [len(answers) for answers in asked] == [2, 3]  # {12, 5}, {red, a red ball, blue}
    prompt = len(batch["prompt_ids"][0])
    assert widths[0] == (1, prompt)  # what the group's reasonings share
    assert max(width for width, _ in widths) == 4  # never one row for each pair


def test_an_unboxed_rollout_can_be_kept_as_a_reasoning(tiny: Any, tokenizer: Any) -> None:
    batch = rows(tokenizer)
    left_out = bound(CERReward(), tiny, tokenizer, 4)(**batch)
    kept = bound(CERReward(keep_unboxed=True), tiny, tokenizer, 4)(**batch)
    assert left_out[2] == kept[2] == 0
    assert left_out[0] != kept[0]
    assert left_out[4:] == kept[4:]


def test_rule_then_cer_asks_the_kind_of_the_reference(tiny: Any, tokenizer: Any) -> None:
    batch = rows(tokenizer)
    got = bound(RuleThenCERReward(no_rule=[Kind.TEXT]), tiny, tokenizer, 4)(**batch)
    soft = bound(CERReward(), tiny, tokenizer, 4)(**batch)
    assert got == [1, 0, 0, 1, *soft[4:]]


def test_rlpr_of_real_rollouts_and_its_dropped_prompts(tiny: Any, tokenizer: Any, tmp_path: Path) -> None:
    batch = rows(tokenizer)
    logged: dict[str, float] = {}
    reward = bound(RLPRReward(beta=1.0, seen=1, start=2), tiny, tokenizer, 4)
    reward.gather = lambda local: local
    reward.trainer.accelerator.num_processes, reward.trainer.accelerator.is_main_process = 1, True
    reward.trainer.accelerator.wait_for_everyone = lambda: None
    asked = {batch["problem_id"][i]: (batch["prompt_ids"][i], REFERENCES[i]) for i in range(8)}
    reward.prepare(asked, tmp_path / "without.json")
    first = reward(**batch, log_metric=logged.__setitem__)
    for i, value in enumerate(first):
        box = tokenizer.encode("\\boxed{", add_special_tokens=False)
        answer = encode_answer(tokenizer, REFERENCES[i])
        without = np.exp(one_by_one(tiny, [*batch["prompt_ids"][i], *box], answer, 0.8)).mean()
        cut = split_at_box(tokenizer, batch["completion_ids"][i])
        if cut is None:
            assert value == 0
            continue
        inside = np.exp(one_by_one(tiny, [*batch["prompt_ids"][i], *cut[0]], answer, 0.8)).mean()
        assert value == pytest.approx(min(max(inside - without, 0), 1), abs=1e-9)
    stds = [float(np.std(first[:4], ddof=1)), float(np.std(first[4:], ddof=1))]
    assert logged == {"dropped_groups": 0.0, "std_mean": pytest.approx(np.mean(stds)), "std_threshold": 0.0}
    reward.trainer.state.global_step = 1
    second = reward(**batch, log_metric=logged.__setitem__)
    flat = 0 if stds[0] < stds[1] else 4
    assert [r is None for r in second] == [flat <= i < flat + 4 for i in range(8)]
    assert (logged["dropped_groups"], logged["std_threshold"]) == (0.5, pytest.approx(np.mean(stds)))
    further = reward(**batch, log_metric=logged.__setitem__)  # a second draw of the generation: the same threshold
    assert [r is None for r in further] == [r is None for r in second]


def test_verifree_puts_the_reference_in_place_of_the_answer(tiny: Any, tokenizer: Any) -> None:
    batch = rows(tokenizer)
    got = bound(VeriFreeReward(), tiny, tokenizer, 4)(**batch)
    spliced, tails = splice_reference(tokenizer, batch["completion_ids"], REFERENCES)
    for i in range(8):
        if tails[i] == 0:
            assert got[i] == 0
            assert spliced[i] == batch["completion_ids"][i]
            continue
        text = TEXTS[i][: TEXTS[i].rindex("\\boxed{") + 7] + REFERENCES[i]
        assert tokenizer.decode(spliced[i]) == text
        want = one_by_one(tiny, [*batch["prompt_ids"][i], *spliced[i][: -tails[i]]], spliced[i][-tails[i] :], 0.8)
        assert got[i] == pytest.approx(math.exp(sum(want)), rel=1e-9)
    assert tails == [
        len(encode_answer(tokenizer, a)) if "boxed" in t else 0 for a, t in zip(REFERENCES, TEXTS, strict=True)
    ]


SCRIPT = """
import json, sys
from types import SimpleNamespace
import torch
from accelerate import Accelerator
from transformers import AutoModelForCausalLM, AutoTokenizer
from dereason.training.rewards.verifier_free import CERReward, RLPRReward

accelerator = Accelerator(cpu=True)
folder, source, out = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
batch = json.load(open(source))
share = len(batch["answer"]) // accelerator.num_processes
mine = slice(accelerator.process_index * share, (accelerator.process_index + 1) * share)
trainer = SimpleNamespace(
    model=model, accelerator=accelerator, args=SimpleNamespace(temperature=0.8),
    phase=SimpleNamespace(rollout_batch=4), processing_class=tokenizer, num_generations=4,
    eos_token_ids=[tokenizer.eos_token_id], state=SimpleNamespace(global_step=1),
)
result = {}
rlpr = RLPRReward(beta=1.0, seen=1, start=2)
rlpr.means, rlpr.without = [float(batch.pop("threshold"))], dict.fromkeys(map(str, range(12)), [-50.0])
for name, reward in (("cer", CERReward()), ("rlpr", rlpr)):
    reward.bind(trainer)
    columns = {k: v[mine] for k, v in batch.items()}
    result[name] = reward(**columns, log_metric=lambda name, value: None)
json.dump(result, open(f"{out}-{accelerator.process_index}", "w"))
"""


@pytest.mark.slow
def test_a_group_that_two_processes_share_is_one_group(
    tiny: Any, tiny_model: Path, tokenizer: Any, tmp_path: Path
) -> None:
    """Groups of 4 over 2 processes of 6 rows: the second group straddles them."""
    batch = rows(tokenizer)
    del batch["judgements"]
    batch = {k: [*v, *v[:4]] for k, v in batch.items()}
    rlpr = bound(RLPRReward(beta=1.0, seen=1, start=2), tiny, tokenizer, 4)
    rlpr.means = [1e-3]
    want = {
        "cer": bound(CERReward(), tiny, tokenizer, 4)(**batch),
        "rlpr": rlpr(**batch, log_metric=lambda n, v: None),
    }
    script, source, out = tmp_path / "script.py", tmp_path / "batch.json", tmp_path / "out"
    script.write_text(SCRIPT)
    source.write_text(json.dumps({**batch, "threshold": 1e-3}))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launch, str(script), str(tiny_model), str(source), str(out)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as launched:
        try:
            _, errors = launched.communicate(timeout=600)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(launched.pid, signal.SIGKILL)  # ranks outlive a launcher that is killed
    assert launched.returncode == 0, errors[-2000:]
    parts = [json.loads((tmp_path / f"out-{rank}").read_text()) for rank in (0, 1)]
    for name, values in want.items():
        together = [*parts[0][name], *parts[1][name]]
        assert [v is None for v in together] == [v is None for v in values]
        assert [v for v in together if v is not None] == pytest.approx([v for v in values if v is not None], rel=1e-9)
    assert None in want["rlpr"]
    assert len({v for v in want["cer"] if v}) > 3
