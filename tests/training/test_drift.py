"""The drift alarm: what is logged of rollouts, when it warns, and that a resumed phase has the alarm that it had."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dereason.lm.local.model import ModelSettings
from dereason.lm.prompts import Prompt
from dereason.problems.schema import Verdict, frame
from dereason.training.drift import HOW, WATCHED, Alarm, Drift, drift_shares, drift_warnings, signal_warnings
from dereason.training.rl import RL, RLOptimiser, draw_warnings, run_rl
from dereason.verify.several import several_answers
from dereason.verify.verdict import Judgement
from dereason.verify.verifier import Item, Verifier

# -- what is logged ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("response", "several"),
    [
        (r"\boxed{3} no, \boxed{4}", True),
        (r"It may be \boxed{1}. It may be \boxed{2}. It may be \boxed{4}.", True),
        ("The answer is 3. Wait. The answer is 4.", True),
        ("<answer>3</answer> or rather <answer>4</answer>", True),
        (r"The answer is 5, so \boxed{4}", True),
        (r"\boxed{4}", False),
        (r"The answer is \boxed{4}. Final answer: 4", False),
        (r"\boxed{\frac{8}{2}} = \boxed{4}", False),
        ("The answer is simple. The answer is 4.", False),
        ("<answer>\\boxed{4}</answer>", False),
        ("1 + 3 = 4, and 2 + 2 = 4", False),  # unmarked numbers are no answers
        ("", False),
    ],
)
def test_several_different_answers(response: str, several: bool) -> None:
    item = Item(response, False, "4")
    with Verifier() as verifier:
        assert several_answers(verifier, [item], verifier.judge_many([item])) == [several]


def row(verdict: str, how: str | None, *, limit: bool = False, several: bool = False, purpose: str = "rollout") -> Any:
    strict = verdict == "correct" and how not in (None, "number", "alone")
    return {
        "verdict": verdict,
        "how": how,
        "strict": strict,
        "hit_limit": limit,
        "several": several,
        "purpose": purpose,
    }


def test_shares_by_hand() -> None:
    rows = [
        row("correct", "boxed"),
        row("correct", "number", limit=True),
        row("wrong", "alone"),
        row("wrong", "boxed", several=True),
        row("truncated", None, limit=True),
        row("error", "boxed", several=True),
        row("correct", "number", purpose="guided"),
    ]
    found = drift_shares(rows)
    assert found["lenient"] == 0.4
    assert found["strict"] == 0.2
    assert found["gap"] == pytest.approx(0.2)
    assert {name: found[name] for name in ("unmarked", "several_answers", "at_limit")} == {
        "unmarked": 0.4,
        "several_answers": 0.2,
        "at_limit": 0.4,
    }
    by_rule = {name: found[name] for name in HOW if found[name]}
    assert by_rule == {"how/boxed": 0.4, "how/number": 0.2, "how/alone": 0.2, "how/none": 0.2}
    assert drift_shares([row("error", None)]) == {}
    whole = drift_shares([row("correct", "response")])  # a check reads the response, and asks for no mark
    assert (whole["strict"], whole["unmarked"], whole["how/response"]) == (1.0, 0.0, 1.0)


# -- when it warns -------------------------------------------------------------------------------------------------


def logged(values: Sequence[float], name: str = "gap", start: int = 1) -> list[dict[str, Any]]:
    return [{"step": start + i, **dict.fromkeys(WATCHED, 0.1), name: value} for i, value in enumerate(values)]


def test_noise_is_quiet_and_a_drift_is_not() -> None:
    """A share that stays where it is, drawn from 32 rollouts each time, and one that goes up by 20 points."""
    stream = np.random.default_rng(7)
    still = [list(stream.binomial(32, 0.1, 100) / 32) for _ in range(12)]
    assert sum(bool(drift_warnings(logged(values), Drift())) for values in still) <= 1
    moving = [list(stream.binomial(32, np.linspace(0.1, 0.4, 100)) / 32) for _ in range(5)]
    assert all(drift_warnings(logged(values), Drift()) for values in moving)


@pytest.mark.parametrize("name", list(WATCHED))
def test_what_rises_is_named_with_its_numbers(name: str) -> None:
    alarm = Alarm(Drift(window=5))
    said = [alarm.see(line) for line in logged([0.1, 0.12] * 5 + [0.4, 0.42] * 5, name)]
    told = [words for words in said if words]
    assert len(told) == 1, "once, where it begins"
    assert WATCHED[name] in told[0][0]
    assert alarm.brief() == f"drift: {name}"
    (words,) = alarm.report()
    assert "from 10.8 to 41.2 % of the rollouts (steps 1-5 and 16-20)" in words
    fallen = logged([0.4, 0.42] * 5 + [0.1, 0.12] * 5, name)
    assert drift_warnings(fallen, Drift(window=5)) == []


def test_what_came_back_says_so_and_steps_without_rollouts_do_not_count() -> None:
    values = [0.1, 0.12] * 5 + [0.4, 0.42] * 3 + [0.1, 0.12] * 5
    lines = [line for each in logged(values) for line in (each, {"step": each["step"], "loss": 1.0})]
    (words,) = drift_warnings(lines, Drift(window=5))
    assert words.endswith("at the end it no longer is so")
    assert drift_warnings(logged(values), Drift(window=5, rise=0.5)) == []
    assert drift_warnings(logged([0.1] * 4 + [0.9] * 5), Drift()) == [], "nine generations are too few"


@pytest.mark.parametrize(
    ("verdict", "reward", "mend"),
    [
        ("correct", 1.0, "harder"),
        ("correct", 0.0, "mark"),
        ("wrong", 0.0, "easier"),
        ("unparsable", 0.0, "prompt.suffix"),
    ],
)
def test_a_phase_without_signal_says_what_to_do(verdict: str, reward: float, mend: str) -> None:
    lines = [{"step": i, "signal_groups": 0.0, "reward": reward, verdict: 1.0} for i in range(3)]
    (words,) = signal_warnings(lines, joint=False)
    assert "in any of 3 generations" in words
    assert mend in words
    assert "the rewards taught nothing" in words
    assert "demonstrations alone" in signal_warnings(lines, joint=True)[0]
    assert signal_warnings([*lines, {"step": 4, "signal_groups": 0.25}], joint=False) == []
    assert signal_warnings([{"step": 1, "loss": 1.0}], joint=True) == []


# -- in a phase ----------------------------------------------------------------------------------------------------


class Unmarking:
    """Every answer is right; from the seventh generation on none is marked."""

    def __init__(self, first: int) -> None:
        self.generation = first

    def judge_many(self, items: Sequence[Any]) -> list[Judgement]:
        self.generation += 1
        how = "number" if self.generation > 6 else "boxed"
        return [Judgement(Verdict.CORRECT, "4", "planted", how=how) for _ in items]

    def rewarded(self, items: Any, judged: list[Judgement], marks: Any) -> list[Judgement]:
        return judged


def test_a_phase_that_drifts_says_so_once_also_where_it_was_killed(
    tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pool = frame(
        "problem",
        [{"id": f"p{i}", "question": f"{i}?", "answer": "4", "domain": "sum", "source": "test"} for i in range(2)],
    )
    settings = RL(
        steps=12,
        prompts_per_generation=1,
        group_size=2,
        max_new_tokens=2,
        drift=Drift(window=5),
        optimiser=RLOptimiser(checkpoint_every=11),
    )
    shown: list[str] = []

    def phase(first: int, until: int) -> None:
        def progress(done: int, total: int, words: str) -> None:
            shown.append(words)
            if done > until:
                raise KeyboardInterrupt

        run_rl(
            ModelSettings(name=str(tiny_model)),
            Prompt(suffix=""),
            pool,
            settings,
            identity="t",
            out=tmp_path / "model",
            work=tmp_path,
            seed=0,
            verifier=Unmarking(first),  # type: ignore[arg-type]
            progress=progress,
        )

    with caplog.at_level(logging.WARNING), pytest.raises(KeyboardInterrupt):
        phase(0, until=11)
    said = [record.getMessage() for record in caplog.records if record.name == "dereason.training.watch"]
    assert [words[:7] for words in said] == ["step 10"] * 2, "the gap and unmarked answers, once each"
    assert shown[-1].endswith("drift: gap, unmarked")
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        phase(11, until=99)
    assert not [record for record in caplog.records if record.name == "dereason.training.watch"], "said before"
    assert shown[-1].endswith("drift: gap, unmarked"), "and still so"
    no_signal, gap, unmarked = draw_warnings(tmp_path, settings)
    assert "no group of rollouts had signal in any of 12 generations" in no_signal
    assert "from 0.0 to 100.0 %" in gap
    assert "without a mark" in unmarked
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    assert [line["gap"] for line in lines] == [line["how/number"] for line in lines] == [0.0] * 6 + [1.0] * 6
