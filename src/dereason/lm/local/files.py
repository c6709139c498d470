"""A model's files as users have them: read by transformers, and what is wrong with them said in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dereason.errors import DereasonError, disk_full, out_of_memory

if TYPE_CHECKING:
    from dereason.lm.local.model import ModelSettings

_LFS = b"version https://git-lfs"
_READ = {
    *("config.json", "generation_config.json", "adapter_config.json", "model.safetensors.index.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json"),
    *("chat_template.jinja", "tokenizer.model", "merges.txt"),
}
_OTHER_HEADS = ("ForMaskedLM", "Classification", "ForQuestionAnswering", "ForMultipleChoice", "RewardModel")


def read_weights(settings: ModelSettings, path: str, device: str, **options: Any) -> Any:
    """A causal language model of transformers on a device, with every weight out of its files.

    Args:
        settings: names the model, for messages, and its revision.
        path: folder or hub id.
        device: where it goes.
        options: further arguments of ``from_pretrained``.

    Raises:
        DereasonError: there is none, it is of another kind, its files are broken or incomplete, or memory ran out.
    """
    from transformers import AutoModelForCausalLM, GenerationConfig

    if settings.attention != "auto":
        options["attn_implementation"] = settings.attention
    try:
        if (Path(path) / "generation_config.json").is_file():
            GenerationConfig.from_pretrained(path)  # a broken one would be passed over, and with it the ends of a text
        model, found = AutoModelForCausalLM.from_pretrained(
            path,
            revision=settings.revision or "main",
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **options,
        )
        if "device_map" not in options:
            model = model.to(device)
    except Exception as exc:  # what a library makes of files that it cannot use is of any type
        raise unreadable(settings, path, exc) from exc
    heads = [a for a in model.config.architectures or [] if any(words in a for words in _OTHER_HEADS)]
    if heads:
        raise DereasonError(
            f"model.name {settings.name!r} is a {heads[0]} by its config.json: it does not write text",
            "name a causal language model",
        )
    if missing := sorted(found["missing_keys"]):
        raise DereasonError(
            f"model.name {settings.name!r} lacks {len(missing)} of its weights ({missing[0]}): transformers would "
            "begin with random ones",
            "save or download the whole model again, or name a causal language model",
        )
    return model


def unreadable(settings: ModelSettings, path: str, exc: Exception) -> Exception:
    """The error to raise where transformers could not read a model or a tokenizer."""
    if disk_full(exc):
        return exc
    if out_of_memory(exc):
        return DereasonError(
            f"model {settings.name} does not fit into memory",
            "take a smaller model, dtype bfloat16, or a larger device",
        )
    if Path(path).is_dir() and (broken := _broken(Path(path))) is not None:
        return DereasonError(f"model.name {settings.name!r}: {broken[0]}", broken[1])
    lines = [line for line in str(exc).strip().splitlines() if line.strip()] or [type(exc).__name__]
    return DereasonError(
        f"model.name {settings.name!r} cannot be loaded: {lines[0]}",
        "check the hub id or the folder (it needs config.json, safetensors weights and a tokenizer), "
        "log in for gated models (`hf auth login`), or use `embedded`",
    )


def _broken(folder: Path) -> tuple[str, str] | None:
    """A file of those that a model is read from which is not what its name says, and the mend; None where each is."""
    from safetensors import safe_open

    for file in sorted(p for p in folder.iterdir() if p.is_file() and (p.suffix == ".safetensors" or p.name in _READ)):
        with file.open("rb") as handle:
            if handle.read(len(_LFS)) == _LFS:
                return f"{file.name} is a git-lfs pointer, not the file itself", "run `git lfs pull` in the folder"
        try:
            if file.suffix == ".safetensors":
                with safe_open(file, framework="pt"):
                    pass
            elif file.suffix == ".json":
                json.loads(file.read_text(encoding="utf-8"))
        except Exception as exc:  # the reader's own: of safetensors, of JSON, of UTF-8
            what = "safetensors" if file.suffix == ".safetensors" else "JSON"
            return f"{file.name} cannot be read as {what}: {exc}", "copy or download it again"
    return None
