"""Rollouts by vLLM, through TRL: which of its arguments our fields become, and what TRL leaves to be set around it.

TRL starts the engine in the training process (colocate) or speaks to one elsewhere (server), and pushes the weights
before each generation. :meth:`VllmRollouts.colocated` holds all that we change for the first; the reasons stand there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import Field

from dereason.errors import DereasonError
from dereason.lm.local.model import ModelSettings, resolve_device, resolve_dtype
from dereason.lm.vllm import check_installed, contained, import_vllm, starting
from dereason.settings import Settings


class VllmRollouts(Settings):
    """How an RL phase reaches vLLM."""

    memory: float = Field(default=0.3, gt=0, le=1)
    """Share of the GPU's memory (without one: of the RAM) that vLLM takes where it runs in the training process."""
    max_length: int | None = Field(default=None, gt=0)
    """Longest prompt + response in tokens that vLLM makes room for; null takes the model's own limit."""
    eager: bool = False
    """Start in seconds, without compilation and CUDA graphs, and generate somewhat slower."""
    server: str = "http://localhost:8000"
    """Base address of the server."""
    tensor_parallel: int = Field(default=1, gt=0)
    """Processes that share one copy of the model where vLLM runs in the training processes."""

    def check(self, rollouts: str, device: str) -> None:
        """Refuse what cannot work before anything is loaded.

        Raises:
            DereasonError: vLLM is not installed, or a server is to get its weights from another device than a GPU.
        """
        if not rollouts.startswith("vllm"):
            return
        check_installed(f"rollouts: {rollouts}", "rollouts: engine")
        if rollouts == "vllm-server" and device != "cuda":
            raise DereasonError(
                f"rollouts: vllm-server sends the weights from GPU to GPU (NCCL), and the model is on {device}",
                "set rollouts: engine (or vllm-colocate)",
            )

    def arguments(self, rollouts: str, device: str) -> dict[str, Any]:
        """Arguments of TRL's ``GRPOConfig``; empty where vLLM draws no rollouts.

        On CUDA the engine sleeps between generations: its weights and cache leave the GPU to the update.
        """
        if not rollouts.startswith("vllm"):
            return {}
        shared = {"use_vllm": True, "vllm_importance_sampling_correction": False}  # our loss corrects
        if rollouts == "vllm-server":
            return shared | {"vllm_mode": "server", "vllm_server_base_url": self.server}
        return shared | {
            "vllm_mode": "colocate",
            "vllm_gpu_memory_utilization": self.memory,
            "vllm_max_model_length": self.max_length,
            "vllm_enable_sleep_mode": device == "cuda",
            "vllm_tensor_parallel_size": self.tensor_parallel,
        }

    @contextmanager
    def colocated(self, rollouts: str, model: ModelSettings) -> Iterator[None]:
        """Around making and running a trainer whose rollouts vLLM draws in this process; for others nothing is done.

        TRL 1.16 names no floating point type, and vLLM makes a float32 checkpoint bfloat16: the engine gets the type
        that the model has outside training. On a CPU vLLM packs weights once loaded and drops the originals, so that
        TRL's push fails (`'Parameter' object has no attribute 'weight_loader'`): they stay as they are. At the end the
        engine is stopped, and what TRL and vLLM left in the environment is undone.

        Raises:
            DereasonError: see :meth:`check`; or vLLM cannot be imported, or cannot serve the model.
        """
        device = resolve_device(model.device)
        self.check(rollouts, device)
        if rollouts != "vllm-colocate":
            yield
            return
        vllm = import_vllm()
        import torch
        from trl.generation import vllm_generation
        from vllm.model_executor.layers import utils as layers

        dtype = str(resolve_dtype(model.dtype, device)).removeprefix("torch.")
        engines: list[Any] = []

        def start(**arguments: Any) -> Any:
            pack = _keep_weight if device == "cpu" else layers.dispatch_cpu_unquantized_gemm
            with (
                starting(model.name, "rl.vllm", "rl.rollouts=engine"),
                _replaced(layers, "dispatch_cpu_unquantized_gemm", pack),
            ):
                engines.append(vllm.LLM(**arguments, dtype=dtype, enforce_eager=self.eager))
            return engines[-1]

        with contained(), _replaced(vllm_generation, "LLM", start):
            yield
            if engines and torch.distributed.get_world_size() == 1:  # more processes end with their phase
                engines[-1].llm_engine.engine_core.shutdown()


@contextmanager
def _replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


def _keep_weight(layer: Any, remove_weight: bool) -> None:
    """In place of vLLM's packing of a layer's weight for the CPU."""
    from torch.nn.functional import linear

    layer.cpu_linear = linear
