"""The export for verl: rows, reward, launch script, and what is refused."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import polars as pl
import pytest
import torch
import yaml

from dereason.cli.main import main
from dereason.errors import DereasonError
from dereason.evaluation.evaluate import Evaluation
from dereason.lm.local.model import ModelSettings
from dereason.pipeline import verl
from dereason.pipeline.actions import Context
from dereason.pipeline.build import build
from dereason.pipeline.export import VERL_ROW, from_files, from_run, to_verl, verl_rows
from dereason.pipeline.jobs import RLJob
from dereason.pipeline.progress import Screen
from dereason.pipeline.recipe import load_recipe
from dereason.pipeline.store import Log, execute
from dereason.problems.schema import frame, write_table
from dereason.training.rl import RL
from families import FAMILIES, save_model

VERL_OPTIONS = set(Path(__file__).with_name("verl-0.9.1-options.txt").read_text(encoding="utf-8").splitlines()[1:])
"""Names as they stand in verl's own configuration; the file says where they were looked up."""

MAPPING = "+data.apply_chat_template_kwargs."
"""`data.apply_chat_template_kwargs` is an empty mapping there; Hydra adds keys to it with a plus."""


def problems(n: int) -> pl.DataFrame:
    return frame(
        "problem",
        [
            {
                "id": f"p{i}",
                "question": f"What is {i} + {i}?",
                "answer": str(2 * i),
                "domain": "sum",
                "source": "test",
                "options": ["1", "6", "7"] if i == 3 else None,
            }
            for i in range(n)
        ],
    )


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    write_table(problems(8), tmp_path / "pool.parquet")
    write_table(problems(3), tmp_path / "held-out.parquet")
    return tmp_path / "pool.parquet", tmp_path / "held-out.parquet"


def job(model: Path, **phase: Any) -> RLJob:
    settings = {"prompts_per_generation": 4, "max_new_tokens": 40, **phase}
    return RLJob.model_validate({"model": {"name": str(model)}, "phase": settings, "seed": 7})


def options(**phase: Any) -> dict[str, Any]:
    return verl.overrides(
        RL.model_validate({"prompts_per_generation": 4, **phase}),
        Evaluation(),
        model="m",
        name="n",
        problems=9,
        longest_prompt=50,
        seed=7,
        chat_template_kwargs={},
    )


def test_rows_have_what_verls_data_set_and_reward_managers_read() -> None:
    """`prompt` (a chat), `data_source`, `reward_model.ground_truth` and `extra_info.index`."""
    table = verl_rows(problems(4), RLJob().prompt, "train")
    assert table.schema == pl.Schema(VERL_ROW)
    row = table.to_dicts()[3]
    assert row["prompt"] == RLJob().prompt.messages("What is 3 + 3?", ["1", "6", "7"])
    assert row["data_source"] == "dereason/test"
    assert row["reward_model"] == {"style": "rule", "ground_truth": "6"}
    assert row["extra_info"]["index"] == 3
    assert row["extra_info"]["options"] == ["1", "6", "7"]
    assert table.to_dicts()[0]["extra_info"]["options"] is None


def exported_reward(folder: Path) -> Callable[..., dict[str, float]]:
    spec = importlib.util.spec_from_file_location("exported_reward", folder / "reward.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.compute_score  # type: ignore[no-any-return]


def test_the_exported_reward_scores_an_exported_row_by_its_verdict(
    tiny_model: Path, files: tuple[Path, Path], tmp_path: Path
) -> None:
    rewards = [{"name": "correctness"}, {"name": "overlong", "buffer": 20, "weight": 0.5}]
    out = tmp_path / "out"
    to_verl(from_files(*files, job(tiny_model, rewards={"of": rewards})), out)
    score = exported_reward(out)
    rows = pl.read_parquet(out / "train.parquet").to_dicts()

    def scored(row: dict[str, Any], text: str, **extra: Any) -> dict[str, float]:
        # as verl's reward manager calls it
        return score(
            data_source=row["data_source"],
            solution_str=text,
            ground_truth=row["reward_model"]["ground_truth"],
            extra_info=row["extra_info"] | {"num_turns": 2} | extra,
        )

    right = scored(rows[2], "so \\boxed{4}", response_tokens=10, ended=True)
    assert right == {"score": 1.0, "acc": 1.0, "strict": 1.0, "unparsable": 0.0, "truncated": 0.0, "error": 0.0}
    assert scored(rows[2], "so \\boxed{5}", response_tokens=10, ended=True)["score"] == 0.0
    assert scored(rows[3], "It is \\boxed{B}", response_tokens=10, ended=True)["acc"] == 1.0  # the second option, 6
    assert scored(rows[2], "so \\boxed{4}", response_tokens=30, ended=True)["score"] == pytest.approx(0.75)
    cut = scored(rows[2], "2 + 2 = 4", response_tokens=40, ended=False)
    assert cut["truncated"] == 1.0  # a bare number at a cut is no answer
    assert cut["score"] == -0.5
    unmarked = scored(rows[2], "2 + 2 = 4", response_tokens=10, ended=True)
    assert (unmarked["acc"], unmarked["strict"], unmarked["score"]) == (1.0, 0.0, 0.0)
    assert scored(rows[2], "no idea", response_tokens=3, ended=True)["unparsable"] == 1.0
    broken = scored({**rows[2], "reward_model": {"ground_truth": ""}}, "\\boxed{4}", response_tokens=3, ended=True)
    assert (broken["error"], broken["score"]) == (1.0, 0.0)


def test_the_exported_manager_knows_what_ends_a_reply(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A base model whose chat template ends a turn with another token than the tokenizer's."""
    info = to_verl(from_files(*files, job(save_model(FAMILIES["qwen-base"], tmp_path / "base"))), tmp_path / "out")
    assert any("verl does not stop at '<|im_end|>'" in warning for warning in info["warnings"])
    for name in ("verl.experimental", "verl.experimental.reward_loop", "verl.experimental.reward_loop.reward_manager"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    naive = ModuleType("verl.experimental.reward_loop.reward_manager.naive")
    naive.NaiveRewardManager = type("NaiveRewardManager", (), {"run_single": ran})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "verl", ModuleType("verl"))
    monkeypatch.setitem(sys.modules, naive.__name__, naive)
    namespace = {"__file__": str(tmp_path / "out" / "manager.py")}
    exec((tmp_path / "out" / "manager.py").read_text(), namespace)
    manager = namespace["CountingRewardManager"]()  # type: ignore[operator]
    for last, ended in ((256, True), (258, True), (65, False)):
        batch = {"responses": torch.tensor([65, last, 256]), "attention_mask": torch.tensor([1, 1, 1, 0])}
        item = SimpleNamespace(batch=batch, non_tensor_batch={"extra_info": {}})
        extra = asyncio.run(manager.run_single([item]))
        assert extra == {"response_tokens": 2, "ended": ended}


async def ran(self: Any, data: Any) -> Any:
    return data[0].non_tensor_batch["extra_info"]


def arguments(script: Path, *more: str, **environment: str) -> list[str]:
    """What the script would start verl with."""
    folder = script.parents[1] / "bin"
    folder.mkdir(exist_ok=True)
    (folder / "python3").write_text('#!/bin/sh\nprintf "%s\\0" "$@"\n')
    (folder / "python3").chmod(0o755)
    env = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", **environment}
    said = subprocess.run(["sh", str(script), *more], env=env, cwd="/", capture_output=True, check=True).stdout
    return said.decode().split("\0")[:-1]


def test_the_script_starts_verl_with_the_phase_wherever_the_folder_is(
    tiny_model: Path, files: tuple[Path, Path], tmp_path: Path
) -> None:
    phase = {"algorithm": "dapo", "kl": 0.01, "group_size": 6, "adapter": {"rank": 8}, "steps": 5}
    asked = job(tiny_model, **phase)
    asked = asked.model_copy(
        update={"prompt": asked.prompt.model_copy(update={"chat_template_kwargs": {"enable_thinking": False}})}
    )
    info = to_verl(from_files(*files, asked), tmp_path / "out")
    moved = (tmp_path / "out").rename(tmp_path / "with a space")
    module, *given = arguments(moved / "run.sh", "trainer.val_only=True", GPUS="4")[1:]
    assert module == "verl.trainer.main_ppo"
    assert given[-1] == "trainer.val_only=True"
    found = dict(text.split("=", 1) for text in given[:-1])
    assert {key for key in found if not key.startswith(MAPPING)} <= VERL_OPTIONS
    assert found["data.train_files"] == f"'{moved}/train.parquet'"
    assert found["trainer.n_gpus_per_node"] == "4"
    assert found["actor_rollout_ref.rollout.n"] == "6"
    assert found["actor_rollout_ref.actor.clip_ratio_high"] == "0.28"
    assert found["actor_rollout_ref.actor.kl_loss_coef"] == "0.01"
    assert found["actor_rollout_ref.model.lora_rank"] == "8"
    assert found["algorithm.filter_groups.enable"] == "True"
    assert found[f"{MAPPING}enable_thinking"] == "False"
    assert found["data.max_prompt_length"] == str(info["longest_prompt"])
    assert info["rows"] == {"train": 8, "test": 3}
    assert "mixed groups" in (moved / "run.sh").read_text()  # what verl does otherwise is said where it is started


ACTOR = "actor_rollout_ref.actor."


@pytest.mark.parametrize(
    ("phase", "expected"),
    [
        ({}, {"loss_agg_mode": "token-mean", "policy_loss.loss_mode": "vanilla", "use_kl_loss": False}),
        ({"algorithm": "grpo"}, {"loss_agg_mode": "seq-mean-token-mean"}),
        (
            {"algorithm": "dr_grpo", "max_new_tokens": 77},
            {"loss_agg_mode": "seq-mean-token-sum-norm", "loss_scale_factor": 77},
        ),
        ({"algorithm": "rloo"}, {"loss_agg_mode": "seq-mean-token-sum"}),
        ({"algorithm": "gspo"}, {"loss_agg_mode": "seq-mean-token-mean", "policy_loss.loss_mode": "gspo"}),
        ({"updates_per_generation": 2, "iterations": 3}, {"ppo_mini_batch_size": 2, "ppo_epochs": 3}),
        ({"entropy_bonus": 0.01}, {"entropy_coeff": 0.01}),
    ],
)
def test_losses_have_verls_names(phase: dict[str, Any], expected: dict[str, Any]) -> None:
    found = options(**phase)
    assert {key: found[ACTOR + key] for key in expected} == expected
    assert set(found) <= VERL_OPTIONS


def test_advantages_and_counts_have_verls_names() -> None:
    """verl counts generations and whole passes; nine problems give two generations of four in a pass."""
    found = options(steps=10, updates_per_generation=2, optimiser={"checkpoint_every": 3})
    assert found["algorithm.adv_estimator"] == "grpo"
    assert found["algorithm.norm_adv_by_std_in_grpo"] is True
    assert found["trainer.total_training_steps"] == 5
    assert found["trainer.total_epochs"] == 3
    assert found["trainer.save_freq"] == 2
    assert options(algorithm="rloo")["algorithm.adv_estimator"] == "rloo"
    assert options(algorithm="dr_grpo")["algorithm.norm_adv_by_std_in_grpo"] is False


@pytest.mark.parametrize(
    ("phase", "words"),
    [
        ({"scale_rewards": "batch"}, "scale_rewards: batch"),
        ({"leave_one_out": True}, "leave_one_out"),
        ({"optimiser": {"schedule": "linear"}}, "schedule: linear"),
        ({"ratio": "sequence"}, "ratio: sequence"),
        ({"bands": {}}, "bands"),
        ({"mask_truncated": True}, "mask_truncated"),
        ({"rewards": {"of": [{"name": "cer"}]}}, "'cer'"),
        ({"rewards": {"of": [{"name": "correctness"}, {"name": "length_shaped"}]}}, "'length_shaped'"),
        ({"prompts_per_generation": 10}, "9 problems"),
    ],
)
def test_what_verl_has_no_word_for_is_refused(phase: dict[str, Any], words: str) -> None:
    with pytest.raises(DereasonError, match=words):
        options(**phase)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "True"),
        (None, "null"),
        (1e-6, "1e-06"),
        ("org/model-1.5B", "org/model-1.5B"),
        ("a b", "'a b'"),
        ("null", "'null'"),
        ("5", "'5'"),
        ("it's", "'it\\'s'"),
        ("a\\b", "'a\\b'"),
        ("end\\", "'end\\\\'"),
        (["q_proj", "k proj"], "[q_proj,'k proj']"),
    ],
)
def test_values_are_written_as_hydra_reads_them(value: object, text: str) -> None:
    """Each of these was parsed back by Hydra 1.3.8's OverridesParser."""
    assert verl.hydra(value) == text


def run_directory(folder: Path, model: Path) -> Path:
    """A run whose problems and routes are finished, and nothing else."""
    gym = {"source": "reasoning_gym", "families": [{"family": "chain_sum", "size": 10}]}
    rl = {"kind": "rl", "prompts_per_generation": 2, "max_new_tokens": 8}
    recipe = {
        "name": "tiny",
        "model": {"name": str(model)},
        "problems": {"train": gym | {"seed": 1}, "test": gym | {"seed": 2}},
        "profile": {"judge": {"enabled": False}},
        "arms": [
            {"name": "direct", "route": {"policy": "all", "set": "rl"}, "phases": [rl]},
            {
                "name": "two",
                "route": {"policy": "all", "set": "rl"},
                "phases": [{"kind": "sft", "set": "rl", "batch": 8}, rl],
            },
        ],
        "seeds": [4, 5],
    }
    folder.mkdir()
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    loaded = load_recipe(folder / "recipe.yaml")
    graph = build(loaded, folder, Context(loaded.prompt, Screen(quiet=True)))
    for step in (graph.problems, *(r.route for r in graph.rounds)):
        at = {role: folder / "steps" / s.folder for role, s in step.inputs.items()}
        execute(folder / "steps" / step.folder, step, at, Log(folder / "log.jsonl"))
    return folder


def test_a_run_exports_its_routed_set_and_the_model_that_the_phase_starts_from(
    tiny_model: Path, tmp_path: Path
) -> None:
    run = run_directory(tmp_path / "run", tiny_model)
    found = from_run(run, arm="direct")
    assert found.train.height == 10
    assert found.test.height == 10
    assert found.model == ModelSettings(name=str(tiny_model))
    assert (found.seed, found.origin["phase"], found.phase.max_new_tokens) == (4, 1, 8)
    with pytest.raises(DereasonError, match="2 arms have an RL phase"):
        from_run(run)
    with pytest.raises(DereasonError, match=r"train two, seed 5, 1-sft.* is not finished"):
        from_run(run, arm="two", seed=5)
    with pytest.raises(DereasonError, match="phase 1 of arm 'two' is no RL phase"):
        from_run(run, arm="two", phase=1)
    # once the SFT phase is finished, its model is the start
    loaded = load_recipe(run / "recipe.yaml")
    graph = build(loaded, run, Context(loaded.prompt, Screen(quiet=True)))
    stage = next(s for s in graph.stages if (s.arm, s.seed, s.phase) == ("two", 5, 1))
    assert stage.training is not None
    made = replace(stage.training, action=lambda work, at: {"model": "model", "template_hash": "x"})
    done = run / "steps" / made.folder
    execute(done, made, {}, Log(run / "log.jsonl"))
    assert Path(from_run(run, arm="two", seed=5).model.name) == done.resolve() / "model"


def test_the_command_writes_the_folder_and_never_touches_another(
    tiny_model: Path, files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pool, test = map(str, files)
    out = tmp_path / "out"
    line = ["export", pool, "--test", test, "--to", "verl", "--out", str(out), "--model", str(tiny_model)]
    settings = ["--set", "phase.prompts_per_generation=4", "--json"]
    assert main([*line, *settings]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["overrides"]["data.train_batch_size"] == 4
    assert {p.name for p in out.iterdir()} == {
        *("train.parquet", "test.parquet", "reward.py", "reward.json", "manager.py", "run.sh", "export.json")
    }
    assert main([*line, *settings]) == 2
    assert main([*line, *settings, "--overwrite"]) == 0
    (out / "export.json").unlink()
    assert main([*line, *settings, "--overwrite"]) == 2
    assert "no export of dereason" in capsys.readouterr().err
    assert main(["export", pool, "--to", "verl", "--out", str(tmp_path / "x")]) == 2
    assert "--test" in capsys.readouterr().err
