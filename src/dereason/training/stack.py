"""Combinations of libraries and settings that are known to train wrongly, each with its reason, mend and source.

:func:`refusals` is pure: settings and versions in, reasons out. A phase calls :func:`check` before it loads anything,
in every process; ``dereason doctor`` shows the same list.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml
from packaging.version import Version

from dereason.errors import DereasonError

_FIXED = "0.19.0"


@dataclass(frozen=True)
class Refusal:
    """One known-bad combination that was found.

    Attributes:
        what: the combination.
        reason: what it does to training.
        mend: how to leave it.
        source: where this is known from.
    """

    what: str
    reason: str
    mend: str
    source: str


def refusals(deepspeed: Mapping[str, Any] | None, versions: Mapping[str, str]) -> list[Refusal]:
    """What is wrong with a stack.

    A phase computes the gradient of one optimiser step in several backward passes whatever its settings, so gradients
    are always accumulated.

    Args:
        deepspeed: a DeepSpeed configuration, None without DeepSpeed.
        versions: installed versions by package; DeepSpeed's decides.
    """
    found: list[Refusal] = []
    if deepspeed is None or "deepspeed" not in versions:
        return found
    zero = deepspeed.get("zero_optimization") or {}
    offload = zero.get("offload_optimizer") or {}
    on_cpu = bool(zero.get("cpu_offload")) or offload.get("device") == "cpu"
    if zero.get("stage") in (1, 2) and on_cpu and Version(versions["deepspeed"]) < Version(_FIXED):
        found.append(
            Refusal(
                f"DeepSpeed {versions['deepspeed']} with ZeRO-{zero['stage']} and the optimiser offloaded to the CPU",
                "with several backward passes for one optimiser step it drops the gradients of all but one of them, "
                "without a word",
                f"install deepspeed>={_FIXED.removesuffix('.0')}, or take ZeRO-3, or leave the optimiser on the GPU",
                "arXiv 2604.23747; DeepSpeed pull requests 7967 and 7981",
            )
        )
    return found


def check(deepspeed: Mapping[str, Any] | None = None) -> None:
    """Refuse to train on a known-bad stack.

    Args:
        deepspeed: a DeepSpeed configuration; None looks at what accelerate's launcher told this process.

    Raises:
        DereasonError: it is one; the message has the reason and the source.
    """
    found = refusals(launched() if deepspeed is None else deepspeed, installed())
    if found:
        first = found[0]
        raise DereasonError(f"{first.what}: {first.reason} ({first.source})", first.mend)


def installed() -> dict[str, str]:
    """Versions of the packages that :func:`refusals` looks at, where installed."""
    try:
        return {"deepspeed": version("deepspeed")}
    except PackageNotFoundError:
        return {}


def launched() -> dict[str, Any] | None:
    """DeepSpeed's configuration in a process that accelerate started with it, else None.

    Raises:
        DereasonError: the launcher named a configuration that cannot be read.
    """
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() != "true":
        return None
    return _configuration({})


def from_accelerate(file: Path) -> dict[str, Any] | None:
    """DeepSpeed's configuration by one of accelerate's YAML files, None where it does not use DeepSpeed.

    Raises:
        DereasonError: a file that cannot be read.
    """
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as exc:
        raise DereasonError(f"{file}: cannot be read as an accelerate configuration: {exc}", "mend it") from exc
    if not isinstance(config, dict) or config.get("distributed_type") != "DEEPSPEED":
        return None
    given = config.get("deepspeed_config") or {}
    names = {
        "zero_stage": "zero_stage",
        "offload_optimizer_device": "offload_optimizer_device",
        "deepspeed_config_file": "hf_ds_config",
    }
    return _configuration({theirs: given[name] for name, theirs in names.items() if name in given})


def _configuration(given: dict[str, Any]) -> dict[str, Any]:
    """As accelerate makes it of what is given, of its environment variables and of its defaults."""
    from accelerate.utils import DeepSpeedPlugin

    try:
        return dict(DeepSpeedPlugin(**given).deepspeed_config)
    except (OSError, ValueError) as exc:
        raise DereasonError(f"accelerate cannot read its DeepSpeed configuration: {exc}", "mend or name it") from exc
