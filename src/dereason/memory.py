"""Peak memory, of the whole process and of a part of its life.

Linux keeps one mark of the largest resident size, which ``getrusage`` reads too. Setting it back is what makes the
peak of a single optimiser step known; what it said before is remembered here, so that the process's own peak is not
lost. Where the system cannot set it back (macOS), the peak of a part is the process's so far.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from typing import Any

_earlier = 0


def peak_bytes() -> int:
    """Largest resident size of this process so far."""
    return max(_earlier, _mark())


def begin_interval() -> None:
    """From here on :func:`interval_peak_bytes` counts, on the CPU and on the present CUDA device."""
    global _earlier
    _earlier = peak_bytes()
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as handle:
            handle.write("5")  # proc(5): sets the peak resident size back to the present one
    except OSError:
        pass  # not Linux, or a system that forbids it
    if (cuda := _cuda()) is not None:
        cuda.reset_peak_memory_stats()


def interval_peak_bytes() -> int:
    """Peak since :func:`begin_interval`: of the CUDA device where torch has one in use, else resident memory."""
    cuda = _cuda()
    return _mark() if cuda is None else int(cuda.max_memory_allocated())


def available_bytes() -> float:
    """RAM that can be had without swapping; without an answer from the system, 4 GiB."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return 1024.0 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return 4.0 * (1 << 30)


def free_bytes(device: Any) -> float:
    """Memory that can still be had on a device: a CUDA GPU's, torch's own reserve included, else RAM."""
    if device.type != "cuda":
        return available_bytes()
    import torch

    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return float(torch.cuda.mem_get_info(device)[0] + kept)


def _mark() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _cuda() -> Any:
    """``torch.cuda`` where it is in use, else None."""
    torch = sys.modules.get("torch")  # never imported for this
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None
