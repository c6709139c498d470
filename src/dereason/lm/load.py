"""The model that settings name, by the backend that they name."""

from __future__ import annotations

from typing import Any

from dereason.lm.local.model import LocalModel, ModelSettings, resolve_device
from dereason.lm.vllm import VllmModel, check_installed


def check_model(settings: ModelSettings) -> str:
    """Refuse, before any work, a model whose device or backend is not there.

    Returns:
        the device that it will run on.

    Raises:
        DereasonError: there is no such device, or vLLM is not installed.
    """
    if settings.backend == "vllm":
        check_installed("model.backend=vllm", "model.backend=local")
    return resolve_device(settings.device)


def load_model(
    settings: ModelSettings, chat_template_kwargs: dict[str, Any] | None = None, *, identity: str | None = None
) -> LocalModel | VllmModel:
    """Load a model for generation; see :class:`LocalModel` and :class:`~dereason.lm.vllm.VllmModel`."""
    backend = VllmModel if settings.backend == "vllm" else LocalModel
    return backend(settings, chat_template_kwargs, identity=identity)
