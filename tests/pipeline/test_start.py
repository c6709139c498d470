"""An RL phase that chooses its start among the models that the SFT phase before it kept."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
import torch
import yaml
from safetensors.torch import load_file

from dereason.cli.main import main
from dereason.errors import DereasonError
from dereason.evaluation.evaluate import Outcomes, outcomes
from dereason.evaluation.statistics import accuracy_interval, paired_difference, pass_at_k
from dereason.pipeline.recipe import Arm
from dereason.pipeline.start import Start, choose, draw_problems, under_marks
from dereason.problems.schema import frame
from dereason.verify.span import MARKS
from dereason.verify.verifier import Verifier

COUNTS = [(0, 4), (1, 4), (4, 4), (2, 4)]


def table(counts: list[tuple[int, int]]) -> Outcomes:
    return {f"p{i}": c for i, c in enumerate(counts)}


def test_the_best_pass_at_k_is_chosen_and_the_last_of_equals() -> None:
    worse, better = table(COUNTS), table([(1, 4), *COUNTS[1:]])
    found = choose({"model-1": worse, "model-2": better, "model": worse}, Start(k=2, samples=4))
    assert found["chosen"] == "model-2"
    row = found["candidates"][1]
    assert row["pass_at_k"] == pytest.approx(sum(pass_at_k(4, c, 2) for c in (1, 1, 4, 2)) / 4)
    assert row["low"] <= row["pass_at_k"] <= row["high"]
    assert [r["chosen"] for r in found["candidates"]] == [False, True, False]
    assert "best of 3; the last one is 12.5 points [0.0," in found["words"]
    for order in ({"model-1": better, "model": better}, {"model-1": worse, "model": better}):
        assert choose(order, Start(k=2, samples=4))["chosen"] == "model"
    # pass@1 would choose the other one: one problem always solved against two solved now and then
    steady, broad = table([(4, 4), (0, 4)]), table([(2, 4), (1, 4)])
    assert choose({"model-1": broad, "model": steady}, Start(k=1, samples=4))["chosen"] == "model"
    assert choose({"model-1": broad, "model": steady}, Start(k=4, samples=4))["chosen"] == "model-1"


def test_problems_that_one_candidate_could_not_be_judged_on_count_for_none() -> None:
    whole, short = table(COUNTS), table([*COUNTS[:3], (1, 1)])
    found = choose({"model-1": whole, "model": short}, Start(k=2, samples=4))
    assert [r["n_problems"] for r in found["candidates"]] == [3, 3]
    assert found["chosen"] == "model"
    with pytest.raises(DereasonError, match="no problem has 2 samples from every candidate"):
        choose({"model-1": whole, "model": {"p0": (0, 1)}}, Start(k=2, samples=4))


def test_intervals_of_pass_at_k() -> None:
    """k = 1 is accuracy; above it each problem counts with its unbiased estimate."""
    one, two = accuracy_interval(COUNTS), accuracy_interval(COUNTS, k=2)
    assert one.estimate == pytest.approx((0 + 1 / 4 + 1 + 1 / 2) / 4)
    assert two.estimate == pytest.approx((0 + 1 / 2 + 1 + 5 / 6) / 4)
    assert two.low < two.estimate < two.high
    assert accuracy_interval([*COUNTS, (1, 1)], k=2).left_out == 1
    with pytest.raises(DereasonError, match="has 9 samples"):
        accuracy_interval(COUNTS, k=9)
    more = table([(2, 4), *COUNTS[1:]])
    assert paired_difference(table(COUNTS), more, k=2).estimate == pytest.approx(5 / 6 / 4)


def test_problems_are_drawn_with_the_seed_and_keep_their_order() -> None:
    pool = pl.DataFrame({"id": [str(i) for i in range(50)]})
    drawn = draw_problems(pool, 10, 1)["id"].to_list()
    assert drawn == draw_problems(pool, 10, 1)["id"].to_list() == sorted(drawn, key=int)
    assert drawn != draw_problems(pool, 10, 2)["id"].to_list()
    assert draw_problems(pool, 99, 1).equals(pool)


def test_an_answer_that_the_phase_would_not_pay_is_not_solved() -> None:
    texts = ["so it is 4", "The answer is 4.", r"\boxed{4}", r"\boxed{5}"]
    problems = frame("problem", [{"id": "p", "question": "2 + 2?", "answer": "4", "domain": "d", "source": "s"}])
    rest = {"problem_id": "p", "model": "m", "purpose": "start", "tokens": 1, "hit_limit": False, "verdict": "correct"}
    samples = frame("sample", [rest | {"index": i, "response": text} for i, text in enumerate(texts)])
    with Verifier() as verifier:
        counted = [outcomes(under_marks(samples, problems, verifier, marks)) for marks in (None, MARKS, ["boxed"])]
    assert counted == [{"p": (4, 4)}, {"p": (2, 4)}, {"p": (1, 4)}]


def test_a_start_needs_models_to_choose_from() -> None:
    rl = {"kind": "rl", "set": "all", "start": {"k": 2, "samples": 2}}
    sft = {"kind": "sft", "set": "all", "keep_checkpoints": 2}
    route = {"policy": "all", "set": "all"}
    Arm.model_validate({"name": "a", "route": route, "phases": [sft, rl]})
    for phases in ([rl], [sft, {**rl, "start": None}, rl], [{**sft, "keep_checkpoints": 1}, rl]):
        with pytest.raises(ValueError, match=r"start chooses among models that the phase before it kept"):
            Arm.model_validate({"name": "a", "route": route, "phases": phases})
    with pytest.raises(ValueError, match="pass@8 needs at least 8 responses"):
        Start(samples=4)
    keeps = {**sft, "adapter": {"merge": False}}
    with pytest.raises(ValueError, match=r"phases\[1\]\.adapter\.quantise needs whole weights"):
        Arm.model_validate({"name": "a", "route": route, "phases": [keeps, {**sft, "adapter": {"quantise": "nf4"}}]})


@pytest.mark.slow
def test_a_run_starts_rl_from_the_chosen_model(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Planted outcomes make the second of three the best; RL at almost no learning rate keeps its weights."""
    optimiser = {"learning_rate": 1e-2, "micro_batch": 4}
    short = {"temperature": 1.0, "max_new_tokens": 4, "batch_size": 16}
    gym = {"source": "reasoning_gym", "families": [{"family": "gcd", "size": 8}]}
    phases = [
        {"kind": "sft", "set": "x", "batch": 4, "epochs": 3, "keep_checkpoints": 3, "optimiser": optimiser},
        {"kind": "rl", "set": "x", "steps": 1, "prompts_per_generation": 1, "group_size": 2, "max_new_tokens": 4}
        | {"start": {"k": 2, "samples": 2, "problems": 3}, "optimiser": {"learning_rate": 1e-30, "micro_batch": 2}},
    ]
    phases[0]["targets"] = {"style": "answer"}
    path = tmp_path / "start.yaml"
    recipe = {
        "name": "start",
        "model": {"name": str(tiny_model)},
        "problems": {"train": gym | {"seed": 1}, "test": gym | {"seed": 2}},
        "arms": [{"name": "a", "route": {"policy": "all", "set": "x"}, "phases": phases}],
        "evaluation": {"sampling": short | {"temperature": 0.0}},
    }
    path.write_text(yaml.safe_dump(recipe))
    arguments = ["run", str(path), "--run-dir", str(tmp_path / "run"), "--json"]
    assert main([*arguments, "--dry-run"]) == 0
    plan = {s["kind"]: s["work"] for s in json.loads(capsys.readouterr().out)["steps"]}
    assert plan["choose-start"] == "≤ 18 (known after training) responses, ≤ 72 tokens generated"

    def planted(samples: pl.DataFrame) -> Outcomes:
        good = samples["model"][0].endswith("/model-4")
        return {p: (int(good), 2) for p in samples["problem_id"].unique()}

    monkeypatch.setattr("dereason.pipeline.start.outcomes", planted)
    assert main(arguments) == 0
    steps = tmp_path / "run" / "steps"
    (choice,) = steps.glob("choose-start-*")
    (sft,), (rl,) = steps.glob("train-sft-*"), steps.glob("train-rl-*")
    info = json.loads((choice / "step.json").read_text())["info"]
    assert info["chosen"] == "model-4"
    assert info["words"].startswith("model-4: pass@2 100.0 % [")
    found = pl.read_parquet(choice / "candidates.parquet")
    assert found["model"].to_list() == ["model-2", "model-4", "model"]
    assert found["pass_at_k"].to_list() == [0, 1, 0]
    samples = pl.read_parquet(choice / "samples.parquet")
    assert samples.height == 3 * 3 * 2
    assert set(samples["model"]) == {f"{sft.name}/{name}" for name in found["model"]}
    trained, start, last = (load_file(f / "model.safetensors") for f in (rl / "model", sft / "model-4", sft / "model"))
    assert all(torch.equal(trained[k], start[k]) for k in start)
    assert not all(torch.equal(last[k], start[k]) for k in start)
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [e["words"] for e in log if e["event"] == "step-end" and e["kind"] == "choose-start"] == [info["words"]]

    capsys.readouterr()
    assert main([*arguments, "--dry-run", "--set", "arms.0.phases.1.start.k=1"]) == 0
    redone = [s["kind"] for s in json.loads(capsys.readouterr().out)["steps"] if not s["cached"]]
    assert redone == ["choose-start", "train-rl", "eval"]
