"""Rollouts by vLLM, through TRL: which of its arguments our fields become."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from dereason.settings import Settings


class VllmRollouts(Settings):
    """How an RL phase reaches vLLM."""

    memory: float = Field(default=0.3, gt=0, le=1)
    """Share of the GPU's memory that vLLM takes where it runs in the training process."""
    max_length: int | None = Field(default=None, gt=0)
    """Longest prompt + response in tokens that vLLM makes room for; null takes the model's own limit."""
    server: str = "http://localhost:8000"
    """Base address of the server (`trl vllm-serve`)."""
    tensor_parallel: int = Field(default=1, gt=0)
    """Processes that share one copy of the model where vLLM runs in the training processes."""

    def arguments(self, rollouts: str) -> dict[str, Any]:
        """Arguments of TRL's ``GRPOConfig``; empty where vLLM draws no rollouts."""
        if not rollouts.startswith("vllm"):
            return {}
        shared = {"use_vllm": True, "vllm_importance_sampling_correction": False}  # our loss corrects
        if rollouts == "vllm-server":
            return shared | {"vllm_mode": "server", "vllm_server_base_url": self.server}
        return shared | {
            "vllm_mode": "colocate",
            "vllm_gpu_memory_utilization": self.memory,
            "vllm_max_model_length": self.max_length,
            "vllm_tensor_parallel_size": self.tensor_parallel,
        }
