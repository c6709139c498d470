"""Low-rank adapters: LoRA (arXiv 2106.09685) and QLoRA (arXiv 2305.14314), on peft.

A frozen weight W computes as W + (alpha / rank) B A; only A and B are trained. A starts random, made of the phase's
seed, and B at zero, so a phase begins at exactly the model that it was given.

Merging is done beside the model that is trained, never in it: adding to a weight and subtracting again leaves
rounding behind, and a phase that keeps a model on its way has to go on from what it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from dereason.errors import DereasonError
from dereason.lm.local.adapter import adapter_base
from dereason.lm.local.files import read_weights
from dereason.lm.local.model import ModelSettings, load_weights, model_path, resolve_device
from dereason.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

NAME = "default"
"""peft's name for the one adapter that is trained."""


class LoRA(Settings):
    """A low-rank adapter, trained in place of the weights themselves."""

    rank: int = Field(default=32, gt=0)
    """Rank of the update of each weight matrix."""
    alpha: float = Field(default=32.0, gt=0)
    """Scale of the update: it is multiplied by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout before the adapter; an RL phase takes 0 alone."""
    target_modules: Literal["all-linear"] | list[str] = "all-linear"
    """Which layers get one: every linear layer but the output, or the layers of these names."""
    quantise: Literal["none", "nf4"] = "none"
    """Hold the frozen weights in 4 bits (QLoRA); needs a CUDA device and bitsandbytes."""
    merge: bool = True
    """Save the model with the adapter added to its weights; false saves the adapter alone, which names its base."""

    @model_validator(mode="after")
    def _quantised_is_merged(self) -> Self:
        if self.quantise != "none" and not self.merge:
            raise ValueError(
                "merge: false with quantise: nf4 would keep an adapter to the 4-bit weights beside a base in full "
                "precision: set merge: true, which adds it to the weights that it was trained on"
            )
        return self


def check_adapter(adapter: LoRA | None, model: ModelSettings) -> None:
    """Refuse, before anything is loaded, an adapter that this machine cannot train.

    Raises:
        DereasonError: 4-bit weights without CUDA, without bitsandbytes, or of a folder that is an adapter itself.
    """
    if adapter is None or adapter.quantise == "none":
        return
    mend = "set adapter.quantise=none (LoRA on weights in 16 or 32 bits)"
    device = resolve_device(model.device)
    if device != "cuda":
        raise DereasonError(
            f"adapter.quantise is {adapter.quantise}, and the model is on the device {device}: 4-bit weights are "
            "trained on CUDA alone",
            f"{mend}, or train on a CUDA GPU",
        )
    if find_spec("bitsandbytes") is None:
        raise DereasonError(
            f"adapter.quantise is {adapter.quantise}, and bitsandbytes is not installed",
            f"pip install 'dereason[qlora]', or {mend}",
        )
    if adapter_base(model) is not None:
        raise DereasonError(
            f"adapter.quantise is {adapter.quantise}, and {model.name} is itself an adapter beside its base",
            f"let the phase before save with adapter.merge=true, or {mend}",
        )


def load_frozen(model: ModelSettings, adapter: LoRA) -> Any:
    """The weights that stay as they are, in ``model.dtype`` (``auto``: float32 on CPU, else bfloat16), or in 4 bits."""
    if adapter.quantise == "none":
        return load_weights(model)
    import torch
    from transformers import BitsAndBytesConfig

    device = resolve_device(model.device)
    nf4 = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=adapter.quantise,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return read_weights(
        model,
        model_path(model),
        device,
        dtype=torch.bfloat16,
        quantization_config=nf4,
        device_map={"": torch.cuda.current_device() if device == "cuda" else device},
    ).eval()


def attach(weights: Any, adapter: LoRA, model: ModelSettings, seed: int) -> Any:
    """A peft model: the weights, frozen, with a new adapter in float32 that changes nothing yet.

    Args:
        weights: from :func:`load_frozen`.
        adapter: the settings.
        model: where the weights came from; a kept adapter names it as its base.
        seed: of the adapter's random part.

    Raises:
        DereasonError: a name that no layer has, or an adapter on one of two weights that are tied.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from peft.tuners.tuners_utils import BaseTunerLayer

    config = LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules=adapter.target_modules,
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            student = get_peft_model(weights, config)
        except ValueError as exc:
            raise DereasonError(
                f"adapter.target_modules: {str(exc).splitlines()[0]}", "set it to all-linear, or name layers it has"
            ) from exc
    where = Path(model_path(model))  # set here: peft writes down what the weights call themselves
    student.peft_config[NAME].base_model_name_or_path = str(where.resolve()) if where.is_dir() else str(where)
    student.peft_config[NAME].revision = model.revision
    ends = (weights.get_input_embeddings(), weights.get_output_embeddings())
    if getattr(weights.config, "tie_word_embeddings", False) and any(isinstance(e, BaseTunerLayer) for e in ends):
        raise DereasonError(
            "adapter.target_modules names the input or output embedding, and this model has one weight for both",
            "leave them out: an adapter on one of the two would untie them",
        )
    return student


def is_adapted(model: Any) -> bool:
    """Whether it is a model of :func:`attach`."""
    from peft import PeftModel

    return isinstance(model, PeftModel)


def float32_adapter(model: Any) -> None:
    """Adapter weights in float32 again: TRL casts those on 4-bit weights to bfloat16, in which AdamW loses updates."""
    if is_adapted(model):
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()


def merged_state(model: Any, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights W + (alpha / rank) B A in float32 on the CPU, under the names that the base model gives them.

    Args:
        model: from :func:`attach`, trained.
        state: its state dict (gathered, where it is sharded over processes).

    Raises:
        DereasonError: an adapted layer that this function has no rule for.
    """
    layers = {name: module for name, module in model.get_base_model().named_modules() if hasattr(module, "lora_A")}
    rest = {name.removeprefix("base_model.model."): tensor for name, tensor in state.items()}
    merged: dict[str, Tensor] = {}
    for name, layer in layers.items():
        mine = {k.removeprefix(name + "."): rest.pop(k) for k in list(rest) if k.startswith(name + ".")}
        try:
            a, b = (mine[f"lora_{side}.{NAME}.weight"].cpu().float() for side in "AB")
            weight = _frozen_weight(layer, mine["base_layer.weight"])
        except KeyError as exc:
            raise DereasonError(
                f"the adapter on {name} ({type(layer).__name__}) cannot be merged",
                "set adapter.target_modules=all-linear, or adapter.merge=false",
            ) from exc
        update = (b @ a) * layer.scaling[NAME]
        merged[f"{name}.weight"] = weight + (update.T if getattr(layer, "fan_in_fan_out", False) else update)
        if "base_layer.bias" in mine:
            merged[f"{name}.bias"] = mine["base_layer.bias"].cpu().float()
    floats = {k: v.cpu().float() if v.is_floating_point() else v.cpu() for k, v in rest.items()}
    return floats | merged


def _frozen_weight(layer: Any, stored: Tensor) -> Tensor:
    """The weight that the layer computes with: as it is, or out of its 4 bits."""
    state = getattr(layer.base_layer.weight, "quant_state", None)
    if state is None:
        return stored.cpu().float()
    from bitsandbytes.functional import dequantize_4bit

    weight: Tensor = dequantize_4bit(layer.base_layer.weight.data, state)
    return weight.cpu().float()


def whole_model(base: Any, state: Mapping[str, Tensor]) -> Any:
    """A plain model of these weights, of the class and configuration of ``base``, to be saved."""
    import torch

    config = deepcopy(base.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):
        shell = type(base)(config)
    shell.load_state_dict(state, strict=False, assign=True)  # a tied weight may stand under one of its names
    shell.tie_weights()
    return shell


def save_adapter(model: Any, state: Mapping[str, Tensor], out: Path) -> None:
    """Write the adapter, and the configuration of its base, to a folder that load_weights reads."""
    model.save_pretrained(out, selected_adapters=[NAME], state_dict=dict(state), save_embedding_layers=False)
    base = model.get_base_model()
    base.config.save_pretrained(out)
