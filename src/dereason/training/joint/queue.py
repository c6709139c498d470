"""SFT updates besides those of RL: demonstrations that wait, and an optimiser of their own.

For ReLIFT, and DYPO as released (:class:`~dereason.training.joint.frame.Queue`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dereason.errors import DereasonError
from dereason.training.joint.frame import Queue

WAITING_FILE = "waiting.json"
MOMENTS_FILE = "sft_optimizer.pt"


class Waiting:
    """The demonstrations that wait, newest first, and the AdamW that learns from them.

    Attributes:
        problems: ids of the problems that wait.
    """

    def __init__(self, trainer: Any, settings: Queue, checkpoint: Path | None = None) -> None:
        """Begin, or go on from a checkpoint.

        Raises:
            DereasonError: the weights are spread over processes.
        """
        if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
            raise DereasonError(
                f"method {trainer.phase.method.name} has a second optimiser, which FSDP and DeepSpeed do not share out",
                "set launch.config: ddp, or take another method",
            )
        self.trainer, self.settings = trainer, settings
        self.problems: list[str] = json.loads((checkpoint / WAITING_FILE).read_text()) if checkpoint else []
        self.moments = checkpoint / MOMENTS_FILE if checkpoint and (checkpoint / MOMENTS_FILE).exists() else None
        self._optimiser: Any = None

    def join(self, problems: Sequence[str]) -> None:
        """Problems join; one that waits stays where it is."""
        self.problems = [*(p for p in dict.fromkeys(problems) if p not in self.problems), *self.problems]

    def leave(self) -> list[str]:
        """The problems of an update, which no longer wait; none where too few do."""
        if len(self.problems) < self.settings.batch:
            return []
        chosen, self.problems = self.problems[: self.settings.batch], self.problems[self.settings.batch :]
        return chosen

    @property
    def optimiser(self) -> Any:
        """The optimiser; made when it is first asked for."""
        if self._optimiser is None:
            import torch

            trainer = self.trainer
            make, options = trainer.get_optimizer_cls_and_kwargs(trainer.args, trainer.model)
            decays = set(trainer.get_decay_parameter_names(trainer.model))
            trained = [(name, p) for name, p in trainer.model.named_parameters() if p.requires_grad]
            groups = [
                {
                    "params": [p for name, p in trained if (name in decays) == decay],
                    "weight_decay": trainer.args.weight_decay if decay else 0.0,
                }
                for decay in (True, False)
            ]
            options = {**options, "lr": self.settings.learning_rate}
            self._optimiser = make([g for g in groups if g["params"]], **options)
            if self.moments is not None:
                self._optimiser.load_state_dict(torch.load(self.moments, weights_only=True))
        return self._optimiser

    def step(self) -> float:
        """One step along the parameters' gradients, which are clipped, and cleared; returns their norm before that."""
        members = [p for group in self.optimiser.param_groups for p in group["params"]]
        norm = self.trainer.accelerator.clip_grad_norm_(members, self.settings.max_grad_norm)
        self.optimiser.step()
        self.optimiser.zero_grad()
        return float(norm)

    def save(self, folder: Path) -> None:
        """Into a checkpoint."""
        import torch

        (folder / WAITING_FILE).write_text(json.dumps(self.problems))
        if self._optimiser is not None or self.moments is not None:
            torch.save(self.optimiser.state_dict(), folder / MOMENTS_FILE)
