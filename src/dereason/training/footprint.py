"""How much memory a phase takes in each process, estimated before anything is loaded.

Counted are the moments at which most is held: an update (weights, gradients, moments, what the forward pass keeps, the
logits) and, in RL, the rollouts before it. The rows of a worst case are cut into micro-batches by the function that
cuts real ones. Held against torch's allocator on a CPU: ``python benchmarks/memory.py``; nothing of it was measured
on a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from dereason.lm.local.footprint import (
    Footprint,
    Moment,
    decoding,
    device_bytes,
    draws_by_vllm,
    element_bytes,
    head_bytes,
)
from dereason.lm.local.packing import Row, plan_micro_batches
from dereason.lm.local.shape import Shape, kept_of, shape_of
from dereason.training.joint.bridge import Bridge
from dereason.training.joint.settings import Joint
from dereason.training.launch import Launch, find_config
from dereason.training.rewards.settings import Judge
from dereason.training.rl import RL
from dereason.training.sft import SFT
from dereason.training.update import CPU_TOKENS

if TYPE_CHECKING:
    from dereason.lm.local.model import ModelSettings

COMPARED = 3200.0
"""Bytes for each token id that the hand-off takes to compare logits (measured)."""
NF4 = 0.52
"""Bytes of a weight in 4 bits, its scales included (QLoRA, arXiv 2305.14314)."""


@dataclass(frozen=True)
class Lengths:
    """The longest texts of a phase, in tokens.

    Attributes:
        prompt: the longest prompt.
        response: the longest response: of a target, or the limit of a rollout.
        demonstration: the longest demonstration of a joint phase.
    """

    prompt: int
    response: int
    demonstration: int = 0


@dataclass(frozen=True)
class Sharing:
    """How processes share what a phase holds.

    Attributes:
        processes: over all machines.
        weights: parts that the weights are in, likewise gradients, moments.
        half: whether weights and gradients are in bfloat16, with float32 ones beside the moments (DeepSpeed).
        offloaded: whether moments lie in the machine's memory, not the device's.
        copied: whether gradients are copied to be exchanged (DDP).
    """

    processes: int = 1
    weights: int = 1
    gradients: int = 1
    moments: int = 1
    half: bool = False
    offloaded: bool = False
    copied: bool = False


def sharing_of(launch: Launch) -> Sharing:
    """What an accelerate configuration makes of the processes."""
    n = launch.processes
    if n == 1:
        return Sharing()
    given = yaml.safe_load(find_config(launch.config).read_text(encoding="utf-8"))
    if given["distributed_type"] == "FSDP":
        return Sharing(n, n, n, n)
    if given["distributed_type"] != "DEEPSPEED":
        return Sharing(n, copied=True)
    deepspeed = given.get("deepspeed_config") or {}
    stage = int(deepspeed.get("zero_stage", 2))
    return Sharing(
        n,
        weights=n if stage == 3 else 1,
        gradients=n if stage >= 2 else 1,
        moments=n if stage >= 1 else 1,
        half=True,
        offloaded=deepspeed.get("offload_optimizer_device", "none") != "none",
    )


def training(
    phase: SFT | RL, model: ModelSettings, shape: Shape, device: str, lengths: Lengths, launch: Launch
) -> Footprint:
    """What a phase takes in each of its processes.

    Args:
        phase: the settings.
        model: what it begins with.
        shape: its sizes.
        device: ``cpu``, ``cuda`` or ``mps``.
        lengths: of its longest texts.
        launch: its processes.

    Raises:
        DereasonError: the accelerate configuration is not there.
    """
    share, memory = sharing_of(launch), device_bytes(model, device)
    if isinstance(phase, RL) and phase.rollouts == "auto":
        served = draws_by_vllm(device) and not phase.engine_alone
        phase = phase.model_copy(update={"rollouts": "vllm-colocate" if served else "engine"})
    frozen = element_bytes(model.dtype, device) if phase.adapter is not None else 4
    unknown: list[str] = []
    state = _state(phase, model, shape, device, frozen, share, unknown)
    update = {name: size for name, size in state.items() if name != "vllm" or device == "cpu"}  # elsewhere it sleeps
    moments = [_update(phase, model, shape, device, memory, lengths, share, frozen, update, unknown)]
    if device == "cpu":
        moments.append(_saving(phase, shape, state))
    if isinstance(phase, RL):
        moments.append(_rollouts(phase, shape, device, memory, lengths, share, frozen, state))
    here = launch.processes // launch.machines if device == "cpu" else 1
    return Footprint(moments, here, unknown)


def _state(
    phase: SFT | RL,
    model: ModelSettings,
    shape: Shape,
    device: str,
    frozen: int,
    share: Sharing,
    unknown: list[str],
) -> dict[str, float]:
    """What a process holds between steps, gradients included."""
    weights, trained = float(shape.parameters * frozen), shape.parameters
    if phase.adapter is not None:
        trained = phase.adapter.rank * shape.edges
        if phase.adapter.quantise != "none":
            weights = shape.linear * NF4 + (shape.parameters - shape.linear) * 2.0
        weights += 4.0 * trained
    elif isinstance(phase, Joint) and isinstance(phase.method, Bridge):
        trained = 2 * shape.parameters + phase.method.rank * shape.edges
        weights = 4.0 * trained
    parts = {"weights": weights / share.weights, "gradients": 4.0 * trained / share.gradients}
    parts["moments"] = 8.0 * trained / share.moments
    if share.half:
        parts["weights"], parts["gradients"] = parts["weights"] * 2 / frozen, parts["gradients"] / 2
        parts["float32 weights"] = 4.0 * trained / share.moments
        if share.offloaded:
            del parts["moments"], parts["float32 weights"]
    if share.weights > 1:
        # FSDP and ZeRO-3 gather a layer at a time, the one after it meanwhile, and keep the embeddings gathered
        layer = (shape.parameters - shape.embedding - shape.head) / max(1, shape.layers)
        parts["gathered weights"] = 2.0 * (2 * layer + shape.embedding + shape.head)
    if share.copied:
        parts["gradients to exchange"] = 4.0 * trained
    if not isinstance(phase, RL):
        return parts
    if phase.needs_reference and phase.adapter is None:
        size = element_bytes(model.dtype, device)
        parts["reference"] = float(shape.parameters * size) / share.weights
    for reward in phase.rewards.of:
        if isinstance(reward, Judge) and reward.model.backend == "local":
            judge = shape_of(reward.model)
            if judge is None:
                unknown.append(f"the weights of the judge {reward.model.name}")
            else:
                size = element_bytes(reward.model.dtype, device)
                parts["judge"] = parts.get("judge", 0.0) + float(judge.parameters * size)
    if phase.rollouts == "vllm-colocate":
        parts["vllm"] = phase.vllm.memory * (device_bytes(model, device) or 0.0)
    return parts


def _update(
    phase: SFT | RL,
    model: ModelSettings,
    shape: Shape,
    device: str,
    memory: float | None,
    lengths: Lengths,
    share: Sharing,
    frozen: int,
    state: dict[str, float],
    unknown: list[str],
) -> Moment:
    tokens, logits, pairs, seen, passes = _widest_pass(phase, shape, device, lengths, share.processes)
    mixed = device == "cuda"
    rank = 0 if phase.adapter is None else phase.adapter.rank
    # where processes share the weights, they are gathered in bfloat16, and there is nothing left to convert
    size = 2 if mixed and (share.half or share.weights > 1) else frozen
    kept = kept_of(
        model,
        frozen={4: "float32", 2: "bfloat16"}[size],
        mixed=mixed,
        rank=rank,
        modules="all-linear" if phase.adapter is None else phase.adapter.target_modules,
    )
    if kept is None:
        unknown.append(f"activations of {model.name} (its forward pass cannot be followed without numbers)")
        activations = 0.0
    elif phase.optimiser.gradient_checkpointing:
        one = (kept.fixed + kept.token * tokens) / shape.layers
        activations = kept.fixed + shape.layers * shape.hidden * size * tokens + one
    else:
        activations = kept.fixed + kept.token * tokens
    if model.attention == "eager":  # scores, shares and the shares once more, of every pair of positions
        seen += 3 * shape.heads * pairs * size
    activations += seen * (1 if phase.optimiser.gradient_checkpointing else shape.layers)
    # The head's gradient is made whole before it is added to what is there; so is the embedding's, at the end, and
    # where the two are one weight both and their sum are there at once.
    head = 4.0 * shape.embedding if phase.adapter is None else 0.0
    made = head_bytes(logits, shape.vocabulary, device, memory, whole=share.half and share.weights > 1)
    begin = {"activations": activations, "logits": made, "gradient of the head": head}
    end = {"gradient of the embedding": head if shape.head else 3 * head}
    gradients = state["gradients"] if passes > 1 else 0.0
    moments = [Moment("update", state | {"gradients": gradients} | begin), Moment("update", state | end)]
    return max(moments, key=lambda moment: moment.total)


def _widest_pass(
    phase: SFT | RL, shape: Shape, device: str, lengths: Lengths, processes: int
) -> tuple[int, int, int, float, int]:
    """Of an update on longest rows alone: all tokens, those with logits, pairs of positions and bytes of a mask of the
    widest pass; how many passes."""
    if isinstance(phase, RL):
        groups = max(1, phase.prompts_per_generation // phase.updates_per_generation // processes)
        groups = min(groups, phase.optimiser.micro_batch + 1)  # more are only more passes
        rows = [
            Row(range(lengths.prompt), range(lengths.response), group)
            for group in range(groups)
            for _ in range(phase.group_size)
        ]
        if lengths.demonstration:
            rows += [Row(range(lengths.prompt), range(lengths.demonstration), group) for group in range(groups)]
        pair_cost: float | None = 2 * shape.layers * shape.width / max(1, shape.parameters - shape.embedding)
    else:
        count = min(-(-phase.batch // processes), 2 * phase.optimiser.micro_batch)
        rows = [Row(range(lengths.prompt), range(lengths.response))] * max(1, count)
        pair_cost = None
    passes = plan_micro_batches(
        rows,
        range(len(rows)),
        micro_batch=phase.optimiser.micro_batch,
        pair_cost=pair_cost,
        tokens=CPU_TOKENS if device == "cpu" else None,
    )
    tokens = max(len(batch) * batch[0].length for batch in passes)
    logits = max(sum(segment.responses for segment in batch) for batch in passes)
    pairs = max(len(batch) * batch[0].length ** 2 for batch in passes)
    # a mask of our own is kept as numbers, by each layer
    masks = [len(b) * b[0].length ** 2 for b in passes if any(len(s.rows) > 1 for s in b)]
    size = 2 if device == "cuda" else 4
    return tokens, logits, pairs, float(size * max(masks, default=0)), len(passes)


def _rollouts(
    phase: RL,
    shape: Shape,
    device: str,
    memory: float | None,
    lengths: Lengths,
    share: Sharing,
    frozen: int,
    state: dict[str, float],
) -> Moment:
    """Rollouts: gradients are gone, all else that lasts is there."""
    held: dict[str, float] = {name: size for name, size in state.items() if name != "gradients"}
    if not phase.rollouts.startswith("vllm"):
        size = 2 if device == "cuda" else frozen
        if device == "cuda" and phase.adapter is None and not share.half:
            held["weights in bfloat16"] = 2.0 * shape.parameters
        places = min(phase.rollout_batch, phase.prompts_per_generation // share.processes * phase.group_size)
        asked = {"places": places, "prompt": lengths.prompt, "new_tokens": lengths.response}
        held |= decoding(shape, device, size, memory, held, **asked)
    return Moment("rollouts", held)


def _saving(phase: SFT | RL, shape: Shape, state: dict[str, float]) -> Moment:
    """The hand-off, which compares what was saved with what was trained; weights read again stay in their file."""
    held = {name: size for name, size in state.items() if name != "gradients"}
    if phase.adapter is not None and phase.adapter.merge:
        held["merged weights"] = 4.0 * shape.linear
    return Moment("saving", held | {"logits compared": COMPARED * shape.vocabulary})


def lower(phase: Any, footprint: Footprint) -> str:
    """Which settings to change so that a phase takes less, the ones that cost least first."""
    parts, optimiser = footprint.peak.parts, phase.optimiser
    told: list[str] = []
    if footprint.peak.name == "rollouts":
        if "vllm" in parts:
            told.append("lower vllm.memory")
        elif parts.get("cache", 0) > 0.1 * footprint.peak.total:
            told.append(f"lower rollout_batch (now {phase.rollout_batch}) or max_new_tokens")
    else:
        if optimiser.micro_batch > 1:
            told.append(f"lower optimiser.micro_batch (now {optimiser.micro_batch})")
        if not optimiser.gradient_checkpointing:
            told.append("set optimiser.gradient_checkpointing=true")
        told.append("lower max_new_tokens" if isinstance(phase, RL) else "lower max_length")
    if sum(parts.get(name, 0.0) for name in ("weights", "gradients", "moments")) > 0.3 * footprint.peak.total:
        told.append("raise launch.processes with launch.config=fsdp2 (or deepspeed-zero3)")
        if phase.adapter is None:
            told.append("train an adapter (adapter.rank=32)")
    return ", ".join(told)
