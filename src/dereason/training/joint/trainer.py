"""Our RL trainer with demonstrations: a joint method decides which rows enter each step and what their loss is."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dereason.lm.local.forward import TokenScores
from dereason.lm.local.packing import Batch, Row
from dereason.training.joint.frame import JointRow, JointUpdate, View, demonstration_row, reduce, rollout_rows
from dereason.training.losses import BatchCounts
from dereason.training.policy import Group, Update, of_tokens, token_losses
from dereason.training.trainer import BUFFER_FILE
from dereason.training.trainer import make_trainer_class as make_rl_class


def make_trainer_class() -> Any:
    """The class (made here: importing TRL takes seconds)."""
    import torch
    from accelerate.utils import gather_object

    class JointTrainer(make_rl_class()):  # type: ignore[misc,unused-ignore]
        """See the module's docstring.

        Attributes set by :func:`dereason.training.rl.run_rl` besides its own: ``demonstrations`` (problem id -> token
        ids of the reply).
        """

        demonstrations: dict[str, list[int]]
        buffer: list[str]

        def _draw(self, batch: Sequence[dict[str, Any]]) -> list[Update]:
            """Rollouts and their updates, or one update on demonstrations alone where the method has it so."""
            if self.phase.method.supervises(self.state.global_step, len(self.buffer)):
                chosen = self.buffer or [p["problem_id"] for p in batch]
                chosen = [problem for problem in chosen if problem in self.demonstrations]
                if chosen:
                    self.buffer = []
                    return [self._supervised(chosen)]
            return super()._draw(batch)

        def _make_update(
            self, groups: Sequence[Group], places: Sequence[int], advantages: Sequence[Sequence[float]]
        ) -> JointUpdate:
            method = self.phase.method
            update = JointUpdate([], [], [], [], [], [], {})
            later = []
            for group, place, of_group in zip(groups, places, advantages, strict=True):
                given = self.demonstrations.get(group.problem)
                rows = rollout_rows(group, of_group)
                if given is not None:
                    rows = method.rows(group, of_group, given)
                    later += [group.problem] * method.buffers(group)
                for row in rows:
                    self._add(update, row, group.prompt, place, group, supervised=given is not None)
            together = [problem for part in gather_object([later]) for problem in part]
            self.buffer += [problem for problem in dict.fromkeys(together) if problem not in self.buffer]
            return self._counted(update)

        def _supervised(self, chosen: Sequence[str]) -> JointUpdate:
            """An update on these problems' demonstrations, this process's share of them."""
            update = JointUpdate([], [], [], [], [], [], {})
            world, rank = self.accelerator.num_processes, self.accelerator.process_index
            for place, problem in enumerate(chosen):
                if place % world == rank:
                    prompt = self.processing_class.apply_chat_template(
                        self.problems[problem]["prompt"],
                        add_generation_prompt=True,
                        tokenize=True,
                        return_dict=True,
                        **self.chat_template_kwargs,
                    )["input_ids"]
                    row = demonstration_row(self.demonstrations[problem])
                    self._add(update, row, list(prompt), place, None, supervised=True)
            return self._counted(update)

        def _add(
            self,
            update: JointUpdate,
            row: JointRow,
            prompt: list[int],
            place: int,
            group: Group | None,
            *,
            supervised: bool,
        ) -> None:
            number = len(update.rows)
            kept, reward = bool(row.terms), 0.0
            if row.rollout is not None and group is not None:
                reward = group.rewards[row.rollout]
                kept = kept and not math.isnan(reward) and not (self.phase.mask_truncated and group.cut[row.rollout])
                reward = 0.0 if math.isnan(reward) else reward
            update.rows.append(Row(prompt, row.response, place))
            update.kept.append(kept)
            update.advantages.append(row.advantage)
            update.rewards.append(reward)
            update.tails.append(0)
            update.terms.append(row.terms)
            update.demonstration.append(row.rollout is None)
            update.supervised.append(supervised)
            if group is not None and group.logps is not None:
                # what no engine drew has no probability of its own
                unknown = [math.nan] * len(row.response)
                update.sampler[number] = unknown if row.rollout is None else group.logps[row.rollout]
            # a rollout without advantage has a gradient through the KL term and the router alone
            still = row.rollout is not None and row.advantage == 0
            if kept and not (still and not self.phase.kl and not self.aux_loss_enabled):
                update.run.append(number)

        def _counted(self, update: JointUpdate) -> JointUpdate:
            update.counts = BatchCounts(*map(sum, zip(*gather_object([update.totals()]), strict=True)))
            parts = gather_object([update.totals_of()])
            for name in sorted({name for part in parts for name in part}):
                pairs = [part.get(name, (0.0, 0.0)) for part in parts]
                update.counts_of[name] = BatchCounts(sum(t for t, _ in pairs), sum(r for _, r in pairs))
            self._log("demonstrations", sum(gather_object([sum(update.demonstration)])))
            return update

        def _losses(self, update: Update, batch: Batch, scores: TokenScores, router: float) -> Any:
            assert isinstance(update, JointUpdate)  # this class makes no other
            shown = of_tokens([float(d) for d in update.demonstration], batch, scores.logp)
            loss, _, seen = token_losses(update, batch, scores, self.phase, drawn=1 - shown)
            lengths = torch.tensor(batch.lengths, device=loss.device, dtype=loss.dtype)
            view = View(
                logp=scores.logp,
                policy_loss=loss,
                entropy=scores.entropy,
                advantage=of_tokens(update.advantages, batch, scores.logp),
                demonstration=shown > 0,
                supervised=of_tokens([float(s) for s in update.supervised], batch, scores.logp) > 0,
                row=batch.row,
                lengths=lengths,
                progress=self.state.global_step / max(1, self.state.max_steps),
            )
            losses = self.phase.method.terms(view)
            membership = {
                name: of_tokens([float(name in terms) for terms in update.terms], batch, scores.logp) > 0
                for name in losses
            }
            total = reduce(
                losses,
                membership,
                update.counts_of,
                lengths[batch.row],
                loss=self.phase.loss,
                max_new_tokens=self.phase.max_new_tokens,
            )
            seen["demonstration_nll"] = (-scores.logp, shown)
            if router:
                total = total + router * scores.router_loss * len(batch.rows) / max(update.counts.sequences, 1.0)
            return total, {name: pair for name, pair in seen.items() if float(pair[1].sum())}

        def _save_checkpoint(self, model: Any, trial: Any) -> None:
            super()._save_checkpoint(model, trial)
            if self.args.should_save:
                folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
                (folder / BUFFER_FILE).write_text(json.dumps(self.buffer))

    return JointTrainer
