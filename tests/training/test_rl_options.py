"""An RL phase's options end to end on a two-layer model: dynamic sampling, difficulty bands, named algorithms, KL."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from dereason.lm.local.model import ModelSettings
from dereason.lm.prompts import Prompt
from dereason.problems.schema import Verdict, frame
from dereason.training.rl import PRESETS, RL, RLOptimiser, draw_warnings, run_rl
from dereason.training.rollouts import rollout_table
from dereason.training.selection import Bands, DynamicSampling
from dereason.verify.verdict import Judgement

PROMPT = Prompt(system="Add.", suffix="Use \\boxed{}.")
POOL = frame(
    "problem",
    [
        {"id": f"p{i}", "question": f"What is {i} + {i}?", "answer": str(2 * i), "domain": "sum", "source": "test"}
        for i in range(8)
    ],
)


def run(folder: Path, model: Path, **kw: Any) -> list[dict[str, float]]:
    phase = RL.model_validate(
        {
            "steps": 2,
            "prompts_per_generation": 4,
            "group_size": 2,
            "max_new_tokens": 6,
            "optimiser": RLOptimiser(learning_rate=1e-2, schedule="constant", micro_batch=4, checkpoint_every=1),
            **kw,
        }
    )
    run_rl(ModelSettings(name=str(model)), PROMPT, POOL, phase, identity="t", out=folder / "model", work=folder, seed=3)
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def solvable(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Answers of the problems whose first rollout of each pair is judged correct; the others are all wrong."""
    answers: set[str] = set()

    def judge_many(items: Any) -> list[Judgement]:
        right = [item.reference in answers and i % 2 == 0 for i, item in enumerate(items)]
        return [Judgement(Verdict.CORRECT if r else Verdict.WRONG, None, "planted") for r in right]

    planted = SimpleNamespace(judge_many=judge_many, rewarded=lambda items, judged, marks: judged)
    monkeypatch.setattr("dereason.training.rl.default_verifier", lambda: planted)
    return answers


def test_dynamic_sampling_fills_the_generation_with_mixed_groups(
    solvable: set[str], tiny_model: Path, tmp_path: Path
) -> None:
    solvable |= {"0", "4", "8", "12"}  # half of the pool: p0, p2, p4, p6
    logged = run(tmp_path, tiny_model, dynamic_sampling=DynamicSampling(max_draws=4))
    for line in logged:
        assert line["signal_groups"] == 1
        assert line["unfilled_groups"] == 0
        assert 1 < line["draws"] <= 4
        assert line["mixed_groups"] < 1, "the groups that were replaced are in the log"
    table = rollout_table(tmp_path)
    drawn = table.group_by("step").agg(pl.col("problem_id").n_unique())
    assert drawn["problem_id"].min() > 4, "and kept as samples"
    assert table.group_by("step", "problem_id").len()["len"].unique().to_list() == [2]


def test_dynamic_sampling_goes_on_with_what_it_has(solvable: set[str], tiny_model: Path, tmp_path: Path) -> None:
    """Only one problem can be solved: the bound is kept, the phase does not end."""
    solvable |= {"4"}
    logged = run(tmp_path, tiny_model, dynamic_sampling=DynamicSampling(max_draws=2))
    assert [line["draws"] for line in logged] == [2, 2]
    assert all(line["unfilled_groups"] >= 0.75 for line in logged)
    assert [line["step"] for line in logged] == [1, 2]
    told = draw_warnings(tmp_path, RL())[-1]
    assert re.search(r"left \d+ % of the groups .* \(2 of 2 generations\)", told)


def test_bands_rest_what_is_never_solved_and_survive_a_kill(
    solvable: set[str], tiny_model: Path, tmp_path: Path
) -> None:
    solvable |= {"0", "4", "8", "12"}
    options = {"bands": Bands(low=0.1, high=0.9, min_samples=2, rest=4), "steps": 4}
    whole = run(tmp_path / "whole", tiny_model, **options)
    assert [line["resting_problems"] for line in whole][:2] == [0.25, 0.5]
    table = rollout_table(tmp_path / "whole")
    assert set(table.filter(pl.col("step") == 3)["problem_id"]) == {"p0", "p2", "p4", "p6"}
    run(tmp_path / "cut", tiny_model, **{**options, "steps": 2})
    resumed = run(tmp_path / "cut", tiny_model, **options)
    assert [x["resting_problems"] for x in resumed] == [x["resting_problems"] for x in whole]
    assert rollout_table(tmp_path / "cut").equals(table)
    a, b = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("name", PRESETS)
def test_an_algorithm_is_its_preset_and_trains(name: str, solvable: set[str], tiny_model: Path, tmp_path: Path) -> None:
    solvable |= {str(2 * i) for i in range(8)}
    phase = RL.model_validate({"algorithm": name})
    resolved = phase.model_dump()
    for key, value in PRESETS[name].items():
        assert resolved[key] == ({"max_draws": 3} if value == {} else value)
    clip = RL.model_validate({"algorithm": name, "clip_high": 0.5})
    assert clip.clip_high == 0.5, "what the phase says itself wins"
    logged = run(tmp_path, tiny_model, algorithm=name, kl=0.1, entropy_bonus=0.01, iterations=2)
    assert all(line["grad_norm"] > 0 for line in logged)
    assert logged[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert logged[1]["kl"] > 0, "the second pass is by another policy than the reference"
    assert logged[0]["clip_share"] == 0
    assert logged[0]["sampler_gap"] < 1e-4, "the engine's log-probabilities are the trainer's"
    assert "generated_tokens" not in logged[1]


def test_truncated_rollouts_can_leave_the_loss(solvable: set[str], tiny_model: Path, tmp_path: Path) -> None:
    """All rollouts of six tokens are cut by the limit: nothing is left to train on, and the step is taken."""
    solvable |= {str(2 * i) for i in range(8)}
    kept, masked = (
        run(tmp_path / str(mask), tiny_model, mask_truncated=mask, steps=1, max_new_tokens=2)[0]
        for mask in (False, True)
    )
    assert kept["trained_tokens"] > masked["trained_tokens"]
    assert kept["reward"] == masked["reward"] > 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"updates_per_generation": 3}, "not a multiple of updates_per_generation 3"),
        ({"algorithm": "ppo"}, "algorithm"),
        ({"ratio": "sequence", "rewards": {"of": [{"name": "verifree"}]}}, "set ratio to token"),
        ({"dynamic_sampling": {"max_draws": 1}}, "max_draws"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(words)):
        RL.model_validate({"prompts_per_generation": 4, **options})


def test_a_phase_that_computes_in_16_bits_is_decoded_by_the_engine_from_a_copy_in_16_bits(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As on a GPU: autocast over float32 weights. Nothing falls back, and the copy is made once a generation."""
    from dereason.lm.local.places import PlaceCache
    from dereason.lm.local.working import WorkingCopy
    from dereason.training import rl

    arguments, allocate, filled = rl.trainer_arguments, PlaceCache.allocate, WorkingCopy.filled
    caches: list[torch.dtype] = []
    copies: list[WorkingCopy] = []
    fills: list[int] = []

    def note(self: PlaceCache, example: Any, *args: Any) -> None:
        caches.append(example.layers[0].keys.dtype)
        allocate(self, example, *args)

    def count(self: WorkingCopy) -> Any:
        copies.append(self)
        fills.append(self._depth)
        return filled(self)

    monkeypatch.setattr(rl, "trainer_arguments", lambda *a, **k: arguments(*a, **k) | {"bf16": True})
    monkeypatch.setattr(PlaceCache, "allocate", note)
    monkeypatch.setattr(WorkingCopy, "filled", count)
    format_ = [{"name": "format"}, {"name": "overlong", "buffer": 6}]
    logged = run(tmp_path, tiny_model, dynamic_sampling={"max_draws": 2}, rewards={"of": format_})
    assert not [r.getMessage() for r in caplog.records if "generate" in r.getMessage() or "own copy" in r.getMessage()]
    assert len(logged) == 2
    assert set(caches) == {torch.float32, torch.bfloat16}, "the trial's, and all others"
    assert fills.count(0) == 2, "one copy a generation, however often it is drawn from"
    assert len(fills) > 4
    assert len(set(map(id, copies))) == 1
    assert not sum(own.numel() for _, own in copies[0]._pairs), "it holds no memory between generations"


def test_vllm_is_the_default_on_cuda_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    from dereason.lm.local import model as models
    from dereason.training import rl
    from dereason.training.joint.settings import Joint
    from dereason.training.rewards.settings import Judge, Rewards, VeriFree

    settings = ModelSettings(name="some/model")
    here = {"vllm": False, "device": "cuda"}
    for module in (models, rl):
        monkeypatch.setattr(module, "has_vllm", lambda: here["vllm"])
        monkeypatch.setattr(module, "on_cuda", lambda device: here["device"] == "cuda")
    engine_only = (
        RL(dynamic_sampling=DynamicSampling()),
        RL(rewards=Rewards(of=[VeriFree()])),
        Joint.model_validate({"method": {"name": "uft"}}),
        Joint.model_validate({"method": {"name": "bridge"}}),
    )
    for vllm, device, rollouts, backend in (
        (True, "cuda", "vllm-colocate", "vllm"),
        (False, "cuda", "engine", "local"),
        (True, "cpu", "engine", "local"),
    ):
        here |= {"vllm": vllm, "device": device}
        assert RL().settled(settings).rollouts == rollouts
        assert models.resolve_backend(settings) == settings.numerics()["backend"] == backend
        assert [phase.settled(settings).rollouts for phase in engine_only] == ["engine"] * 4
        assert RL(rollouts="vllm-server").settled(settings).rollouts == "vllm-server"
        assert Judge(model=settings).model.backend == "local", "it shares its GPU with training"
    arguments = RL().vllm.arguments
    assert arguments("vllm-colocate", (2,), "cuda")["vllm_enable_sleep_mode"]
    assert not arguments("vllm-colocate", (2,), "cpu")["vllm_enable_sleep_mode"]


def test_adams_numbers_and_the_attention_reach_the_trainer(tiny_model: Path, tmp_path: Path) -> None:
    from dereason.errors import DereasonError
    from dereason.lm.local.model import load_weights
    from dereason.training.phase import Optimiser, PhaseSettings, trainer_arguments

    settings = PhaseSettings(optimiser=Optimiser(adam_betas=(0.8, 0.95), adam_epsilon=1e-6))
    made = trainer_arguments(settings, ModelSettings(device="cpu"), tmp_path, seed=0)
    assert (made["adam_beta1"], made["adam_beta2"], made["adam_epsilon"]) == (0.8, 0.95, 1e-6)
    with pytest.raises(ValidationError, match="adam_betas"):
        Optimiser(adam_betas=(0.9, 1.0))
    eager = ModelSettings(name=str(tiny_model), device="cpu", attention="eager")
    assert load_weights(eager).config._attn_implementation == "eager"
    assert eager.numerics()["attention"] == "eager"
    with pytest.raises(DereasonError, match=r"flash_attention_2, which needs a CUDA GPU.*set model.attention=sdpa"):
        load_weights(eager.model_copy(update={"attention": "flash_attention_2"}))
