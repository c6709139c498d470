"""Any causal language model of transformers, in process."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dereason.errors import DereasonError
from dereason.lm import embedded
from dereason.lm.base import Completion, Message, Sampling
from dereason.lm.local.engine import decode, plan_batches, prefill
from dereason.lm.prompts import PLAIN_TEMPLATE, template_hash
from dereason.settings import Settings


class ModelSettings(Settings):
    """Which model, and how it is loaded."""

    name: str = embedded.NAME
    """A Hugging Face hub id, a local folder, or `embedded` (SmolLM2-135M-Instruct, dequantised 4-bit Q4_1)."""
    revision: str | None = None
    """Commit, tag or branch of a hub model; pin it, a branch moves."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Floating point type outside training; `auto` is float32 on CPU, else bfloat16. Training keeps float32 weights."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where it runs; `auto` takes CUDA, then Apple's MPS, then the CPU."""


def model_identity(settings: ModelSettings) -> str:
    """Name and content of a model, for keys and provenance, without loading it.

    A hub model is its id and revision; the embedded one its package version; a local folder is hashed: small
    files whole, weight files by size and 64 evenly spaced blocks of 64 KiB.
    """
    if settings.name == embedded.NAME:
        return f"{embedded.NAME}@{embedded.converted_path().name.rsplit('-', 1)[-1]}"
    folder = Path(settings.name)
    if not folder.is_dir():
        return f"{settings.name}@{settings.revision or 'main'}"
    digest = hashlib.sha256()
    for file in sorted(p for p in folder.iterdir() if p.suffix in (".json", ".safetensors", ".jinja", ".model")):
        size = file.stat().st_size
        digest.update(f"{file.name}:{size}".encode())
        with file.open("rb") as handle:
            if size <= 1 << 24:
                digest.update(handle.read())
            else:
                for block in range(64):
                    handle.seek(block * (size // 64))
                    digest.update(handle.read(1 << 16))
    return f"{folder.name}@{digest.hexdigest()[:12]}"


def resolve_device(device: str) -> str:
    """The device that ``device`` names on this machine.

    Raises:
        DereasonError: it asks for one that is not there.
    """
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return next(name for name, ok in there.items() if ok)
    if not there[device]:
        raise DereasonError(
            f"model.device is {device}, and this machine has none that torch {torch.__version__} can use",
            "set model.device=auto (or cpu), or install a torch build for your GPU (`dereason doctor`)",
        )
    return device


def resolve_dtype(dtype: str, device: str) -> Any:
    """The torch dtype that ``dtype`` names on a device."""
    import torch

    if dtype == "auto":
        return torch.float32 if device == "cpu" else torch.bfloat16
    return getattr(torch, dtype)


def model_path(settings: ModelSettings) -> str:
    """The path or hub id that transformers loads."""
    return str(embedded.ensure()) if settings.name == embedded.NAME else settings.name


def quiet_libraries() -> None:
    """Keep transformers' bars and notices off the screen: steps have bars of their own."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def load_tokenizer(settings: ModelSettings) -> Any:
    """The model's tokenizer, with a pad token and a chat template (a plain one where it has none).

    Raises:
        DereasonError: there is no such model.
    """
    from transformers import AutoTokenizer

    quiet_libraries()
    path = model_path(settings)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, revision=settings.revision or "main")
    except (OSError, ValueError) as exc:
        raise _unknown(settings, exc) from exc
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.chat_template is None:
        tokenizer.chat_template = PLAIN_TEMPLATE
    return tokenizer


def load_weights(settings: ModelSettings) -> Any:
    """The model on its device in its dtype, in eval mode.

    Raises:
        DereasonError: there is no such model, no such device, or too little memory.
    """
    import torch
    from transformers import AutoModelForCausalLM

    device = resolve_device(settings.device)
    dtype = resolve_dtype(settings.dtype, device)
    path = model_path(settings)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            path, revision=settings.revision or "main", dtype=dtype, use_safetensors=True
        )
        return model.to(device).eval()
    except (OSError, ValueError) as exc:
        raise _unknown(settings, exc) from exc
    except (torch.OutOfMemoryError, MemoryError) as exc:
        raise DereasonError(
            f"model {settings.name} does not fit into the memory of {device}",
            "take a smaller model, dtype bfloat16, or a larger device",
        ) from exc


def _unknown(settings: ModelSettings, exc: Exception) -> DereasonError:
    first = str(exc).strip().splitlines()[0] if str(exc).strip() else type(exc).__name__
    return DereasonError(
        f"model.name {settings.name!r} cannot be loaded: {first}",
        "check the hub id or the folder (it needs config.json, safetensors weights and a tokenizer), "
        "log in for gated models (`hf auth login`), or use `embedded`",
    )


class LocalModel:
    """The ``local`` backend: a transformers model in this process. Keeps :class:`~dereason.lm.base.LanguageModel`."""

    def __init__(
        self,
        settings: ModelSettings,
        chat_template_kwargs: dict[str, Any] | None = None,
        *,
        identity: str | None = None,
        weights: Any = None,
    ) -> None:
        """Load a model.

        Args:
            settings: which model.
            chat_template_kwargs: extra arguments of its chat template.
            identity: overrides :func:`model_identity` (a trained model is named by the step that made it).
            weights: an already loaded transformers model to use in place of loading one.
        """
        self.settings = settings
        self._identity = identity or model_identity(settings)
        self._kwargs = dict(chat_template_kwargs or {})
        self.tokenizer = load_tokenizer(settings)
        self.model = load_weights(settings) if weights is None else weights
        self._stop_ids = stop_ids(self.model, self.tokenizer)

    @property
    def identity(self) -> str:
        """See :class:`~dereason.lm.base.LanguageModel`."""
        return self._identity

    def template_hash(self) -> str:
        """See :class:`~dereason.lm.base.LanguageModel`."""
        return template_hash(self.tokenizer, self._kwargs)

    def encode(self, chat: Sequence[Message]) -> list[int]:
        """Token ids of a chat, up to where the assistant's reply begins."""
        encoded = self.tokenizer.apply_chat_template(
            list(chat), add_generation_prompt=True, tokenize=True, return_dict=True, **self._kwargs
        )
        return list(encoded["input_ids"])

    def batches(self, prompts: Sequence[Sequence[Message]], n: int, sampling: Sampling) -> int:
        """See :class:`~dereason.lm.base.LanguageModel`."""
        return len(plan_batches([0] * len(prompts), n, sampling.batch_size))

    def generate(
        self,
        prompts: Sequence[Sequence[Message]],
        n: int,
        sampling: Sampling,
        seed: int,
        finished: frozenset[int] = frozenset(),
    ) -> Iterator[tuple[int, list[Completion]]]:
        """See :class:`~dereason.lm.base.LanguageModel`."""
        encoded = [self.encode(chat) for chat in prompts]
        plan = plan_batches([len(ids) for ids in encoded], n, sampling.batch_size)
        for number, members in enumerate(plan):
            if number in finished:
                continue
            drawn = decode(
                self.model,
                [encoded[i] for i in members],
                n,
                temperature=sampling.temperature,
                max_new_tokens=sampling.max_new_tokens,
                stop_ids=self._stop_ids,
                pad_id=self.tokenizer.pad_token_id,
                seed=seed,
            )
            yield (
                number,
                [
                    self._completion(i, j, ids, len(encoded[i]))
                    for i, samples in zip(members, drawn, strict=True)
                    for j, ids in enumerate(samples)
                ],
            )

    def _completion(self, request: int, index: int, ids: list[int], prompt_tokens: int) -> Completion:
        return Completion(
            request=request,
            index=index,
            text=self.tokenizer.decode(ids, skip_special_tokens=True),
            token_ids=tuple(ids),
            prompt_tokens=prompt_tokens,
            hit_limit=ids[-1] not in self._stop_ids,
        )

    def choice_probabilities(
        self, prompts: Sequence[Sequence[Message]], choices: Sequence[str], batch_size: int
    ) -> Iterator[np.ndarray]:
        """See :class:`~dereason.lm.base.LanguageModel`.

        Raises:
            DereasonError: a choice is not one token of this tokenizer, or two are the same token.
        """
        import torch

        ids = [self.tokenizer.encode(c, add_special_tokens=False) for c in choices]
        if any(len(i) != 1 for i in ids) or len({i[0] for i in ids}) != len(ids):
            raise DereasonError(
                f"the tokenizer of {self.identity} does not write each of {', '.join(choices)} as one token",
                "use another judge model",
            )
        columns = [i[0] for i in ids]
        encoded = [self.encode(chat) for chat in prompts]
        for start in range(0, len(encoded), batch_size):
            with torch.inference_mode():
                _, logits, _, _ = prefill(self.model, encoded[start : start + batch_size], self.tokenizer.pad_token_id)
                yield torch.softmax(logits[:, columns].double(), -1).cpu().numpy()


def stop_ids(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """Token ids that end a response: the tokenizer's and all that the generation config names."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    listed = configured if isinstance(configured, list) else [configured]
    return tuple(sorted({i for i in [tokenizer.eos_token_id, *listed] if i is not None}))
