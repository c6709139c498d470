"""What the `vllm` backend asks of vLLM, on a stand-in engine; tests/with_vllm runs the real one (`make test-vllm`)."""

from __future__ import annotations

import math
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from dereason.errors import DereasonError
from dereason.lm.base import Sampling
from dereason.lm.load import check_model
from dereason.lm.local.model import ModelSettings
from dereason.lm.vllm import VllmModel, contained
from dereason.training.rl import RL
from dereason.training.vllm_rollouts import VllmRollouts

CHATS = [[{"role": "user", "content": text}] for text in ("one", "two two", "three three three")]
TOKEN = 40


class Engine:
    """Takes vLLM's arguments; the first token's log-probabilities fall with the token's number."""

    def __init__(self, **started: Any) -> None:
        self.started = started
        self.calls: list[tuple[Any, Any]] = []
        self.log: list[str] = []
        config = SimpleNamespace(max_model_len=started["max_model_len"] or 512)
        self.llm_engine = SimpleNamespace(
            model_config=config, engine_core=SimpleNamespace(shutdown=lambda: self.log.append("shutdown"))
        )
        os.environ["RANK"] = "0"  # as vLLM's launcher does
        torch.set_num_threads = lambda threads: None

    def reset_prefix_cache(self) -> None:
        self.log.append("reset")

    def generate(self, prompts: list[Any], params: list[Any], use_tqdm: bool) -> list[Any]:
        self.log.append("generate")
        self.calls += zip(prompts, params, strict=True)
        outputs = []
        for asked in params:
            listed = getattr(asked, "logprob_token_ids", None) or [TOKEN]
            at = {t: SimpleNamespace(logprob=-float(t) / 10) for t in listed}
            outputs.append(SimpleNamespace(outputs=[SimpleNamespace(token_ids=[listed[0]], logprobs=[at])]))
        return outputs


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    package, platforms = ModuleType("vllm"), ModuleType("vllm.platforms")
    package.__spec__ = SimpleNamespace()  # type: ignore[assignment]
    package.LLM, package.SamplingParams = Engine, SimpleNamespace  # type: ignore[attr-defined]
    platforms.current_platform = SimpleNamespace(device_type="cpu")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", package)
    monkeypatch.setitem(sys.modules, "vllm.platforms", platforms)
    for name in ("VLLM_LOGGING_LEVEL", "VLLM_NO_USAGE_STATS", "VLLM_ENABLE_V1_MULTIPROCESSING"):
        monkeypatch.setenv(name, os.environ.get(name, "1"))
    return SimpleNamespace(package=package, platform=platforms.current_platform)


def settings(folder: Path, **chosen: Any) -> ModelSettings:
    return ModelSettings(name=str(folder), device="cpu", backend="vllm", vllm=chosen)


def test_each_sample_has_a_seed_of_its_own_whatever_its_batch(vllm: SimpleNamespace, tiny_model: Path) -> None:
    def seeds(batch_size: int, finished: frozenset[int] = frozenset(), seed: int = 5) -> dict[tuple[int, ...], Any]:
        model = VllmModel(settings(tiny_model))
        how = Sampling(max_new_tokens=4, batch_size=batch_size, temperature=0.5)
        drawn = list(model.generate(CHATS, 2, how, seed, finished))
        assert [number for number, _ in drawn] == sorted(set(range(model.batches(CHATS, 2, how))) - finished)
        assert model._engine.log == ["reset", "generate"] * len(drawn)
        done = [(c.request, c.index) for _, batch in drawn for c in batch]
        assert len(done) == len(model._engine.calls)
        for (prompt, _), (request, _) in zip(model._engine.calls, done, strict=True):
            assert prompt["prompt_token_ids"] == model.encode(CHATS[request])
        assert all((p.temperature, p.max_tokens) == (0.5, 4) for _, p in model._engine.calls)
        return {key: p.seed for key, (_, p) in zip(done, model._engine.calls, strict=True)}

    alone, together = seeds(2), seeds(64)
    assert alone == together
    assert len(set(alone.values())) == 6
    assert all(0 <= seed < 2**63 for seed in alone.values())
    assert seeds(2, frozenset({0, 2})) == {key: seed for key, seed in alone.items() if key[0] == 1}
    assert not set(seeds(2, seed=6).values()) & set(alone.values())


def test_completions_carry_what_the_engine_drew(vllm: SimpleNamespace, tiny_model: Path) -> None:
    model = VllmModel(settings(tiny_model), identity="named")
    ((_, (completion,)),) = model.generate(CHATS[:1], 1, Sampling(max_new_tokens=1), 0)
    assert (completion.token_ids, completion.logps, completion.hit_limit) == ((TOKEN,), (-TOKEN / 10,), True)
    assert completion.prompt_tokens == len(model.encode(CHATS[0]))
    assert model.identity == "named"


def test_choice_probabilities_are_renormalised_over_the_choices(vllm: SimpleNamespace, tiny_model: Path) -> None:
    model = VllmModel(settings(tiny_model))
    parts = list(model.choice_probabilities(CHATS, ("1", "2", "3"), 2))
    assert [len(p) for p in parts] == [2, 1]
    weights = [math.exp(-model.tokenizer.encode(c)[0] / 10) for c in "123"]
    assert parts[0][1].tolist() == pytest.approx([w / sum(weights) for w in weights])
    with pytest.raises(DereasonError, match="as one token"):
        next(model.choice_probabilities(CHATS, ("1", "twelve o'clock"), 1))


def test_the_engine_is_started_as_the_settings_say(vllm: SimpleNamespace, tiny_model: Path) -> None:
    started = VllmModel(settings(tiny_model, memory=0.25, max_length=64, eager=True))._engine.started
    assert (started["dtype"], started["gpu_memory_utilization"], started["enforce_eager"]) == ("float32", 0.25, True)
    assert VllmModel(settings(tiny_model))._engine.started["gpu_memory_utilization"] == 0.4
    model = VllmModel(settings(tiny_model, max_length=64))
    with pytest.raises(DereasonError, match="vLLM's limit of 64"):
        next(model.generate(CHATS, 1, Sampling(max_new_tokens=60), 0))
    engine = model._engine
    model.close()
    assert engine.log == ["shutdown"]


def test_starting_an_engine_leaves_the_process_as_it_was(vllm: SimpleNamespace, tiny_model: Path) -> None:
    before = torch.set_num_threads
    assert "RANK" not in os.environ
    VllmModel(settings(tiny_model))
    assert "RANK" not in os.environ
    assert torch.set_num_threads is before
    with contained():
        os.environ["RANK"] = "1"
    assert "RANK" not in os.environ


def test_what_vllm_cannot_do_is_refused_in_one_line(
    vllm: SimpleNamespace, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "adapter_config.json").write_text(f'{{"base_model_name_or_path": "{tiny_model}"}}')
    with pytest.raises(DereasonError, match="adapter beside its base") as caught:
        VllmModel(settings(tmp_path))
    assert "adapter.merge=true" in caught.value.mend
    vllm.platform.device_type = "cuda"
    with pytest.raises(DereasonError, match=r"model\.device is cpu, and vLLM here is built for cuda"):
        VllmModel(settings(tiny_model))
    vllm.platform.device_type = "cpu"

    def refuse(**started: Any) -> None:
        raise ValueError("No available memory\nfor the cache blocks\nmore")

    vllm.package.LLM = refuse
    with pytest.raises(DereasonError, match=r"vLLM cannot serve .*No available memory for the cache blocks") as caught:
        VllmModel(settings(tiny_model))
    assert "model.vllm.memory" in caught.value.mend


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed here")
def test_without_vllm_the_extra_and_the_page_are_named_before_any_work(tiny_model: Path) -> None:
    for refused in (
        lambda: check_model(settings(tiny_model)),
        lambda: VllmModel(settings(tiny_model)),
        lambda: VllmRollouts().check("vllm-colocate", "cpu"),
    ):
        with pytest.raises(DereasonError, match="needs vLLM, which is not installed") as caught:
            refused()
        assert "dereason[vllm]" in caught.value.mend
        assert "docs/guide/vllm.md" in caught.value.mend
    VllmRollouts().check("engine", "cpu")


def test_the_rollout_fields_become_arguments_of_trl(vllm: SimpleNamespace) -> None:
    import dataclasses

    from trl import GRPOConfig

    known = {f.name for f in dataclasses.fields(GRPOConfig)}
    chosen = RL(rollouts="vllm-colocate", vllm={"memory": 0.5, "max_length": 99, "tensor_parallel": 2}).vllm
    colocate, server = chosen.arguments("vllm-colocate", "cpu"), chosen.arguments("vllm-server", "cuda")
    assert known >= colocate.keys() | server.keys()
    assert chosen.arguments("engine", "cuda") == {}
    with pytest.raises(DereasonError, match="NCCL"):
        chosen.check("vllm-server", "cpu")
    assert colocate["vllm_mode"] == "colocate"
    assert server == {
        "use_vllm": True,
        "vllm_importance_sampling_correction": False,
        "vllm_mode": "server",
        "vllm_server_base_url": "http://localhost:8000",
    }
    assert [colocate[f"vllm_{x}"] for x in ("gpu_memory_utilization", "max_model_length", "tensor_parallel_size")] == [
        0.5,
        99,
        2,
    ]


def test_the_backend_and_its_settings_are_in_the_key_where_they_count() -> None:
    local = ModelSettings()
    assert local.numerics() == ModelSettings(vllm={"eager": True}).numerics()
    served = ModelSettings(backend="vllm")
    assert served.numerics() != local.numerics()
    assert served.numerics() != ModelSettings(backend="vllm", vllm={"eager": True}).numerics()
