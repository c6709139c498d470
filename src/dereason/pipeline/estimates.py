"""How much memory each step of a recipe takes, and whether the device that is named has it: nothing is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dereason.errors import DereasonError
from dereason.lm.local.context import longest_target
from dereason.lm.local.footprint import (
    GIB,
    Footprint,
    Moment,
    device_bytes,
    element_bytes,
    generation,
    gib,
    head_bytes,
    planned_device,
    words,
)
from dereason.lm.local.model import ModelSettings
from dereason.lm.local.shape import Shape, shape_of
from dereason.pipeline.contexts import Ask, Pool, Prompts, Whose
from dereason.pipeline.recipe import Imitates, Phase, Recipe, SFTPhase
from dereason.pipeline.store import Info
from dereason.supervision.settings import DataTargets, asked_models, scores
from dereason.training.footprint import Lengths, lower, training
from dereason.training.joint.settings import Joint
from dereason.training.rl import RL

ASSUMED_PROMPT = 512
"""Tokens of a prompt where the problems, or the tokenizer, are not on this machine."""
SCORED_AT_ONCE = 512
"""Tokens of a pass that measures targets' likelihood."""


class Estimates:
    """Estimates of a recipe's steps.

    Args:
        recipe: the recipe.
        pools: its problems, as far as they are at hand.
    """

    def __init__(self, recipe: Recipe, pools: Mapping[Whose, Pool]) -> None:
        self.recipe = recipe
        self.prompts = Prompts(recipe.prompt, pools)
        self._found: dict[str, Info | None] = {}

    def of(self, kind: str, phase: Phase | None) -> Info | None:
        """A step's memory for a plan; None where it has no model here, or one whose sizes are not known.

        Args:
            kind: the step's.
            phase: the phase that it belongs to.

        Returns:
            ``device``, ``bytes`` (torch's tensors in each process), ``needed`` (on the device, with all that shares
            it), ``available`` (None: no such device is here, and none is described), ``moment``, ``parts``,
            ``processes`` on the device, ``fits`` (None: not known), ``certain`` (False: the longest target is not
            known, and the limit stands for it), ``unknown``, ``lower`` (what to change) and ``words``.
        """
        key = kind if phase is None else f"{kind} {phase.model_dump_json()}"
        if key not in self._found:
            self._found[key] = self._of(kind, phase)
        return self._found[key]

    def _of(self, kind: str, phase: Phase | None) -> Info | None:
        if phase is not None and kind.startswith("train-"):
            return self._training(phase)
        recipe, model = self.recipe, self.recipe.model
        match kind:
            case "judge":
                judge = recipe.profile.judge
                return self._drawing(judge.model or model, judge.batch_size, 1, "train", "profile.judge.batch_size")
            case "pass-rate":
                draws = recipe.profile.pass_rate.sampling
                where = "profile.pass_rate.sampling.batch_size"
                return self._drawing(model, draws.batch_size, draws.max_new_tokens, "train", where)
            case "eval":
                draws = recipe.evaluation.sampling
                return self._drawing(
                    model, draws.batch_size, draws.max_new_tokens, "test", "evaluation.sampling.batch_size"
                )
            case "probe" if recipe.analysis is not None:
                draws = recipe.analysis.sampling
                where = "analysis.sampling.batch_size"
                return self._drawing(model, draws.batch_size, draws.max_new_tokens, "test", where)
            case "targets" if isinstance(phase, Imitates):
                return self._targets(phase)
        return None

    def _prompt(self, model: ModelSettings, whose: Whose) -> int:
        return self.prompts.longest(Ask(model, "", problems=whose)) or ASSUMED_PROMPT

    def _drawing(self, model: ModelSettings, places: int, tokens: int, whose: Whose, setting: str) -> Info | None:
        shape = shape_of(model)
        if shape is None:
            return None
        device, prompt = planned_device(model), self._prompt(model, whose)
        moment = generation(model, shape, device, places=places, prompt=prompt, new_tokens=tokens)
        mend = f"lower {setting} (now {places}) or max_new_tokens, set model.dtype=bfloat16, or take a smaller model"
        return _info(Footprint([moment]), model, device, mend)

    def _targets(self, phase: Imitates) -> Info | None:
        """The most that any model takes which is asked for targets, or that scores them."""
        found: list[Info] = []
        for entry in phase.targets:
            if not isinstance(entry, DataTargets):
                for model in asked_models(entry) or [self.recipe.model]:
                    draws, where = entry.sampling, "targets.sampling.batch_size"
                    one = self._drawing(model, draws.batch_size, draws.max_new_tokens, "train", where)
                    found += [] if one is None else [one]
            shape = shape_of(self.recipe.model) if scores(entry) else None
            if shape is not None:
                found.append(self._scoring(shape))
        return max(found, key=lambda one: one["needed"], default=None)

    def _scoring(self, shape: Shape) -> Info:
        model = self.recipe.model
        device = planned_device(model)
        parts = {
            "weights": float(shape.parameters * element_bytes(model.dtype, device)),
            "logits": head_bytes(SCORED_AT_ONCE, shape.vocabulary, device, device_bytes(model, device)),
        }
        return _info(Footprint([Moment("scores", parts)]), model, device, "take a smaller model or dtype bfloat16")

    def _training(self, phase: Phase) -> Info | None:
        model = self.recipe.model
        shape = shape_of(model)
        if shape is None:
            return None
        device = planned_device(model)
        lengths, certain = self._lengths(phase, shape)
        footprint = training(phase, model, shape, device, lengths, self.recipe.launch)
        return _info(footprint, model, device, lower(phase, footprint), certain)

    def _lengths(self, phase: Phase, shape: Shape) -> tuple[Lengths, bool]:
        """The longest texts of a phase, and whether something says that there may be such."""
        model = self.recipe.model
        prompt = self._prompt(model, "train")
        target, certain = 0, True
        if isinstance(phase, SFTPhase | Joint) and isinstance(phase, Imitates):
            limit = longest_target(phase.max_length, shape.context(model))
            told = [self._response(entry) for entry in phase.targets]
            certain = phase.max_length is not None or None not in told
            target = limit - prompt if None in told else min(limit - prompt, max(t for t in told if t is not None))
            target = max(1, target)
        if isinstance(phase, RL):
            return Lengths(prompt, phase.max_new_tokens, target), certain
        return Lengths(prompt, target), certain

    def _response(self, entry: Any) -> int | None:
        """Tokens of the longest target of an entry; None where nothing tells before it is made."""
        if not isinstance(entry, DataTargets):
            return int(entry.sampling.max_new_tokens)
        return self.prompts.longest_solution(self.recipe.model) if entry.style == "solution" else None


def _info(footprint: Footprint, model: ModelSettings, device: str, mend: str, certain: bool = True) -> Info:
    available, needed, peak = device_bytes(model, device), footprint.needed(device), footprint.peak
    each = f"{footprint.processes} processes of " if footprint.processes > 1 else ""
    said = f"{each}{'' if certain else '≤ '}{gib(peak.total)} GiB ({peak.name}: {words(peak.parts)})"
    said += f"; with the process {gib(needed)}"
    said += f" of {gib(available)} GiB on {device}" if available is not None else f" GiB on {device}"
    return {
        "device": device,
        "bytes": round(peak.total),
        "needed": round(needed),
        "available": None if available is None else round(available),
        "moment": peak.name,
        "parts": {name: round(size) for name, size in peak.parts.items()},
        "processes": footprint.processes,
        "fits": None if available is None else needed <= available,
        "certain": certain,
        "unknown": footprint.unknown,
        "lower": mend,
        "words": said,
    }


def refuse(label: str, info: Info, *, spare: float = 1.0) -> None:
    """Refuse a step that the device has not the memory for.

    Args:
        label: the step's.
        info: of :meth:`Estimates.of`.
        spare: how many times the device's memory may be needed.

    Raises:
        DereasonError: more is needed, and nothing but the longest target is a guess.
    """
    if info["available"] is None or not info["certain"] or info["needed"] <= spare * info["available"]:
        return
    parts = words(info["parts"])
    raise DereasonError(
        f"{label}: about {info['needed'] / GIB:.1f} GiB are needed, and the {info['device']} device has "
        f"{info['available'] / GIB:.1f} GiB ({info['moment']}: {parts})",
        info["lower"],
    )
