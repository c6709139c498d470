"""Our RL trainer with demonstrations: a joint method decides which rows enter each step and what their loss is."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dereason.lm.local.forward import TokenScores
from dereason.lm.local.packing import Batch, Row
from dereason.training.joint.frame import (
    PAIRS,
    JointRow,
    JointUpdate,
    View,
    demonstration_row,
    reduce,
    rollout_rows,
)
from dereason.training.joint.queue import Waiting
from dereason.training.losses import BatchCounts
from dereason.training.policy import Group, Update, of_tokens, token_losses, tokens_before
from dereason.training.trainer import make_trainer_class as make_rl_class
from dereason.training.update import MicroBatch, run_step


def outside_baseline(rewards: Sequence[float], given: Sequence[int]) -> list[float]:
    """Advantages of a group: rewards less the mean of the rollouts that were given nothing; 0 where undecided."""
    plain = [r for r, g in zip(rewards, given, strict=True) if not g and r == r]
    centre = sum(plain) / max(1, len(plain))
    return [r - centre if r == r and plain else 0.0 for r in rewards]


def make_trainer_class() -> Any:
    """The class (made here: importing TRL takes seconds)."""
    import torch
    from accelerate.utils import gather_object
    from transformers import TrainerCallback

    class AfterStep(TrainerCallback):
        """Tells the trainer that an optimiser step is done, before it is logged and saved."""

        def __init__(self, trainer: Any) -> None:
            self.trainer = trainer

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            self.trainer.supervise()

    class JointTrainer(make_rl_class()):  # type: ignore[misc,unused-ignore]
        """See the module's docstring.

        Attributes set by :func:`dereason.training.rl.run_rl` besides its own: ``demonstrations`` (problem id -> token
        ids of the reply), ``worth`` (what each is paid, where the method has it in its group) and ``waiting`` (where it
        has a queue).
        """

        demonstrations: dict[str, list[int]]
        worth: dict[str, float]
        waiting: Waiting | None = None
        _sums: dict[str, Any]
        _cut_last: JointUpdate

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.add_callback(AfterStep(self))

        def _draw(self, batch: Sequence[dict[str, Any]]) -> list[Update]:
            """Rollouts and their updates, or one update on demonstrations alone where the method has it so."""
            if self.phase.method.supervises(self.state.global_step):
                chosen = [p["problem_id"] for p in batch if p["problem_id"] in self.demonstrations]
                if chosen:
                    update = self._supervised(chosen)
                    self._log("demonstrations", len(chosen))
                    return [update]
            return super()._draw(batch)

        def supervise(self) -> None:
            """The SFT update that is due behind the last RL update of a generation, if any is."""
            if self.waiting is None or self._step % (self.phase.updates_per_generation * self.phase.iterations):
                return
            chosen = self.waiting.leave()
            if not chosen:
                return
            update, logged = self._supervised(chosen), self._sums
            batches = self._cut(update)
            loss = run_step(self, self.model_wrapped, batches, self._score, lambda b, s: self._loss(update, b, s))
            self._sums = logged
            self._log("sft_grad_norm", self.waiting.step())
            self._log("sft_demonstrations", len(chosen))
            self._log("sft_loss", float(self.accelerator.reduce(loss, "mean")))
            self._log("trained_tokens", sum(gather_object([sum(b.tokens for b in batches)])), more=True)

        def _draw_groups(
            self, problems: Sequence[dict[str, Any]], prefixes: Sequence[Sequence[Sequence[int]]] | None = None
        ) -> list[Group]:
            """Rollouts, behind prefixes where the method gives any; every process calls this, also with none."""
            method = self.phase.method
            if prefixes is not None or not method.prefixes:
                return list(super()._draw_groups(problems, prefixes))
            ids = [p["problem_id"] for p in problems]
            groups = list(super()._draw_groups(problems, [self._prefixes(id) for id in ids]))
            tried = [{group.given[0] if group.given else 0: group} for group in groups]
            while True:
                asked = {
                    k: method.search(tried[k], self._length(group.problem))
                    for k, group in enumerate(groups)
                    if group.problem in self.demonstrations
                }
                pending = {k: length for k, length in asked.items() if length is not None}
                if not sum(gather_object([len(pending)])):
                    break
                drawn = super()._draw_groups(
                    [problems[k] for k in pending],
                    [[self.demonstrations[ids[k]][:length]] * self.num_generations for k, length in pending.items()],
                )
                for (k, length), group in zip(pending.items(), drawn, strict=True):
                    tried[k][length] = group
            groups = [method.settle(groups_of) for groups_of in tried]
            given = [float(g) for group in groups for g in group.given]
            self._logs_of_step.setdefault("given_tokens", []).append((sum(given) / max(1, len(given)), len(given)))
            return groups

        def _progress(self) -> float:
            """How far the phase is: 0 at its first step, 1 at its last."""
            return float(self.state.global_step / max(1, self.state.max_steps - 1))

        def _length(self, problem: str) -> int:
            """Tokens of a problem's demonstration before its end token."""
            shown = self.demonstrations[problem]
            return next((i for i, token in enumerate(shown) if token in self.eos_token_ids), len(shown))

        def _prefixes(self, problem: str) -> list[list[int]]:
            """What each of a problem's rollouts is given at first."""
            if problem not in self.demonstrations:
                return [[]] * self.num_generations
            name = int.from_bytes(hashlib.sha256(problem.encode()).digest()[:8])
            stream = np.random.default_rng([self.args.seed, self.state.global_step, name])
            size = self.num_generations
            lengths = self.phase.method.given(self._length(problem), size, self._progress(), stream)
            return [self.demonstrations[problem][:length] for length in lengths]

        def _advantages(self, groups: Sequence[Group]) -> list[list[float]]:
            """With a column for the demonstration where it is a member of its group."""
            if self.phase.method.guided_outside:
                own = [outside_baseline(group.rewards, group.given) for group in groups]
                return list(gather_object(own))
            if not self.phase.method.joins:
                return list(super()._advantages(groups))
            rewards = [[*group.rewards, self._worth_of(group.problem)] for group in groups]
            every = torch.tensor(gather_object([r for row in rewards for r in row]), dtype=torch.float32)
            return list(self._advantages_of(every, self.num_generations + 1))

        def _worth_of(self, problem: str) -> float:
            """What a problem's demonstration is paid; NaN where there is none."""
            return float(self.worth[problem]) if problem in self.demonstrations else math.nan

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
            if self.waiting is not None:
                self.waiting.join([problem for part in gather_object([later]) for problem in part])
            self._log("demonstrations", sum(gather_object([sum(update.demonstration)])))
            if method.taken_share:
                self._take(update, method.taken_share)
            return self._counted(update)

        def _take(self, update: JointUpdate, share: float) -> None:
            """Choose, of all given tokens of the step, those where the policy is most undecided."""
            guided = [i for i, kept in enumerate(update.kept) if kept and update.given[i]]
            found: list[tuple[float, int, int]] = []
            with torch.no_grad():
                for each in self._cut(update, guided):
                    batch = each.tensors(self.accelerator.device)
                    parts = self._score(batch, entropy="value").entropy.split(list(batch.lengths))
                    for i, part in zip(batch.rows, parts, strict=True) if each.real else ():
                        found += [(value, i, place) for place, value in enumerate(part[: update.given[i]].tolist())]
            every = sorted((value for part in gather_object([found]) for value, *_ in part), reverse=True)
            count = math.ceil(share * len(every) - 1e-9)  # 0.2 * 35 is above 7
            for value, i, place in found:
                if count and value >= every[count - 1]:
                    update.taken[i].append(place)

        def _supervised(self, chosen: Sequence[str]) -> JointUpdate:
            """An update on these problems' demonstrations, this process's share of them."""
            update = JointUpdate([], [], [], [], [], [], {})
            world, rank = self.accelerator.num_processes, self.accelerator.process_index
            for place, problem in enumerate(chosen):
                if place % world == rank:
                    prompt = self._prompt_ids(self.problems[problem])
                    row = demonstration_row(self.demonstrations[problem])
                    self._add(update, row, prompt, place, None, supervised=True)
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
            # given tokens without loss are context: the rows that have them in common share them as they do the prompt
            context = 0 if self.phase.method.taken_share else row.given
            head, response = [*prompt, *row.response[:context]], row.response[context:]
            shared = update.contexts.setdefault((place, tuple(head[len(prompt) :])), len(update.contexts))
            number = len(update.rows)
            kept, reward, correct = bool(row.terms), 0.0, False
            if row.rollout is not None and group is not None:
                reward, correct = group.rewards[row.rollout], bool(group.correct[row.rollout])
                kept = kept and not math.isnan(reward) and not (self.phase.mask_truncated and group.cut[row.rollout])
                reward = 0.0 if math.isnan(reward) else reward
            update.rows.append(Row(head, response, shared))
            update.kept.append(kept)
            update.advantages.append(row.advantage)
            update.rewards.append(reward)
            update.correct.append(correct)
            update.tails.append(0)
            update.places.append(place)
            update.terms.append(row.terms)
            update.given.append(row.given - context)
            update.taken.append([])
            update.demonstration.append(row.rollout is None)
            update.supervised.append(supervised)
            if group is not None and group.logps is not None:
                # what no engine drew has no probability of its own
                unknown = [math.nan] * len(response)
                update.sampler[number] = unknown if row.rollout is None else group.logps[row.rollout][context:]
            # a rollout without advantage has a gradient through the KL term, the router and pairs alone
            still = row.rollout is not None and row.advantage == 0 and PAIRS not in row.terms
            if kept and not (still and not self.phase.kl and not self.aux_loss_enabled):
                update.run.append(number)

        def _counted(self, update: JointUpdate) -> JointUpdate:
            update.counts = BatchCounts(*map(sum, zip(*gather_object([update.totals()]), strict=True)))
            parts = gather_object([update.totals_of()])
            for name in sorted({name for part in parts for name in part}):
                pairs = [part.get(name, (0.0, 0.0)) for part in parts]
                update.counts_of[name] = BatchCounts(sum(t for t, _ in pairs), sum(r for _, r in pairs))
            if self.phase.method.per_problem:
                problems = [terms for part in gather_object([update.problems_of()]) for terms in part.values()]
                for name in update.counts_of:
                    update.shares[name] = sum(name in terms for terms in problems) / len(problems)
            return update

        def _cut(self, update: Update, members: Sequence[int] | None = None) -> list[MicroBatch]:
            """Demonstrations by themselves where rollouts are scored at another temperature."""
            assert isinstance(update, JointUpdate)  # this class makes no other
            self._cut_last = update
            if self.args.temperature == 1:
                return list(super()._cut(update, members))
            every = update.run if members is None else members
            parts = [[i for i in every if update.demonstration[i] == shown] for shown in (False, True)]
            return [each for part in parts for each in super(JointTrainer, self)._cut(update, part)]

        def _temperature_of(self, batch: Batch) -> float:
            """1 for demonstrations, which nobody drew at the rollouts' temperature."""
            # a process without a row keeps step with the others by a pass over none of its update's
            shown = any(self._cut_last.demonstration[i] for i in batch.rows if i < len(self._cut_last.rows))
            return 1.0 if shown else float(super()._temperature_of(batch))

        def _run(self, model: Any, update: Update) -> Any:
            assert isinstance(update, JointUpdate)  # this class makes no other
            if PAIRS in update.counts_of:
                self._weigh_pairs(update)
            return super()._run(model, update)

        def _weigh_pairs(self, update: JointUpdate) -> None:
            """Each rollout's coefficient in the loss over pairs, and their number over all processes."""
            self._fill([update], "present")
            groups: dict[int, list[int]] = {}
            for i in update.run:
                if PAIRS in update.terms[i]:
                    groups.setdefault(update.rows[i].group, []).append(i)
            update.pair_weights = [0.0] * len(update.rows)
            value, count, paired = 0.0, 0, 0
            for rows in groups.values():
                logs = [float(update.present[i].double().sum()) for i in rows]
                if self.phase.method.needs_reference:
                    logs = [log - float(update.reference[i].double().sum()) for log, i in zip(logs, rows, strict=True)]
                weights, of_group, pairs = self.phase.method.pairs(logs, [update.correct[i] for i in rows])
                divisor = pairs if update.shares else 1  # where problems weigh the same, a mean over each one's pairs
                for i, weight in zip(rows, weights, strict=True):
                    update.pair_weights[i] = weight / max(1, divisor)
                value, count, paired = value + of_group, count + pairs, paired + (pairs > 0)
            parts = gather_object([(value, count, paired)])
            total, every, paired = (sum(part[k] for part in parts) for k in range(3))
            members = float(max(1, paired if update.shares else every))
            update.counts_of[PAIRS] = BatchCounts(members, members)
            self._log("gal", total / max(1, every))
            self._log("pairs", every)

        def _losses(self, update: Update, batch: Batch, scores: TokenScores, router: float) -> Any:
            assert isinstance(update, JointUpdate)  # this class makes no other
            shown = of_tokens([float(d) for d in update.demonstration], batch, scores.logp)
            given = tokens_before(batch.row, batch.lengths) < of_tokens(update.given, batch, scores.logp)
            if all(update.demonstration):  # nothing was drawn: there is no policy loss, and no KL, of it
                loss, seen = torch.zeros_like(scores.logp), {"entropy": (scores.entropy, torch.ones_like(shown))}
            else:
                loss, _, seen = self._token_losses(update, batch, scores, (1 - shown) * ~given)
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
                progress=self._progress(),
                given=given,
                pair_weight=of_tokens(update.pair_weights or [0.0] * len(update.rows), batch, scores.logp),
            )
            losses = self.phase.method.terms(view)
            taken = torch.zeros_like(given)
            ends = [0, *itertools.accumulate(batch.lengths)]
            for start, i in zip(ends, batch.rows, strict=False):
                taken[[start + place for place in update.taken[i]]] = True
            counted = ~given | taken
            membership = {
                name: counted & (of_tokens([float(name in terms) for terms in update.terms], batch, scores.logp) > 0)
                for name in losses
            }
            total = reduce(
                losses,
                membership,
                update.counts_of,
                of_tokens(update.tokens(), batch, scores.logp),
                loss=self.phase.loss,
                shares=update.shares,
                max_new_tokens=self.phase.max_new_tokens,
            )
            seen["demonstration_nll"] = (-scores.logp, shown)
            if router:
                total = total + router * scores.router_loss * len(batch.rows) / max(update.counts.sequences, 1.0)
            return total, {name: pair for name, pair in seen.items() if float(pair[1].sum())}

        def _token_losses(self, update: Update, batch: Batch, scores: TokenScores, drawn: Any) -> Any:
            """See :func:`~dereason.training.policy.token_losses`."""
            return token_losses(update, batch, scores, self.phase, drawn=drawn)

        def _save_checkpoint(self, model: Any, trial: Any) -> None:
            super()._save_checkpoint(model, trial)
            if self.args.should_save and self.waiting is not None:
                self.waiting.save(Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}")

    return JointTrainer
