"""Whole runs as a user makes them (killed ones: test_kill_points.py)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
import yaml

import browser
from dereason.cli.main import main
from dereason.pipeline import environment

pytestmark = pytest.mark.slow


def recipe_file(folder: Path, model: Path) -> Path:
    gym = {
        "source": "reasoning_gym",
        "families": [{"family": "chain_sum", "size": 24}, {"family": "gcd", "size": 8}],
    }
    optimiser = {"learning_rate": 1e-3, "micro_batch": 4, "checkpoint_every": 2}
    phases = [
        {"kind": "sft", "batch": 4, "epochs": 2, "targets": {"style": "steps"}, "optimiser": optimiser},
        {
            "kind": "rl",
            "steps": 4,
            "prompts_per_generation": 2,
            "group_size": 4,
            "max_new_tokens": 8,
            "optimiser": optimiser,
        },
    ]
    recipe = {
        "name": "tiny",
        "model": {"name": str(model)},
        "problems": {"train": gym | {"seed": 1}, "test": gym | {"seed": 2}},
        "profile": {"pass_rate": {"enabled": True, "k": 2, "sampling": {"max_new_tokens": 8, "batch_size": 8}}},
        "arms": [
            {"name": "split", "route": {"policy": "quantile"}, "phases": phases},
            {"name": "backwards", "route": {"policy": "reversed", "of": "split"}, "phases": phases[:1]},
            {"name": "same-start", "route": {"policy": "quantile"}, "phases": phases[:1]},
        ],
        "evaluation": {"sampling": {"temperature": 0.0, "max_new_tokens": 8, "batch_size": 8}},
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    return recipe_file(tmp_path_factory.mktemp("recipe"), tiny_model)


@pytest.fixture(scope="module")
def whole(recipe: Path) -> Path:
    """An uninterrupted run."""
    folder = recipe.parent / "whole"
    assert main(["run", str(recipe), "--run-dir", str(folder), "--json"]) == 0
    return folder


def summary(folder: Path) -> dict[str, object]:
    return dict(json.loads((folder / "summary.json").read_text()))


def test_arms_share_what_they_have_in_common(whole: Path) -> None:
    kinds = [s["kind"] for s in summary(whole)["steps"]]  # type: ignore[attr-defined]
    assert {k: kinds.count(k) for k in kinds} == {
        "problems": 1,
        "audit": 1,
        "judge": 1,
        "pass-rate": 1,
        "profile": 1,
        "route": 2,  # split and same-start route alike
        "targets": 2,
        "train-sft": 2,
        "train-rl": 1,
        "eval": 4,  # base, split 1-sft (= same-start), split 2-rl, backwards 1-sft
    }


def test_a_phase_without_signal_says_so_where_results_are_read(whole: Path) -> None:
    """A random model solves next to nothing; whether a group was mixed by luck is what its own log says."""
    (path,) = [c["path"] for c in summary(whole)["artifacts"]["curves"] if c["kind"] == "rl"]  # type: ignore[index]
    logged = [json.loads(line) for line in (whole / path).read_text().splitlines()]
    assert all({"lenient", "strict", "gap", "how/none"} <= line.keys() for line in logged)
    silent = not any(line["signal_groups"] for line in logged)
    told = [w for w in summary(whole)["warnings"] if "no group of rollouts had signal" in w]  # type: ignore[attr-defined]
    assert [w.startswith("arm split, seed 0, 2-rl: ") for w in told] == [True] * silent
    assert ("no group of rollouts had signal" in (whole / "report.html").read_text()) == silent


def test_a_second_run_finds_everything_cached_and_changes_nothing(recipe: Path, whole: Path) -> None:
    before = summary(whole)
    assert main(["run", str(recipe), "--run-dir", str(whole), "--json"]) == 0
    after = summary(whole)
    assert all(s["cached"] for s in after["steps"])  # type: ignore[attr-defined]
    assert after["results"] == before["results"]
    assert after["seconds"] == before["seconds"]


def test_a_changed_setting_redoes_only_what_depends_on_it(
    recipe: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["run", str(recipe), "--run-dir", str(whole), "--dry-run", "--json"]
    assert main([*arguments, "--set", "arms.0.phases.1.steps=6"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert [s["kind"] for s in plan["steps"] if not s["cached"]] == ["train-rl", "eval"]
    assert plan["sets"]["split"]["rl"]["exact"] is True
    assert main([*arguments, "--set", "arms.0.phases.1.optimiser.checkpoint_every=1"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert all(s["cached"] for s in plan["steps"]), "when it saves does not change what it learns"
    assert main([*arguments, "--set", "verifier={workers: 3, cache_size: 7}"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert all(s["cached"] for s in plan["steps"]), "who compares does not change what is equal"
    assert main([*arguments, "--set", "verifier.time_limit=1"]) == 0
    plan = json.loads(capsys.readouterr().out)
    judging = {"pass-rate", "targets", "train-rl", "eval"}
    assert judging <= {s["kind"] for s in plan["steps"] if not s["cached"]}
    cached = {s["kind"] for s in plan["steps"] if s["cached"]}
    assert cached == {"problems", "judge", "route"}, "an error depends on the limit, and these judge nothing"
    assert main([*arguments, "--set", "profile.pass_rate.k=3"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert [s["kind"] for s in plan["steps"] if not s["cached"]] == ["pass-rate", "profile"], "all route by the judge"


def test_a_set_that_no_phase_can_use_stops_the_run_before_training(
    recipe: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["run", str(recipe), "--run-dir", str(whole), "--json"]
    before = sorted(p.name for p in (whole / "steps").glob("train-*"))
    for override, message in (
        ("arms.0.route={policy: pass_rate}", "arm split: no problem was routed to the set 'rl'"),
        ("arms.0.phases.1.prompts_per_generation=20", "fewer than prompts_per_generation 20"),
    ):
        capsys.readouterr()
        assert main([*arguments, "--set", override]) == 2
        assert message in capsys.readouterr().err
    assert sorted(p.name for p in (whole / "steps").glob("train-*")) == before


def check_confusion(table: dict[str, dict[str, dict[str, int]]], verdicts: dict[str, int]) -> None:
    """The kinds' counts add up to the verdicts', and n leaves errors out."""
    for verdict, count in verdicts.items():
        assert sum(kind[verdict] for kind in table["kinds"].values()) == count
    for kind in table["kinds"].values():
        assert kind["n"] == sum(kind[v] for v in verdicts if v != "error")
    assert set(table["kinds"]) == {"number"}
    assert table["errors"] == {}


def test_summary_keeps_its_contract(whole: Path) -> None:
    found = summary(whole)
    assert found["schema_version"] == 4
    for result in found["results"]:  # type: ignore[attr-defined]
        assert {"arm", "seed", "stage", "accuracy", "low", "high", "n_problems", "n_samples"} <= result.keys()
        assert sum(result["verdicts"].values()) == result["n_samples"]
        assert result["low"] <= result["accuracy"] <= result["high"]
        check_confusion(result["confusion"], result["verdicts"])
        strict = result["strict"]
        assert strict["low"] <= strict["accuracy"] <= strict["high"]
        assert strict["accuracy"] <= result["accuracy"]
        assert sum(kind["strict"] for kind in result["confusion"]["kinds"].values()) <= result["verdicts"]["correct"]
        answers = result["verdicts"]["correct"] + result["verdicts"]["wrong"]
        assert sum(result["found_by"].values()) == pytest.approx(1 if answers else 0)
        assert (result["rollouts"] is not None) == result["stage"].endswith("-rl")
    check_confusion(found["profile"]["confusion"], found["profile"]["verdicts"])  # type: ignore[index]
    log = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()]
    judged = {e["kind"] for e in log if e["event"] == "step-end" and "confusion" in e}
    assert judged == {"pass-rate", "train-rl", "eval"}
    (rollouts,) = [r["rollouts"] for r in found["results"] if r["rollouts"]]  # type: ignore[attr-defined]
    assert sum(k["n"] for k in rollouts["kinds"].values()) == 4 * 2 * 4
    stages = [(r["arm"], r["stage"]) for r in found["results"]]  # type: ignore[attr-defined]
    assert stages[:3] == [("split", "base"), ("split", "1-sft"), ("split", "2-rl")]
    assert found["peak_memory_bytes"] > 10**8  # type: ignore[operator]
    assert found["tokens"]["generated"] > 0  # type: ignore[index]
    assert found["tokens"]["trained"] > 0  # type: ignore[index]
    arms = {a["name"]: a["sets"] for a in found["arms"]}  # type: ignore[attr-defined]
    assert arms["split"]["sft"]["n"] == arms["backwards"]["rl"]["n"]
    assert all(c["strict"]["low"] <= c["strict"]["high"] for c in found["comparisons"])  # type: ignore[attr-defined]
    assert [c["to"] for c in found["arm_comparisons"]] == ["backwards", "same-start"]  # type: ignore[attr-defined]
    for path in (p for value in found["artifacts"].values() if isinstance(value, list) for p in value):  # type: ignore[attr-defined]
        assert (whole / path["path"]).exists()
    manifest = json.loads((whole / "manifest.json").read_text())
    assert manifest["runs"][0]["environment"]["versions"]["torch"]
    assert str(Path.home()) not in (whole / "manifest.json").read_text()


def test_report_of_a_run_opens_without_console_errors(whole: Path, tmp_path: Path) -> None:
    if browser.find() is None:
        pytest.skip("no Chromium on this machine (README: optional); CI installs one")
    page = browser.load(whole / "report.html", tmp_path)
    assert page.errors == []


def test_the_held_out_set_and_the_pool_share_no_question(whole: Path) -> None:
    artifacts = summary(whole)["artifacts"]
    train, test = (pl.read_parquet(whole / artifacts[k]) for k in ("train_problems", "test_problems"))  # type: ignore[index]
    assert not set(train["question"]) & set(test["question"])


def test_single_steps_over_files_end_where_a_run_does(whole: Path, tiny_model: Path, tmp_path: Path) -> None:
    """profile, supervise, train and eval as single commands on the run's own tables."""
    artifacts = summary(whole)["artifacts"]
    pool, test = (str(whole / artifacts[k]) for k in ("train_problems", "test_problems"))  # type: ignore[index]
    routes = str(whole / artifacts["routes"]["split"])  # type: ignore[index]
    model = ["--model", str(tiny_model)]
    small = "sampling={max_new_tokens: 8, batch_size: 8}"
    profile = [
        "profile",
        pool,
        *model,
        "--set",
        "profile.pass_rate.k=2",
        "--set",
        f"profile.pass_rate.{small}",
    ]
    assert main([*profile, "--out", str(tmp_path / "p")]) == 0
    columns = ["problem_id", "n", "correct", "judge_expectation"]
    mine = pl.read_parquet(tmp_path / "p" / "profiles.parquet").select(columns)
    assert mine.equals(pl.read_parquet(whole / artifacts["profiles"]).select(columns))  # type: ignore[index]
    assert main(["supervise", pool, "--routes", routes, "--style", "steps", "--out", str(tmp_path / "t")]) == 0
    sft = ["train", "sft", pool, "--targets", str(tmp_path / "t" / "targets.parquet"), *model]
    assert (
        main(
            [
                *sft,
                "--set",
                "phase.batch=4",
                "--set",
                "phase.optimiser.micro_batch=4",
                "--out",
                str(tmp_path / "s"),
            ]
        )
        == 0
    )
    trained = str(tmp_path / "s" / "model")
    rl = ["train", "rl", pool, "--routes", routes, "--model", trained, "--set"]
    rl.append("phase={steps: 1, prompts_per_generation: 2, group_size: 4, max_new_tokens: 8}")
    assert main([*rl, "--out", str(tmp_path / "r")]) == 0
    assert pl.read_parquet(tmp_path / "r" / "samples.parquet").height == 8
    score = ["eval", test, "--model", str(tmp_path / "r" / "model"), "--set"]
    assert (
        main(
            [
                *score,
                "evaluation={sampling: {temperature: 0, max_new_tokens: 8}}",
                "--out",
                str(tmp_path / "e"),
            ]
        )
        == 0
    )
    record = json.loads((tmp_path / "e" / "step.json").read_text())
    assert record["info"]["result"]["n_problems"] == 32


def test_a_run_of_steps_that_were_made_with_other_versions_says_so_in_its_report(
    recipe: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "upgraded"
    shutil.copytree(whole, folder)
    installed = environment._version
    monkeypatch.setattr(environment, "_version", lambda name: "99.0" if name == "trl" else installed(name))
    (audit,) = folder.glob("steps/audit-*/step.json")
    audit.write_text(audit.read_text().replace('"warnings": []', '"warnings": ["a reference that nothing meets"]'))
    assert main(["run", str(recipe), "--run-dir", str(folder), "--json"]) == 0
    assert "a reference that nothing meets" in summary(folder)["warnings"]  # type: ignore[operator]
    assert "a reference that nothing meets" in (folder / "report.html").read_text()
    steps = summary(folder)["steps"]
    assert all(s["cached"] for s in steps)  # type: ignore[attr-defined]
    (line,) = [w for w in summary(folder)["warnings"] if w.startswith("trl was ")]  # type: ignore[attr-defined]
    assert line.endswith(f"when {len(steps)} steps ('problems', ...) were made; now it is 99.0")  # type: ignore[arg-type]
    assert "now it is 99.0" in (folder / "report.html").read_text()
