"""An RL phase in the words of verl: the overrides of its configuration, and the files that it calls.

Option names are those of verl 0.9.1 (``verl/trainer/config/ppo_trainer.yaml`` and what it includes). What verl has no
word for is refused, not dropped: a run that is silently another method helps nobody.
"""

from __future__ import annotations

import math
import re
import shlex
from typing import Any

from dereason.errors import DereasonError
from dereason.evaluation.evaluate import Evaluation
from dereason.training.rewards.verl import check_rewards
from dereason.training.rl import RL

VERL_VERSION = "0.9.1"

_AGGREGATION = {
    "dapo": "token-mean",
    "grpo": "seq-mean-token-mean",
    "dr_grpo": "seq-mean-token-sum-norm",
    "rloo": "seq-mean-token-sum",
}
_SCHEDULES = {"constant": "constant", "constant_with_warmup": "constant", "cosine": "cosine"}
HERE = "$HERE"
"""Stands for the export's folder in an override; the script finds it, so that the folder can be moved."""
_ACTOR = "actor_rollout_ref.actor"
_ROLLOUT = "actor_rollout_ref.rollout"

REWARD_FILE = '''\
"""Rewards of this run: dereason's verifier, with the settings in reward.json. verl calls compute_score."""

from pathlib import Path

from dereason.training.rewards.verl import Scorer

_scorer = None


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **kwargs):
    """Score one response; see dereason.training.rewards.verl.Scorer."""
    global _scorer
    if _scorer is None:
        _scorer = Scorer(Path(__file__).with_name("reward.json"))
    return _scorer(solution_str, ground_truth, extra_info)
'''

MANAGER_FILE = '''\
"""verl's own reward manager, which also tells compute_score how long a response is and whether the model ended it."""

import json
from pathlib import Path

from verl.experimental.reward_loop.reward_manager.naive import NaiveRewardManager


class CountingRewardManager(NaiveRewardManager):
    """Adds response_tokens and ended to extra_info."""

    stops = frozenset(json.loads(Path(__file__).with_name("reward.json").read_text(encoding="utf-8"))["stop_ids"])

    async def run_single(self, data):
        """See verl's NaiveRewardManager."""
        item = data[-1:][0]
        response = item.batch["responses"]
        tokens = int(item.batch["attention_mask"][-response.shape[-1] :].sum())
        extra = item.non_tensor_batch["extra_info"]
        extra["response_tokens"] = tokens
        extra["ended"] = tokens > 0 and int(response[tokens - 1]) in self.stops
        return await super().run_single(data)
'''


def check_phase(phase: RL) -> None:
    """Refuse a phase that verl has no words for.

    Raises:
        DereasonError: names the field.
    """
    check_rewards(phase.rewards)
    refused = {
        "scale_rewards: batch": phase.scale_rewards == "batch",
        "leave_one_out together with scale_rewards: group": phase.leave_one_out and phase.scale_rewards != "none",
        f"optimiser.schedule: {phase.optimiser.schedule}": phase.optimiser.schedule not in _SCHEDULES,
        "ratio: sequence with a loss other than grpo": phase.ratio == "sequence" and phase.loss != "grpo",
        "bands": phase.bands is not None,
        "mask_truncated": phase.mask_truncated,
        "min_p": bool(phase.min_p),
        "adapter.quantise": phase.adapter is not None and phase.adapter.quantise != "none",
    }
    for words, there in refused.items():
        if there:
            raise DereasonError(
                f"verl {VERL_VERSION} has no option for {words}", "export another phase, or train this one here"
            )


def overrides(
    phase: RL,
    evaluation: Evaluation,
    *,
    model: str,
    name: str,
    problems: int,
    longest_prompt: int,
    seed: int,
    chat_template_kwargs: dict[str, Any],
) -> dict[str, Any]:
    """Hydra overrides for ``verl.trainer.main_ppo``: dotted name -> value (``+`` in front where verl has no default).

    Args:
        phase: the RL phase.
        evaluation: how verl's validation samples.
        model: folder or hub id that the phase starts from.
        name: of the experiment.
        problems: rows of the training file.
        longest_prompt: tokens of the longest prompt, chat template included.
        seed: of the data order and of sampling.
        chat_template_kwargs: extra arguments of the chat template.

    Raises:
        DereasonError: the phase has something that verl does not, or too few problems for one generation.
    """
    check_phase(phase)
    prompts = phase.prompts_per_generation
    if problems < prompts:
        raise DereasonError(
            f"the RL set has {problems} problems, fewer than prompts_per_generation {prompts}",
            "lower prompts_per_generation or route more problems to it",
        )
    optimiser = phase.optimiser
    # verl counts generations, we count optimiser steps
    generations = math.ceil(phase.steps / (phase.updates_per_generation * phase.iterations))
    every = math.ceil(optimiser.checkpoint_every / (phase.updates_per_generation * phase.iterations))
    sampling = evaluation.sampling
    if sampling.min_p:
        raise DereasonError(
            f"verl {VERL_VERSION} has no option for evaluation.sampling.min_p", "leave it out of this export"
        )
    greedy = sampling.temperature == 0
    found: dict[str, Any] = {
        "data.train_files": f"{HERE}/train.parquet",
        "data.val_files": f"{HERE}/test.parquet",
        "data.train_batch_size": prompts,
        "data.max_prompt_length": longest_prompt,
        "data.max_response_length": phase.max_new_tokens,
        "data.truncation": "error",
        "data.seed": seed,
        "actor_rollout_ref.model.path": model,
        "actor_rollout_ref.model.enable_gradient_checkpointing": optimiser.gradient_checkpointing,
        f"{_ACTOR}.optim.lr": optimiser.learning_rate,
        f"{_ACTOR}.optim.lr_scheduler_type": _SCHEDULES[optimiser.schedule],
        f"{_ACTOR}.optim.lr_warmup_steps_ratio": 0.0 if optimiser.schedule == "constant" else optimiser.warmup_ratio,
        f"{_ACTOR}.optim.weight_decay": optimiser.weight_decay,
        f"{_ACTOR}.optim.clip_grad": optimiser.max_grad_norm,
        f"{_ACTOR}.ppo_mini_batch_size": prompts // phase.updates_per_generation,
        f"{_ACTOR}.ppo_epochs": phase.iterations,
        f"{_ACTOR}.use_dynamic_bsz": True,
        f"{_ACTOR}.ppo_max_token_len_per_gpu": optimiser.micro_batch * (longest_prompt + phase.max_new_tokens),
        f"{_ACTOR}.policy_loss.loss_mode": "gspo" if phase.ratio == "sequence" else "vanilla",
        f"{_ACTOR}.loss_agg_mode": _AGGREGATION[phase.loss],
        f"{_ACTOR}.clip_ratio": phase.clip_low,
        f"{_ACTOR}.clip_ratio_low": phase.clip_low,
        f"{_ACTOR}.clip_ratio_high": phase.clip_high,
        f"{_ACTOR}.clip_ratio_c": 1e6,  # a second clip, at 3 unless told otherwise, which our loss does not have
        f"{_ACTOR}.entropy_coeff": phase.entropy_bonus,
        f"{_ACTOR}.use_kl_loss": phase.kl > 0,
        f"{_ACTOR}.kl_loss_coef": phase.kl,
        f"{_ACTOR}.kl_loss_type": "low_var_kl",
        "algorithm.adv_estimator": "rloo" if phase.leave_one_out else "grpo",
        "algorithm.norm_adv_by_std_in_grpo": phase.scale_rewards == "group",
        "algorithm.use_kl_in_reward": False,
        "algorithm.rollout_correction.rollout_is": "token",
        "algorithm.rollout_correction.rollout_is_threshold": phase.sampler_cap,
        "algorithm.filter_groups.enable": phase.dynamic_sampling is not None,
        f"{_ROLLOUT}.name": "vllm",
        f"{_ROLLOUT}.n": phase.group_size,
        f"{_ROLLOUT}.temperature": phase.temperature,
        f"{_ROLLOUT}.top_p": phase.top_p,
        f"{_ROLLOUT}.top_k": phase.top_k or -1,
        f"{_ROLLOUT}.seed": seed,
        f"{_ROLLOUT}.tensor_model_parallel_size": 1,
        f"{_ROLLOUT}.val_kwargs.n": evaluation.samples,
        f"{_ROLLOUT}.val_kwargs.temperature": sampling.temperature,
        f"{_ROLLOUT}.val_kwargs.top_p": sampling.top_p,
        f"{_ROLLOUT}.val_kwargs.top_k": sampling.top_k or -1,
        f"{_ROLLOUT}.val_kwargs.do_sample": not greedy,
        "reward.custom_reward_function.path": f"{HERE}/reward.py",
        "reward.custom_reward_function.name": "compute_score",
        "reward.reward_manager.source": "importlib",
        "reward.reward_manager.name": "CountingRewardManager",
        "reward.reward_manager.module.path": f"{HERE}/manager.py",
        "trainer.total_training_steps": generations,
        "trainer.total_epochs": math.ceil(generations / (problems // prompts)),
        "trainer.save_freq": every,
        "trainer.test_freq": every,
        "trainer.project_name": "dereason",
        "trainer.experiment_name": name,
        "trainer.default_local_dir": f"{HERE}/checkpoints",
        "trainer.logger": ["console"],
    }
    if phase.loss == "dr_grpo":
        found[f"{_ACTOR}.loss_scale_factor"] = phase.max_new_tokens
    if phase.dynamic_sampling is not None:
        found["algorithm.filter_groups.metric"] = "acc"
        found["algorithm.filter_groups.max_num_gen_batches"] = phase.dynamic_sampling.max_draws
    if phase.adapter is not None:
        found["actor_rollout_ref.model.lora_rank"] = phase.adapter.rank
        alpha = phase.adapter.alpha
        found["actor_rollout_ref.model.lora_alpha"] = int(alpha) if alpha.is_integer() else alpha
        found["actor_rollout_ref.model.target_modules"] = phase.adapter.target_modules
        found[f"{_ROLLOUT}.load_format"] = "safetensors"  # vLLM needs the weights under the adapter
    for key, value in chat_template_kwargs.items():
        found[f"+data.apply_chat_template_kwargs.{key}"] = value
    return found


def script(found: dict[str, Any], head: str) -> str:
    """A shell script that starts verl with these overrides, and with any others it is given.

    Args:
        found: see :func:`overrides`.
        head: comment lines.
    """
    lines = []
    for key, value in found.items():
        if str(value).startswith(HERE):
            lines.append(f"  \"{key}='{value}'\" \\")
        else:
            lines.append(f"  {shlex.quote(f'{key}={hydra(value)}')} \\")
    return "\n".join(
        [
            "#!/bin/sh",
            *(f"# {line}".rstrip() for line in head.splitlines()),
            "set -e",
            'HERE=$(cd "$(dirname "$0")" && pwd)',
            "exec python3 -m verl.trainer.main_ppo \\",
            *lines,
            '  "trainer.nnodes=${NNODES:-1}" \\',
            '  "trainer.n_gpus_per_node=${GPUS:-8}" \\',
            '  "$@"',
            "",
        ]
    )


def hydra(value: Any) -> str:
    """A value in the grammar of Hydra's command line; text that could be read as something else is quoted."""
    if isinstance(value, bool):
        return str(value)
    if value is None:
        return "null"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(hydra, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{k}:{hydra(v)}" for k, v in value.items()) + "}"
    if isinstance(value, int | float):
        return repr(value)
    text = str(value)
    if re.fullmatch(r"[A-Za-z/][A-Za-z0-9_./@-]*", text) and text.lower() not in (
        "true",
        "false",
        "null",
        "nan",
        "inf",
    ):
        return text
    # in Hydra a backslash escapes only where a quote or the end follows
    return "'" + re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), text) + "'"
