"""What no plain reward may do with an error, the judge, sums of rewards, and their settings."""

from __future__ import annotations

import pickle
import random
from collections.abc import Sequence
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from dereason.errors import DereasonError
from dereason.lm.local.model import ModelSettings
from dereason.problems.schema import Verdict
from dereason.training.rewards.grader import GenerativeVerifier
from dereason.training.rewards.judge import JudgeReward, asks
from dereason.training.rewards.rules import (
    Combined,
    CorrectnessReward,
    FormatReward,
    Judging,
    PatternMatch,
    boxed_last,
    completion_text,
    question_text,
    weighted_sum,
)
from dereason.training.rewards.settings import (
    Correctness,
    Format,
    Judge,
    LengthShaped,
    Overlong,
    Reward,
    Rewards,
    build,
    combine,
)
from dereason.training.rewards.verifier_free import Bound
from dereason.verify.verdict import Judgement
from dereason.verify.verifier import Item
from scripted_rewards import Scripted, Words, call, every_reward, judgement

REWARDS: TypeAdapter[list[Reward]] = TypeAdapter(list[Reward])


# --- judging -----------------------------------------------------------------------------------------------------


def test_every_reward_is_none_for_an_error_and_the_judge_is_not_asked() -> None:
    lm = Scripted(lambda _: "Final Decision: Yes")
    judged = [judgement(Verdict.CORRECT, "4"), judgement(Verdict.ERROR), judgement(Verdict.WRONG, "5")]
    table = {f.__name__: call(f, 3, judgements=judged) for f in every_reward(lm)}
    assert len(table) == 7
    for name, rewards in table.items():
        assert [r is None for r in rewards] == [False, True, False], name
    assert len(lm.asked) == 2


def test_an_error_with_an_answer_kept_is_an_error_too() -> None:
    for function in every_reward():
        assert call(function, 1, judgements=[judgement(Verdict.ERROR, "4")]) == [None]


def test_rewards_judge_by_themselves_and_once_for_all() -> None:
    calls: list[Sequence[Item]] = []

    def judge(items: Sequence[Item]) -> list[Judgement]:
        calls.append(items)
        return [judgement(Verdict.CORRECT, "4") for _ in items]

    judging = Judging(judge=judge)
    functions = build(
        Rewards(of=[Correctness(), Format(), LengthShaped()]), tokenizer=Words(), max_new_tokens=8, judging=judging
    )
    for function in functions:
        assert call(function, 3) == [1.0, 1.0, 1.0]
    assert len(calls) == 1
    assert call(functions[0], 3, answer=["5", "5", "5"]) == [1.0, 1.0, 1.0]
    assert len(calls) == 2, "another batch is judged anew"


def test_completions_are_judged_by_the_rules() -> None:
    (function,) = build(Rewards(), tokenizer=Words(), max_new_tokens=3)
    texts = [r"\boxed{4}", r"\boxed{5}", "none", "B", "so the answer is 4", "so the answer is 4"]
    options = [None, [], None, ["3", "4"], None, None]
    ids = [[1, 0]] * 4 + [[1, 1, 0], [1, 1, 1]]  # the last one was cut: 4 may have been 42
    got = call(
        function, 6, completions=texts, answer=["4", "4", "4", "B", "4", "4"], options=options, completion_ids=ids
    )
    assert got == [1.0, 0.0, 0.0, 1.0, 1.0, 0.0]
    limits = [False] * 6
    got = call(function, 6, completions=texts, answer=["4"] * 6, completion_ids=ids, hit_limits=limits)
    assert got[-1] == 1.0


@pytest.mark.parametrize(
    ("marks", "paid"), [("all", [1, 1, 0, 1, 0]), (["boxed"], [1, 0, 0, 0, 0]), ("any", [1, 1, 0, 1, 1])]
)
def test_what_is_paid_is_the_answer_at_a_mark_that_counts(marks: Any, paid: list[float]) -> None:
    function = combine(Rewards(marks=marks), tokenizer=Words(), max_new_tokens=8)
    texts = [
        r"\boxed{4} and then 7, 8",
        "The answer is 4. Or 5?",
        "The answer is 5. So 4",
        "<answer>4</answer>",
        "is 4",
    ]
    assert call(function, 5, completions=texts) == paid
    shaped = combine(Rewards(marks=marks, of=[LengthShaped()]), tokenizer=Words(), max_new_tokens=8)
    none = {"all": [4], "any": [], "boxed": [1, 2, 3, 4]}[marks if isinstance(marks, str) else marks[0]]
    assert [i for i, r in enumerate(call(shaped, 5, completions=texts)) if r == -0.5] == none


def test_the_options_column_may_be_missing_and_answer_may_not() -> None:
    batch: dict[str, Any] = {"prompts": ["q"], "completions": [r"\boxed{4}"], "completion_ids": [[1]]}
    function = CorrectnessReward(Judging())
    assert function(**batch, answer=["4"]) == [1.0]
    assert function(batch["prompts"], batch["completions"], batch["completion_ids"], answer=["4"]) == [1.0]
    with pytest.raises(DereasonError, match="no column 'answer'"):
        function(**batch)


def test_a_response_hit_the_limit_if_it_has_all_its_tokens_and_no_end() -> None:
    judging = Judging(stop_ids=(0, 2), max_new_tokens=3)
    assert [judging.hit_limit(ids) for ids in ([1], [1, 1, 1], [1, 1, 0], [1, 1, 2], [])] == [
        False,
        True,
        False,
        False,
        False,
    ]
    assert not Judging().hit_limit([1] * 9)


def test_texts_of_completions_and_questions() -> None:
    chat = [{"role": "assistant", "content": "one"}, {"role": "tool", "content": "x"}]
    assert completion_text([*chat, {"role": "assistant", "content": "two"}]) == "two"
    assert completion_text(chat) == "one"
    assert completion_text("text") == "text"
    assert completion_text([{"role": "assistant", "content": None}]) == ""
    assert completion_text([{"role": "assistant", "content": [{"type": "text", "text": "b"}]}]) == "b"
    assert completion_text([]) == ""
    prompt = [{"role": "system", "content": "s"}, {"role": "user", "content": "q?"}]
    assert question_text(prompt, None, ["x", "y"]) == "q?"
    assert question_text(prompt, " why? ", ["x", "y"]) == "why?\n(A) x\n(B) y"
    assert question_text("plain", None, None) == "plain"


# --- judge -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("when", "verdict", "extracted", "reference", "asked"),
    [
        ("always", Verdict.CORRECT, "4", "4", True),
        ("always", Verdict.WRONG, "5", "4", True),
        ("wrong", Verdict.CORRECT, "4", "4", False),
        ("wrong", Verdict.WRONG, "5", "4", True),
        ("no_rule", Verdict.WRONG, "5", "4", False),
        ("no_rule", Verdict.WRONG, "air scatters light", "Rayleigh scattering", True),
        ("no_rule", Verdict.CORRECT, "Rayleigh scattering", "Rayleigh scattering", False),
        *[(w, v, None, "some text here", False) for w in ("always", "wrong", "no_rule") for v in Verdict],
        *[(w, Verdict.ERROR, "x", "some text here", False) for w in ("always", "wrong", "no_rule")],
    ],
)
def test_when_the_judge_is_asked(
    when: Any, verdict: Verdict, extracted: str | None, reference: str, asked: bool
) -> None:
    assert asks(when, judgement(verdict, extracted), reference, None) is asked


def test_a_choice_has_a_rule() -> None:
    assert not asks("no_rule", judgement(Verdict.WRONG, "A"), "some text here", ["other text", "some text here"])


def test_the_judge_pays_by_its_decision() -> None:
    replies = {"yes": "Final Decision: Yes", "no": "Final Decision: No", "hm": "I cannot tell."}
    lm = Scripted(lambda text: replies[text.split("Student Answer: ")[1].split()[0]])
    function = JudgeReward(Judging(), GenerativeVerifier(lm), "always")  # type: ignore[arg-type]
    judged = [
        judgement(Verdict.WRONG, "yes"),
        judgement(Verdict.CORRECT, "no"),
        judgement(Verdict.WRONG, "hm"),
        judgement(Verdict.UNPARSABLE),
        judgement(Verdict.TRUNCATED),
        judgement(Verdict.ERROR),
        judgement(Verdict.WRONG, "yes"),
    ]
    logged: dict[str, float] = {}
    got = call(function, 7, judgements=judged, question=["What?"] * 7, log_metric=logged.__setitem__)
    assert got == [1.0, 0.0, None, 0.0, 0.0, None, 1.0]
    assert len(lm.asked) == 3, "equal answers to one question are asked once"
    assert "### Question: What?" in lm.asked[0]
    assert logged == {"judge/asked": pytest.approx(4 / 6), "judge/undecided": pytest.approx(1 / 6)}


def test_where_the_judge_is_not_asked_the_rules_pay() -> None:
    lm = Scripted(lambda _: "Final Decision: Yes")
    function = JudgeReward(Judging(), GenerativeVerifier(lm), "no_rule")  # type: ignore[arg-type]
    judged = [judgement(Verdict.CORRECT, "4"), judgement(Verdict.WRONG, "5"), judgement(Verdict.WRONG, "the sky")]
    assert call(function, 3, answer=["4", "4", "the blue sky"], judgements=judged) == [1.0, 0.0, 1.0]
    assert len(lm.asked) == 1


def test_one_judging_model_is_loaded_once() -> None:
    loads: list[str] = []

    def load(model: ModelSettings, kwargs: dict[str, Any]) -> Any:
        loads.append(f"{model.name} {kwargs}")
        return Scripted(lambda _: "")

    one, two = ModelSettings(name="one"), ModelSettings(name="two")
    settings = [Judge(model=one), Judge(model=one, when="wrong"), Judge(model=two, chat_template_kwargs={"a": 1})]
    build(Rewards(of=settings), tokenizer=Words(), max_new_tokens=8, load=load)
    assert loads == ["one {}", "two {'a': 1}"]


# --- several -----------------------------------------------------------------------------------------------------


def test_a_weighted_sum_with_none_is_none() -> None:
    assert weighted_sum([1.0, 0.5, -1.0], [1.0, 2.0, 0.25]) == pytest.approx(1.75)
    assert weighted_sum([1.0, None], [1.0, 0.0]) is None
    assert weighted_sum([None, None], [1.0, 1.0]) is None


def test_combined_sums_judges_once_and_logs_each() -> None:
    settings = [Correctness(weight=2), Format(weight=0.5), Overlong(buffer=4, weight=0.25)]
    function = combine(Rewards(of=settings), tokenizer=Words(), max_new_tokens=8)
    logged: dict[str, float] = {}
    texts = [r"\boxed{4}", "it is 4.", r"\boxed{5}", "no"]
    ids = [[1, 0], [1] * 5 + [0], [1] * 8, [1] * 7]
    got = call(function, 4, completions=texts, completion_ids=ids, log_metric=logged.__setitem__)
    assert got == pytest.approx([2.5, -0.125, 0.5 - 0.25, -0.75 * 0.25])
    assert logged == pytest.approx(
        {
            "rewards/correctness/mean": 0.25,
            "rewards/format_boxed/mean": 0.5,
            "rewards/overlong/mean": (-0.5 - 1 - 0.75) / 4,
        }
    )


def test_what_is_right_is_the_verdict_and_not_the_sum() -> None:
    """A right answer may be worth 0.5 or less, a wrong one more; a judging model's decision is the verdict."""
    long = judgement(Verdict.CORRECT, "a b c d e f g h i j k")
    judged = [long, judgement(Verdict.WRONG, "5"), judgement(Verdict.UNPARSABLE), judgement(Verdict.ERROR)]
    function = combine(Rewards(of=[LengthShaped()]), tokenizer=Words(), max_new_tokens=8)
    assert call(function, 4, judgements=judged) == [0.5, 0.0, -0.5, None]
    assert function.correct == [True, False, False, None]
    free = Combined([lambda **_: [0.1, 0.9, 0.9, 0.9]], [1.0])  # as CER, which pays a probability
    call(free, 4, judgements=judged)
    assert free.correct == [True, False, False, None]
    asked = build(
        Rewards(of=[Judge(model=ModelSettings(name="scripted"), when="always")]),
        tokenizer=Words(),
        max_new_tokens=8,
        load=lambda *_: Scripted(lambda text: f"Final Decision: {'No' if 'a b c' in text else 'Yes'}"),  # type: ignore[arg-type,return-value]
    )
    decided = Combined(asked, [0.5])
    assert call(decided, 4, judgements=judged) == [0.0, 0.5, 0.0, None]
    assert decided.correct == [False, True, False, None]


def test_combined_hands_its_judgements_down_and_none_spreads() -> None:
    seen: list[Any] = []

    def other(prompts: Any, completions: Any, completion_ids: Any, **columns: Any) -> list[float | None]:
        seen.append(columns["judgements"])
        return [None, 1.0, 1.0]

    judged = [judgement(Verdict.CORRECT, "4"), judgement(Verdict.ERROR), judgement(Verdict.CORRECT, "4")]
    judging = Judging(judge=lambda items: judged)
    function = Combined([CorrectnessReward(Judging()), other], [1.0, 3.0], judging)
    assert call(function, 3) == [None, None, 4.0]
    assert seen == [judged]
    with pytest.raises(ValueError, match="as many weights"):
        Combined([other], [1.0, 2.0])


def test_rewards_can_be_sent_to_another_process() -> None:
    settings = [Correctness(), Format(), Format(shape="think"), Format(shape="regex", pattern=".*"), Overlong(buffer=4)]
    for function in [
        *build(Rewards(of=settings), tokenizer=Words(), max_new_tokens=8),
        combine(Rewards(of=settings), tokenizer=Words(), max_new_tokens=8),
    ]:
        copy = pickle.loads(pickle.dumps(function))
        assert copy.__name__ == function.__name__
        assert call(copy, 2) == call(function, 2)


def test_random_batches_keep_their_order() -> None:
    """Each row's reward in a batch is its reward alone."""
    generator = random.Random(7)
    functions = every_reward(Scripted(lambda text: f"Final Decision: {'Yes' if 'Answer: 4' in text else 'No'}"))
    for _ in range(20):
        judged = [
            judgement(v, generator.choice(["4", "5", "44"]) if v in (Verdict.CORRECT, Verdict.WRONG) else None)
            for v in generator.choices(list(Verdict), k=generator.randrange(1, 12))
        ]
        texts = [generator.choice([r"\boxed{4}", "x", "<think>a</think>b"]) for _ in judged]
        ids = [[1] * generator.randrange(1, 10) for _ in judged]
        for function in functions:
            whole = call(function, len(judged), completions=texts, completion_ids=ids, judgements=judged)
            alone = [
                call(function, 1, completions=[t], completion_ids=[i], judgements=[j])[0]
                for t, i, j in zip(texts, ids, judged, strict=True)
            ]
            assert whole == alone, function.__name__


# --- settings ----------------------------------------------------------------------------------------------------


def test_settings_are_told_apart_by_name() -> None:
    read = REWARDS.validate_python(
        [
            {"name": "correctness"},
            {"name": "length_shaped", "per_token": 0.1},
            {"name": "format", "shape": "regex", "pattern": "a+", "weight": 0.2},
            {"name": "overlong", "buffer": 64},
            {"name": "judge", "model": {"name": "m"}, "when": "wrong"},
        ]
    )
    assert [type(r) for r in read] == [Correctness, LengthShaped, Format, Overlong, Judge]
    assert [r.weight for r in read] == [1.0, 1.0, 0.2, 1.0, 1.0]
    assert REWARDS.validate_json(REWARDS.dump_json(read)) == read


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"name": "correct"}, "correctness"),
        ({"name": "correctness", "wieght": 2}, "wieght"),
        ({"name": "correctness", "weight": float("nan")}, "weight"),
        ({"name": "format", "shape": "regex"}, "needs a pattern"),
        ({"name": "format", "pattern": "a"}, "no other shape takes one"),
        ({"name": "format", "shape": "regex", "pattern": "(a"}, "is no regular expression"),
        ({"name": "format", "opened_by_prompt": True}, "shape: think alone"),
        ({"name": "overlong"}, "buffer"),
        ({"name": "overlong", "buffer": 0}, "buffer"),
        ({"name": "judge"}, "model"),
        ({"name": "judge", "model": {"name": "m"}, "when": "never"}, "when"),
        ({"name": "judge", "model": {"name": "m"}, "prompt": {"template": "{answer}"}}, "the template needs"),
    ],
)
def test_bad_settings_are_refused(row: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        REWARDS.validate_python([row])


def test_a_buffer_longer_than_the_limit_is_refused() -> None:
    with pytest.raises(DereasonError, match=r"overlong\.buffer is 9 tokens, more than max_new_tokens 8"):
        build(Rewards(of=[Overlong(buffer=9)]), tokenizer=Words(), max_new_tokens=8)


def test_a_pattern_that_could_not_tell_is_none() -> None:
    assert PatternMatch("(a|aa)+[yz]", 0.05)("a" * 5000) is None


def test_a_demonstration_is_worth_what_a_correct_response_is_paid() -> None:
    """Whatever its verdict would be; its own text earns the bonus for a format, or does not."""
    judging = Judging()
    functions = [CorrectnessReward(judging), FormatReward(judging, "format", boxed_last), Bound()]
    reward = Combined(functions, [1.0, 0.2, 0.5], judging)
    rows = [{"prompt": [{"role": "user", "content": "2 + 2?"}], "problem_id": id, "answer": "4"} for id in "ab"]
    assert reward.worth(rows, [r"so \boxed{4}", "so 5"], [[1, 2], [3]]) == pytest.approx([1.7, 1.5])
    assert reward.worth([], [], []) == []
