"""The analysis over files and in a recipe: what is read, what is refused, what is compared, and that it goes on."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml

from dereason.analysis.comparison import Comparison
from dereason.analysis.settings import Analysis
from dereason.cli.main import main
from dereason.errors import DereasonError
from dereason.pipeline import reasoning
from dereason.pipeline.actions import Context
from dereason.pipeline.analyze import comparisons_of
from dereason.pipeline.build import build
from dereason.pipeline.progress import Screen
from dereason.pipeline.reasoning import analysis_key, stage_comparisons, stage_names
from dereason.pipeline.recipe import Recipe, find_recipe, load_recipe
from dereason.pipeline.responses import Given, given, read_samples
from dereason.problems.schema import frame, write_table

ROW = {"problem_id": "p", "model": "m", "response": "one. two.", "verdict": "correct"}


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows))
    return path


def without(name: str, **more: Any) -> dict[str, Any]:
    return {k: v for k, v in (ROW | more).items() if k != name}


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["{oops"], "line 1 is not JSON"),
        ([ROW, [1]], "line 2 is a list"),
        ([ROW, without("problem_id")], "line 2 has no field 'problem_id'"),
        ([without("model")], "line 1 has no field 'model' .* name the file: NAME=PATH"),
        ([ROW | {"response": None}], "line 1: response is null"),
        ([ROW | {"verdict": "Correct"}], "line 1: verdict is \"Correct\" — give one of correct, wrong"),
        ([without("verdict", correct=2)], "line 1: correct is 2 — give true, false or null"),
        ([ROW | {"correct": False}], "verdict is 'correct' and correct is false"),
        ([without("verdict")], "line 1 has neither verdict nor correct"),
        ([ROW | {"index": -1}], "line 1: index is -1"),
        ([ROW | {"index": 2**31}], "line 1: index is 2147483648 — give a whole number from 0"),
        ([ROW | {"tokens": 10**30}], "line 1: tokens is 1000"),
        ([ROW | {"tokens": True}], "line 1: tokens is true"),
        ([ROW | {"hit_limit": "no"}], "line 1: hit_limit is \"no\""),
        ([ROW | {"index": 0}] * 2, "line 2: response 0 of 'm' to problem 'p' stands already in .*line 1"),
        ([ROW, ROW | {"problem_id": "q", "model": "n"}], "no problem is answered by 'n' and by 'm'"),
        ([ROW | {"step": 3}], "line 1 is a rollout of optimiser step 3"),
        (["", ""], "no rows in it"),
    ],
)  # fmt: skip
def test_a_bad_row_is_refused_by_file_row_and_field(tmp_path: Path, rows: list[Any], words: str) -> None:
    path = lines(tmp_path / "given.jsonl", *rows)
    with pytest.raises(DereasonError, match=words) as caught:
        read_samples([Given(path)])
    assert (str(path) in caught.value.cause) == ("no problem" not in words)
    assert caught.value.mend


def test_a_problem_that_is_not_there_is_refused(tmp_path: Path) -> None:
    path = lines(tmp_path / "given.jsonl", without("verdict"))
    assert read_samples([Given(path)], problems={"p"})["m"]["verdict"].to_list() == [None]
    with pytest.raises(DereasonError, match="line 1: problem_id 'p' is none of the given problems"):
        read_samples([Given(path)], problems={"q"})


def test_other_files_and_rows_become_sample_tables(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "given.jsonl",
        {"problem_id": 7, "model": "b", "response": "x", "correct": True},
        {"problem_id": 7, "model": "a", "response": "y", "correct": False, "tokens": 5, "hit_limit": True},
        {"problem_id": 7, "model": "b", "response": "z", "verdict": "truncated", "note": "of the user"},
    )
    found = read_samples([Given(path)])
    assert list(found) == ["b", "a"]
    columns = ["problem_id", "model", "purpose", "index", "response", "tokens", "hit_limit", "verdict"]
    assert found["b"].select(columns).rows() == [
        ("7", "b", "given", 0, "x", None, None, "correct"),
        ("7", "b", "given", 1, "z", None, None, "truncated"),
    ]
    assert found["a"].select(columns).rows() == [("7", "a", "given", 0, "y", 5, True, "wrong")]
    ours = tmp_path / "samples.parquet"
    write_table(found["b"], ours)
    again = read_samples([Given(ours)])["b"]
    assert again.equals(found["b"])


def test_a_mark_at_the_beginning_and_lone_surrogates_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(
        b"\xef\xbb\xbf" + json.dumps(ROW | {"problem_id": "p\ud800", "response": "a\ud83d b \U0001f600"}).encode()
    )
    table = read_samples([Given(path)])["m"]
    assert table["problem_id"].to_list() == ["p\ufffd"]
    assert table["response"].to_list() == ["a\ufffd b \U0001f600"]


def test_the_key_knows_an_embedding_model_by_all_its_files(tmp_path: Path) -> None:
    pooling = tmp_path / "model" / "1_Pooling" / "config.json"
    pooling.parent.mkdir(parents=True)
    settings = Analysis.model_validate({"steps": {"embedding": str(tmp_path / "model")}})
    keys = []
    for text in ("mean", "first", "mean"):
        pooling.write_text(text)
        keys.append(analysis_key(settings))
    assert keys[0] == keys[2] != keys[1]
    hub = Analysis.model_validate({"steps": {"embedding": "someone/model"}})
    assert analysis_key(hub)["embedding"] == "someone/model"


def test_files_name_their_model_and_pooling_takes_all_for_one(tmp_path: Path) -> None:
    one, two = lines(tmp_path / "1.jsonl", ROW, ROW), lines(tmp_path / "2.jsonl", ROW | {"index": 0})
    named = read_samples([Given(one, "before"), Given(two, "after")])
    assert {name: table.height for name, table in named.items()} == {"before": 2, "after": 1}
    assert set(named["before"]["model"]) == {"before"}
    both = lines(tmp_path / "3.jsonl", ROW | {"step": 1}, ROW | {"model": "n", "index": 0, "step": 2})
    pooled = read_samples([Given(both), Given(two)], pool=True)
    assert {name: table["index"].to_list() for name, table in pooled.items()} == {"pooled": [0, 1, 2]}
    with pytest.raises(DereasonError, match="line 2 is of another model"):
        read_samples([Given(lines(tmp_path / "4.jsonl", ROW, ROW | {"model": "n"}), "x")])
    with pytest.raises(DereasonError, match="--pool makes one of all"):
        read_samples([Given(one, "before")], pool=True)


def test_each_reading_of_an_early_warning_is_a_model(tmp_path: Path) -> None:
    rows = [ROW | {"purpose": "early_warning", "step": step, "index": i} for step in (0, 20) for i in range(2)]
    path = lines(tmp_path / "early-warning.jsonl", *rows)
    assert {name: t.height for name, t in read_samples([Given(path)]).items()} == {"m at step 0": 2, "m at step 20": 2}
    assert list(read_samples([Given(path, "rl")])) == ["rl at step 0", "rl at step 20"]


def test_paths_may_hold_an_equals_sign_and_folders_stand_for_their_samples(tmp_path: Path) -> None:
    odd = lines(tmp_path / "a=b.jsonl", ROW)
    assert given(str(odd)) == Given(odd)
    assert given(f"x={odd}") == Given(odd, "x")
    (tmp_path / "eval").mkdir()
    with pytest.raises(DereasonError, match=r"a folder without samples\.parquet"):
        given(str(tmp_path / "eval"))
    write_table(frame("sample", []), tmp_path / "eval" / "samples.parquet")
    assert given(f"x={tmp_path / 'eval'}") == Given(tmp_path / "eval" / "samples.parquet", "x")
    with pytest.raises(DereasonError, match=r"no-such\.jsonl: no such file"):
        given(f"x={tmp_path / 'no-such.jsonl'}")


def test_comparisons_are_read_by_the_models_names() -> None:
    models = ["base", "org/model:free", "base:x"]
    assert comparisons_of(models, []) == [Comparison("base", "org/model:free"), Comparison("base", "base:x")]
    asked = ["base:org/model:free:rl", "base:base:x", "org/model:free:base:x:sft"]
    assert comparisons_of(models, asked) == [
        Comparison("base", "org/model:free", "rl"),
        Comparison("base", "base:x"),
        Comparison("org/model:free", "base:x", "sft"),
    ]
    for wrong in ("base", "base:base", "base:other", "base:base:x:dpo"):
        with pytest.raises(DereasonError, match="models are base"):
            comparisons_of(models, [wrong])


def graph_of(recipe: Recipe) -> Any:
    return build(recipe, Path(), Context(recipe.prompt, Screen(quiet=True)))


def test_stages_are_named_once_and_compared_with_the_stage_before_and_the_base() -> None:
    path = find_recipe("reasoning-small")
    stages = graph_of(load_recipe(path)).stages
    assert list(stage_names(stages).values()) == ["base", "sft-then-rl/1-sft", "sft-then-rl/2-rl", "rl/1-rl"]
    assert stage_comparisons(stages) == [
        Comparison("base", "sft-then-rl/1-sft", "sft"),
        Comparison("sft-then-rl/1-sft", "sft-then-rl/2-rl", "rl"),
        Comparison("base", "sft-then-rl/2-rl"),
        Comparison("base", "rl/1-rl", "rl"),
    ]
    # an arm that begins as another does shares its models; several seeds are told apart
    same = graph_of(load_recipe(path, ["seeds=[0, 1]", "arms.1.phases=[{kind: rl, steps: 2}, {kind: rl, steps: 2}]"]))
    names = list(stage_names(same.stages).values())
    assert names[:3] == ["base", "sft-then-rl/1-sft (seed 0)", "sft-then-rl/2-rl (seed 0)"]
    assert len(names) == len(set(names)) == 1 + 2 * 2 + 2 * 2
    twin = load_recipe(path, ["arms.1.phases=[{kind: rl, steps: 2}]"]).model_dump(mode="json")
    twin["arms"].append(twin["arms"][0] | {"name": "twin", "phases": twin["arms"][0]["phases"][:1]})
    stages = graph_of(Recipe.model_validate(twin)).stages
    assert list(stage_names(stages).values()) == ["base", "sft-then-rl/1-sft", "sft-then-rl/2-rl", "rl/1-rl"]
    assert len(stage_comparisons(stages)) == 4


def test_a_section_analysis_changes_no_other_step() -> None:
    path = find_recipe("reasoning-small")
    asked = {s.folder for s in graph_of(load_recipe(path)).steps()}
    plain = {s.folder for s in graph_of(load_recipe(path, ["analysis=null"])).steps()}
    assert plain < asked
    assert sorted(f.split("-")[0] for f in asked - plain) == ["analyse", *["probe"] * 4]
    spread = {s.folder for s in graph_of(load_recipe(path, ["analysis.workers=1"])).steps()}
    assert spread == asked, "how it is spread over cores is no part of the key"
    cut = {s.folder for s in graph_of(load_recipe(path, ["analysis.trajectories.cut=0.5"])).steps()}
    assert [f.split("-")[0] for f in cut - asked] == ["analyse"], "responses are not drawn again"


def words(model: str, problem: int, index: int) -> str:
    """A response: the model `tuned` has few ways, the other many."""
    draw = random.Random(f"{model} {problem} {index}")
    ways = 2 if model == "tuned" else 12
    chosen = random.Random(f"{problem} {draw.randrange(ways)}")
    return "\n".join("".join(chosen.choice("abcdefghij ") for _ in range(24)) + "." for _ in range(4))


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, eight problems, twelve responses each; every second one is right."""
    rows = [
        {"problem_id": f"p{p}", "model": model, "response": words(model, p, i), "correct": (i + p) % 2 == 0}
        for model in ("base", "tuned")
        for p in range(8)
        for i in range(12)
    ]
    return lines(tmp_path_factory.mktemp("samples") / "given.jsonl", *rows)


PLAIN = ["--set", "analysis.steps=null", "--set", "analysis.workers=1", "--set", "analysis.resamples=200"]


def test_analyze_writes_findings_tables_and_a_page(
    tmp_path: Path, samples: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["analyze", str(samples), *PLAIN, "--compare", "base:tuned:rl", "--out", str(out)]
    assert main(arguments) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "base → tuned (rl): squeezed" in shown
    findings = json.loads((out / "findings.json").read_text())
    assert [m["name"] for m in findings["models"]] == ["base", "tuned"]
    assert findings["comparisons"] == [{"before": "base", "after": "tuned", "phase": "rl"}]
    assert findings["graphs"] is None
    unique = {(r["model"], r["side"]): r["unique"]["estimate"] for r in findings["trajectories"]["unique"]}
    assert unique["tuned", "incorrect"] < unique["base", "incorrect"] / 1.5
    table = pl.read_parquet(out / "samples.parquet")
    assert table.height == 192
    assert set(table["verdict"]) == {"correct", "wrong"}
    assert (out / "analysis.html").is_file()
    assert not (out / "parts").exists()

    stamp = (out / "findings.json").stat().st_mtime_ns
    assert main([*arguments, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["info"]["verdicts"][0]["verdict"] == "squeezed"
    assert (out / "findings.json").stat().st_mtime_ns == stamp, "it is not done again"
    assert main(["report", str(out)]) == 0
    assert (out / "findings.json").stat().st_mtime_ns == stamp
    assert main([*arguments, "--base", "tuned"]) == 2
    assert "holds the output of other settings" in capsys.readouterr().err


def test_an_interrupted_analysis_goes_on_and_ends_alike(
    tmp_path: Path, samples: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from dereason.analysis import findings

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert main(["analyze", str(samples), *PLAIN, "--out", str(whole), "--json"]) == 0
    real, asked = findings.work_on, []

    def interrupted(job: Any) -> Any:
        asked.append(job.problem)
        if len(asked) == 4:
            raise KeyboardInterrupt
        return real(job)

    monkeypatch.setattr(findings, "work_on", interrupted)
    assert main(["analyze", str(samples), *PLAIN, "--out", str(cut), "--json"]) == 130
    assert not cut.exists()
    assert main(["analyze", str(samples), *PLAIN, "--out", str(cut), "--json"]) == 0
    assert asked == ["p0", "p1", "p2", "p3", "p3", "p4", "p5", "p6", "p7"]
    assert (cut / "findings.json").read_bytes() == (whole / "findings.json").read_bytes()


def test_the_verifier_judges_where_a_verdict_is_missing(
    tmp_path: Path, samples: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pool = lines(tmp_path / "pool.jsonl", {"id": "p", "question": "1 + 1?", "answer": "2"})
    rows = [{"problem_id": "p", "response": f"So it is {2 + i % 2}."} for i in range(6)]
    path = lines(tmp_path / "own.jsonl", *rows, {"problem_id": "p", "response": "Hm.", "verdict": "error"})
    out = tmp_path / "out"
    given = ["analyze", f"mine={path}", "--problems", str(pool), *PLAIN, "--out", str(out), "--json"]
    assert main(given) == 0
    info = json.loads(capsys.readouterr().out)["info"]
    assert info["judged"] == 6
    assert {k: v for k, v in info["models"][0]["verdicts"].items() if v} == {"correct": 3, "wrong": 3, "error": 1}
    assert info["warnings"] == ["mine: the verifier failed on 1 of 7 responses, which are left out"]
    findings = json.loads((out / "findings.json").read_text())
    assert [p["question"] for p in findings["problems"]] == ["1 + 1?"]
    assert findings["verdicts"] == []


def test_one_response_each_is_refused_and_can_be_pooled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [ROW | {"model": f"m{i}", "response": f"Number {i}."} for i in range(5)]
    path = lines(tmp_path / "given.jsonl", *rows)
    assert main(["analyze", str(path), *PLAIN, "--out", str(tmp_path / "out")]) == 2
    assert "2 responses" in capsys.readouterr().err
    assert main(["analyze", str(path), "--pool", *PLAIN, "--out", str(tmp_path / "out"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["info"]["responses"] == 5


def test_a_missing_library_is_refused_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reasoning, "find_spec", lambda name: None if name == "igraph" else object())
    assert main(["analyze", str(tmp_path / "not-there.jsonl"), "--out", str(tmp_path / "out")]) == 2
    assert "needs igraph: not installed — pip install 'dereason[analysis]'" in capsys.readouterr().err
    assert main(["analyze", str(tmp_path / "not-there.jsonl"), *PLAIN, "--out", str(tmp_path / "out")]) == 2
    assert "no such file" in capsys.readouterr().err
    assert main(["run", "reasoning-small", "--run-dir", str(tmp_path / "run"), "--json"]) == 2
    assert "needs igraph" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


class Letters:
    """An embedder without weights: how often each letter occurs, as a unit vector."""

    name = "letters@1"

    def __call__(self, texts: Any) -> Any:
        counts = np.array([[t.lower().count(c) + 0.01 for c in "abcdefghij .\n"] for t in texts], dtype=np.float32)
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)


def test_graphs_with_any_embedder(
    tmp_path: Path, samples: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from dereason.analysis import embeddings

    monkeypatch.setattr(embeddings, "load_embedder", lambda name: Letters())
    out = tmp_path / "out"
    given = ["analyze", str(samples), "--set", "analysis.workers=1", "--set", "analysis.resamples=200"]
    assert main([*given, "--out", str(out), "--json"]) == 0
    info = json.loads(capsys.readouterr().out)["info"]
    assert set(info["models"][1]["decay_ratio"]) == {"visits", "degree", "betweenness"}
    findings = json.loads((out / "findings.json").read_text())
    assert findings["provenance"]["embedding"] == "letters@1"
    assert findings["graphs"]["sentences"] == 2 * 8 * 12 * 4


@pytest.mark.slow
def test_a_recipe_with_an_analysis(tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gym = {"source": "reasoning_gym", "families": [{"family": "chain_sum", "size": 8}]}
    optimiser = {"learning_rate": 1e-3, "micro_batch": 4}
    sft = {"kind": "sft", "set": "rl", "batch": 4, "targets": {"style": "steps"}, "optimiser": optimiser}
    rl = {"kind": "rl", "steps": 1, "prompts_per_generation": 2, "group_size": 4, "max_new_tokens": 8}
    route = {"policy": "all", "set": "rl"}
    recipe = {
        "name": "tiny",
        "model": {"name": str(tiny_model)},
        "problems": {"train": gym | {"seed": 1}, "test": gym | {"seed": 2}},
        "profile": {"judge": {"enabled": False}, "pass_rate": {"enabled": False}},
        "arms": [
            {"name": "both", "route": route, "phases": [sft, rl | {"optimiser": optimiser}]},
            {"name": "sft", "route": route, "phases": [sft]},
        ],
        "evaluation": {"sampling": {"temperature": 0.0, "max_new_tokens": 8}},
        "analysis": {
            "problems": 3, "samples": 4, "sampling": {"max_new_tokens": 8}, "steps": None, "workers": 1
        },
    }  # fmt: skip
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(recipe))
    arguments = ["run", str(path), "--run-dir", str(tmp_path / "run"), "--json"]
    assert main([*arguments, "--dry-run"]) == 0
    plan = {s["name"]: s for s in json.loads(capsys.readouterr().out)["steps"]}
    assert plan["probe base"]["tokens_generated"]["value"] == 3 * 4 * 8
    assert plan["analyse reasoning, 3 models"]["work"].startswith("trajectories of 3 models, ")
    assert main(arguments) == 0
    summary = json.loads(capsys.readouterr().out)
    assert [s["kind"] for s in summary["steps"]].count("probe") == 3
    found = summary["reasoning"]
    assert [m["name"] for m in found["models"]] == ["base", "both/1-sft", "both/2-rl"]
    assert [(v["before"], v["after"], v["phase"]) for v in found["verdicts"]] == [
        ("base", "both/1-sft", "sft"),
        ("both/1-sft", "both/2-rl", "rl"),
        ("base", "both/2-rl", None),
    ]
    assert (tmp_path / "run" / found["path"] / "analysis.html").is_file()
    probes = [pl.read_parquet(tmp_path / "run" / p["path"]) for p in summary["artifacts"]["probes"]]
    assert [p.height for p in probes] == [12] * 5
    assert all(set(p["purpose"]) == {"probe"} for p in probes)
    assert main(arguments) == 0
    again = json.loads(capsys.readouterr().out)
    assert all(s["cached"] for s in again["steps"])
    assert again["reasoning"] == found
