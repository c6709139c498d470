"""SFT and RL phases on a two-layer model: the loss, the hand-off, and resuming to the same weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from dereason.errors import DereasonError
from dereason.lm.local.model import LocalModel, ModelSettings
from dereason.lm.prompts import Prompt
from dereason.problems.schema import Verdict, frame
from dereason.training import trainer as trainer_module
from dereason.training import watch as watch_module
from dereason.training.phase import Optimiser
from dereason.training.rewards.rules import CorrectnessReward
from dereason.training.rl import RL, RLOptimiser, run_rl
from dereason.training.rollouts import rollout_table
from dereason.training.sft import SFT, run_sft
from dereason.training.watch import guarded, last_checkpoint

PROMPT = Prompt(system="Add.", suffix="Use \\boxed{}.")


@pytest.fixture(scope="module")
def pool() -> pl.DataFrame:
    return frame(
        "problem",
        [
            {
                "id": f"p{i}",
                "question": f"What is {i} + {i * i}?" + " Think." * (i % 3),
                "answer": str(i + i * i),
                "domain": "sum",
                "source": "test",
            }
            for i in range(12)
        ],
    )


@pytest.fixture(scope="module")
def targets(pool: pl.DataFrame) -> pl.DataFrame:
    return frame(
        "target",
        [
            {
                "problem_id": r["id"],
                "response": f"\\boxed{{{r['answer']}}}",
                "origin": "reference",
                "accepted": True,
            }
            for r in pool.iter_rows(named=True)
        ],
    )


def sft(model: Path, pool: pl.DataFrame, targets: pl.DataFrame, folder: Path, **kw: object) -> Path:
    settings = SFT(
        epochs=2,
        batch=4,
        optimiser=Optimiser(learning_rate=1e-3, micro_batch=2, checkpoint_every=2, warmup_ratio=0.1),
    ).model_copy(update=kw)
    run_sft(
        ModelSettings(name=str(model)),
        PROMPT,
        pool,
        targets,
        settings,
        out=folder / "model",
        work=folder,
        seed=3,
    )
    return folder / "model"


def rl(model: Path, pool: pl.DataFrame, folder: Path, **kw: object) -> Path:
    settings = RL(
        steps=4,
        prompts_per_generation=2,
        group_size=4,
        max_new_tokens=6,
        optimiser=RLOptimiser(learning_rate=1e-2, micro_batch=4, checkpoint_every=2),
    ).model_copy(update=kw)
    run_rl(
        ModelSettings(name=str(model)),
        PROMPT,
        pool,
        settings,
        identity="test",
        out=folder / "model",
        work=folder,
        seed=3,
    )
    return folder / "model"


def same_weights(a: Path, b: Path) -> bool:
    left, right = load_file(a / "model.safetensors"), load_file(b / "model.safetensors")
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]


def test_sft_loss_is_the_mean_over_response_tokens_of_the_whole_batch(
    tiny_model: Path, pool: pl.DataFrame, targets: pl.DataFrame, tmp_path: Path
) -> None:
    """One optimiser step over all targets, in micro-batches: the logged loss against float64 by hand.

    A third of the targets reply to a message of their own, a third have a given beginning that carries no loss.
    """
    own, given = "Check this: 1 + 1 = 3", "First I add.\n"
    number = pl.int_range(pl.len())
    mixed = targets.with_columns(
        prompt=pl.when(number % 3 == 1).then(pl.lit(own)), prefix=pl.when(number % 3 == 2).then(pl.lit(given))
    )
    sft(tiny_model, pool, mixed, tmp_path, epochs=1, batch=12)
    lm = LocalModel(ModelSettings(name=str(tiny_model)))
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float64)
    total = count = 0.0
    for i, (row, response) in enumerate(zip(pool.iter_rows(named=True), targets["response"], strict=True)):
        chat = PROMPT.messages(row["question"])
        if i % 3 == 1:
            chat[-1]["content"] = own
        start = len(lm.encode(chat))
        if i % 3 == 2:
            start += len(lm.tokenizer.encode(given, add_special_tokens=False))
            response = given + response
        whole = lm.tokenizer.apply_chat_template(
            [*chat, {"role": "assistant", "content": response}], tokenize=True, return_dict=True
        )["input_ids"]
        with torch.inference_mode():
            logps = torch.log_softmax(model(input_ids=torch.tensor([whole])).logits[0], -1)
        total -= sum(float(logps[t - 1, whole[t]]) for t in range(start, len(whole)))
        count += len(whole) - start
    assert lines(tmp_path)[0]["loss"] == pytest.approx(total / count, rel=2e-4)  # TRL rounds what it logs


def test_sft_learns_and_leaves_a_model_with_its_template(
    tiny_model: Path, pool: pl.DataFrame, targets: pl.DataFrame, tmp_path: Path
) -> None:
    out = sft(tiny_model, pool, targets, tmp_path, epochs=6)
    losses = [x["loss"] for x in lines(tmp_path)]
    assert len(losses) == 18
    assert losses[-1] < losses[0] - 1
    before, after = (LocalModel(ModelSettings(name=str(p))) for p in (tiny_model, out))
    assert before.template_hash() == after.template_hash()
    assert after.model.generation_config.eos_token_id == before.model.generation_config.eos_token_id


class Killed(BaseException):
    """Stands for a kill: no handler may catch it."""


def kill_after(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Stop the phase right after the optimiser step, wherever its last checkpoint is."""
    original = watch_module.make_callback

    def make(*args: object, **kw: object) -> object:
        callback = original(*args, **kw)  # type: ignore[arg-type]
        log = callback.on_log

        def on_log(args: object, state: object, control: object, **kw: object) -> None:
            log(args, state, control, **kw)
            if state.global_step == step:  # type: ignore[attr-defined]
                raise Killed

        callback.on_log = on_log
        return callback

    for module in ("sft", "rl"):
        monkeypatch.setattr(f"dereason.training.{module}.make_callback", make)


@pytest.mark.parametrize("step", [1, 3, 6])
def test_a_killed_sft_phase_ends_with_the_same_weights(
    step: int,
    tiny_model: Path,
    pool: pl.DataFrame,
    targets: pl.DataFrame,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = sft(tiny_model, pool, targets, tmp_path / "whole")
    with monkeypatch.context() as patch:
        kill_after(patch, step)
        with pytest.raises(Killed):
            sft(tiny_model, pool, targets, tmp_path / "cut")
    resumed = sft(tiny_model, pool, targets, tmp_path / "cut")
    assert same_weights(whole, resumed)
    assert not same_weights(whole, tiny_model)
    steps = [x["step"] for x in lines(tmp_path / "cut")]
    assert steps == [1, 2, 3, 4, 5, 6]
    values = ("step", "loss", "learning_rate", "grad_norm")
    cut, uncut = ([{k: x[k] for k in values} for x in lines(tmp_path / f)] for f in ("cut", "whole"))
    assert cut == uncut


@pytest.mark.parametrize(("updates", "step", "size"), [(1, 1, 12), (1, 3, 12), (2, 3, 12), (1, 5, 6)])
def test_a_killed_rl_phase_ends_with_the_same_weights_and_rollouts(
    updates: int,
    step: int,
    size: int,
    tiny_model: Path,
    pool: pl.DataFrame,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where plain TRL does not: with two updates a generation, and in the second epoch (6 problems, 2 a step)."""
    plant_rewards(monkeypatch)
    pool = pool.head(size)
    options: dict[str, object] = {"updates_per_generation": updates, "steps": max(4, step + 1)}
    whole = rl(tiny_model, pool, tmp_path / "whole", **options)
    with monkeypatch.context() as patch:
        kill_after(patch, step)
        with pytest.raises(Killed):
            rl(tiny_model, pool, tmp_path / "cut", **options)
    resumed = rl(tiny_model, pool, tmp_path / "cut", **options)
    assert same_weights(whole, resumed)
    assert not same_weights(whole, tiny_model)
    assert rollout_table(tmp_path / "cut").equals(rollout_table(tmp_path / "whole"))


def test_a_phase_goes_on_with_a_smaller_micro_batch(
    tiny_model: Path, pool: pl.DataFrame, targets: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mend for running out of memory: the checkpoint is picked up, the result differs by rounding alone."""
    whole = sft(tiny_model, pool, targets, tmp_path / "whole")
    with monkeypatch.context() as patch:
        kill_after(patch, 3)
        with pytest.raises(Killed):
            sft(tiny_model, pool, targets, tmp_path / "cut")
    smaller = Optimiser(learning_rate=1e-3, micro_batch=1, checkpoint_every=2, warmup_ratio=0.1)
    resumed = sft(tiny_model, pool, targets, tmp_path / "cut", optimiser=smaller)
    assert [x["step"] for x in lines(tmp_path / "cut")] == [1, 2, 3, 4, 5, 6]
    left, right = load_file(whole / "model.safetensors"), load_file(resumed / "model.safetensors")
    for name in left:
        torch.testing.assert_close(left[name], right[name], rtol=1e-3, atol=2e-4)


def plant_rewards(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model never answers right: reward every third rollout, so that there is a gradient."""
    monkeypatch.setattr(
        CorrectnessReward, "score", lambda self, rollouts, log: [float(i % 3 == 0) for i in range(len(rollouts))]
    )


def test_rollouts_are_samples_with_verdicts(
    tiny_model: Path, pool: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant_rewards(monkeypatch)
    rl(tiny_model, pool, tmp_path, steps=2)
    table = rollout_table(tmp_path)
    assert table.height == 2 * 2 * 4
    assert set(table["purpose"]) == {"rollout"}
    assert table.group_by("step", "problem_id").len()["len"].to_list() == [4, 4, 4, 4]
    assert set(table["verdict"]) <= {"wrong", "unparsable", "truncated", "correct"}
    assert (table["tokens"] <= 6).all()
    assert (table.filter("hit_limit")["tokens"] == 6).all()
    first = lines(tmp_path)[0]
    assert {"reward", "mixed_groups", "completion_length", "entropy", "wrong", "truncated"} <= first.keys()
    assert first["reward"] == pytest.approx(3 / 8)
    shares = [first[v] for v in ("correct", "wrong", "unparsable", "truncated", "error")]
    assert sum(shares) == pytest.approx(1)


def test_rollout_batch_bounds_what_is_decoded_at_once(
    tiny_model: Path, pool: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That no more are, and that a sample does not depend on its batch, is tested with the engine."""
    plant_rewards(monkeypatch)
    sizes: list[object] = []
    original = trainer_module.decode

    def decode(model: object, prompts: list[list[int]], n: int, **kw: object) -> object:
        sizes.append(kw["batch_size"])
        return original(model, prompts, n, **kw)  # type: ignore[arg-type]

    monkeypatch.setattr(trainer_module, "decode", decode)
    tables = []
    for name, size in (("at-once", 256), ("in-turn", 4)):
        rl(tiny_model, pool, tmp_path / name, steps=1, rollout_batch=size)
        tables.append(rollout_table(tmp_path / name).select("problem_id", "index", "prompt_tokens"))
    assert sizes == [256, 4]
    assert tables[0].equals(tables[1])


def test_a_verifier_error_leaves_the_reward_and_its_mean(
    tiny_model: Path, pool: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the first group of four, one verification fails: the mean is over three, not four."""
    from dereason.verify.verdict import Judgement

    verdicts = [Verdict.CORRECT, Verdict.ERROR, Verdict.WRONG, Verdict.TRUNCATED, *[Verdict.WRONG] * 4]
    judged = [Judgement(verdict, None, "planted") for verdict in verdicts]
    planted = SimpleNamespace(judge_many=lambda items: judged, rewarded=lambda *_: judged)
    monkeypatch.setattr("dereason.training.rl.default_verifier", lambda: planted)
    rl(tiny_model, pool, tmp_path, steps=1)
    first = lines(tmp_path)[0]
    assert first["reward"] == pytest.approx(1 / 7), "the failed one is in no mean"
    assert first["error"] == pytest.approx(1 / 8)
    assert first["mixed_groups"] == pytest.approx(1 / 2)


def test_engine_and_transformers_rollouts_feed_the_same_trainer(
    tiny_model: Path, pool: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant_rewards(monkeypatch)
    for name in ("engine", "transformers"):
        out = rl(tiny_model, pool, tmp_path / name, steps=1, rollouts=name)
        assert rollout_table(tmp_path / name).height == 8
        assert not same_weights(out, tiny_model)


def test_phases_chain_in_any_order(
    tiny_model: Path,
    pool: pl.DataFrame,
    targets: pl.DataFrame,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plant_rewards(monkeypatch)
    first = rl(tiny_model, pool, tmp_path / "1", steps=1)
    second = sft(first, pool, targets, tmp_path / "2", epochs=1)
    third = rl(second, pool, tmp_path / "3", steps=1)
    assert not same_weights(second, third)


def test_another_template_at_the_hand_off_is_refused(
    tiny_model: Path, pool: pl.DataFrame, targets: pl.DataFrame, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny_model, other)
    template = other / "chat_template.jinja"
    template.write_text(template.read_text().replace("<|im_start|>", "<<"))
    expected = LocalModel(ModelSettings(name=str(tiny_model))).template_hash()
    with pytest.raises(DereasonError, match="renders chats differently"):
        run_sft(
            ModelSettings(name=str(other)),
            PROMPT,
            pool,
            targets,
            SFT(),
            out=tmp_path / "out",
            work=tmp_path / "work",
            seed=0,
            expected_hash=expected,
        )


def test_bad_settings_are_refused_with_the_field(
    tiny_model: Path, pool: pl.DataFrame, targets: pl.DataFrame, tmp_path: Path
) -> None:
    with pytest.raises(ValidationError, match="is not a multiple of updates_per_generation 4"):
        RL(prompts_per_generation=2, group_size=3, updates_per_generation=4)
    for name in ("learning_rate", "micro_batch", "checkpoint_every"):
        with pytest.raises(ValidationError, match=name):
            Optimiser.model_validate({name: 0})
    with pytest.raises(DereasonError, match=r"all 12 targets are longer .* max_length 8 \(the shortest has \d+ tokens"):
        sft(tiny_model, pool, targets, tmp_path, max_length=8)
    with pytest.raises(DereasonError, match="fewer than prompts_per_generation"):
        rl(tiny_model, pool, tmp_path, prompts_per_generation=64)
    with pytest.raises(DereasonError, match="no problem has the id"):
        sft(tiny_model, pool.head(3), targets, tmp_path)


def test_a_loss_that_is_not_finite_stops_the_phase_and_keeps_no_checkpoint_that_led_to_it(
    tiny_model: Path, pool: pl.DataFrame, targets: pl.DataFrame, tmp_path: Path
) -> None:
    with pytest.raises(DereasonError, match=r"(loss|grad_norm) became (nan|inf)"):
        sft(
            tiny_model,
            pool,
            targets,
            tmp_path,
            optimiser=Optimiser(learning_rate=1e30, micro_batch=2, checkpoint_every=1, max_grad_norm=1e30),
        )
    assert (tmp_path / "checkpoints" / "checkpoint-1").is_dir()
    assert last_checkpoint(tmp_path) is None, "the weights after the first step gave no finite loss"


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 1 byte")]
)
def test_out_of_memory_names_the_mend(error: Exception, tmp_path: Path) -> None:
    def fail() -> None:
        with guarded(8, tmp_path):
            raise error

    with pytest.raises(DereasonError, match="micro_batch"):
        fail()


@pytest.mark.parametrize("micro", [2, 4, 8])
def test_the_micro_batch_does_not_change_sft(
    micro: int, tiny_model: Path, pool: pl.DataFrame, targets: pl.DataFrame, tmp_path: Path
) -> None:
    """Responses of different lengths: a mean of micro-batch means would differ."""
    texts = [r * (1 + 5 * (i % 3 == 0)) for i, r in enumerate(targets["response"].to_list())]
    longer = targets.with_columns(pl.Series("response", texts))
    for name, size in (("reference", 1), ("mine", micro)):
        optimiser = Optimiser(learning_rate=1e-3, micro_batch=size)
        sft(tiny_model, pool.head(8), longer.head(8), tmp_path / name, epochs=1, batch=8, optimiser=optimiser)
    mine, reference = lines(tmp_path / "mine")[0], lines(tmp_path / "reference")[0]
    assert mine["loss"] == pytest.approx(reference["loss"], rel=1e-3)
    assert mine["grad_norm"] == pytest.approx(reference["grad_norm"], rel=1e-3)


@pytest.mark.parametrize("loss", ["grpo", "dapo", "dr_grpo"])
def test_the_micro_batch_does_not_change_rl(
    loss: str, tiny_model: Path, pool: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant_rewards(monkeypatch)
    for name, size in (("reference", 1), ("mine", 4)):
        optimiser = RLOptimiser(learning_rate=1e-2, micro_batch=size)
        rl(tiny_model, pool, tmp_path / name, steps=1, max_new_tokens=24, loss=loss, optimiser=optimiser)
    mine, reference = lines(tmp_path / "mine")[0], lines(tmp_path / "reference")[0]
    assert rollout_table(tmp_path / "mine").equals(rollout_table(tmp_path / "reference"))
    assert mine["grad_norm"] == pytest.approx(reference["grad_norm"], rel=1e-3)
    assert mine["grad_norm"] > 0


def test_gradient_checkpointing_changes_memory_alone(
    tiny_model: Path, pool: pl.DataFrame, targets: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant_rewards(monkeypatch)
    for name, on in (("off", False), ("on", True)):
        optimiser = Optimiser(learning_rate=1e-3, micro_batch=2, gradient_checkpointing=on)
        sft(tiny_model, pool, targets, tmp_path / f"sft-{name}", epochs=1, optimiser=optimiser)
        rl_optimiser = RLOptimiser(learning_rate=1e-2, micro_batch=4, gradient_checkpointing=on)
        rl(tiny_model, pool, tmp_path / f"rl-{name}", steps=1, optimiser=rl_optimiser)
    assert rollout_table(tmp_path / "rl-on").equals(rollout_table(tmp_path / "rl-off"))
    for kind in ("sft", "rl"):
        on, off = lines(tmp_path / f"{kind}-on")[0], lines(tmp_path / f"{kind}-off")[0]
        assert on["grad_norm"] == pytest.approx(off["grad_norm"], rel=1e-4)


def test_rl_options_reach_the_loss(
    tiny_model: Path, pool: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant_rewards(monkeypatch)
    rl(tiny_model, pool, tmp_path / "plain", steps=2)
    rl(tiny_model, pool, tmp_path / "unscaled", steps=2, scale_rewards="none")
    rl(tiny_model, pool, tmp_path / "kl", steps=2, kl=0.5)
    plain, unscaled, kl = (lines(tmp_path / name) for name in ("plain", "unscaled", "kl"))
    assert unscaled[0]["grad_norm"] < plain[0]["grad_norm"], "binary rewards: dividing by the std makes them larger"
    assert "kl" not in plain[0]
    assert kl[0]["kl"] == pytest.approx(0, abs=1e-4), "the policy starts at the reference"
    assert kl[1]["kl"] > 0
    assert kl[1]["grad_norm"] != plain[1]["grad_norm"]


def test_chat_template_arguments_reach_training(
    tiny_model: Path, pool: pl.DataFrame, targets: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A template with a switch, as Qwen's `enable_thinking`: every phase must see the argument."""
    plant_rewards(monkeypatch)
    switched = tmp_path / "switched"
    shutil.copytree(tiny_model, switched)
    template = switched / "chat_template.jinja"
    template.write_text("{% if loud %}{{ 'LOUD LOUD LOUD ' }}{% endif %}" + template.read_text())
    found = {}
    for loud in (False, True):
        prompt = PROMPT.model_copy(update={"chat_template_kwargs": {"loud": loud}})
        monkeypatch.setattr(f"{__name__}.PROMPT", prompt)
        sft(switched, pool, targets, tmp_path / f"sft-{loud}", epochs=1)
        rl(switched, pool, tmp_path / f"rl-{loud}", steps=1)
        lm = LocalModel(ModelSettings(name=str(switched)), {"loud": loud})
        row = rollout_table(tmp_path / f"rl-{loud}").row(0, named=True)
        question = pool.filter(pl.col("id") == row["problem_id"])["question"].item()
        assert row["prompt_tokens"] == len(lm.encode(prompt.messages(question)))
        found[loud] = lines(tmp_path / f"sft-{loud}")[0]["loss"]
    assert found[True] != found[False]


def test_targets_that_are_too_long_are_left_out_and_counted(
    tiny_model: Path, pool: pl.DataFrame, targets: pl.DataFrame, tmp_path: Path
) -> None:
    long = targets.with_columns(
        response=pl.when(pl.int_range(pl.len()) < 2).then(pl.lit("one " * 300)).otherwise("response")
    )
    settings = SFT(batch=12, max_length=128, optimiser=Optimiser(micro_batch=4))
    common: dict[str, Any] = {"out": tmp_path / "model", "work": tmp_path, "seed": 3}
    result = run_sft(ModelSettings(name=str(tiny_model)), PROMPT, pool, long, settings, **common)
    assert result.left_out == 2
    assert result.steps == 1
