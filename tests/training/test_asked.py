"""Whether a prompt asks for the marks that are paid: refused, warned of, or fine."""

from __future__ import annotations

from pathlib import Path

import pytest

from dereason.cli.main import main
from dereason.lm.prompts import Prompt
from dereason.pipeline.recipe import find_recipe, load_recipe, shipped
from dereason.training.rewards.asked import asked_marks, unasked
from dereason.training.rl import RL


@pytest.mark.parametrize(
    ("words", "marks"),
    [
        ("Please reason step by step, and put your final answer within \\boxed{}.", ("boxed",)),
        ("Think, then write <answer>...</answer>.", ("tag",)),
        ('End with "The answer is X".', ("final_answer",)),
        ("Finish with a line Answer: $ANSWER", ("final_answer",)),
        ("Antworte am Ende mit: Antwort: X", ("final_answer",)),
        ("请在最后写出 答案:X", ("final_answer",)),
        ("End with #### and the number.", ("hash",)),
        ("Reply with the letter of the right option.", ("letter",)),
        ("Answer the question.", ()),
        ("Think step by step. Give a short answer.", ()),
        ("Use the toolbox.", ()),
        ("", ()),
    ],
)
def test_what_a_prompt_asks_for(words: str, marks: tuple[str, ...]) -> None:
    assert asked_marks(Prompt(suffix=words)) == marks
    assert asked_marks(Prompt(system=words, suffix="")) == marks


RECIPE = """
name: small
prompt: {suffix: SUFFIX}
problems:
  train: {source: reasoning_gym, families: [{family: chain_sum, size: 8}]}
  test: {source: reasoning_gym, families: [{family: chain_sum, size: 4}], seed: 1}
arms:
  - name: rl
    route: {policy: all, set: rl}
    phases: [{kind: rl, set: rl, steps: 1, prompts_per_generation: 2, rewards: REWARDS}]
"""


@pytest.mark.parametrize(
    ("suffix", "rewards", "code", "said"),
    [
        ("Solve it.", "marks: [boxed]", 2, "asks for no such mark"),
        ("End with ####.", "marks: [boxed, tag]", 2, "asks for no such mark"),
        ("Use a box.", "marks: [box]", 2, "'box' is no mark (they are tag, boxed, final_answer, hash, letter)"),
        ("Use a box.", "marks: []", 2, "no mark counts"),
        ("Use a box.", "marks: boxed", 2, "one mark is a list too: write [boxed]"),
        ("Use a box.", "[{name: correctness}]", 2, "write {of: [...]}, with marks beside of"),
        ("Use \\boxed{}.", "marks: [boxed]", 0, ""),
        ("Solve it.", "", 0, "neither prompt.suffix nor prompt.system asks for a mark"),
        ("Solve it.", "marks: any", 0, ""),
        ("Use \\boxed{}.", "", 0, ""),
    ],
)
def test_a_dry_run_refuses_or_warns(
    suffix: str, rewards: str, code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "recipe.yaml"
    written = rewards if rewards.startswith("[") else f"{{{rewards}}}"
    path.write_text(RECIPE.replace("SUFFIX", repr(suffix)).replace("REWARDS", written), encoding="utf-8")
    assert main(["run", str(path), "--dry-run", "--run-dir", str(tmp_path / "out")]) == code
    shown = capsys.readouterr()
    text = " ".join((shown.err if code else shown.out).split())
    assert said in text
    assert ("warning: arm rl" in text) == (code == 0 and bool(said))
    assert code == 0 or shown.err.count("\n") == 1


def test_every_shipped_recipe_asks_for_what_it_pays() -> None:
    for name in shipped():
        recipe = load_recipe(find_recipe(name))
        for phase in (phase for arm in recipe.arms for phase in arm.phases if isinstance(phase, RL)):
            assert phase.rewards.marks == "all"
            assert unasked(phase.rewards, recipe.prompt) == []
