"""How many responses at which temperature: what makes no sense is refused with its field, before any work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dereason.cli.main import main
from dereason.errors import DereasonError
from dereason.pipeline.reading import parse
from dereason.pipeline.recipe import Recipe

GREEDY = {"temperature": 0}
OPEN = {"temperature": None}
SFT = {"kind": "sft", "keep_checkpoints": 2}
HERE = {"name": "teacher"}
THERE = {"name": "teacher", "backend": "api", "api": {"base_url": "http://localhost:1/v1"}}


def recipe(**changes: Any) -> dict[str, Any]:
    gym = {"source": "reasoning_gym", "families": [{"family": "chain_sum", "size": 8}]}
    arm = {"name": "a", "route": {"policy": "quantile"}, "phases": [SFT]}
    return {"name": "r", "problems": {"train": gym, "test": gym | {"seed": 1}}, "arms": [arm], **changes}


def targets(**entry: Any) -> dict[str, Any]:
    rl = {"kind": "rl", "set": "rl"}
    phases = [rl, SFT | {"targets": entry}] if entry["style"] == "critique" else [SFT | {"targets": entry}]
    return recipe(arms=[{"name": "a", "route": {"policy": "quantile"}, "phases": phases}])


def starting(**start: Any) -> dict[str, Any]:
    return recipe(
        arms=[{"name": "a", "route": {"policy": "quantile"}, "phases": [SFT, {"kind": "rl", "start": start}]}]
    )


@pytest.mark.parametrize(
    ("data", "where", "field"),
    [
        (recipe(evaluation={"samples": 4}), "evaluation", "samples is 4"),
        (recipe(profile={"pass_rate": {"sampling": GREEDY}}), "profile.pass_rate", "k is 8"),
        (recipe(analysis={"sampling": GREEDY}), "analysis", "samples is 64"),
        (starting(sampling=GREEDY), "start", "samples is 8"),
        (targets(style="self", sampling=GREEDY), "targets", "n is 4"),
        (targets(style="teacher", teacher=HERE, n=2, sampling=GREEDY), "targets", "n is 2"),
        (targets(style="bridge", teacher=HERE, sampling=GREEDY), "targets", "n is 4"),
        (targets(style="bridge", teacher=HERE, traces="teacher", n=1, sampling=GREEDY), "targets", "trace_n is 4"),
        (targets(style="critique", critic=HERE, sampling=GREEDY), "targets", "n is 4"),
    ],
)
def test_several_greedy_responses_are_refused(data: dict[str, Any], where: str, field: str) -> None:
    with pytest.raises(DereasonError, match=rf"{field} and sampling\.temperature is 0") as caught:
        parse(Recipe, data, "r.yaml")
    assert where in caught.value.line()


@pytest.mark.parametrize(
    "data",
    [
        recipe(evaluation={"sampling": OPEN}),
        recipe(profile={"pass_rate": {"sampling": OPEN}}),
        recipe(analysis={"sampling": OPEN}),
        starting(sampling=OPEN),
        targets(style="self", sampling=OPEN),
        targets(style="teacher", teacher=HERE, sampling=OPEN),
        targets(style="bridge", teacher=HERE, sampling=OPEN),
        targets(style="critique", critic=HERE, sampling=OPEN),
    ],
)
def test_a_temperature_that_nobody_chooses_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(DereasonError, match="temperature is null, which leaves it to an endpoint"):
        parse(Recipe, data, "r.yaml")


@pytest.mark.parametrize(
    "data",
    [
        recipe(evaluation={"samples": 1}),
        recipe(profile={"pass_rate": {"k": 1, "sampling": GREEDY}}),
        targets(style="self", n=1, sampling=GREEDY),
        targets(style="bridge", teacher=HERE, n=1, sampling=GREEDY),
        targets(style="teacher", teacher=THERE, n=3, sampling=OPEN),
        targets(style="critique", critic=THERE, sampling=OPEN),
    ],
)
def test_what_makes_sense_is_taken(data: dict[str, Any]) -> None:
    parse(Recipe, data, "r.yaml")


def test_a_command_names_the_field_and_the_mend(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool = tmp_path / "pool.jsonl"
    pool.write_text(json.dumps({"id": "p", "question": "1 + 1", "answer": "2"}) + "\n")
    assert main(["eval", str(pool), "--out", str(tmp_path / "out"), "--set", "evaluation.samples=4"]) == 2
    said = capsys.readouterr().err
    assert "evaluation" in said
    assert "set samples to 1, or a temperature above 0" in said
    sets = ["--set", "evaluation.sampling.temperature=null"]
    assert main(["eval", str(pool), "--out", str(tmp_path / "out"), *sets]) == 2
    assert "sampling.temperature is null" in capsys.readouterr().err
