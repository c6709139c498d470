"""The settings of every reward, and :func:`build`, which makes TRL reward functions of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, Self, assert_never

from pydantic import Field, field_validator, model_validator

from dereason.errors import DereasonError
from dereason.lm.base import LanguageModel
from dereason.lm.endings import reply_end
from dereason.lm.load import load_model
from dereason.lm.local.model import ModelSettings
from dereason.lm.thoughts import opens_thought
from dereason.settings import Settings
from dereason.training.rewards.grader import GenerativeVerifier, GenerativeVerifierSettings
from dereason.training.rewards.judge import JudgeReward, When
from dereason.training.rewards.rules import (
    Combined,
    CorrectnessReward,
    FormatReward,
    Judging,
    LengthShapedReward,
    OverlongReward,
    PatternMatch,
    RewardFunction,
    ThinkThenAnswer,
    boxed_last,
)
from dereason.training.rewards.verifier_free import CERReward, RLPRReward, RuleThenCERReward, VeriFreeReward
from dereason.verify.kinds import Kind
from dereason.verify.span import MARKS, Mark

LoadModel = Callable[[ModelSettings, dict[str, Any]], LanguageModel]
"""(model, arguments of its chat template) -> the loaded model."""


class Weighted(Settings):
    """What all rewards have."""

    weight: float = Field(default=1.0, allow_inf_nan=False)
    """Factor of this reward in the sum of all; may be negative."""


class Correctness(Weighted):
    """1 for a correct answer, 0 for any other response."""

    name: Literal["correctness"] = "correctness"
    """The name of this reward."""


class LengthShaped(Weighted):
    """General-Reasoner's reward (arXiv 2505.14652): a right answer should be as long as the reference."""

    name: Literal["length_shaped"] = "length_shaped"
    """The name of this reward."""
    no_answer: float = Field(default=-0.5, allow_inf_nan=False)
    """Reward of a response in which no answer is found."""
    per_token: float = Field(default=0.05, ge=0, allow_inf_nan=False)
    """What a right answer loses for each token that it is longer or shorter than the reference."""
    max_difference: int = Field(default=10, ge=0)
    """The difference in tokens beyond which nothing more is taken off."""


class Format(Weighted):
    """1 where the response has the demanded shape, 0 where not."""

    name: Literal["format"] = "format"
    """The name of this reward."""
    shape: Literal["boxed", "think", "regex"] = "boxed"
    """`boxed`: exactly one box, at the end; `think`: a think block, then an answer; `regex`: what `pattern` says."""
    pattern: str | None = None
    """The regular expression that the whole response must match; for `regex` only."""
    time_limit: float = Field(default=0.5, gt=0, allow_inf_nan=False)
    """Seconds that `pattern` may take for one response; a response that takes longer gets no reward at all."""
    opened_by_prompt: bool | None = None
    """Whether the chat template itself writes `<think>`, so that responses begin after it; null looks at the template.
    For `think` only."""

    @model_validator(mode="after")
    def _fields_fit_the_shape(self) -> Self:
        if (self.pattern is not None) != (self.shape == "regex"):
            raise ValueError("shape: regex needs a pattern, and no other shape takes one")
        if self.opened_by_prompt is not None and self.shape != "think":
            raise ValueError("opened_by_prompt says something of shape: think alone")
        if self.pattern is not None:
            import regex

            try:
                regex.compile(self.pattern)
            except regex.error as exc:
                raise ValueError(f"the pattern {self.pattern!r} is no regular expression: {exc}") from exc
        return self


class Overlong(Weighted):
    """DAPO's soft punishment of long responses (arXiv 2503.14476): from 0 down to -1 at the length limit."""

    name: Literal["overlong"] = "overlong"
    """The name of this reward."""
    buffer: int = Field(gt=0)
    """Over how many tokens below the length limit the punishment grows (the paper's L_cache)."""


class Judge(Weighted):
    """1 where a judging model says that the answer equals the reference, 0 where it says that it does not."""

    name: Literal["judge"] = "judge"
    """The name of this reward."""
    model: ModelSettings
    """The judging model, for example `{name: TIGER-Lab/general-verifier}`. It shares the device with training, so that
    `backend: auto` is `local` here."""
    chat_template_kwargs: dict[str, Any] = {}
    """Extra arguments of the judging model's chat template."""
    when: When = "no_rule"
    """Which answers it is asked about: all, wrong ones whose reference is free text, or all that rules call wrong."""
    prompt: GenerativeVerifierSettings = GenerativeVerifierSettings()
    """How it is asked."""

    @field_validator("model")
    @classmethod
    def _beside_training(cls, model: ModelSettings) -> ModelSettings:
        return model.model_copy(update={"backend": "local"}) if model.backend == "auto" else model


class CER(Weighted):
    """Conditional expectation reward (arXiv 2603.10624): needs no verifier."""

    name: Literal["cer"] = "cer"
    """The name of this reward."""
    keep_unboxed: bool = False
    """Whether a rollout without a box, which itself earns 0, still counts as a reasoning of its group."""


class RuleThenCER(Weighted):
    """The verdict where the reference's kind has a rule, CER where it has none (ours)."""

    name: Literal["rule_then_cer"] = "rule_then_cer"
    """The name of this reward."""
    no_rule: list[Kind] = [Kind.TEXT]
    """Kinds of references that are left to CER."""
    keep_unboxed: bool = False
    """As in `cer`."""


class RLPR(Weighted):
    """RLPR's reward (arXiv 2506.18254): how much a reasoning raises the mean token probability of the reference."""

    name: Literal["rlpr"] = "rlpr"
    """The name of this reward."""
    drop_flat: bool = True
    """Whether prompts whose reward standard deviation lies below a moving threshold are left out, others in place."""
    beta: float = Field(default=0.5, gt=0)
    """The threshold is so many times a moving average; the paper's runs have 0.5 (Qwen), 0.9 (Llama), 1.0 (Gemma)."""
    decay: float = Field(default=0.99, ge=0, lt=1)
    """Decay of that average, over the mean standard deviation of each generation's groups."""
    seen: int = Field(default=6, gt=0)
    """First generation, from 1, that is in the average."""
    start: int = Field(default=11, gt=1)
    """First generation, from 1, that is filtered."""


class VeriFree(Weighted):
    """VeriFree (arXiv 2505.21493): the probability of the reference, with a loss term of its own."""

    name: Literal["verifree"] = "verifree"
    """The name of this reward."""


Reward = Annotated[
    Correctness | LengthShaped | Format | Overlong | Judge | CER | RuleThenCER | RLPR | VeriFree,
    Field(discriminator="name"),
]


class Rewards(Settings):
    """What is paid, and for which answers."""

    marks: Literal["all", "any"] | list[Mark] = "all"
    """What marks the answers that count: a list, `all` marks, or `any`, which also pays an answer without a mark."""
    of: list[Reward] = Field(default=[Correctness()], min_length=1)
    """What is rewarded: the weighted sum of these; a rollout for which one of them is undecided is left out."""

    @model_validator(mode="before")
    @classmethod
    def _an_object(cls, rewards: Any) -> Any:
        if isinstance(rewards, list):
            raise ValueError("a list does not say which answers count: write {of: [...]}, with marks beside of")
        return rewards

    @field_validator("marks", mode="before")
    @classmethod
    def _known(cls, marks: Any) -> Any:
        if isinstance(marks, str) and marks in MARKS:
            raise ValueError(f"one mark is a list too: write [{marks}]")
        words = marks if isinstance(marks, list) else []
        if unknown := [word for word in words if word not in MARKS]:
            raise ValueError(f"{unknown[0]!r} is no mark (they are {', '.join(MARKS)})")
        if marks == []:
            raise ValueError("no mark counts, so nothing could be paid: name some, or write all or any")
        return marks

    @property
    def counted(self) -> tuple[Mark, ...] | None:
        """The marks that count; None where an answer needs none."""
        if self.marks == "any":
            return None
        return MARKS if self.marks == "all" else tuple(self.marks)


def is_verifier_free(reward: Weighted) -> bool:
    """Whether a reward asks the policy, not a verifier; `rule_then_cer` is counted among them."""
    return isinstance(reward, CER | RuleThenCER | RLPR | VeriFree)


def build(
    rewards: Rewards,
    *,
    tokenizer: Any,
    max_new_tokens: int,
    stop_ids: Sequence[int] | None = None,
    load: LoadModel = load_model,
    judging: Judging | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> list[RewardFunction]:
    """Make TRL reward functions of settings, in order; they share one judging of each batch.

    Args:
        rewards: the settings.
        tokenizer: of the model in training.
        max_new_tokens: length limit of a response in tokens.
        stop_ids: token ids that end a response; where None, the tokenizer's end token and what its template writes
            behind a reply.
        load: makes the judging model; called once for each model that the settings name.
        judging: shared with other rewards, in place of one that is made of the arguments above.
        chat_template_kwargs: extra arguments of the chat template; None: there are none.

    Raises:
        DereasonError: an overlong buffer that is longer than the limit, a judging model that does not load, or a
            demanded shape that the chat template contradicts.
    """
    rewards = with_opening(rewards, tokenizer, chat_template_kwargs or {})
    judging = judging or _judging(rewards, tokenizer, max_new_tokens, stop_ids)
    loaded: dict[str, LanguageModel] = {}

    def model(judge: Judge) -> LanguageModel:
        key = judge.model_dump_json(include={"model", "chat_template_kwargs"})
        if key not in loaded:
            loaded[key] = load(judge.model, judge.chat_template_kwargs)
        return loaded[key]

    return [_build_one(reward, judging, tokenizer, max_new_tokens, model) for reward in rewards.of]


def combine(
    rewards: Rewards,
    *,
    tokenizer: Any,
    max_new_tokens: int,
    stop_ids: Sequence[int] | None = None,
    load: LoadModel = load_model,
) -> Combined:
    """One TRL reward function of settings: their sum, weighted as they say.

    Args and errors are those of :func:`build`.
    """
    judging = _judging(rewards, tokenizer, max_new_tokens, stop_ids)
    functions = build(rewards, tokenizer=tokenizer, max_new_tokens=max_new_tokens, load=load, judging=judging)
    return Combined(functions, [reward.weight for reward in rewards.of], judging)


def _judging(rewards: Rewards, tokenizer: Any, max_new_tokens: int, stop_ids: Sequence[int] | None) -> Judging:
    if stop_ids is None:
        stop_ids = [i for i in (tokenizer.eos_token_id, reply_end(tokenizer, {})) if i is not None]
    return Judging(stop_ids=stop_ids, max_new_tokens=max_new_tokens, marks=rewards.counted)


def with_opening(rewards: Rewards, tokenizer: Any, kwargs: Mapping[str, Any]) -> Rewards:
    """The rewards, `opened_by_prompt` said by the tokenizer's chat template where they leave it to that.

    Args:
        rewards: the settings.
        tokenizer: of the model in training; None, or one without a template, opens nothing.
        kwargs: extra arguments of the chat template.

    Raises:
        DereasonError: a reward says otherwise than the template.
    """
    if not any(isinstance(reward, Format) and reward.shape == "think" for reward in rewards.of):
        return rewards
    template = getattr(tokenizer, "chat_template", None) is not None
    opened = template and opens_thought(tokenizer, kwargs)
    found: list[Reward] = []
    for reward in rewards.of:
        if isinstance(reward, Format) and reward.shape == "think":
            if template and reward.opened_by_prompt not in (None, opened):
                raise DereasonError(
                    f"the reward format has opened_by_prompt: {str(reward.opened_by_prompt).lower()}, and the chat "
                    f"template {'opens' if opened else 'does not open'} a thought before the reply",
                    "leave opened_by_prompt out: the template is looked at",
                )
            said = opened if reward.opened_by_prompt is None else reward.opened_by_prompt
            reward = reward.model_copy(update={"opened_by_prompt": said})
        found.append(reward)
    return rewards.model_copy(update={"of": found})


def _build_one(
    reward: Reward, judging: Judging, tokenizer: Any, max_new_tokens: int, model: Callable[[Judge], LanguageModel]
) -> RewardFunction:
    match reward:
        case Correctness():
            return CorrectnessReward(judging)
        case LengthShaped():
            return LengthShapedReward(
                judging,
                tokenizer,
                no_answer=reward.no_answer,
                per_token=reward.per_token,
                max_difference=reward.max_difference,
            )
        case Format(shape="regex", pattern=str(pattern)):
            return FormatReward(judging, "format_regex", PatternMatch(pattern, reward.time_limit))
        case Format(shape="think"):
            shape = ThinkThenAnswer(opened_by_prompt=bool(reward.opened_by_prompt))
            return FormatReward(judging, "format_think", shape)
        case Format():
            return FormatReward(judging, "format_boxed", boxed_last)
        case Overlong():
            if reward.buffer > max_new_tokens:
                raise DereasonError(
                    f"overlong.buffer is {reward.buffer} tokens, more than max_new_tokens {max_new_tokens}",
                    "lower the buffer, DAPO's is a fifth of the limit",
                )
            return OverlongReward(judging, max_length=max_new_tokens, buffer=reward.buffer)
        case Judge():
            return JudgeReward(judging, GenerativeVerifier(model(reward), reward.prompt), reward.when)
        case CER():
            return CERReward(keep_unboxed=reward.keep_unboxed)
        case RuleThenCER():
            return RuleThenCERReward(no_rule=reward.no_rule, keep_unboxed=reward.keep_unboxed)
        case RLPR():
            numbers = reward.model_dump(include={"drop_flat", "beta", "decay", "seen", "start"})
            return RLPRReward(**numbers)
        case VeriFree():
            return VeriFreeReward()
        case _:
            assert_never(reward)
