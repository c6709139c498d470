"""The joint trainer with three sets of weights, for :mod:`~dereason.training.joint.bridge`.

The model is peft's, its own weights trained too. The copy θ' is a list of tensors beside it: to compute with it, its
storage and the model's are exchanged, so that there is one network and no second forward function. It costs memory for
the copy, its gradient and its two moments: as much again as plain RL needs for weights, gradient and moments. It costs
time for a second forward and backward pass over the rollouts, at θ', and one over the demonstrations.

Rollouts and demonstrations never share a micro-batch, and both passes over the rollouts cut them alike: where θ' = θ
they compute the same numbers, and at λ = 1 their difference is zero, not rounding that Adam would blow up (a GPU whose
kernels sum in changing order leaves some).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dereason.errors import DereasonError
from dereason.lm.local.forward import TokenScores
from dereason.lm.local.packing import Batch
from dereason.training.joint.bridge import cooperative_gain, directions, shadow_loss
from dereason.training.joint.frame import SFT, JointUpdate
from dereason.training.joint.trainer import make_trainer_class as make_joint_class
from dereason.training.losses import kl_estimate, log_ratios
from dereason.training.policy import Update, of_tokens
from dereason.training.update import run_step

WEIGHTS_FILE = "bridge.safetensors"
"""In a checkpoint: the weights, which peft does not save beside the LoRA, and the copy."""


def make_trainer_class() -> Any:
    """The class (made here: importing TRL takes seconds)."""
    import torch
    from safetensors.torch import load_file, save_file

    class BridgeTrainer(make_joint_class()):  # type: ignore[misc,unused-ignore]
        """See the module's docstring.

        Attributes:
            theta: the model's own weights, by name.
            lora: those of the LoRA.
            shadow: the copy, in the order of ``theta``.
        """

        optimizer: Any

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            if self.accelerator.num_processes > 1 or self.is_fsdp_enabled or self.is_deepspeed_enabled:
                raise DereasonError(
                    "method bridge keeps a copy of the weights beside the model, which several processes (or FSDP, or "
                    "DeepSpeed) would have to share",
                    "set launch.processes=1",
                )
            named = dict(self.model.named_parameters())
            self.theta = {name: p for name, p in named.items() if "lora_" not in name}
            self.lora = [p for name, p in named.items() if "lora_" in name]
            self.shadow = [torch.nn.Parameter(p.detach().clone()) for p in self.theta.values()]
            self.model.beside = self.shadow
            self._at_shadow = False

        # -- the three sets ----------------------------------------------------------------------------------------

        def create_optimizer(self, model: Any = None) -> Any:
            """One optimiser whose groups are the sets; learning rates share the schedule."""
            if self.optimizer is None:
                make, options = self.get_optimizer_cls_and_kwargs(self.args, self.model)
                decays = set(self.get_decay_parameter_names(self.model))
                method, rate = self.phase.method, self.args.learning_rate
                named = list(self.model.named_parameters())
                sets = [
                    (list(self.theta), list(self.theta.values()), rate),
                    (list(self.theta), self.shadow, rate),
                    ([name for name, _ in named if "lora_" in name], self.lora, method.lora_learning_rate),
                ]
                groups = [
                    {
                        "params": [p for name, p in zip(names, members, strict=True) if (name in decays) == decay],
                        "weight_decay": self.args.weight_decay if decay else 0.0,
                        "lr": lr,
                    }
                    for names, members, lr in sets
                    for decay in (True, False)
                ]
                self.optimizer = make([g for g in groups if g["params"]], **options)
            return self.optimizer

        def _clip_grad_norm(self, model: Any) -> Any:
            """Each set is clipped by itself; returns the norm of all."""
            norms = [
                self.accelerator.clip_grad_norm_(members, self.args.max_grad_norm)
                for members in (list(self.theta.values()), self.shadow, self.lora)
            ]
            return torch.stack([torch.as_tensor(norm).cpu() for norm in norms]).norm()

        @contextmanager
        def _exchanged(self) -> Iterator[None]:
            """The model computes with the copy inside this context."""
            self._exchange()
            self._at_shadow = True
            try:
                yield
            finally:
                self._at_shadow = False
                self._exchange()

        def _exchange(self) -> None:
            for live, copy in zip(self.theta.values(), self.shadow, strict=True):
                live.data, copy.data = copy.data, live.data

        def _resync(self) -> None:
            """The copy starts again where the weights are, as they are being optimised."""
            for live, copy in zip(self.theta.values(), self.shadow, strict=True):
                copy.data.copy_(live.data)
                self.optimizer.state[copy] = {
                    name: value.clone() if torch.is_tensor(value) else value
                    for name, value in self.optimizer.state[live].items()
                }

        # -- a step ------------------------------------------------------------------------------------------------

        def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
            """One optimiser step."""
            for copy in self.shadow:  # transformers' trainer clears those of the model
                copy.grad = None
            return super().training_step(model, inputs, num_items_in_batch)

        def _run(self, model: Any, update: Update) -> Any:
            assert isinstance(update, JointUpdate)  # this class makes no other
            method, step = self.phase.method, self.state.global_step
            if method.resync_every and step and step % method.resync_every == 0:
                self._resync()
            weight = method.weight(self._progress()) if SFT in update.counts_of else 1.0
            drawn = self._cut(update, [i for i in update.run if not update.demonstration[i]])
            shown = self._cut(update, [i for i in update.run if update.demonstration[i]])
            self._drawn: dict[int, Any] = {}
            self._ratios: dict[int, float] = {}
            losses = []

            def gradient(sft: float, rl: float, at_shadow: bool) -> tuple[list[Any], list[Any]]:
                def part(batches: Any, share: float) -> Any:
                    return run_step(
                        self,
                        model,
                        batches,
                        lambda b: self._score(b, entropy="none" if at_shadow else None),
                        lambda b, s: share * self._loss(update, b, s),
                    )

                losses.append(part(drawn, rl))
                if sft:
                    losses.append(part(shown, sft))
                found = [p.grad for p in self.theta.values()]
                of_lora = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.lora]
                model.zero_grad()
                return found, of_lora

            def at(sft: float, rl: float, at_shadow: bool) -> tuple[list[Any], list[Any]]:
                if not at_shadow:
                    return gradient(sft, rl, False)
                with self._exchanged():
                    return gradient(sft, rl, True)

            model.zero_grad()
            theta, shadow, w = directions(at, weight)
            members = (*self.theta.values(), *self.shadow, *self.lora)
            for parameter, grad in zip(members, (*theta, *shadow, *w), strict=True):
                parameter.grad = grad
            tokens = 2 * sum(b.tokens for b in drawn) + sum(b.tokens for b in shown) * (weight < 1)
            self._log("trained_tokens", tokens)
            self._log("lambda", weight)
            self._log_gain(update)
            return sum(losses[:-1])  # the last is the copy's own

        def _token_losses(self, update: Update, batch: Batch, scores: TokenScores, drawn: Any) -> Any:
            if not self._at_shadow:
                parts = scores.logp.detach().split(list(batch.lengths))
                self._drawn.update(zip(batch.rows, parts, strict=True))
                return super()._token_losses(update, batch, scores, drawn)
            lengths = torch.tensor(batch.lengths, device=scores.logp.device, dtype=scores.logp.dtype)
            old = torch.cat([self._drawn[i] for i in batch.rows])
            ratio = log_ratios(scores.logp, old, batch.row, lengths, level=self.phase.ratio)
            advantage = of_tokens(update.advantages, batch, scores.logp)
            loss, weight = shadow_loss(ratio, advantage, cap=self.phase.method.ratio_cap)
            if self.phase.kl:
                reference = torch.cat([update.reference[i] for i in batch.rows])
                loss = loss + self.phase.kl * weight * kl_estimate(scores.logp, reference)
            for i, part in zip(batch.rows, (scores.logp.detach() - old).split(list(batch.lengths)), strict=True):
                self._ratios[i] = float(part.double().sum())
            return loss, drawn, {"shadow_capped": ((weight >= self.phase.method.ratio_cap).to(loss.dtype), drawn)}

        def _log_gain(self, update: JointUpdate) -> None:
            """A group whose rewards are equal has no gain; it is counted."""
            groups: dict[int, list[int]] = {}
            for i in self._ratios:
                groups.setdefault(update.rows[i].group, []).append(i)
            together = list(groups.values())
            gain, share = cooperative_gain(
                [[self._ratios[i] for i in rows] for rows in together],
                [[update.rewards[i] for i in rows] for rows in together],
            )
            rows = zip(update.rows, update.kept, update.demonstration, strict=True)
            judged = {row.group for row, kept, demonstration in rows if kept and not demonstration}
            self._log("gain", gain / max(1, len(judged)))
            self._log("gain_ess", share / len(together) if together else 1.0)

        # -- state -------------------------------------------------------------------------------------------------

        def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
            super()._save(output_dir, state_dict)
            held = {f"theta.{name}": p.data for name, p in self.theta.items()}
            held |= {f"shadow.{name}": p.data for name, p in zip(self.theta, self.shadow, strict=True)}
            save_file(held, Path(output_dir or self.args.output_dir) / WEIGHTS_FILE)

        def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            held = load_file(Path(resume_from_checkpoint) / WEIGHTS_FILE)
            for (name, live), copy in zip(self.theta.items(), self.shadow, strict=True):
                live.data.copy_(held[f"theta.{name}"])
                copy.data.copy_(held[f"shadow.{name}"])

    return BridgeTrainer
