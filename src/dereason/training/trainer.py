"""TRL's ``GRPOTrainer`` with four things changed: where tokens come from, advantages, the loss, and which rows run.

*Tokens* come from our in-process engine (:mod:`dereason.lm.local.engine`); TRL's fallback without vLLM calls
``transformers.generate`` with every prompt repeated G times. *Advantages* and the *loss* are our pure functions
(:mod:`dereason.training.losses`), equal to TRL's where all rewards are known. They differ in this: a rollout
whose verdict is ``error`` leaves mean, standard deviation, loss **and** normaliser, where TRL keeps it in the
normaliser; and the normaliser is the optimiser batch's own count, where TRL takes the generation's average.

*Rows* without gradient (advantage zero, no KL term) are never forwarded, and the others run in micro-batches of similar
length without padding columns (:mod:`dereason.training.packing`). Entropy and clip share are therefore those of rows
that were trained on.

What is left out here: dynamic sampling, vLLM, LoRA.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from dereason.lm.local.engine import decode
from dereason.training.losses import (
    BatchCounts,
    clipped_policy_loss,
    group_advantages,
    kl_estimate,
    token_weights,
)
from dereason.training.packing import plan_micro_batches, take_rows
from dereason.training.rewards.verifier_free import splice_reference


def make_trainer_class() -> Any:
    """The class (made here: importing TRL takes seconds)."""
    import torch
    from accelerate.utils import gather_object
    from trl import GRPOTrainer
    from trl.trainer.utils import RepeatSampler

    class EpochSampler(RepeatSampler):  # type: ignore[misc,unused-ignore]
        """TRL's sampler, each epoch's order made of seed and epoch.

        TRL's draws one order after the other from one generator, so that a phase that resumes in its second epoch
        would see the first epoch's order again. transformers calls :meth:`set_epoch`.
        """

        def set_epoch(self, epoch: int) -> None:
            self.generator.manual_seed(self.seed + 1_000_003 * epoch)

    class RLTrainer(GRPOTrainer):  # type: ignore[misc,unused-ignore]
        """See the module's docstring.

        Attributes set by :func:`dereason.training.rl.run_rl`: ``phase`` (the RL settings) and ``rollouts`` (the
        reward function, which judges and keeps every completion).
        """

        phase: Any
        rollouts: Any

        def _get_train_sampler(self, dataset: Any = None) -> Any:
            return EpochSampler(
                data_source=self.train_dataset if dataset is None else dataset,
                mini_repeat_count=self.num_generations,
                batch_size=self.args.generation_batch_size // self.num_generations,
                repeat_count=self.num_iterations * self.args.steps_per_generation,
                shuffle=self.shuffle_dataset,
                seed=self.args.seed,
            )

        def _generate_single_turn(
            self,
            prompt_ids: Any,
            images: Any,
            multimodal_fields: Any,
            num_generations: int,
            *args: Any,
            **kw: Any,
        ) -> Any:
            heads = prompt_ids[::num_generations]
            whole = len(prompt_ids) % num_generations == 0 and all(
                prompt_ids[i] == heads[i // num_generations] for i in range(len(prompt_ids))
            )  # several processes may share a group; then TRL's own path is used
            if self.phase.rollouts == "engine" and whole:
                completions, logps = self._decode(heads, num_generations), None
            else:
                completions, logps = super()._generate_single_turn(
                    prompt_ids, images, multimodal_fields, num_generations, *args, **kw
                )
            self.rollouts.prompt_ids, self.rollouts.completion_ids = prompt_ids, completions
            self._answer_lengths = [0] * len(completions)
            if self.phase.verifree:
                references = [row["answer"] for row in self._rows]
                completions, self._answer_lengths = splice_reference(self.processing_class, completions, references)
            return completions, logps

        def _decode(self, heads: Sequence[Sequence[int]], num_generations: int) -> list[list[int]]:
            model = self.accelerator.unwrap_model(self.model)
            training = model.training
            model.eval()
            at_once = max(1, self.phase.rollout_batch // num_generations)
            drawn = [
                group
                for start in range(0, len(heads), at_once)
                for group in decode(
                    model,
                    [list(ids) for ids in heads[start : start + at_once]],
                    num_generations,
                    temperature=self.args.temperature,
                    max_new_tokens=self.args.max_completion_length,
                    stop_ids=self.eos_token_ids,
                    pad_id=self.processing_class.pad_token_id,
                    # one stream per generation and process: resuming at a step draws what was drawn then
                    seed=(self.args.seed * 1_000_003 + self.state.global_step) * 1024 + self.accelerator.process_index,
                )
            ]
            model.train(training)
            return [ids for group in drawn for ids in group]

        def _calculate_rewards(self, *args: Any, **kw: Any) -> Any:
            self._gathered_rewards = super()._calculate_rewards(*args, **kw)
            return self._gathered_rewards

        def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
            self._rows = inputs  # a rewritten completion needs its reference
            output: dict[str, Any] = super()._generate_and_score_completions(inputs)
            rewards = self._gathered_rewards[:, 0]
            advantages = group_advantages(
                rewards,
                self.num_generations,
                scale=self.phase.scale_rewards,
                leave_one_out=self.phase.leave_one_out,
            )
            first = self.accelerator.process_index * len(inputs)
            mine = slice(first, first + len(inputs))
            output["advantages"] = advantages[mine]
            scored = ~torch.isnan(rewards[mine])
            output["loss_mask"] = output["completion_mask"] * scored.unsqueeze(1)
            if self.phase.verifree:
                output["answer_mask"] = self._answer_mask(output["completion_mask"])
                output["rewards"] = rewards[mine].nan_to_num(0.0)
            return output

        def _answer_mask(self, completion_mask: Any) -> Any:
            """1 on the reference's tokens, which end each row."""
            tails = torch.tensor(self._answer_lengths, device=completion_mask.device)
            after = completion_mask.flip(1).cumsum(1).flip(1)  # tokens from here to the end of the row
            return completion_mask * (after <= tails.unsqueeze(1))

        def _prepare_inputs(self, generation_batch: Any) -> Any:
            before = self._buffered_inputs
            inputs = super()._prepare_inputs(generation_batch)
            batches = self._buffered_inputs
            if batches is before:
                return inputs
            window = self.args.gradient_accumulation_steps
            for start in range(0, len(batches), window):
                batches[start : start + window] = self._arrange(batches[start : start + window])
            return batches[self._step % len(batches)]

        def _arrange(self, batches: list[dict[str, Any]]) -> list[dict[str, Any]]:
            """The micro-batches of one optimiser step anew: see :mod:`dereason.training.packing`.

            As many as before; the first are empty where fewer do. Each has the counts of the whole step, over all
            processes.
            """
            rows = {
                name: torch.cat([b[name] for b in batches])
                for name, value in batches[0].items()
                if isinstance(value, torch.Tensor) and value.ndim
            }
            mask = rows["loss_mask"]
            active = mask.any(1)
            if not self.beta and not self.aux_loss_enabled:
                pulls = rows["advantages"] != 0
                if "rewards" in rows:  # VeriFree's second term
                    pulls = pulls | (rows["rewards"] != 0)
                active = active & pulls
            prompts, completions = rows["prompt_mask"].sum(1), rows["completion_mask"].sum(1)
            local = torch.stack([mask.sum(), mask.any(1).sum(), ((prompts + completions) * active).sum()]).double()
            tokens, sequences, trained = self.accelerator.reduce(local, reduction="sum").tolist()
            plan = plan_micro_batches(
                prompts.tolist(), completions.tolist(), active.tolist(), rows=self.args.per_device_train_batch_size
            )
            slots = [take_rows(rows, members) for members in plan]
            if self.accelerator.num_processes > 1:
                # Every process takes part in every backward pass, the last above all: it carries the gradients.
                needed = max(1, *gather_object([len(slots)]))
                idle = take_rows(rows, [0])
                idle["loss_mask"] = torch.zeros_like(idle["loss_mask"])
                slots = [idle] * (needed - len(slots)) + slots
            empty: list[dict[str, Any]] = [{} for _ in range(len(batches) - len(slots))]
            counts = BatchCounts(tokens, sequences)
            return empty + [{**slot, "counts": counts, "trained": trained} for slot in slots]

        def _no_rows(self, model: Any) -> Any:
            """The loss of an empty micro-batch; a step without any gradient is still taken, as TRL takes it."""
            if self.accelerator.sync_gradients:
                for parameter in model.parameters():
                    if parameter.requires_grad and parameter.grad is None:
                        parameter.grad = torch.zeros_like(parameter)
            return torch.zeros((), device=self.accelerator.device, requires_grad=True)

        def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Any:
            if self.accelerator.sync_gradients:  # the step's last micro-batch; it is empty only if all are
                self._metrics["train"]["trained_tokens"].append(inputs.get("trained", 0))
            if not inputs:
                return self._no_rows(model)
            ids, mask = inputs["completion_ids"], inputs["loss_mask"]
            logp, entropy, router_loss = self._get_per_token_logps_and_entropies(
                model,
                torch.cat([inputs["prompt_ids"], ids], 1),
                torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1),
                ids.size(1),
                compute_entropy=True,
                compute_aux_loss=self.aux_loss_enabled,
            )
            # Without stored ones the rollouts are this policy's own, and the ratio is 1.
            old = inputs.get("old_per_token_logps", logp.detach())
            loss, clipped = clipped_policy_loss(
                logp, old, inputs["advantages"], clip_low=self.epsilon_low, clip_high=self.epsilon_high
            )
            sampled = mask  # the tokens that the policy drew; clip and KL estimate are about these
            if "answer_mask" in inputs:  # VeriFree: -r log π(a*|q, s) on the reference's tokens
                on_answer = inputs["answer_mask"].bool()
                loss = torch.where(on_answer, -inputs["rewards"].unsqueeze(1) * logp, loss)
                sampled = mask * ~on_answer
            if self.beta:
                kl = kl_estimate(logp, inputs["ref_per_token_logps"])
                loss = loss + self.beta * kl * sampled
                self._log_mean("kl", kl, sampled)
            self._log_mean("entropy", entropy, mask)
            self._log_mean("clip_ratio/region_mean", clipped, sampled)
            weights = token_weights(
                mask, self.loss_type, inputs["counts"], max_new_tokens=self.args.max_completion_length
            )
            # Gradients are averaged over processes, and the normaliser spans them all.
            total = (loss * weights).sum() * self.accelerator.num_processes
            if self.aux_loss_enabled:
                total = total + self.router_aux_loss_coef * router_loss / self.current_gradient_accumulation_steps
            return total

        def _log_mean(self, name: str, value: Any, mask: Any) -> None:
            totals = torch.stack([(value * mask).sum(), mask.sum()]).detach().float()
            total, count = self.accelerator.reduce(totals, reduction="sum").tolist()
            # TRL leaves NaN out of a step's mean: a micro-batch without a scored row says nothing.
            self._metrics["train"][name].append(total / count if count else math.nan)

    return RLTrainer
