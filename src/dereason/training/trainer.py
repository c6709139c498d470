"""TRL's ``GRPOTrainer`` with our rollouts, advantages, loss and update; what is left of TRL's is the frame.

A generation: problems (replaced where they would teach nothing, :mod:`~dereason.training.selection`), rollouts from the
in-process engine (or from TRL: transformers, vLLM), rewards, advantages. Its groups are dealt out to one or several
updates, each one optimiser step (:mod:`~dereason.training.update`).

Where this differs from TRL's: a rollout whose verdict is ``error`` leaves mean, standard deviation, loss **and**
normaliser, where TRL keeps it in the normaliser; the normaliser is the optimiser step's own count, where TRL takes the
generation's average; rows without gradient are never run, so that entropy and clip share are those of rows that were.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dereason.lm.endings import reply_text
from dereason.lm.local.engine import decode
from dereason.lm.local.forward import TokenScores, attention_pair_cost, can_share_prompts, score_tokens
from dereason.lm.local.packing import Batch
from dereason.lm.local.sampling import Drawn, filtered_logps
from dereason.lm.rendering import chat_ids
from dereason.training.continuations import continue_prefixes
from dereason.training.losses import BatchCounts, group_advantages
from dereason.training.policy import Group, Update, make_update, policy_loss
from dereason.training.rewards.verifier_free import splice_reference
from dereason.training.update import EpochBatches, MicroBatch, make_loader, micro_batches, run_step
from dereason.training.watch import Watched

SELECTION_FILE = "selection.json"
_logger = logging.getLogger(__name__)


def make_trainer_class() -> Any:
    """The class (made here: importing TRL takes seconds)."""
    import torch
    from accelerate.utils import gather_object
    from trl import GRPOTrainer

    from dereason.lm.local.working import WorkingCopy

    class RLTrainer(Watched, GRPOTrainer):  # type: ignore[misc,unused-ignore]
        """See the module's docstring.

        Attributes set by :func:`dereason.training.rl.run_rl`: ``phase`` (the RL settings), ``rollouts`` (the
        reward function, which judges and keeps every completion), ``selection``, ``problems`` (id -> row) and
        ``twins`` (id -> what tells it apart from problems with the same text).
        """

        phase: Any
        rollouts: Any
        selection: Any = None
        problems: dict[str, dict[str, Any]]
        twins: dict[str, int] = {}
        _head: Any = None
        _copy: Any = None
        _pair_cost: float | None = None
        _sums: dict[str, Any]
        _logs_of_step: dict[str, list[tuple[float, int]]]

        # -- data ------------------------------------------------------------------------------------------------

        def get_train_dataloader(self) -> Any:
            """Each generation's problems, once for each of its updates; the first one's are used."""
            batches = EpochBatches(
                len(self.train_dataset),
                self.phase.prompts_per_generation,
                seed=self.args.seed,
                repeats=self.phase.updates_per_generation * self.phase.iterations,
                drop_last=True,
            )
            return make_loader(self.train_dataset, batches)

        # -- generation ------------------------------------------------------------------------------------------

        def _generate_single_turn(
            self, prompt_ids: Any, images: Any, multimodal_fields: Any, num_generations: int, *args: Any, **kw: Any
        ) -> Any:
            """Rollouts of prompts that stand ``num_generations`` times side by side, with log-probabilities."""
            if not self.phase.by_engine:
                drawn, logps, *more = super()._generate_single_turn(
                    prompt_ids, images, multimodal_fields, num_generations, *args, **kw
                )
                if logps is None and self.phase.filters:
                    logps = self._filtered_logps(prompt_ids, drawn)
                return drawn, logps, *more
            drawn = self._decode(
                [list(ids) for ids in prompt_ids[::num_generations]],
                num_generations,
                self.args.max_completion_length,
                self._twins,
            )
            flat = [sample for group in drawn for sample in group]
            return [list(s.ids) for s in flat], [list(s.logps) for s in flat]

        def _prompt_ids(self, problem: dict[str, Any]) -> list[int]:
            return chat_ids(self.processing_class, problem["prompt"], self.chat_template_kwargs, reply_follows=True)

        def draw_probe(
            self, problems: Sequence[dict[str, Any]], n: int, seed: int
        ) -> list[tuple[list[int], list[tuple[list[int], list[float] | None]]]]:
            """Responses of the policy as it is, by random numbers that training does not use (vLLM has one stream).

            Every process calls this, each with as many problems.

            Args:
                problems: their rows.
                n: responses to each.
                seed: of the random numbers.

            Returns:
                of each problem: its prompt's token ids, and of each response token ids and log-probabilities (None
                where the engine did not draw it).
            """
            prompts = [self._prompt_ids(problem) for problem in problems]
            device = self.accelerator.device
            with torch.random.fork_rng([device] if device.type == "cuda" else []):
                if self.phase.by_engine:
                    drawn = self._decode(prompts, n, self.args.max_completion_length, self._twins_of(problems), seed)
                    return [(p, [(s.ids, s.logps) for s in of]) for p, of in zip(prompts, drawn, strict=True)]
                torch.manual_seed(seed - self.accelerator.process_index)
                flat, _ = self._generate_single_turn([ids for ids in prompts for _ in range(n)], None, {}, n)
            return [(p, [(ids, None) for ids in flat[k * n : (k + 1) * n]]) for k, p in enumerate(prompts)]

        def _decode(
            self,
            prompts: list[list[int]],
            n: int,
            limits: int | list[list[int]],
            twin: list[int],
            seed: int | None = None,
        ) -> list[list[Drawn]]:
            """Continuations by the engine, [prompt][sample], each at most as long as its limit."""
            with self._sampler() as model:
                return decode(
                    model,
                    prompts,
                    n,
                    temperature=self.args.temperature,
                    max_new_tokens=limits,
                    stop_ids=self.eos_token_ids,
                    pad_id=self.processing_class.pad_token_id,
                    # streams belong to problem and index: the number of processes does not change what is drawn
                    seed=self.args.seed * 1_000_003 + self.state.global_step if seed is None else seed,
                    batch_size=self.phase.rollout_batch,
                    filters=self.phase,
                    twin=twin,
                )

        @contextmanager
        def _sampler(self) -> Iterator[Any]:
            """The policy for our engine to draw from, made anew in the outermost of these contexts.

            Where training computes in 16 bits by autocast, a copy in 16 bits; elsewhere the model itself.
            """
            model = self.accelerator.unwrap_model(self.model)
            dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.accelerator.mixed_precision)
            if not self.phase.by_engine:  # TRL's generation, with what it changes around it
                yield model
            elif dtype is None:
                training = model.training
                model.eval()
                yield model
                model.train(training)
            else:
                if self._copy is None:
                    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
                    self._copy = WorkingCopy(inner, dtype)
                with self._copy.filled() as copy:
                    yield copy

        def _twins_of(self, problems: Sequence[dict[str, Any]]) -> list[int]:
            return [self.twins.get(problem["problem_id"], 0) for problem in problems]

        def _filtered_logps(self, prompts: Sequence[list[int]], drawn: Sequence[list[int]]) -> list[list[float]]:
            """What ``generate`` does not tell: log-probabilities of the tokens when they were drawn, one row a pass."""
            model = self.accelerator.unwrap_model(self.model)
            training = model.training
            model.eval()
            found = []
            with torch.no_grad(), self.accelerator.autocast():
                for prompt, response in zip(prompts, drawn, strict=True):
                    ids = torch.tensor([[*prompt, *response]], device=self.accelerator.device)
                    logits = model(input_ids=ids).logits[0, len(prompt) - 1 : -1]
                    tokens = ids[0, len(prompt) :]
                    found.append(filtered_logps(logits, tokens, self.args.temperature, self.phase).tolist())
            model.train(training)
            return found

        def _draw_groups(
            self, problems: Sequence[dict[str, Any]], prefixes: Sequence[Sequence[Sequence[int]]] | None = None
        ) -> list[Group]:
            """Rollouts and rewards of some problems; every process calls this, also with none.

            Args:
                problems: their rows.
                prefixes: token ids that each rollout continues, [problem][rollout]; None: all begin at the prompt.
            """
            size = self.num_generations
            prompts = [self._prompt_ids(p) for p in problems]
            many = [ids for ids in prompts for _ in range(size)]
            given = [len(prefix) for of_problem in prefixes or () for prefix in of_problem] or [0] * len(many)
            logps: list[list[float]] | None
            if prefixes is not None and any(given):
                twin = self._twins_of(problems)
                drawn, logps = continue_prefixes(
                    lambda heads, n, limits, places: self._decode(heads, n, limits, [twin[k] for k in places]),
                    prompts,
                    prefixes,
                    self.args.max_completion_length,
                )
            else:
                self._twins = self._twins_of(problems)
                drawn, logps = self._generate_single_turn(many, None, {}, size) if many else ([], None)
            cut = [ids[-1] not in self.eos_token_ids for ids in drawn]
            responses, tails = drawn, [0] * len(drawn)
            if self.phase.verifree:
                references = [p["answer"] for p in problems for _ in range(size)]
                responses, tails = splice_reference(self.processing_class, drawn, references)
                logps = None
            columns = {key: [p[key] for p in problems for _ in range(size)] for key in self._columns}
            texts = [reply_text(self.processing_class, ids, self.eos_token_ids) for ids in drawn]
            rewards = self.reward_funcs[0](
                prompts=[p["prompt"] for p in problems for _ in range(size)],
                completions=[[{"role": "assistant", "content": text}] for text in texts],
                completion_ids=drawn,
                prompt_ids=many,
                given=given,
                trainer_state=self.state,
                log_metric=lambda name, value: self._logs_of_step.setdefault(name, []).append((value, len(drawn))),
                **columns,
            )
            values = [math.nan if r is None else float(r) for r in rewards]
            self._generated += sum(map(len, drawn)) - sum(given)
            correct = [None if math.isnan(r) else c for r, c in zip(values, self.rollouts.correct, strict=True)]
            return [
                Group(
                    problems[k]["problem_id"],
                    prompts[k],
                    responses[at],
                    tails[at],
                    cut[at],
                    [[math.nan if v is None else v for v in row] for row in logps[at]] if logps is not None else None,
                    values[at],
                    correct[at],
                    self.rollouts.mixed[k],
                    given[at],
                )
                for k in range(len(problems))
                for at in [slice(k * size, (k + 1) * size)]
            ]

        def _draw(self, batch: Sequence[dict[str, Any]]) -> list[Update]:
            """One generation: its groups on this process, dealt out to updates."""
            self._logs_of_step, self._generated = {}, 0
            self._columns = [key for key in batch[0] if key != "prompt"]
            step, world, rank = self.state.global_step, self.accelerator.num_processes, self.accelerator.process_index
            chosen = list(batch)
            if self.phase.bands is not None:
                ids = self.selection.choose([p["problem_id"] for p in batch], step)
                chosen = [self.problems[i] for i in ids]
            share = len(chosen) // world
            first = rank * share
            with self._sampler():
                groups = self._draw_groups(chosen[first : first + share])
                if self.phase.redraws is not None:
                    self._replace_flat(groups, {p["problem_id"] for p in chosen}, first, step)
            if self.selection is not None:
                self.selection.observe(step, self.rollouts.finish(step, self._log))
                if self.phase.bands is not None:
                    self._log("resting_problems", self.selection.share_resting(step + 1))
            self._log_generation()
            return self._updates(groups, first)

        def _replace_flat(self, groups: list[Group], taken: set[str], first: int, step: int) -> None:
            """Dynamic sampling: other problems in the places of groups that are not mixed, up to a bound."""
            draws = 1
            while True:
                flat = gather_object([first + k for k, g in enumerate(groups) if not g.mixed])
                if not flat or draws == self.phase.redraws.max_draws:
                    break
                further = self.selection.more(taken, len(flat), step)
                if not further:
                    break
                taken.update(further)
                draws += 1
                mine = [
                    (place - first, problem)
                    for place, problem in zip(flat, further, strict=False)
                    if first <= place < first + len(groups)
                ]
                drawn = self._draw_groups([self.problems[problem] for _, problem in mine])
                for (place, _), group in zip(mine, drawn, strict=True):
                    if group.mixed:
                        groups[place] = group
            self._log("draws", draws)
            self._log("unfilled_groups", len(flat) / (len(groups) * self.accelerator.num_processes))

        def _log_generation(self) -> None:
            logs = gather_object([self._logs_of_step])
            for name in dict.fromkeys(name for part in logs for name in part):
                values = [v for part in logs for v in part.get(name, [])]
                weight = sum(rows for _, rows in values)
                self._log(name, sum(value * rows for value, rows in values) / max(1, weight))
            self._log("generated_tokens", sum(gather_object([self._generated])))

        # -- rows ------------------------------------------------------------------------------------------------

        def _updates(self, groups: Sequence[Group], first: int) -> list[Update]:
            phase, size = self.phase, self.num_generations
            every = torch.tensor(gather_object([r for g in groups for r in g.rewards]), dtype=torch.float32)
            if every.isfinite().any():
                self._log("reward", float(every.nanmean()))
                spread = every.view(-1, size)
                known = spread[(~spread.isnan()).sum(1) > 1]
                if len(known):
                    centred = known - known.nanmean(1, keepdim=True)
                    n = (~known.isnan()).sum(1)
                    self._log("reward_std", float(((centred**2).nansum(1) / (n - 1)).sqrt().mean()))
            advantages = self._advantages(groups)
            signal = list(map(any, advantages))
            if phase.verifree:  # whose reward is the weight of a loss of its own
                signal = [
                    a or bool(group.any()) for a, group in zip(signal, every.view(-1, size).nan_to_num(), strict=True)
                ]
            self._log("signal_groups", sum(signal) / len(signal))
            updates = []
            for number in range(phase.updates_per_generation):
                # by place in the generation, so that the number of processes does not change what an update holds
                mine = [k for k in range(len(groups)) if (first + k) % phase.updates_per_generation == number]
                places = [first + k for k in mine]
                updates.append(
                    self._make_update([groups[k] for k in mine], places, [advantages[place] for place in places])
                )
            if phase.updates_per_generation * phase.iterations > 1:
                self._fill(updates, "old")
            if phase.needs_reference:
                self._fill(updates, "reference")
            return updates

        def _advantages(self, groups: Sequence[Group]) -> list[list[float]]:
            """Of all groups of the generation, on every process."""
            every = torch.tensor(gather_object([r for g in groups for r in g.rewards]), dtype=torch.float32)
            return self._advantages_of(every, self.num_generations)

        def _advantages_of(self, rewards: Any, size: int) -> list[list[float]]:
            scale, leave_one_out = self.phase.scale_rewards, self.phase.leave_one_out
            flat = group_advantages(rewards, size, scale=scale, leave_one_out=leave_one_out)
            return list(flat.view(-1, size).tolist())

        def _make_update(
            self, groups: Sequence[Group], places: Sequence[int], advantages: Sequence[Sequence[float]]
        ) -> Update:
            update = make_update(groups, places, advantages, self.phase, router=self.aux_loss_enabled)
            update.counts = BatchCounts(*map(sum, zip(*gather_object([update.totals()]), strict=True)))
            return update

        # -- update ----------------------------------------------------------------------------------------------

        def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
            """One optimiser step, with the rollouts drawn first where they are due."""
            if self._head is None:
                self._examine_model()
            model.train()
            updates = self.phase.updates_per_generation
            at = self._step % (updates * self.phase.iterations)
            if at == 0:  # checkpoints are made here only, so that a resumed phase begins with a generation
                self._due = self._draw(inputs)
            self._step += 1
            self._sums = {}
            self._widest = 0.0
            loss = self._run(model, self._due[at % updates])
            self._log_sums()
            return loss

        def _run(self, model: Any, update: Update) -> Any:
            """The gradient of one optimiser step, into the parameters' ``grad``; returns the loss."""
            batches = self._cut(update)
            self._log("trained_tokens", sum(gather_object([sum(b.tokens for b in batches)])))
            return run_step(self, model, batches, self._score, lambda b, s: self._loss(update, b, s))

        def _examine_model(self) -> None:
            inner = self.accelerator.unwrap_model(self.model)
            self._head = inner.get_output_embeddings()
            why = "its router's loss counts prompts" if self.aux_loss_enabled else can_share_prompts(inner, self._head)
            if why is None:
                self._pair_cost = attention_pair_cost(inner)
            else:
                _logger.warning("each rollout is run with its own copy of the prompt: %s", why)

        def _cut(self, update: Update, members: Sequence[int] | None = None) -> list[MicroBatch]:
            return micro_batches(
                self.accelerator,
                update.rows,
                update.run if members is None else members,
                micro_batch=self.phase.optimiser.micro_batch,
                pair_cost=self._pair_cost,
                pad_id=self.processing_class.pad_token_id,
                model=self.accelerator.unwrap_model(self.model),
            )

        def _temperature_of(self, batch: Batch) -> float:
            """What a micro-batch's logits are divided by."""
            return float(self.args.temperature)

        def _score(self, batch: Batch, model: Any = None, entropy: Any = None) -> TokenScores:
            return score_tokens(
                self.model_wrapped if model is None else model,
                self._head if model is None else model.get_output_embeddings(),
                batch,
                temperature=self._temperature_of(batch),
                entropy=entropy or ("gradient" if self.phase.entropy_bonus else "value"),
                router=self.aux_loss_enabled and model is None,
            )

        def _fill(self, updates: Sequence[Update], which: str) -> None:
            """Log-probabilities of the rows that are run, by the policy as it is or by the reference."""
            model = self.ref_model if which == "reference" else None
            off = which == "reference" and model is None  # the model without its adapter
            with torch.no_grad():
                for update in updates:
                    for each in self._cut(update):
                        batch = each.tensors(self.accelerator.device)
                        if off:
                            with self.accelerator.unwrap_model(self.model).disable_adapter():
                                scores = self._score(batch, entropy="none")
                        else:
                            scores = self._score(batch, model, "none")
                        if each.real:
                            parts = scores.logp.split(list(batch.lengths))
                            getattr(update, which).update(zip(batch.rows, parts, strict=True))

        def _loss(self, update: Update, batch: Batch, scores: TokenScores) -> Any:
            loss, seen = self._losses(
                update, batch, scores, self.router_aux_loss_coef if self.aux_loss_enabled else 0.0
            )
            for name, (value, mask) in seen.items():
                part = torch.stack([(value * mask).sum(), mask.sum()]).detach().double().cpu()
                self._sums[name] = self._sums.get(name, 0.0) + part
                if name == "sampler_gap":
                    self._widest = max(self._widest, float((value * mask).max()))
            return loss

        def _losses(self, update: Update, batch: Batch, scores: TokenScores, router: float) -> Any:
            """The loss of a micro-batch, and what is logged of it."""
            return policy_loss(update, batch, scores, self.phase, router_weight=router)

        # -- log -------------------------------------------------------------------------------------------------

        def _log(self, name: str, value: float, *, more: bool = False) -> None:
            """Log a number of the step; ``more`` adds it to the one that stands there."""
            values = self._metrics["train"][name]
            values.append(float(value) + (values.pop() if more else 0.0))

        def _log_sums(self) -> None:
            """Means over all processes; one that ran nothing has nothing to say."""
            parts = gather_object([({name: pair.tolist() for name, pair in self._sums.items()}, self._widest)])
            for name in dict.fromkeys(name for sums, _ in parts for name in sums):
                total, count = (sum(sums[name][k] for sums, _ in parts if name in sums) for k in (0, 1))
                if count:
                    self._log(name, total / count)
                    if name == "sampler_gap":
                        self._log("sampler_gap_max", max(widest for _, widest in parts))

        # -- state -----------------------------------------------------------------------------------------------

        def _save_checkpoint(self, model: Any, trial: Any) -> None:
            super()._save_checkpoint(model, trial)
            if self.selection is not None and self.args.should_save:
                folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
                (folder / SELECTION_FILE).write_text(json.dumps(self.selection.state_dict()))

    return RLTrainer
