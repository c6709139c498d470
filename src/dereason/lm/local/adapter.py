"""A folder that holds a low-rank adapter beside its base: what it stands on, and the two made one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dereason.errors import DereasonError
from dereason.lm.local.files import unreadable

if TYPE_CHECKING:
    from dereason.lm.local.model import ModelSettings

CONFIG = "adapter_config.json"
BASE = "base_model_name_or_path"


def adapter_base(settings: ModelSettings) -> ModelSettings | None:
    """The model that an adapter's folder stands on, in float32; None where the name is no such folder.

    The base may be a hub id, a folder of whole weights, or a folder that holds an adapter again.

    Raises:
        DereasonError: the folder names no base, or one that is not there, or adapters stand on each other in a circle.
    """
    found = _base(settings.name)
    if found is None:
        return None
    passed, below = [os.path.realpath(settings.name)], found
    while (further := _base(below["name"])) is not None:
        if (folder := os.path.realpath(below["name"])) in passed:
            raise DereasonError(
                f"{settings.name}: its {CONFIG} leads back to the same folder", "name the adapter's base there"
            )
        passed.append(folder)
        below = further
    return settings.model_copy(update=found | {"dtype": "float32"})


def _base(name: str) -> dict[str, Any] | None:
    """Name and revision of what an adapter's folder stands on."""
    path = os.path.join(name, CONFIG)
    if not os.path.isfile(path):
        return None
    try:
        config = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as exc:
        raise DereasonError(f"{path}: cannot be read as JSON: {exc}", "write the adapter again") from exc
    base, revision = (config.get(k) if isinstance(config, dict) else None for k in (BASE, "revision"))
    if not isinstance(base, str) or not base or (os.path.isabs(base) and not os.path.isdir(base)):
        raise DereasonError(
            f"{path}: {BASE} is {base!r}, and there is no such model",
            "write there where the adapter's base is now, or train with adapter.merge=true",
        )
    if revision is not None and not isinstance(revision, str):
        raise DereasonError(f"{path}: revision is {revision!r}", "write a commit, tag or branch there, or null")
    return {"name": base, "revision": revision}


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
