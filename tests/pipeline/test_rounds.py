"""Arms of several rounds: what a recipe may say, which steps there are, and what a later round does."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from dereason.errors import DereasonError
from dereason.lm.base import Sampling
from dereason.lm.prompts import Prompt
from dereason.pipeline.actions import Context, hand_on
from dereason.pipeline.build import build
from dereason.pipeline.graph import Graph
from dereason.pipeline.progress import Screen
from dereason.pipeline.reading import parse
from dereason.pipeline.recipe import Recipe
from dereason.problems.schema import frame
from dereason.verify.samples import draw_samples
from scripted import ScriptedModel

TIERS = {"policy": "pass_rate", "simple": "rl", "medium": "medium", "hard": "hard"}
TEACHER = {"name": "teacher"}


def recipe_of(tmp_path: Path, *, phases: list[dict[str, Any]], **arm: Any) -> Recipe:
    for name in ("pool", "test"):
        (tmp_path / f"{name}.jsonl").write_text('{"question": "1 + 1?", "answer": "2"}\n')
    data = {
        "name": "rounds",
        "problems": {f: {"source": "file", "path": f"{n}.jsonl"} for f, n in (("train", "pool"), ("test", "test"))},
        "profile": {"judge": {"enabled": False}},
        "arms": [{"name": "a", "route": TIERS, "phases": phases} | arm],
        "seeds": [0, 1],
    }
    return parse(Recipe, data, "rounds.yaml")


def graph_of(tmp_path: Path, **kwargs: Any) -> Graph:
    recipe = recipe_of(tmp_path, **kwargs)
    return build(recipe, tmp_path, Context(recipe.prompt, Screen(quiet=True)))


def kinds(graph: Graph) -> Counter[str]:
    return Counter(step.kind for step in graph.steps())


SFT: dict[str, Any] = {"kind": "sft", "set": ["medium", "hard"]}
RL: dict[str, Any] = {"kind": "rl", "set": ["rl", "hard"]}
CRITIQUE = {"style": "critique", "critic": TEACHER}


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        ({"phases": [SFT | {"targets": CRITIQUE}, RL]}, r"phases\[0\].targets.*RL phase before it"),
        ({"phases": [SFT | {"targets": CRITIQUE}], "rounds": 2}, "RL phase before it"),
        ({"phases": [SFT | {"targets": CRITIQUE}, RL], "rounds": 2}, "nothing but style 'critique'"),
        (
            {"phases": [SFT | {"targets": {"set": "rl"}}]},
            r"targets\[0\].set names 'rl', and the phase trains on 'medium'",
        ),
        ({"phases": [SFT | {"set": ["medium", "easy"]}]}, "'easy', which the policy 'pass_rate' never fills"),
        ({"phases": [SFT | {"targets": {"style": "teacher"}}]}, "targets.teacher: missing"),
        (
            {"phases": [SFT | {"targets": {"style": "teacher", "teacher": TEACHER, "per_problem": 2}}]},
            "per_problem is 2",
        ),
        (
            {"phases": [SFT | {"targets": {"style": "bridge", "teacher": TEACHER, "instructions": "Do {problem}"}}]},
            r"lacks \{trace\}",
        ),
        ({"phases": [SFT], "rounds": 0}, "greater than 0"),
    ],
)
def test_arms_that_cannot_work_are_refused(tmp_path: Path, arm: dict[str, Any], message: str) -> None:
    with pytest.raises(DereasonError, match=message):
        recipe_of(tmp_path, **arm)


def test_targets_are_one_entry_or_several(tmp_path: Path) -> None:
    entries = [{"set": "medium"}, {"style": "bridge", "set": "hard", "teacher": TEACHER}, CRITIQUE]
    for targets, styles in (({"style": "steps"}, ["steps"]), (entries, ["solution", "bridge", "critique"])):
        recipe = recipe_of(tmp_path, phases=[RL, SFT | {"targets": targets}])
        assert [e.style for e in recipe.arms[0].phases[1].targets] == styles  # type: ignore[union-attr]


def test_a_student_behind_an_endpoint_cannot_be_trained(tmp_path: Path) -> None:
    data = recipe_of(tmp_path, phases=[SFT]).model_dump(mode="json")
    data["model"] |= {"name": "m", "backend": "api", "api": {"base_url": "http://localhost:1/v1"}}
    with pytest.raises(DereasonError, match="backend `api` is for teachers"):
        parse(Recipe, data, "rounds.yaml")


def test_each_round_is_profiled_by_the_model_of_the_round_before(tmp_path: Path) -> None:
    graph = graph_of(tmp_path, phases=[SFT, RL], rounds=2)
    found = kinds(graph)
    # The first round is one for both seeds; the second one depends on what each seed has trained.
    assert {k: found[k] for k in ("pass-rate", "profile", "route", "targets", "train-sft", "train-rl", "eval")} == {
        "pass-rate": 3,
        "profile": 3,
        "route": 3,
        "targets": 3,
        "train-sft": 4,
        "train-rl": 4,
        "eval": 9,
    }
    assert [s.name for s in graph.stages if s.seed == 0] == ["base", "1-sft", "2-rl", "3-sft", "4-rl"]
    assert [s.round for s in graph.stages if s.seed == 0] == [0, 1, 1, 2, 2]
    by_name = {s.name: s for s in graph.stages if s.seed == 1}
    second = next(r for r in graph.rounds if (r.seed, r.number) == (1, 2))
    assert second.pass_rate is not None
    assert second.pass_rate.inputs["training"] is by_name["2-rl"].training
    third = by_name["3-sft"].training
    assert third is not None
    assert third.inputs["before"] is by_name["2-rl"].training
    assert by_name["3-sft"].targets is not None
    assert by_name["3-sft"].targets.inputs["routes"] is second.route


def test_rounds_that_read_no_pass_rate_are_routed_once(tmp_path: Path) -> None:
    phases = [{"kind": "sft"}, {"kind": "rl", "set": "sft"}]
    graph = graph_of(tmp_path, phases=phases, rounds=3, route={"policy": "all"})
    found = kinds(graph)
    assert (found["route"], found["pass-rate"], found["targets"]) == (1, 0, 1)
    assert found["train-rl"] == 6


def test_critiques_read_the_failures_of_the_rl_phase_before(tmp_path: Path) -> None:
    graph = graph_of(tmp_path, phases=[SFT | {"targets": [{}, CRITIQUE]}, RL], rounds=2)
    by_name = {s.name: s for s in graph.stages if s.seed == 0}
    first, later = by_name["1-sft"].targets, by_name["3-sft"].targets
    assert first is not None
    assert later is not None
    assert "failures" not in first.inputs
    assert later.inputs["failures"] is by_name["2-rl"].training


def test_what_decides_targets_is_in_their_key_and_nothing_else(tmp_path: Path) -> None:
    def key(**changes: Any) -> str:
        entry = {"style": "teacher", "teacher": TEACHER} | changes
        targets = graph_of(tmp_path, phases=[SFT | {"targets": entry}]).stages[1].targets
        assert targets is not None
        return targets.key

    assert len({key(), key(n=2), key(keep="all"), key(teacher={"name": "other"}), key(seed=1)}) == 5
    endpoint = {"name": "t", "backend": "api", "api": {"base_url": "http://localhost:1/v1", "key_env": None}}
    slower = endpoint | {"api": {"base_url": "http://localhost:2/v1", "key_env": None, "concurrency": 2}}
    assert key(teacher=endpoint) == key(teacher=slower), "where and how fast an endpoint answers is no other question"


def test_every_rounds_profile_is_run_whoever_reads_it(tmp_path: Path) -> None:
    """The summary reads it, also where the policy and all targets do without."""
    phases = [{"kind": "sft", "targets": {"style": "self"}}, {"kind": "rl", "set": "sft"}]
    graph = graph_of(tmp_path, phases=phases, rounds=2, route={"policy": "all"})
    there = {step.folder for step in graph.steps()}
    assert all(r.profile is not None and r.profile.folder in there for r in graph.rounds)


def test_own_responses_are_those_of_the_model_that_is_trained(tmp_path: Path) -> None:
    """In the middle of a round the profile is of an earlier model: nothing is taken from it."""
    own = SFT | {"targets": {"style": "self"}}
    by_name = {s.name: s for s in graph_of(tmp_path, phases=[own, RL, own]).stages if s.seed == 0}
    first, third = by_name["1-sft"].targets, by_name["3-sft"].targets
    assert first is not None
    assert third is not None
    assert "profile" in first.inputs
    assert "profile" not in third.inputs
    assert third.inputs["before"] is by_name["2-rl"].training
    with pytest.raises(DereasonError, match="from the profile alone"):
        recipe_of(tmp_path, phases=[own, RL, SFT | {"targets": {"style": "self", "n": 0}}])


def test_a_phase_that_is_skipped_hands_on_its_model_also_after_a_kill(tmp_path: Path) -> None:
    before, work = tmp_path / "before", tmp_path / "work"
    (before / "model").mkdir(parents=True)
    work.mkdir()
    (before / "model" / "weights").write_text("w")
    (before / "step.json").write_text(json.dumps({"info": {"model": "model", "template_hash": "t"}}))
    for _ in range(2):  # the second finds what a killed first one left
        facts = hand_on(work, before, "no problem got a target")
    assert (work / "model" / "weights").read_text() == "w"
    assert (facts["model"], facts["template_hash"], facts["steps"]) == ("model", "t", 0)
    assert "no problem got a target" in facts["warnings"][0]


def test_responses_to_another_question_are_drawn_anew(tmp_path: Path) -> None:
    """Batches are known by number: one of another problem must not be taken for this one's."""
    rows = [{"id": i, "question": f"What is {i}?", "answer": "1", "domain": "d", "source": "s"} for i in "ab"]
    pool = frame("problem", rows)

    def draw(problems: pl.DataFrame) -> list[str]:
        model = ScriptedModel(lambda text, i: "\\boxed{1}")
        common: dict[str, Any] = {"n": 1, "sampling": Sampling(), "seed": 0, "purpose": "eval", "store": tmp_path / "s"}
        found = draw_samples(model, problems, Prompt(), **common)
        assert found["problem_id"].to_list() == problems["id"].to_list()
        return model.asked

    assert len(draw(pool)) == 2
    assert draw(pool) == []
    assert len(draw(pool[1:])) == 1
