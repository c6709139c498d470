"""How much memory a model takes where it generates, estimated before anything is loaded.

Everything here is arithmetic on a :class:`~dereason.lm.local.shape.Shape`. The estimate is of what torch's allocator
holds at its peak; the process itself, and what an allocator keeps without using it, come on top (:data:`PROCESS`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dereason.lm.local.model import ModelSettings
    from dereason.lm.local.shape import Shape

GIB = 2**30
PROCESS = {"cpu": 0.8 * GIB, "cuda": 0.7 * GIB, "mps": 0.8 * GIB}
"""Bytes that a process takes before there is a model in it, by device: Python and its libraries (measured), or the
context of a GPU and what its allocator holds in reserve (not measured)."""

BLOCK_CPU = 1 << 25
"""Logits that the head makes at once on a CPU, in numbers (128 MiB in float32): enough for its matrix products to be
fast."""
BLOCK_GPU = 1 / 64
"""The same on a GPU, as a share of its memory, in float32."""
HEAD_COPIES = 2.6
"""What a block of the head takes with its gradient and what lies between, in copies of its logits in float32."""
CACHE_GPU, CACHE_CPU = 0.7, 0.5
"""Share of the free memory that the engine's cache may take; the rest is for what a forward pass makes."""
ASSUMED_GPU = 24 * GIB
"""Memory of a GPU that is neither here nor described, where the size of the head's blocks depends on it."""
SPARE = 128
"""Columns that the engine's cache has beyond those in use."""
GROWTH = 1.25
"""By how much more than it needs the cache may grow at a time."""
DRAWN = 2.5
"""Copies of its logits in float32 that drawing a token for each place takes."""

_SIZES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Moment:
    """What is held at one time, in bytes by what it is.

    Attributes:
        name: ``update``, ``rollouts``, ``saving``, ``responses``, ``scores``.
        parts: bytes of one process on one device.
    """

    name: str
    parts: dict[str, float]

    @property
    def total(self) -> float:
        """Bytes in all."""
        return sum(self.parts.values())


@dataclass(frozen=True)
class Footprint:
    """What a step takes on one device.

    Attributes:
        moments: those at which the most is held.
        processes: how many processes share the device's memory: on a GPU each has one of its own.
        unknown: what is not in the figures, in words.
    """

    moments: list[Moment]
    processes: int = 1
    unknown: list[str] = field(default_factory=list)

    @property
    def peak(self) -> Moment:
        """The moment at which the most is held."""
        return max(self.moments, key=lambda moment: moment.total)

    def needed(self, device: str) -> float:
        """Bytes of the device that all its processes need, with what they take besides torch's tensors."""
        return self.processes * (self.peak.total + PROCESS.get(device, PROCESS["cpu"]))


def planned_device(settings: ModelSettings) -> str:
    """The device that settings name, whether or not it is here; ``auto`` is the one that is."""
    from dereason.lm.local.model import may_have_gpu, resolve_device

    if settings.device != "auto":
        return settings.device
    return resolve_device("auto") if may_have_gpu() else "cpu"


def element_bytes(dtype: str, device: str) -> int:
    """Bytes of a weight of ``model.dtype`` on a device."""
    return (4 if device == "cpu" else 2) if dtype == "auto" else _SIZES[dtype]


def device_bytes(settings: ModelSettings, device: str) -> float | None:
    """Memory of one device of that kind: as the settings say, or of the one here; None where there is none here."""
    if settings.device_memory is not None:
        return settings.device_memory * GIB
    if device != "cuda":
        return installed_bytes()
    import torch

    return float(torch.cuda.get_device_properties(0).total_memory) if torch.cuda.is_available() else None


def installed_bytes() -> float | None:
    """Memory that this process may use: the machine's, or less where a container bounds it."""
    try:
        there = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (ValueError, OSError):
        return None
    try:
        bound = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return there
    return min(there, float(bound)) if bound.isdecimal() else there


def generation(
    settings: ModelSettings, shape: Shape, device: str, *, places: int, prompt: int, new_tokens: int
) -> Moment:
    """What drawing responses takes.

    Args:
        settings: of the model.
        shape: its sizes.
        device: where it runs.
        places: responses decoded at once.
        prompt: tokens of the longest prompt.
        new_tokens: length limit of a response.
    """
    size, memory = element_bytes(settings.dtype, device), device_bytes(settings, device)
    if settings.backend == "vllm" or (settings.backend == "auto" and draws_by_vllm(device)):
        share = settings.vllm.memory or (0.4 if device == "cpu" else 0.9)
        return Moment("responses", {"vllm": share * (memory or 0.0)})
    held = {"weights": float(shape.parameters * size)}
    more = decoding(shape, device, size, memory, held, places=places, prompt=prompt, new_tokens=new_tokens)
    return Moment("responses", held | more)


def draws_by_vllm(device: str) -> bool:
    """Whether `auto` is vLLM on such a device."""
    return device == "cuda" and find_spec("vllm") is not None


def head_bytes(tokens: int, vocabulary: int, device: str, memory: float | None, *, whole: bool = False) -> float:
    """Bytes that the head takes at its peak, a block at a time, for the log-probabilities of some tokens.

    Args:
        tokens: how many of them one pass has.
        vocabulary: logits of each.
        device: where it runs.
        memory: of the device; None: not known.
        whole: whether all of them are made at once, as under ZeRO-3.
    """
    numbers = (memory or ASSUMED_GPU) * BLOCK_GPU / 4 if device == "cuda" else BLOCK_CPU
    at_once = max(1, int(numbers // max(1, vocabulary)))
    return HEAD_COPIES * 4 * vocabulary * (tokens if whole else min(tokens, at_once))


def decoding(
    shape: Shape,
    device: str,
    size: int,
    memory: float | None,
    held: Mapping[str, float],
    *,
    places: int,
    prompt: int,
    new_tokens: int,
) -> dict[str, float]:
    """What the engine takes besides what is held; see :func:`generation`. Its cache keeps to its share of the rest."""
    columns = prompt + GROWTH * new_tokens + SPARE
    cache = places * columns * shape.cache * size
    if memory is not None:
        free = max(0.0, memory - sum(held.values()) - PROCESS.get(device, 0.0))
        cache = min(cache, free * (CACHE_GPU if device == "cuda" else CACHE_CPU))
    parts = {
        "cache": cache,
        "logits": DRAWN * places * shape.vocabulary * 4,
    }
    if device == "cpu" and size == 4 and places * new_tokens >= 512:
        parts["rearranged weights"] = 4.0 * (shape.linear + shape.vocabulary * shape.hidden)
    return parts


def words(parts: Mapping[str, float]) -> str:
    """Parts in words, the largest first; what is less than a hundredth of all is left out."""
    total = sum(parts.values())
    shown = sorted(((b, n) for n, b in parts.items() if b >= 0.01 * total), reverse=True)
    return ", ".join(f"{name} {gib(size)}" for size, name in shown)


def gib(size: float) -> str:
    """Bytes as a number of GiB."""
    return f"{size / GIB:.1f}" if size >= 0.1 * GIB else f"{size / GIB:.2g}"
