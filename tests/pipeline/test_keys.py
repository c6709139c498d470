"""Keys: found once, holding all that decides a step's output and nothing else; and which steps there are."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dereason.cli.main import main
from dereason.pipeline import plan, run, store
from dereason.pipeline.actions import Context
from dereason.pipeline.build import build
from dereason.pipeline.graph import Graph
from dereason.pipeline.plan import make_plan
from dereason.pipeline.progress import Screen
from dereason.pipeline.reading import parse
from dereason.pipeline.recipe import Recipe
from dereason.pipeline.store import Log, Step

TIERS = {"policy": "pass_rate", "simple": "rl", "medium": "medium", "hard": "hard"}
BY_JUDGE = {"policy": "quantile", "score": "judge"}
SFT: dict[str, Any] = {"kind": "sft", "set": ["medium", "hard"]}
RL: dict[str, Any] = {"kind": "rl", "set": ["rl", "hard"]}
SPLIT: list[dict[str, Any]] = [{"kind": "sft"}, {"kind": "rl"}]
OWN = {"style": "self"}


def recipe_of(folder: Path, arms: list[dict[str, Any]], **settings: Any) -> Recipe:
    for name in ("pool", "test"):
        (folder / f"{name}.jsonl").write_text('{"question": "1 + 1?", "answer": "2"}\n')
    problems = {f: {"source": "file", "path": f"{n}.jsonl"} for f, n in (("train", "pool"), ("test", "test"))}
    named = [{"name": f"a{i}"} | arm for i, arm in enumerate(arms)]
    return parse(Recipe, {"name": "keys", "problems": problems, "arms": named} | settings, "recipe.yaml")


def graph_of(folder: Path, arms: list[dict[str, Any]], **settings: Any) -> Graph:
    recipe = recipe_of(folder, arms, **settings)
    return build(recipe, folder, Context(recipe.prompt, Screen(quiet=True)))


def keys(graph: Graph, arm: str = "a0") -> set[str]:
    """The folders of what an arm trains and evaluates, and of all that this needs."""
    found: dict[str, Step] = {}
    waiting = [s for stage in graph.stages if stage.arm == arm for s in (stage.evaluation, stage.training) if s]
    while waiting:
        step = waiting.pop()
        if step.folder not in found:
            found[step.folder] = step
            waiting += step.inputs.values()
    return set(found)


MANY = {
    "ten rounds": ([{"route": TIERS, "phases": [SFT, RL], "rounds": 10}], [0]),
    "a hundred arms": (
        [{"route": TIERS | {"simple_at": 0.5 + i / 1000}, "phases": [SFT, RL]} for i in range(100)],
        [0, 1, 2],
    ),
    "three hundred rounds": ([{"route": {"policy": "all"}, "phases": [{"kind": "sft"}], "rounds": 300}], [0]),
}


@pytest.mark.parametrize("name", MANY)
def test_planning_and_running_are_linear_in_the_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Counted, not timed: hashes made, and how often a step's folder is looked at."""
    counts: Counter[str] = Counter()
    digest, folder = store.digest, Step.folder.fget  # type: ignore[attr-defined]

    def counting(value: Any) -> str:
        counts["digest"] += 1
        return digest(value)

    def looked_at(step: Step) -> str:
        counts["folder"] += 1
        return str(folder(step))

    monkeypatch.setattr(store, "digest", counting)
    monkeypatch.setattr(Step, "folder", property(looked_at))
    arms, seeds = MANY[name]
    recipe = recipe_of(tmp_path, arms, seeds=seeds)
    steps = len(make_plan(recipe, tmp_path / "run", tmp_path)["steps"])
    assert steps > 80
    assert counts["digest"] < 2 * steps
    assert counts["folder"] < 20 * steps
    counts.clear()

    def done(where: Path, step: Step, inputs: dict[str, Path], log: Log) -> tuple[dict[str, Any], bool]:
        return {"info": {"sets": dict.fromkeys(("rl", "medium", "hard", "sft"), 100)}}, True

    monkeypatch.setattr(run, "execute", done)
    ctx = Context(recipe.prompt, Screen(quiet=True))
    run._steps(recipe, build(recipe, tmp_path, ctx), tmp_path, ctx, Log(tmp_path / "log.jsonl"))
    assert counts["digest"] < 2 * steps
    assert counts["folder"] < 20 * steps


def test_a_plan_of_many_arms_on_a_large_pool_routes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arms = [{"route": BY_JUDGE | {"rl_fraction": i / 100}, "phases": [{"kind": "rl"}]} for i in range(1, 100)]
    recipe = recipe_of(tmp_path, arms)
    record = {"info": {"train": {"n": 230_000}, "test": {"n": 10}}}
    monkeypatch.setattr(plan, "finished", lambda folder: record if folder.name.startswith("problems") else None)
    sets = make_plan(recipe, tmp_path / "run", tmp_path)["sets"]
    assert {arm: found["rl"]["value"] for arm, found in sets.items()} == {f"a{i - 1}": 2300 * i for i in range(1, 100)}


@pytest.mark.parametrize(
    ("arms", "profile", "measured", "left_out"),
    [
        ([{"route": BY_JUDGE, "phases": SPLIT}], {}, {"judge"}, ["pass rates"]),
        ([{"route": TIERS, "phases": [SFT]}], {}, {"pass-rate"}, ["judge scores"]),
        ([{"route": {"policy": "all"}, "phases": [{"kind": "sft"}]}], {}, set(), ["judge scores", "pass rates"]),
        (
            [{"route": {"policy": "all"}, "phases": [{"kind": "sft", "targets": OWN}]}],
            {},
            {"pass-rate"},
            ["judge scores"],
        ),
        # in the second phase, the profile's responses are of the model before the first
        (
            [{"route": {"policy": "all"}, "phases": [{"kind": "sft"}, {"kind": "sft", "targets": OWN}]}],
            {},
            set(),
            ["judge scores", "pass rates"],
        ),
        (
            [{"route": {"policy": "random", "like": {"policy": "reversed", "of": BY_JUDGE}}, "phases": SPLIT}],
            {},
            {"judge"},
            ["pass rates"],
        ),
        ([{"route": BY_JUDGE, "phases": SPLIT}], {"pass_rate": {"enabled": True}}, {"judge", "pass-rate"}, []),
        (
            [{"route": {"policy": "all"}, "phases": [{"kind": "sft"}], "rounds": 3}],
            {"judge": {"enabled": True}, "pass_rate": {"enabled": True}},
            {"judge", "pass-rate"},
            [],
        ),
        (
            [{"route": {"policy": "all"}, "phases": [{"kind": "sft", "targets": OWN}]}],
            {"pass_rate": {"enabled": False}},
            set(),
            ["judge scores"],
        ),
        ([{"route": BY_JUDGE, "phases": SPLIT}, {"route": TIERS, "phases": [SFT]}], {}, {"judge", "pass-rate"}, []),
    ],
)
def test_what_nothing_reads_and_nobody_asks_for_is_not_measured(
    tmp_path: Path, arms: list[dict[str, Any]], profile: dict[str, Any], measured: set[str], left_out: list[str]
) -> None:
    recipe = recipe_of(tmp_path, arms, profile=profile)
    found = make_plan(recipe, tmp_path / "run", tmp_path)
    kinds = Counter(row["kind"] for row in found["steps"])
    assert {kind: kinds[kind] for kind in ("judge", "pass-rate", "profile")} == {
        "judge": int("judge" in measured),
        "pass-rate": int("pass-rate" in measured),
        "profile": int(bool(measured)),
    }
    assert [line.split(":")[0] for line in found["left_out"]] == left_out


def test_the_plan_says_what_is_not_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = recipe_of(tmp_path, [{"route": BY_JUDGE, "phases": SPLIT}])
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(recipe.model_dump(mode="json")))
    assert main(["run", str(path), "--dry-run", "--run-dir", str(tmp_path / "run")]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "not planned: pass rates: no arm reads them; profile.pass_rate.enabled=true" in out
    assert "responses each" not in out


def test_another_arms_needs_change_nothing_of_an_arm(tmp_path: Path) -> None:
    """An arm that reads pass rates brings their step into the run; what the first arm has trained stays."""
    first = {"route": BY_JUDGE, "phases": SPLIT}
    alone = keys(graph_of(tmp_path, [first]))
    for more in (
        [{"route": TIERS, "phases": [SFT]}],
        [{"route": {"policy": "all"}, "phases": [{"kind": "sft", "targets": OWN}]}],
    ):
        assert keys(graph_of(tmp_path, [first, *more])) == alone
    for profile in ({"k": 64}, {"enabled": True}, {"enabled": False}, {"seed": 5}):
        assert keys(graph_of(tmp_path, [first], profile={"pass_rate": profile})) == alone
    assert keys(graph_of(tmp_path, [first], profile={"judge": {"rubric": "Rate it."}})) != alone


def step_of(graph: Graph, kind: str) -> Step:
    return [step for step in graph.steps() if step.kind == kind][-1]


def judge_reward(**settings: Any) -> dict[str, Any]:
    judge = {"name": "judge", "model": {"name": "owner/verifier"} | settings}
    return {"kind": "rl", "set": "rl", "rewards": {"of": [judge]}}


def endpoint(port: int, **settings: Any) -> dict[str, Any]:
    api = {"base_url": f"http://localhost:{port}/v1", "key_env": None} | settings
    return judge_reward(backend="api", api=api)


ALL: dict[str, Any] = {"route": {"policy": "all", "set": "rl"}}
COLOCATED: dict[str, Any] = {"kind": "rl", "rollouts": "vllm-colocate"}


def on_all(phase: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    return ALL | {"phases": [phase]}, {}


CHOICE = [
    {"kind": "sft", "set": ["medium", "hard"], "keep_checkpoints": 2},
    {"kind": "rl", "set": ["rl", "hard"], "start": {}, "prompts_per_generation": 4},
]


@pytest.mark.parametrize(
    ("kind", "one", "other", "same"),
    [
        # vLLM draws with the floating point type that the model has outside training
        ("train-rl", on_all(COLOCATED), (..., {"model": {"dtype": "bfloat16"}}), False),
        ("train-rl", on_all({"kind": "rl"}), (..., {"model": {"dtype": "bfloat16"}}), True),
        # a judge that is asked in training: by what decides its answers
        ("train-rl", on_all(judge_reward()), on_all(judge_reward(dtype="float16")), False),
        ("train-rl", on_all(judge_reward()), on_all(judge_reward(revision="v2")), False),
        ("train-rl", on_all(endpoint(1)), on_all(endpoint(2, concurrency=2)), True),
        ("train-rl", on_all(endpoint(1)), on_all(endpoint(1, extra={"a": 1})), False),
        # where too few problems are left nothing is chosen, in a later round
        (
            "choose-start",
            ({"route": TIERS, "phases": CHOICE, "rounds": 2}, {}),
            ({"route": TIERS, "phases": [CHOICE[0], CHOICE[1] | {"prompts_per_generation": 2}], "rounds": 2}, {}),
            False,
        ),
        # the prompt stands in the provenance of each row
        ("profile", ({"route": BY_JUDGE, "phases": SPLIT}, {}), (..., {"prompt": {"suffix": "Think."}}), False),
        ("judge", ({"route": BY_JUDGE, "phases": SPLIT}, {}), (..., {"prompt": {"suffix": "Think."}}), True),
        ("judge", ({"route": BY_JUDGE, "phases": SPLIT}, {}), (..., {"profile": {"judge": {"enabled": True}}}), True),
    ],
)
def test_a_key_holds_what_decides_and_nothing_else(
    tmp_path: Path, kind: str, one: tuple[Any, Any], other: tuple[Any, Any], same: bool
) -> None:
    arms = [one[0], one[0] if other[0] is ... else other[0]]
    first, second = (
        step_of(graph_of(tmp_path, [arm], **settings), kind)
        for arm, (_, settings) in zip(arms, (one, other), strict=True)
    )
    assert (first.key == second.key) == same


def test_a_renamed_pool_is_another_pool(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its stem becomes the domain of its problems: in a recipe and in a single command."""
    recipe = recipe_of(tmp_path, [ALL | {"phases": [{"kind": "rl"}]}])
    (tmp_path / "algebra.jsonl").write_bytes((tmp_path / "pool.jsonl").read_bytes())
    data = recipe.model_dump(mode="json")
    data["problems"]["train"]["path"] = "algebra.jsonl"
    ctx = Context(recipe.prompt, Screen(quiet=True))
    renamed = build(parse(Recipe, data, "r"), tmp_path, ctx)
    assert renamed.problems.key != build(recipe, tmp_path, ctx).problems.key
    out = str(tmp_path / "routes")
    command = ["--policy", "all", "--set", "set=rl", "--out", out]
    assert main(["route", str(tmp_path / "pool.jsonl"), *command]) == 0
    assert main(["route", str(tmp_path / "algebra.jsonl"), *command]) == 2
    assert "other settings" in capsys.readouterr().err


def test_a_data_set_in_a_folder_is_known_by_its_content(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "train.jsonl").write_text('{"question": "1 + 1?", "answer": "2"}\n')
    data = recipe_of(tmp_path, [ALL | {"phases": [{"kind": "rl"}]}]).model_dump(mode="json")
    data["problems"]["train"] = {"source": "hub", "name": str(folder)}
    recipe = parse(Recipe, data, "r")
    ctx = Context(recipe.prompt, Screen(quiet=True))
    before = build(recipe, tmp_path, ctx).problems
    assert before.repositories == ()
    (folder / "train.jsonl").write_text('{"question": "1 + 1?", "answer": "3"}\n')
    assert build(recipe, tmp_path, ctx).problems.key != before.key


def test_steps_name_what_they_load_from_the_hub(tmp_path: Path) -> None:
    data = recipe_of(
        tmp_path,
        [{"route": BY_JUDGE, "phases": [{"kind": "sft", "targets": {"style": "teacher", "teacher": {"name": "o/t"}}},
                                        judge_reward()]}],
        model={"name": "o/student", "revision": "v1"},
        profile={"judge": {"model": {"name": "o/judge"}}},
    ).model_dump(mode="json")  # fmt: skip
    data["problems"]["train"] = {"source": "hub", "name": "o/pool"}
    recipe = parse(Recipe, data, "r")
    graph = build(recipe, tmp_path, Context(recipe.prompt, Screen(quiet=True)))
    found = {step.kind: [str(r) for r in step.repositories] for step in graph.steps()}
    assert found == {
        "problems": ["dataset o/pool@main"],
        "judge": ["model o/judge@main"],
        "profile": [],
        "route": [],
        "targets": ["model o/t@main"],
        "train-sft": ["model o/student@v1"],
        "train-rl": ["model o/student@v1", "model owner/verifier@main"],
        "eval": ["model o/student@v1"],
    }


def test_a_teacher_of_many_arms_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = tmp_path / "teacher"
    teacher.mkdir()
    (teacher / "merges.txt").write_text("x")
    phases = [{"kind": "sft", "targets": {"style": "teacher", "teacher": {"name": str(teacher)}}}]
    arms = [{"route": BY_JUDGE | {"rl_fraction": i / 100}, "phases": phases} for i in range(1, 20)]
    calls = SimpleNamespace(n=0)
    from dereason.lm.local import model

    before = model.files_digest

    def counted(*given: Any) -> str:
        calls.n += 1
        return before(*given)

    monkeypatch.setattr(model, "files_digest", counted)
    graph_of(tmp_path, arms)
    assert calls.n == 1
