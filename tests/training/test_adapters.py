"""Low-rank adapters: merged or kept they compute what was trained, and a killed phase ends with the same weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from dereason.errors import DereasonError
from dereason.lm.local.model import LocalModel, ModelSettings, load_tokenizer, load_weights, model_identity
from dereason.lm.prompts import Prompt
from dereason.problems.schema import frame
from dereason.training import phase as phase_module
from dereason.training.adapters import LoRA, attach, check_adapter, load_frozen, merged_state, whole_model
from dereason.training.hand_off import gap, probe_logits
from dereason.training.phase import Optimiser
from dereason.training.rewards.rules import CorrectnessReward
from dereason.training.rl import RL, RLOptimiser, run_rl
from dereason.training.rollouts import rollout_table
from dereason.training.sft import SFT, run_sft

PROMPT = Prompt(system="Add.", suffix="Use \\boxed{}.")


@pytest.fixture(scope="module")
def pool() -> pl.DataFrame:
    return frame(
        "problem",
        [
            {
                "id": f"p{i}",
                "question": f"What is {i} + {i * i}?",
                "answer": str(i + i * i),
                "domain": "d",
                "source": "t",
            }
            for i in range(8)
        ],
    )


@pytest.fixture(scope="module")
def targets(pool: pl.DataFrame) -> pl.DataFrame:
    rows = pool.select("id", "answer").iter_rows()
    return frame(
        "target",
        [
            {"problem_id": i, "response": f"\\boxed{{{a}}}" * (1 + n % 3), "origin": "reference", "accepted": True}
            for n, (i, a) in enumerate(rows)
        ],
    )


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model never answers right: reward every third rollout, so that there is a gradient."""
    monkeypatch.setattr(
        CorrectnessReward, "score", lambda self, rollouts, log: [float(i % 3 == 0) for i in range(len(rollouts))]
    )


def sft(model: Path, pool: pl.DataFrame, targets: pl.DataFrame, folder: Path, **kw: Any) -> Path:
    optimiser = {"learning_rate": 1e-2, "micro_batch": 2, "checkpoint_every": 2} | kw.pop("optimiser", {})
    settings = SFT(**{"epochs": 2, "batch": 4, "adapter": LoRA(rank=4), "optimiser": Optimiser(**optimiser)} | kw)
    out = folder / "model"
    run_sft(ModelSettings(name=str(model)), PROMPT, pool, targets, settings, out=out, work=folder, seed=3)
    return out


def rl(model: Path, pool: pl.DataFrame, folder: Path, **kw: Any) -> Path:
    optimiser = {"learning_rate": 1e-2, "micro_batch": 4, "checkpoint_every": 2} | kw.pop("optimiser", {})
    options: dict[str, Any] = {"steps": 4, "prompts_per_generation": 2, "group_size": 4, "max_new_tokens": 6}
    options |= {"adapter": LoRA(rank=4), "optimiser": RLOptimiser(**optimiser)}
    out = folder / "model"
    settings = RL(**options | kw)
    run_rl(ModelSettings(name=str(model)), PROMPT, pool, settings, identity="t", out=out, work=folder, seed=3)
    return out


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(next(folder.glob("*model.safetensors")))


def equal(a: Path, b: Path) -> bool:
    left, right = weights(a), weights(b)
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def drawn_adapter(folder: Path, **kw: Any) -> Any:
    """A model with an adapter whose two halves are both random, as after training."""
    model = ModelSettings(name=str(folder))
    settings = LoRA(rank=4, **kw)
    student = attach(load_frozen(model, settings), settings, model, seed=1)
    for name, parameter in student.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return student


def test_a_new_adapter_changes_nothing_and_is_made_of_the_seed(tiny_model: Path) -> None:
    model, settings = ModelSettings(name=str(tiny_model)), LoRA(rank=4)
    state = torch.random.get_rng_state()
    first, again, other = (attach(load_frozen(model, settings), settings, model, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state), "nobody else's random numbers move"
    tokenizer = load_tokenizer(model)
    assert gap(probe_logits(load_weights(model), tokenizer), probe_logits(first, tokenizer)) == 0
    a, b, c = ({k: v for k, v in m.state_dict().items() if "lora_A" in k} for m in (first, again, other))
    assert all(torch.equal(a[k], b[k]) and not torch.equal(a[k], c[k]) for k in a)
    trained = [n for n, p in first.named_parameters() if p.requires_grad]
    assert len(trained) == 2 * 7 * 2
    assert all("lora_" in n for n in trained), "nothing else goes to the optimiser"


def test_merged_logits_are_the_adapted_ones(tiny_model: Path) -> None:
    student = drawn_adapter(tiny_model, alpha=16)
    tokenizer = load_tokenizer(ModelSettings(name=str(tiny_model)))
    adapted = probe_logits(student, tokenizer)
    merged = whole_model(student.get_base_model(), merged_state(student, student.state_dict()))
    whole = load_weights(ModelSettings(name=str(tiny_model)))
    whole.load_state_dict(merged.state_dict(), strict=False)
    assert gap(adapted, probe_logits(whole, tokenizer)) < 1e-5
    with student.disable_adapter():
        assert gap(adapted, probe_logits(student, tokenizer)) > 1e-2, "the adapter did something"
    assert gap(adapted, probe_logits(student, tokenizer)) == 0, "merging left the trained model alone"


def test_a_merge_follows_layers_that_store_their_weight_transposed() -> None:
    """GPT-2's: in × out, where a linear layer has out × in; and a bias."""
    from peft import LoraConfig, get_peft_model
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    base = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=16, n_layer=1, n_head=2, n_positions=16)).eval()
    student = get_peft_model(base, LoraConfig(r=2, target_modules="all-linear", fan_in_fan_out=True)).eval()
    for name, parameter in student.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    ids = torch.arange(8)[None]
    with torch.no_grad():
        adapted = student(input_ids=ids).logits
        plain = GPT2LMHeadModel(base.config).eval()
        plain.load_state_dict(whole_model(base, merged_state(student, student.state_dict())).state_dict())
        torch.testing.assert_close(plain(input_ids=ids).logits, adapted, rtol=1e-4, atol=1e-4)


def test_a_phase_saves_the_merged_model_and_learns(
    tiny_model: Path, pool: pl.DataFrame, targets: pl.DataFrame, tmp_path: Path
) -> None:
    out = sft(tiny_model, pool, targets, tmp_path, epochs=6)
    losses = [x["loss"] for x in lines(tmp_path)]
    assert losses[-1] < losses[0] - 1
    assert not (out / "adapter_config.json").exists()
    before, after = weights(tiny_model), weights(out)
    assert before.keys() == after.keys()
    changed = {k for k in before if not torch.equal(before[k], after[k])}
    assert changed == {k for k in before if "_proj" in k}, "every linear layer, and nothing else"
    facts = json.loads((out / "hand-off.json").read_text())
    assert facts["adapter"] == "merged"
    assert facts["logits_gap"] < 1e-5 < 1e-2 < facts["adapter_moves_logits"]


def test_a_kept_adapter_is_loaded_with_its_base_and_trained_further(
    tiny_model: Path, pool: pl.DataFrame, targets: pl.DataFrame, tmp_path: Path
) -> None:
    """Merged and kept are one model: the same logits, the same start of a next phase, full or with an adapter."""
    merged = sft(tiny_model, pool, targets, tmp_path / "merged", epochs=1)
    kept = sft(tiny_model, pool, targets, tmp_path / "kept", epochs=1, adapter=LoRA(rank=4, merge=False))
    assert not (kept / "model.safetensors").exists()
    assert json.loads((kept / "adapter_config.json").read_text())["base_model_name_or_path"] == str(tiny_model)
    one, other = (LocalModel(ModelSettings(name=str(f))) for f in (merged, kept))
    assert gap(probe_logits(one.model, one.tokenizer), probe_logits(other.model, other.tokenizer)) < 1e-5
    assert one.template_hash() == other.template_hash()
    assert one._stop_ids == other._stop_ids
    chats = [PROMPT.messages("What is 2 + 3?")]
    assert [c.text for _, b in one.generate(chats, 1, _greedy(), 0) for c in b] == [
        c.text for _, b in other.generate(chats, 1, _greedy(), 0) for c in b
    ]
    second = rl(kept, pool, tmp_path / "second", steps=1, adapter=LoRA(rank=2, merge=False))
    assert json.loads((second / "adapter_config.json").read_text())["base_model_name_or_path"] == str(kept)
    third = sft(second, pool, targets, tmp_path / "third", adapter=None, epochs=1)
    assert weights(third).keys() == weights(tiny_model).keys()


def _greedy() -> Any:
    from dereason.lm.base import Sampling

    return Sampling(temperature=0, max_new_tokens=8)


def test_an_adapter_is_named_with_its_base(tiny_model: Path, tmp_path: Path) -> None:
    student = drawn_adapter(tiny_model, merge=False)
    student.save_pretrained(tmp_path)
    settings = ModelSettings(name=str(tmp_path))
    first = model_identity(settings)
    path = tmp_path / "adapter_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"base_model_name_or_path": str(tmp_path / "gone")}))
    with pytest.raises(DereasonError, match=r"base_model_name_or_path is '.*gone', and there is no such model"):
        load_weights(settings)
    path.write_text(json.dumps(config | {"base_model_name_or_path": "some/model", "revision": "abc"}))
    assert model_identity(settings) != first


class Killed(BaseException):
    """Stands for a kill: no handler may catch it."""


@pytest.fixture
def kill_at(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Stop the phase right after an optimiser step."""
    from transformers import TrainerCallback

    at: list[int] = []

    class Kill(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, **kw: Any) -> None:
            if at and state.global_step == at[0]:
                raise Killed

    train = phase_module.train

    def with_kill(trainer: Any, resume: Any) -> None:
        trainer.add_callback(Kill())
        train(trainer, resume)

    for module in ("sft", "rl"):
        monkeypatch.setattr(f"dereason.training.{module}.train", with_kill)

    def set_step(step: int | None) -> None:
        at[:] = [] if step is None else [step]

    return set_step


@pytest.mark.parametrize("kind", ["sft", "rl"])
def test_a_killed_phase_with_an_adapter_ends_with_the_same_weights(
    kind: str, tiny_model: Path, pool: pl.DataFrame, targets: pl.DataFrame, tmp_path: Path, kill_at: Any
) -> None:
    def run(folder: Path) -> Path:
        if kind == "sft":
            return sft(tiny_model, pool, targets, folder, adapter=LoRA(rank=4, dropout=0.2))
        return rl(tiny_model, pool, folder, kl=0.5)

    whole = run(tmp_path / "whole")
    kill_at(3)
    with pytest.raises(Killed):
        run(tmp_path / "cut")
    kill_at(None)
    saved = list((tmp_path / "cut").glob("checkpoints/checkpoint-2/*.safetensors"))
    assert [p.name for p in saved] == ["adapter_model.safetensors"], "a checkpoint holds the adapter alone"
    assert equal(whole, run(tmp_path / "cut"))
    assert not equal(whole, tiny_model)
    if kind == "rl":
        assert rollout_table(tmp_path / "cut").equals(rollout_table(tmp_path / "whole"))
        logged = [x["kl"] for x in lines(tmp_path / "whole")]
        assert logged[0] == pytest.approx(0, abs=1e-6), "the reference is the model without its adapter"
        assert logged[-1] > 0


@pytest.mark.parametrize("kind", ["sft", "rl"])
def test_the_micro_batch_and_gradient_checkpointing_change_nothing(
    kind: str, tiny_model: Path, pool: pl.DataFrame, targets: pl.DataFrame, tmp_path: Path
) -> None:
    """8×1, and 1×8 with activations computed twice: the same loss, gradient norm and update."""
    found = {}
    for name, micro, again in (("one", 8, False), ("ones", 1, True)):
        options = {"learning_rate": 1e-3, "micro_batch": micro, "gradient_checkpointing": again}
        if kind == "sft":
            out = sft(tiny_model, pool, targets, tmp_path / name, epochs=1, batch=8, optimiser=options)
        else:
            out = rl(tiny_model, pool, tmp_path / name, steps=1, loss="grpo", optimiser=options)
        found[name] = (lines(tmp_path / name)[0], weights(out))
    reference, start = found["one"], weights(tiny_model)
    assert reference[0]["grad_norm"] > 0
    for key in ("loss", "grad_norm"):
        assert found["ones"][0][key] == pytest.approx(reference[0][key], rel=1e-4, abs=1e-6), key
    for key, tensor in found["ones"][1].items():
        torch.testing.assert_close(tensor - start[key], reference[1][key] - start[key], rtol=1e-3, atol=1e-6)


def test_settings_that_cannot_be_trained_are_refused_before_anything_is_loaded(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ModelSettings(name="no/such-model", device="cpu")
    with pytest.raises(DereasonError, match="on the device cpu: 4-bit weights are trained on CUDA alone"):
        phase_module.load_student(
            model.model_copy(update={"device": "cpu"}), PROMPT, None, adapter=LoRA(quantise="nf4")
        )
    monkeypatch.setattr("dereason.training.adapters.resolve_device", lambda device: "cuda")
    monkeypatch.setattr("dereason.training.adapters.find_spec", lambda name: None)
    with pytest.raises(DereasonError, match="bitsandbytes is not installed"):
        check_adapter(LoRA(quantise="nf4"), model)
    with pytest.raises(ValidationError, match="set merge: true"):
        LoRA(quantise="nf4", merge=False)
    with pytest.raises(ValidationError, match=r"adapter\.dropout must be 0 in an RL phase"):
        RL(adapter=LoRA(dropout=0.1))
    here = ModelSettings(name=str(tiny_model))
    for target, message in (("no_such_layer", r"adapter\.target_modules: .*no_such_layer"), ("lm_head", "one weight")):
        settings = LoRA(target_modules=[target])
        with pytest.raises(DereasonError, match=message):
            attach(load_weights(here), settings, here, seed=0)


def test_frozen_weights_may_have_sixteen_bits(
    tiny_model: Path, pool: pl.DataFrame, targets: pl.DataFrame, tmp_path: Path
) -> None:
    """As on a GPU: the base in bfloat16, the adapter in float32, and the sum saved in float32."""
    settings = SFT(epochs=1, batch=4, adapter=LoRA(rank=4), optimiser=Optimiser(learning_rate=1e-3, micro_batch=4))
    model = ModelSettings(name=str(tiny_model), dtype="bfloat16")
    run_sft(model, PROMPT, pool, targets, settings, out=tmp_path / "model", work=tmp_path, seed=3)
    saved, start = weights(tmp_path / "model"), weights(tiny_model)
    assert {t.dtype for t in saved.values()} == {torch.float32}
    name = "model.layers.0.self_attn.q_proj.weight"
    update = saved[name] - start[name].bfloat16().float()
    assert 0 < update.abs().max() < 0.1
    assert torch.linalg.matrix_rank(update, rtol=1e-3) <= 4, "no rounding to 16 bits on top of the adapter's update"
