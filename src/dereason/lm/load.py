"""The model that settings name, by the backend that they name."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

from dereason.lm.api.model import ApiModel, check_endpoint
from dereason.lm.local.model import LocalModel, ModelSettings, check_attention, resolve_backend, resolve_device
from dereason.lm.vllm import VllmModel, check_installed


def check_model(settings: ModelSettings) -> str:
    """Refuse, before any work, a model whose device, backend, address or key is not there. Asks no network.

    Returns:
        the device that it will run on; ``endpoint`` where that is somebody else's.

    Raises:
        DereasonError: there is no such device, a package is not installed, or an endpoint's address or key is missing.
    """
    if settings.backend == "api":
        check_endpoint(settings)
        return "endpoint"
    check_attention(settings)
    if settings.backend == "vllm":
        check_installed("model.backend=vllm", "model.backend=local")
    return resolve_device(settings.device)


def load_model(
    settings: ModelSettings,
    chat_template_kwargs: dict[str, Any] | None = None,
    *,
    identity: str | None = None,
    store: Path | None = None,
    day: date | None = None,
) -> LocalModel | VllmModel | ApiModel:
    """Load a model for generation; see :class:`LocalModel`, :class:`~dereason.lm.vllm.VllmModel`, :class:`ApiModel`.

    Args:
        settings: which model.
        chat_template_kwargs: extra arguments of its chat template.
        identity: in place of the model's own (a trained model is named by the step that made it).
        store: folder where an endpoint's finished calls are kept; None keeps none. Other backends have no use for it.
        day: told to a chat template that prints today's date; None takes today, once. An endpoint has its own clock.
    """
    if settings.backend == "api":
        return ApiModel(settings, chat_template_kwargs, identity=identity, store=store)
    backend = VllmModel if resolve_backend(settings) == "vllm" else LocalModel
    return backend(settings, chat_template_kwargs, identity=identity, day=day)
