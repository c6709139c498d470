"""A worker to which accelerate's CPUs are accelerators: FSDP2 itself runs over gloo, accelerate does not offer it.

Run by ``accelerate launch`` in place of ``-m dereason.training.worker``.
"""

import os
import sys
from pathlib import Path

import torch
from accelerate.state import PartialState
from accelerate.utils import DistributedType

from dereason.lm.local import head
from dereason.training import worker


def _gloo(self: object, cpu: bool = False, sagemaker_dp: bool = False, backend: str | None = None) -> object:
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo")
    return "gloo", DistributedType.MULTI_GPU


if __name__ == "__main__":
    os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
    PartialState._prepare_backend = _gloo
    head.BLOCK_CPU = 1 << 20  # a score of tokens: blocks are run again in backward, on sharded weights
    if worker.main(Path(sys.argv[1])):
        os._exit(1)
