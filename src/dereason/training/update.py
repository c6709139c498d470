"""One optimiser step: forward and backward of all its micro-batches, on every process.

To transformers' trainer a step is one batch (its accumulation is 1): how rows are cut into micro-batches is decided
here, when their lengths are known, and the loss is divided by counts over all micro-batches and processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dereason.lm.local.packing import Batch, Row, Segment, make_batch, plan_micro_batches
from dereason.lm.local.rope import rope_edge

if TYPE_CHECKING:
    from torch import Tensor

    from dereason.lm.local.forward import TokenScores


CPU_TOKENS = 512
"""Padded tokens of a micro-batch of several segments on a CPU. More at once is slower there: what a layer makes no
longer fits the caches (``python benchmarks/sft_step.py --tokens 4096``)."""


class EpochBatches:
    """Batch sampler: each epoch's order made of seed and epoch, so that a resumed phase sees what it would have seen.

    Every process gets the whole batch and takes its share itself, so that the number of processes does not change
    which items a step holds.
    """

    def __init__(self, size: int, batch: int, *, seed: int, repeats: int = 1, drop_last: bool = False) -> None:
        """Batches of ``batch`` of ``size`` items, each batch given ``repeats`` times in a row."""
        self.size, self.batch, self.seed, self.repeats, self.drop_last = size, batch, seed, repeats, drop_last
        self.epoch = 0
        self.batch_sampler = self  # where transformers' trainer looks for something to tell the epoch

    def set_epoch(self, epoch: int) -> None:
        """Called by transformers' trainer before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        whole, rest = divmod(self.size, self.batch)
        return (whole + bool(rest and not self.drop_last)) * self.repeats

    def __iter__(self) -> Iterator[list[int]]:
        import numpy as np

        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.size).tolist()
        for start in range(0, len(self) // self.repeats * self.batch, self.batch):
            for _ in range(self.repeats):
                yield order[start : start + self.batch]


def make_loader(dataset: Any, batches: EpochBatches) -> Any:
    """A data loader that hands over each batch as a list of rows."""
    from torch.utils.data import DataLoader

    return DataLoader(dataset, batch_sampler=batches, collate_fn=list)


@dataclass(frozen=True)
class MicroBatch:
    """One forward and backward pass of a step; its tensors are made when it is run.

    Attributes:
        rows: the rows that ``segments`` are about.
        segments: what is run together.
        real: False for a pass without loss, which only keeps step with the other processes.
        pad_id: token that fills up.
    """

    rows: Sequence[Row]
    segments: Sequence[Segment]
    real: bool
    pad_id: int

    @property
    def tokens(self) -> int:
        """Input tokens, padding left out; 0 for a pass without loss."""
        return sum(s.length for s in self.segments) if self.real else 0

    def tensors(self, device: Any) -> Batch:
        """See :func:`~dereason.lm.local.packing.make_batch`."""
        return make_batch(self.rows, self.segments, pad_id=self.pad_id, device=device)


def micro_batches(
    accelerator: Any,
    rows: Sequence[Row],
    members: Sequence[int],
    *,
    micro_batch: int,
    pair_cost: float | None,
    pad_id: int,
    model: Any,
) -> list[MicroBatch]:
    """The step's micro-batches on this process, at least one.

    Every process must make as many passes as the others (sharded models gather weights in each, and the last one
    carries the gradients): a process with fewer runs its first row again, without loss. A step in which no row has a
    gradient is such a pass too, so that it is taken: moments decay, weight decay acts.

    Args:
        accelerator: of the trainer.
        rows: this process's rows.
        members: those that are run.
        micro_batch: see :func:`~dereason.lm.local.packing.plan_micro_batches`.
        pair_cost: the same.
        pad_id: token that fills up.
        model: the unwrapped model, whose rotary positions may keep rows apart.
    """
    longest = max((len(row.prompt) + len(row.response) for row in rows), default=0)
    edge = rope_edge(model, longest)
    limit = CPU_TOKENS if accelerator.device.type == "cpu" else None
    plan = plan_micro_batches(rows, members, micro_batch=micro_batch, pair_cost=pair_cost, tokens=limit, edge=edge)
    needed = max(1, len(plan))
    if accelerator.num_processes > 1:
        from accelerate.utils import gather_object

        needed = max(gather_object([needed]))
    filler = Row(rows[0].prompt, rows[0].response) if rows else Row([pad_id], [pad_id])
    spare = [Segment((0,), len(filler.prompt) + len(filler.response), len(filler.response))]
    idle = [MicroBatch([filler], spare, False, pad_id)] * (needed - len(plan))
    return idle + [MicroBatch(rows, segments, True, pad_id) for segments in plan]


def run_step(
    trainer: Any,
    model: Any,
    batches: Sequence[MicroBatch],
    score_of: Callable[[Batch], TokenScores],
    loss_of: Callable[[Batch, TokenScores], Tensor],
) -> Any:
    """Forward and backward of every micro-batch; gradients are exchanged at the last.

    Args:
        trainer: transformers' trainer.
        model: as the trainer calls it.
        batches: of :func:`micro_batches`.
        score_of: the forward pass of a micro-batch.
        loss_of: this micro-batch's part of the loss of all processes; gradients are averaged over processes, which is
            made good here.

    Returns:
        this process's part of the loss times the number of processes, a detached scalar: the mean over processes is
        the loss of the step.
    """
    import torch
    from accelerate.utils import DistributedType

    accelerator = trainer.accelerator
    options = {"scale_wrt_gas": False} if accelerator.distributed_type == DistributedType.DEEPSPEED else {}
    total = torch.zeros((), device=accelerator.device)
    for number, each in enumerate(batches, 1):
        last = number == len(batches)
        accelerator.gradient_state._set_sync_gradients(last)
        # FSDP would keep whole gradients on every process until they are exchanged
        together = last or trainer.is_fsdp_enabled
        with nullcontext() if together else accelerator.no_sync(model):
            batch = each.tensors(accelerator.device)
            scores = score_of(batch)
            loss = loss_of(batch, scores) * accelerator.num_processes if each.real else scores.logp.sum() * 0.0
            accelerator.backward(loss, **options)
        total += loss.detach().to(total.dtype)
    return total
