"""TRL's ``SFTTrainer`` with our update: no padding to speak of, logits only where there is loss.

The rows of an optimiser step are cut into micro-batches of similar length (:mod:`~dereason.lm.local.packing`), without
one row seeing another, and the loss is the mean over the response tokens of the whole step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dereason.lm.local.forward import TokenScores, score_tokens
from dereason.lm.local.packing import Batch, Row
from dereason.training.update import EpochBatches, make_loader, micro_batches, run_step
from dereason.training.watch import Watched


def make_trainer_class() -> Any:
    """The class (made here: importing TRL takes seconds)."""
    import torch
    from accelerate.utils import gather_object
    from trl import SFTTrainer

    class ResponseTrainer(Watched, SFTTrainer):  # type: ignore[misc,unused-ignore]
        """See the module's docstring.

        Attributes set by :func:`dereason.training.sft.run_sft`: ``phase`` (the SFT settings) and ``rows``, one for each
        item of the data set, which holds their numbers.
        """

        phase: Any
        rows: Sequence[Row]
        _head: Any = None

        def get_train_dataloader(self) -> Any:
            """The numbers of each step's rows, alike on every process."""
            return make_loader(self.train_dataset, EpochBatches(len(self.rows), self.phase.batch, seed=self.args.seed))

        def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
            """One optimiser step."""
            if self._head is None:
                self._head = self.accelerator.unwrap_model(self.model).get_output_embeddings()
            model.train()
            every = sorted(
                (self.rows[item["row"]] for item in inputs), key=lambda r: len(r.prompt) + len(r.response), reverse=True
            )
            rows = every[self.accelerator.process_index :: self.accelerator.num_processes]
            tokens = sum(len(row.response) for row in every)
            batches = micro_batches(
                self.accelerator,
                rows,
                range(len(rows)),
                micro_batch=self.phase.optimiser.micro_batch,
                pair_cost=None,
                pad_id=self.processing_class.pad_token_id,
                model=self.accelerator.unwrap_model(self.model),
            )
            sums = torch.zeros(2, dtype=torch.float64)

            def loss_of(batch: Batch, scores: TokenScores) -> Any:
                nonlocal sums
                sums += torch.stack([scores.entropy.sum(), scores.hits.sum()]).detach().double().cpu()
                loss = -scores.logp.sum() / tokens
                if self.aux_loss_enabled:
                    loss = loss + self.router_aux_loss_coef * scores.router_loss * len(batch.rows) / len(every)
                return loss

            loss = run_step(self, model, batches, self._score, loss_of)
            seen = gather_object([[*sums.tolist(), sum(b.tokens for b in batches)]])
            for k, (name, divisor) in enumerate(
                (("entropy", tokens), ("token_accuracy", tokens), ("trained_tokens", 1))
            ):
                self._metrics["train"][name].append(sum(part[k] for part in seen) / divisor)
            return loss

        def _score(self, batch: Batch) -> TokenScores:
            return score_tokens(
                self.model_wrapped, self._head, batch, entropy="value", hits=True, router=self.aux_loss_enabled
            )

    return ResponseTrainer
