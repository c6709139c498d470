"""A folder that holds a low-rank adapter beside its base: what it stands on, and the two made one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dereason.errors import DereasonError
from dereason.lm.local.files import unreadable

if TYPE_CHECKING:
    from dereason.lm.local.model import ModelSettings

CONFIG = "adapter_config.json"


def adapter_base(settings: ModelSettings) -> ModelSettings | None:
    """The model that an adapter's folder stands on, in float32; None where the name is no such folder.

    The base may be a hub id, a folder of whole weights, or a folder that holds an adapter again.

    Raises:
        DereasonError: the folder names no base, or one that is not there.
    """
    path = Path(settings.name) / CONFIG
    if not path.is_file():
        return None
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        name = config.get("base_model_name_or_path")
    except (ValueError, AttributeError) as exc:  # no JSON, no UTF-8, or no object
        raise DereasonError(
            f"{path} is no adapter's configuration: {exc}", "save or download the adapter again"
        ) from exc
    if not name or (Path(name).is_absolute() and not Path(name).is_dir()):
        raise DereasonError(
            f"{path}: base_model_name_or_path is {name!r}, and there is no such model",
            "write there where the adapter's base is now, or train with adapter.merge=true",
        )
    return settings.model_copy(update={"name": name, "revision": config.get("revision"), "dtype": "float32"})


def merge_adapter(weights: Any, settings: ModelSettings) -> Any:
    """The base's weights with the adapter in a folder added to them, and the generation config that stands there.

    Raises:
        DereasonError: the adapter's files are broken, or are no adapter to these weights.
    """
    from peft import PeftModel
    from transformers import GenerationConfig

    folder = Path(settings.name)
    try:
        model = PeftModel.from_pretrained(weights, str(folder)).merge_and_unload(safe_merge=True)
    except Exception as exc:  # what a library makes of files that it cannot use is of any type
        raise unreadable(settings, settings.name, exc) from exc
    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    return model.requires_grad_(True)  # peft froze it
