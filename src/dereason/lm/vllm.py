"""vLLM in place of our own engine: the ``vllm`` backend, for GPUs and for many problems.

vLLM batches continuously and shares common beginnings of prompts by itself; what is ours here is the protocol: batches
that a resumed call can skip, a seed for each sample, log-probabilities, choices. Shown by ``make test-vllm``.

What is left out: quantised checkpoints' own settings, LoRA adapters beside their base, images, a remote server.
"""

from __future__ import annotations

import gc
import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from types import SimpleNamespace
from typing import Any

import numpy as np

from dereason.errors import DereasonError
from dereason.lm.base import Completion, Message, Sampling
from dereason.lm.chats import ChatModel
from dereason.lm.local.adapter import adapter_base
from dereason.lm.local.engine import plan_batches
from dereason.lm.local.model import (
    ModelSettings,
    has_vllm,
    load_tokenizer,
    model_identity,
    model_path,
    resolve_device,
    resolve_dtype,
    stop_ids,
)

# The launcher's variables, which tell accelerate that it is one of several processes, and the preloaded library, which
# every program started from here would load.
_LEAKED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "LD_PRELOAD")


def check_installed(asked: str, instead: str) -> None:
    """Refuse at once what would fail later.

    Args:
        asked: the setting that asks for vLLM.
        instead: a setting that does not.

    Raises:
        DereasonError: vLLM is not installed.
    """
    if not has_vllm():
        raise DereasonError(
            f"{asked} needs vLLM, which is not installed here",
            f"pip install 'dereason[vllm]' (on a CPU: docs/guide/vllm.md), or set {instead}",
        )


def import_vllm() -> Any:
    """The vLLM package, quiet and without its usage reports.

    Raises:
        DereasonError: it cannot be imported.
    """
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    try:
        import vllm
    except ImportError as exc:
        raise DereasonError(
            f"vLLM cannot be imported: {exc}",
            "install the build for this machine (docs/guide/vllm.md), or do without vLLM",
        ) from exc
    return vllm


@contextmanager
def contained() -> Iterator[None]:
    """Undo what starting an engine changes in this process: see `_LEAKED`, and torch's thread setting (on a CPU)."""
    import torch

    before = {name: os.environ.get(name) for name in _LEAKED}
    set_threads = torch.set_num_threads
    try:
        yield
    finally:
        torch.set_num_threads = set_threads
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def starting(name: str, where: str, instead: str) -> Iterator[None]:
    """Turn the ways in which an engine fails to start into one line.

    Args:
        name: of the model.
        where: the settings that start it.
        instead: a setting that does without vLLM.
    """
    try:
        yield
    except (OSError, ValueError, RuntimeError) as exc:
        lines = str(exc).strip().splitlines() or [type(exc).__name__]
        raise DereasonError(
            f"vLLM cannot serve {name!r}: {' '.join(lines[:2])}",
            f"lower {where}.memory or {where}.max_length, or set {instead}; "
            "VLLM_LOGGING_LEVEL=INFO in the environment shows vLLM's own log",
        ) from exc


def sample_seed(seed: int, prompt_ids: Sequence[int], index: int) -> int:
    """Seed of one sample: a function of the call's seed, the prompt and the sample's index, not of its neighbours."""
    digest = hashlib.sha256(np.asarray([seed, index, *prompt_ids], dtype=np.int64).tobytes()).digest()
    return int.from_bytes(digest[:8], "big") >> 1  # vLLM takes a signed 64-bit number


class VllmModel(ChatModel):
    """The ``vllm`` backend. Keeps :class:`~dereason.lm.base.LanguageModel`."""

    def __init__(
        self,
        settings: ModelSettings,
        chat_template_kwargs: dict[str, Any] | None = None,
        *,
        identity: str | None = None,
        day: date | None = None,
    ) -> None:
        """Start an engine.

        Args:
            settings: which model, and how vLLM is started.
            chat_template_kwargs: extra arguments of its chat template.
            identity: overrides :func:`~dereason.lm.local.model.model_identity`.
            day: see :func:`~dereason.lm.local.model.load_tokenizer`.

        Raises:
            DereasonError: vLLM is not installed, is built for another device, or cannot serve the model.
        """
        check_installed("model.backend=vllm", "model.backend=local")
        if adapter_base(settings) is not None:
            raise DereasonError(
                f"{settings.name} holds an adapter beside its base, which vLLM does not load as one model",
                "train with adapter.merge=true, or set model.backend=local",
            )
        self.settings = settings
        self._engine, self._params = _start(settings)
        self._max_length: int = self._engine.llm_engine.model_config.max_model_len
        tokenizer = load_tokenizer(settings, day)
        super().__init__(
            tokenizer,
            stop_ids(SimpleNamespace(generation_config=_generation_config(settings)), tokenizer),
            chat_template_kwargs,
            identity or model_identity(settings),
        )

    def close(self) -> None:
        """Stop the engine and give its memory back; the model cannot be used afterwards."""
        self._engine.llm_engine.engine_core.shutdown()
        self._engine = None
        gc.collect()

    def generate(
        self,
        prompts: Sequence[Sequence[Message]],
        n: int,
        sampling: Sampling,
        seed: int,
        finished: frozenset[int] = frozenset(),
    ) -> Iterator[tuple[int, list[Completion]]]:
        """See :class:`~dereason.lm.base.LanguageModel`.

        A batch is what vLLM is given at once; it decides itself how many sequences run together.

        Raises:
            DereasonError: a prompt and its response are longer than the engine's limit.
        """
        encoded = [self.encode(chat) for chat in prompts]
        self._check_lengths(encoded, sampling.max_new_tokens)
        temperature = self._temperature(sampling)
        for number, members in enumerate(plan_batches([len(ids) for ids in encoded], n, sampling.batch_size)):
            if number in finished:
                continue
            asked = [(i, j) for i in members for j in range(n)]
            outputs = self._run(
                [encoded[i] for i, _ in asked],
                [
                    self._params(
                        temperature=temperature,
                        max_tokens=sampling.max_new_tokens,
                        stop_token_ids=list(self._stop_ids),
                        seed=sample_seed(seed, encoded[i], j),
                        logprobs=0,  # of the sampled token alone
                        detokenize=False,
                    )
                    for i, j in asked
                ],
            )
            yield (
                number,
                [
                    self._completion(i, j, output.token_ids, _logps(output), len(encoded[i]))
                    for (i, j), output in zip(asked, outputs, strict=True)
                ],
            )

    def choice_probabilities(
        self, prompts: Sequence[Sequence[Message]], choices: Sequence[str], batch_size: int
    ) -> Iterator[np.ndarray]:
        """See :class:`~dereason.lm.base.LanguageModel`.

        Raises:
            DereasonError: a choice is not one token of this tokenizer, two are the same token, or a prompt is too long.
        """
        columns = self._choice_ids(choices)
        encoded = [self.encode(chat) for chat in prompts]
        self._check_lengths(encoded, 1)
        params = self._params(temperature=0.0, max_tokens=1, logprob_token_ids=columns, detokenize=False)
        for start in range(0, len(encoded), batch_size):
            batch = encoded[start : start + batch_size]
            firsts = [output.logprobs[0] for output in self._run(batch, [params] * len(batch))]
            logps = np.array([[first[column].logprob for column in columns] for first in firsts])
            weights = np.exp(logps - logps.max(1, keepdims=True))
            yield weights / weights.sum(1, keepdims=True)

    def _run(self, prompts: Sequence[Sequence[int]], params: Sequence[Any]) -> list[Any]:
        # Each batch begins with an empty cache: what a stored batch left there must not change the next one's sums.
        self._engine.reset_prefix_cache()
        done = self._engine.generate([{"prompt_token_ids": list(ids)} for ids in prompts], list(params), use_tqdm=False)
        return [request.outputs[0] for request in done]

    def _check_lengths(self, encoded: Sequence[Sequence[int]], new: int) -> None:
        longest = max(map(len, encoded), default=0)
        if longest + new > self._max_length:
            raise DereasonError(
                f"a prompt of {longest} tokens and {new} new ones are more than vLLM's limit of {self._max_length}",
                "raise model.vllm.max_length (up to the model's own limit), or lower max_new_tokens",
            )


def _start(settings: ModelSettings) -> tuple[Any, Any]:
    """An engine, and the class of its sampling parameters."""
    vllm = import_vllm()
    from vllm.platforms import current_platform

    device = resolve_device(settings.device)
    if current_platform.device_type != device:
        raise DereasonError(
            f"model.device is {device}, and vLLM here is built for {current_platform.device_type or 'nothing'}",
            "install the build for your device (docs/guide/vllm.md), or set model.backend=local",
        )
    on_cpu = device == "cpu"
    if on_cpu:
        # One process: vLLM's own worker process would bind its threads to all cores but one.
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    chosen = settings.vllm
    with starting(settings.name, "model.vllm", "model.backend=local"), contained():
        engine = vllm.LLM(
            model=model_path(settings),
            revision=settings.revision,
            dtype=str(resolve_dtype(settings.dtype, device)).removeprefix("torch."),
            gpu_memory_utilization=chosen.memory or (0.4 if on_cpu else 0.9),
            max_model_len=chosen.max_length,
            tensor_parallel_size=chosen.tensor_parallel,
            enforce_eager=chosen.eager,
            skip_tokenizer_init=True,
            # after temperature, so that logps are those of the distribution that was drawn from
            logprobs_mode="processed_logprobs",
        )
    return engine, vllm.SamplingParams


def _generation_config(settings: ModelSettings) -> Any:
    from transformers import AutoConfig, GenerationConfig

    path, revision = model_path(settings), settings.revision or "main"
    try:
        return GenerationConfig.from_pretrained(path, revision=revision)
    except OSError:  # the model has none: transformers makes one of its config
        return GenerationConfig.from_model_config(AutoConfig.from_pretrained(path, revision=revision))


def _logps(output: Any) -> list[float]:
    return [at[token].logprob for token, at in zip(output.token_ids, output.logprobs, strict=True)]
