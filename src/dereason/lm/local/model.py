"""Any causal language model of transformers, in process."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from dereason.content import Repository, files_digest
from dereason.errors import DereasonError
from dereason.lm import embedded
from dereason.lm.api.settings import ApiSettings
from dereason.lm.base import Completion, Message, Progress, Sampling
from dereason.lm.chats import ChatModel
from dereason.lm.dates import give_date, today
from dereason.lm.endings import stop_ids
from dereason.lm.library_log import quiet_libraries
from dereason.lm.local.adapter import adapter_base, merge_adapter
from dereason.lm.local.engine import plan_batches, stream
from dereason.lm.local.files import read_weights, unreadable
from dereason.lm.local.forward import score_tokens
from dereason.lm.local.packing import Row, make_batch, plan_micro_batches
from dereason.lm.local.prefill import prefill
from dereason.lm.local.room import check_room
from dereason.lm.local.rope import rope_edge
from dereason.lm.local.sampling import Drawn, twins
from dereason.lm.prompts import PLAIN_TEMPLATE, encode_reply
from dereason.settings import Settings

HAND_OFF = "hand-off.json"
"""File in a trained model's folder: what was checked when it was saved. It is no part of the model."""

OTHER_WEIGHTS = frozenset((".bin", ".ckpt", ".gguf", ".h5", ".msgpack", ".onnx", ".ot", ".pt", ".pth", ".tflite"))
"""Endings of weights in formats that are not loaded where there are safetensors, and of a trainer's state."""

NOT_LOADED = frozenset((".gif", ".jpeg", ".jpg", ".lock", ".log", ".md", ".pdf", ".png", ".py", ".svg"))
"""Endings of files in a model's folder that are never loaded; a model's own code is not run."""

TRAINERS = ("trainer_state.json", "all_results.json", "train_results.json", "eval_results.json")
"""What transformers' trainer leaves beside a model."""

NOTICES = ("LICENSE", "LICENCE", "NOTICE", "README", "USE_POLICY")
"""How the names of files for people begin."""

TOGETHER = 4
"""Batches of :meth:`LocalModel.generate` that are decoded together, so that freed places can be filled."""


SCORED_TOKENS = {"cpu": 512}
"""Padded tokens of one pass of :meth:`LocalModel.reply_logps` by device: on a CPU, wider passes leave the caches."""


class VllmSettings(Settings):
    """How the `vllm` backend starts its engine."""

    memory: float | None = Field(default=None, gt=0, le=1)
    """Share of the device's memory for weights and cache; null takes 0.9 of a GPU, or 0.4 of the RAM without one."""
    max_length: int | None = Field(default=None, gt=0)
    """Longest prompt + response in tokens that vLLM makes room for; null takes the model's own limit."""
    tensor_parallel: int = Field(default=1, gt=0)
    """GPUs that share one copy of the model."""
    eager: bool = False
    """Start in seconds, without compilation and CUDA graphs, and generate somewhat slower."""


class ModelSettings(Settings):
    """Which model, and how it is loaded."""

    name: str = embedded.NAME
    """A Hugging Face hub id, a local folder, or `embedded` (SmolLM2-135M-Instruct, dequantised 4-bit Q4_1)."""
    revision: str | None = None
    """Commit, tag or branch of a hub model; pin it, a branch moves."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Floating point type outside training; `auto` is float32 on CPU, else bfloat16. Training keeps float32 weights."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where it runs; `auto` takes CUDA, else the CPU. Apple's `mps` has no float64, which sums and streams of random
    numbers are in; nothing has been run there."""
    device_memory: float | None = Field(default=None, gt=0)
    """Memory of one such device in GiB, for the estimate of `--dry-run`; null takes that of the device here."""
    max_positions: int | None = Field(default=None, gt=0)
    """Longest prompt + response in tokens, in place of what its configuration says (rope scaling included); at your own
    risk where it is more. Weights stay as they are, and a learned table of positions cannot be exceeded."""
    config: dict[str, Any] | None = None
    """What its `config.json` says (`model_type` and sizes), for a plan on a machine that does not have the file; the
    file counts where it is there."""
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2", "flash_attention_3"] = "auto"
    """How transformers computes attention; `auto` is its choice for the model (`sdpa` where it has it). With flash
    attention (16 bits on CUDA, a package of its own) an RL phase runs each rollout with its own copy of the prompt."""
    backend: Literal["auto", "local", "vllm", "api"] = "auto"
    """Who generates: our in-process engine (`local`), vLLM in process (`pip install 'dereason[vllm]'`), or an endpoint
    (`pip install 'dereason[api]'`). `auto` is vLLM on CUDA where it is installed, else `local`. Training never uses
    this."""
    vllm: VllmSettings = VllmSettings()
    """How vLLM is started; for `backend: vllm` only."""
    api: ApiSettings = ApiSettings()
    """How an OpenAI-compatible endpoint is reached; for `backend: api` only."""

    @model_validator(mode="after")
    def _named(self) -> ModelSettings:
        if self.backend == "api" and self.name == embedded.NAME:
            raise ValueError("backend: api needs name, the model's name as the endpoint lists it")
        return self

    def numerics(self) -> dict[str, Any]:
        """What besides the weights decides the logits; for keys."""
        if self.backend == "api":
            return {"backend": "api", "extra": self.api.extra}
        backend = resolve_backend(self)
        kept = {"dtype", "device"} | ({"vllm"} if backend == "vllm" else set())
        kept |= {"attention"} if self.attention != "auto" and backend == "local" else set()
        return self.model_dump(mode="json", include=kept) | {"backend": backend}


def model_identity(settings: ModelSettings) -> str:
    """Name and content of a model, for keys and provenance, without loading it.

    A hub model or an endpoint's is its id and revision as they are asked for (:func:`repositories` tells the commit);
    the embedded one its package version; a local folder's a hash of the bytes of every file that is loaded from it
    (:func:`loaded_files`), an adapter's with its base.

    Raises:
        DereasonError: a file cannot be read, or an adapter's base is not there.
    """
    if settings.name == embedded.NAME:
        return f"{embedded.NAME}@{embedded.converted_path().name.rsplit('-', 1)[-1]}"
    if settings.backend == "api" or not os.path.isdir(settings.name):  # no name is too long for it
        return f"{settings.name}@{settings.revision or 'main'}"
    folder = Path(settings.name)
    found = files_digest(loaded_files(folder), folder)
    if (base := adapter_base(settings)) is not None:
        found = hashlib.sha256(f"{model_identity(base)} {found}".encode()).hexdigest()
    return f"{folder.resolve().name}@{found[:12]}"


def loaded_files(folder: Path) -> list[Path]:
    """The files of a model's folder that can decide its answers: all but those known not to be loaded.

    Named by what is left out, because tokenizers bring files of any name (``merges.txt``, ``tekken.json``,
    ``source.spm``); a file too many makes a step anew, one too few takes another model's answers for this one's.
    """
    inside = [p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")]
    # vLLM and peft take another format where there is no safetensors
    left_out = NOT_LOADED | (OTHER_WEIGHTS if any(p.suffix == ".safetensors" for p in inside) else frozenset())
    found = [p for p in inside if p.suffix.lower() not in left_out and p.name not in (HAND_OFF, *TRAINERS)]
    templates = (folder / "additional_chat_templates").glob("*.jinja")
    return [*(p for p in found if not p.name.upper().startswith(NOTICES)), *templates]


def repositories(settings: ModelSettings) -> list[Repository]:
    """What a model reads from the hub: itself, or the base below an adapter's folder; nothing for any other."""
    if settings.name == embedded.NAME or settings.backend == "api":
        return []
    if os.path.isdir(settings.name):
        base = adapter_base(settings)
        return [] if base is None else repositories(base)
    return [Repository("model", settings.name, settings.revision or "main")]


def resolve_device(device: str) -> str:
    """The device that ``device`` names on this machine.

    Raises:
        DereasonError: it asks for one that is not there.
    """
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return "cuda" if there["cuda"] else "cpu"
    if not there[device]:
        raise DereasonError(
            f"model.device is {device}, and this machine has none that torch {torch.__version__} can use",
            "set model.device=auto (or cpu), or install a torch build for your GPU (`dereason doctor`)",
        )
    return device


def resolve_backend(settings: ModelSettings) -> Literal["local", "vllm", "api"]:
    """Who generates where ``backend`` is `auto`: vLLM on CUDA where it is installed, but not with an adapter's folder.

    Raises:
        DereasonError: an adapter's base is not there.
    """
    if settings.backend != "auto":
        return settings.backend
    # vLLM is looked for first: torch takes seconds to import
    there = has_vllm() and on_cuda(settings.device)
    return "vllm" if there and adapter_base(settings) is None else "local"


def on_cuda(device: str) -> bool:
    """Whether ``device`` names a CUDA GPU, on this machine where it is `auto`: a plan may be made for another one."""
    return device == "cuda" or (device == "auto" and may_have_gpu() and resolve_device(device) == "cuda")


def may_have_gpu() -> bool:
    """Whether torch, which takes seconds to import, has to be asked: on Linux not without a GPU's driver."""
    drivers = ("/proc/driver/nvidia/version", "/dev/kfd")  # NVIDIA's and AMD's
    return sys.platform != "linux" or any(map(os.path.exists, drivers)) or shutil.which("nvidia-smi") is not None


def has_vllm() -> bool:
    """Whether vLLM is installed."""
    return find_spec("vllm") is not None


WITHOUT_VLLM = (
    "responses and rollouts come from our in-process engine or transformers.generate, which have no paged cache and no "
    "CUDA graphs: on a GPU expect several times vLLM's time"
)
"""What doing without vLLM costs on a GPU."""


def check_attention(settings: ModelSettings) -> None:
    """Refuse, before anything is loaded, an attention that cannot run here.

    Raises:
        DereasonError: flash attention without its package, or on another device than a CUDA GPU.
    """
    package = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_interface"}.get(settings.attention)
    if package is None:
        return
    if resolve_device(settings.device) != "cuda" or find_spec(package) is None:
        raise DereasonError(
            f"model.attention is {settings.attention}, which needs a CUDA GPU and the package {package}",
            "set model.attention=sdpa (or auto), or install it",
        )


def resolve_dtype(dtype: str, device: str) -> Any:
    """The torch dtype that ``dtype`` names on a device."""
    import torch

    if dtype == "auto":
        return torch.float32 if device == "cpu" else torch.bfloat16
    return getattr(torch, dtype)


def model_path(settings: ModelSettings) -> str:
    """The path or hub id that transformers loads."""
    return str(embedded.ensure()) if settings.name == embedded.NAME else settings.name


def load_tokenizer(settings: ModelSettings, day: date | None = None) -> Any:
    """The model's tokenizer, with a pad token and a chat template (a plain one where it has none).

    Args:
        settings: which model.
        day: told to a template that prints today's date; None takes today, once.

    Raises:
        DereasonError: there is no such model, its files are broken, or it has no end token.
    """
    from transformers import AutoTokenizer

    quiet_libraries()
    path = model_path(settings)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, revision=settings.revision or "main", trust_remote_code=False)
    except Exception as exc:  # what a library makes of files that it cannot use is of any type
        raise unreadable(settings, path, exc) from exc
    if tokenizer.eos_token_id is None:
        raise DereasonError(
            f"the tokenizer of {settings.name!r} has no end token (eos_token): no response could end",
            "name the token that ends a response as eos_token in its tokenizer_config.json",
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.chat_template is None:
        tokenizer.chat_template = PLAIN_TEMPLATE
    give_date(tokenizer, day or today())
    return tokenizer


def load_weights(settings: ModelSettings) -> Any:
    """The model on its device in its dtype, in eval mode.

    Raises:
        DereasonError: see :func:`~dereason.lm.local.files.read_weights`; or there is no such device.
    """
    quiet_libraries()
    check_attention(settings)
    device = resolve_device(settings.device)
    dtype = resolve_dtype(settings.dtype, device)
    path = model_path(settings)
    if (base := adapter_base(settings)) is not None:
        return merge_adapter(load_weights(base), settings).to(dtype).eval()
    return read_weights(settings, path, device, dtype=dtype).eval()


def load_generation_config(settings: ModelSettings) -> Any:
    """The model's generation config, without its weights; of its config where it has none."""
    from transformers import AutoConfig, GenerationConfig

    path, revision = model_path(settings), settings.revision or "main"
    try:
        return GenerationConfig.from_pretrained(path, revision=revision)
    except OSError:
        return GenerationConfig.from_model_config(AutoConfig.from_pretrained(path, revision=revision))


class LocalModel(ChatModel):
    """The ``local`` backend: a transformers model in this process. Keeps :class:`~dereason.lm.base.LanguageModel`."""

    def __init__(
        self,
        settings: ModelSettings,
        chat_template_kwargs: dict[str, Any] | None = None,
        *,
        identity: str | None = None,
        weights: Any = None,
        day: date | None = None,
    ) -> None:
        """Load a model.

        Args:
            settings: which model.
            chat_template_kwargs: extra arguments of its chat template.
            identity: overrides :func:`model_identity` (a trained model is named by the step that made it).
            weights: an already loaded transformers model to use in place of loading one.
            day: see :func:`load_tokenizer`.
        """
        self.settings = settings
        self.model = load_weights(settings) if weights is None else weights
        tokenizer = load_tokenizer(settings, day)
        super().__init__(
            tokenizer,
            stop_ids(self.model.generation_config, tokenizer, chat_template_kwargs or {}),
            chat_template_kwargs,
            identity or model_identity(settings),
        )
        self._check([self.tokenizer.pad_token_id], *([i] for i in self._stop_ids))

    def generate(
        self,
        prompts: Sequence[Sequence[Message]],
        n: int,
        sampling: Sampling,
        seed: int,
        finished: frozenset[int] = frozenset(),
    ) -> Iterator[tuple[int, list[Completion]]]:
        """See :class:`~dereason.lm.base.LanguageModel`."""
        temperature = self._temperature(sampling)
        encoded = [self.encode(chat) for chat in prompts]
        self._check(*encoded, new_tokens=sampling.max_new_tokens)
        plan = plan_batches([len(ids) for ids in encoded], n, sampling.batch_size)
        twin = twins(map(tuple, encoded))
        for first in range(0, len(plan), TOGETHER):
            numbers = range(first, min(first + TOGETHER, len(plan)))
            if finished.issuperset(numbers):
                continue
            # All of them are decoded, stored or not: sums, and so near ties, depend on what is decoded together.
            members = [i for number in numbers for i in plan[number]]
            batch_of = {i: number for number in numbers for i in plan[number]}
            drawn: dict[int, dict[int, list[Drawn]]] = {number: {} for number in numbers}
            for k, samples in stream(
                self.model,
                [encoded[i] for i in members],
                n,
                temperature=temperature,
                max_new_tokens=sampling.max_new_tokens,
                stop_ids=self._stop_ids,
                pad_id=self.tokenizer.pad_token_id,
                seed=seed,
                batch_size=sampling.batch_size,
                filters=sampling,
                twin=[twin[i] for i in members],
            ):
                number = batch_of[members[k]]
                drawn[number][members[k]] = samples
                if len(drawn[number]) == len(plan[number]) and number not in finished:
                    done = drawn.pop(number)
                    yield (
                        number,
                        [
                            self._completion(i, j, sample.ids, sample.logps, len(encoded[i]))
                            for i in plan[number]
                            for j, sample in enumerate(done[i])
                        ],
                    )

    def _check(self, *sequences: Sequence[int], new_tokens: int = 0) -> None:
        setting = "max_new_tokens" if new_tokens else None
        check_room(self.model, self.tokenizer, sequences, self.settings, new_tokens=new_tokens, setting=setting)

    def choice_probabilities(
        self, prompts: Sequence[Sequence[Message]], choices: Sequence[str], batch_size: int
    ) -> Iterator[np.ndarray]:
        """See :class:`~dereason.lm.base.LanguageModel`.

        Raises:
            DereasonError: a choice is not one token of this tokenizer, or two are the same token.
        """
        import torch

        columns = self._choice_ids(choices)
        encoded = [self.encode(chat) for chat in prompts]
        self._check(*encoded, columns)
        for start in range(0, len(encoded), batch_size):
            with torch.inference_mode():
                batch = encoded[start : start + batch_size]
                alone = rope_edge(self.model, max(map(len, batch))) is not None
                parts = [[ids] for ids in batch] if alone else [batch]
                found = [prefill(self.model, part, self.tokenizer.pad_token_id)[1][:, columns] for part in parts]
                yield torch.softmax(torch.cat(found).cpu().double(), -1).numpy()

    def reply_logps(
        self,
        chats: Sequence[Sequence[Message]],
        replies: Sequence[str],
        prefixes: Sequence[str | None] | None = None,
        *,
        batch_size: int = 16,
        progress: Progress = lambda done, total, words: None,
    ) -> list[np.ndarray]:
        """Log-probability (nats, temperature 1) of every token of every reply: what SFT on it would see at its start.

        Args:
            chats: R chats, each up to the user's message.
            replies: R replies; the end token that the template puts after one is scored too.
            prefixes: R beginnings of the replies that are given, not scored; None: nothing is given.
            batch_size: replies run at once, at most.
            progress: told of replies scored.

        Returns:
            R arrays of float64, one number per token.

        Raises:
            DereasonError: see :func:`~dereason.lm.prompts.encode_reply`.
        """
        import torch

        given = prefixes or [None] * len(replies)
        rows = [
            Row(*encode_reply(self.tokenizer, chat, reply, self._kwargs, prefix or ""))
            for chat, reply, prefix in zip(chats, replies, given, strict=True)
        ]
        self._check(*([*row.prompt, *row.response] for row in rows))
        plan = plan_micro_batches(
            rows,
            range(len(rows)),
            micro_batch=batch_size,
            pair_cost=None,
            tokens=SCORED_TOKENS.get(self.model.device.type),
            edge=rope_edge(self.model, max((len(r.prompt) + len(r.response) for r in rows), default=0)),
        )
        out: list[np.ndarray] = [np.empty(0)] * len(rows)
        done = 0
        for segments in plan:
            batch = make_batch(rows, segments, pad_id=self.tokenizer.pad_token_id, device=self.model.device)
            with torch.inference_mode():
                logps = score_tokens(self.model, self.model.get_output_embeddings(), batch).logp.double().cpu().numpy()
            for row, part in zip(batch.rows, np.split(logps, np.cumsum(batch.lengths)[:-1]), strict=True):
                out[row] = part
            done += len(batch.rows)
            progress(done, len(rows), "scored")
        return out
