"""Recipes as YAML: an override changes what it names, and no text costs more than it may."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dereason.cli.main import main
from dereason.errors import DereasonError
from dereason.pipeline.reading import ADDED_BY_ALIASES, DEEPEST, apply_override, read_yaml
from dereason.pipeline.recipe import find_recipe, load_recipe, shipped

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30)
)
MERGED = "a0: &a0 {k: [x, x, x]}\n" + "".join(
    f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 30)
)


def leaves(value: Any, at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every number in nested mappings and lists."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, (*at, str(key)))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield at


def value_at(data: Any, at: str) -> Any:
    for part in at.split("."):
        data = data[int(part) if isinstance(data, list) else part]
    return data


def differences(one: Any, other: Any, at: str = "") -> list[str]:
    if isinstance(one, dict | list) and type(one) is type(other) and len(one) == len(other):
        keys = one if isinstance(one, dict) else range(len(one))
        return [d for key in keys for d in differences(one[key], other[key], f"{at}.{key}".lstrip("."))]
    return [] if one == other else [at]


@pytest.mark.parametrize("name", sorted(shipped()))
def test_an_override_changes_the_one_value_that_it_names(name: str) -> None:
    """Anchors are used in nearly all shipped recipes."""
    changed, _ = read_yaml(find_recipe(name))
    plain = json.loads(json.dumps(changed))
    paths = [".".join(p) for p in leaves(plain)]
    assert len(paths) > 10
    for at in paths:
        for value, differing in ((987654, [at]), (value_at(plain, at), [])):
            apply_override(changed, f"{at}={yaml.safe_dump(value)}")
            assert differences(plain, changed) == differing


def test_an_override_reaches_one_arm_of_the_papers_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    path = find_recipe("dereason-qwen3-4b")
    whole = [load_recipe(path, sets).model_dump(mode="json") for sets in ([], ["arms.0.phases.1.steps=50"])]
    assert differences(*whole) == ["arms.0.phases.1.steps"]
    assert main(["run", "dereason-qwen3-4b", "--set", "arms.0.phases.1.steps=50", "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    found = {(r["name"], r["work"].split("; ")[1].split(",")[0]) for r in plan["steps"] if r["kind"] == "train-rl"}
    steps = {name.split(",")[0].removeprefix("train "): words for name, words in found}
    assert steps == {"dereason": "50 optimiser steps"} | dict.fromkeys(
        ("random", "rl-only", "domain-matched", "reversed"), "400 optimiser steps"
    )


def test_an_override_with_an_alias_of_its_own_shares_nothing() -> None:
    data: dict[str, Any] = {}
    apply_override(data, "arms=[&a {phases: [{steps: 1}]}, *a]")
    apply_override(data, "arms.1.phases.0.steps=2")
    assert data == {"arms": [{"phases": [{"steps": 1}]}, {"phases": [{"steps": 2}]}]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, f"line 1: aliases of aliases add up to more than {ADDED_BY_ALIASES:,} values"),
        (MERGED, f"aliases of aliases add up to more than {ADDED_BY_ALIASES:,} values"),
        ("a: &a {b: [1, *a]}\n", "line 1: an alias stands inside what it names"),
        ("a: &a [*a]\n", "line 1: an alias stands inside what it names"),
        ("a: &a {<<: *a}\n", "line 1: an alias stands inside what it names"),
        ("a: " + "[" * 500, f"nested more than {DEEPEST} levels deep"),
        ("a: " + "[" * 200 + "]" * 200, f"nested more than {DEEPEST} levels deep"),
        ("a: *nobody\n", "line 1: not YAML: found undefined alias"),
        ("a: 2026-13-45\n", "not YAML: month must be in"),
        (f"a: {'9' * 5000}\n", "not YAML: Exceeds the limit"),
        ("a: \x00\n", "not YAML: .*special characters"),
        ('a: "\\ud800"\n', "line 1: half a character"),
        ("? [a]\n: b\n", "line 1: not YAML: found unhashable key"),
    ],
)
def test_a_text_that_would_cost_too_much_or_makes_no_sense_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    assert main(["run", str(path), "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(message, error)
    with pytest.raises(DereasonError, match="--set"):
        apply_override({}, "x={" + text.replace("\n", ", ").rstrip(", ") + "}")


def test_as_many_aliases_as_a_large_recipe_has_are_read(tmp_path: Path) -> None:
    phases = ", ".join(["{kind: rl, optimiser: {learning_rate: 1.0e-6, micro_batch: 4}}"] * 5)
    arms = "".join(f"  - {{name: a{i}, phases: *phases}}\n" for i in range(1, 1000))
    (tmp_path / "r.yaml").write_text(f"arms:\n  - {{name: a0, phases: &phases [{phases}]}}\n{arms}")
    data, lines = read_yaml(tmp_path / "r.yaml")
    assert len({id(arm["phases"]) for arm in data["arms"]}) == len(data["arms"]) == 1000
    assert lines["arms", 999, "name"] == 1001


def test_a_character_that_was_escaped_in_halves_is_read(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(json.dumps({"description": "x \U0001f600 ü"}))
    assert "\\ud83d\\ude00" in (tmp_path / "r.yaml").read_text()
    assert read_yaml(tmp_path / "r.yaml")[0] == {"description": "x \U0001f600 ü"}


@pytest.mark.parametrize(
    "sets",
    [
        "model.name=" + "a" * 5000,
        "model.name=" + "a/" * 5000,
        'model.name="\\0"',
        "problems.train={source: file, path: " + "a" * 5000 + "}",
        "problems.train={source: hub, name: " + "a" * 5000 + "}",
        "analysis={steps: {embedding: ~nobody/" + "a" * 5000 + "}}",
        "arms.0.name={a: 1}",
        "arms.0.route={policy: random, like: {}}",
        "arms.0={}",
        "arms=[1]",
        "arms.0.route=" + "{policy: random, like: " * 30 + "{policy: all}" + "}" * 30,
        "arms.0.route." + "like." * 3000 + "policy=all",
        "prompt.chat_template_kwargs." + "a." * 300 + "b=1",
        "prompt.chat_template_kwargs" + ".a" * 60 + "=" + "{a: " * 60 + "1" + "}" * 60,
    ],
)
def test_names_that_can_be_none_are_no_bug(capsys: pytest.CaptureFixture[str], sets: str) -> None:
    assert main(["run", "quickstart", "--dry-run", "--set", sets]) in (0, 2)
    assert "unexpected" not in capsys.readouterr().err
    assert main(["run", "a" * 5000]) == 2


@pytest.mark.parametrize("count", [19, 300])
def test_a_chain_of_arms_that_refer_to_each_other_is_as_long_as_makes_sense(tmp_path: Path, count: int) -> None:
    data, _ = read_yaml(find_recipe("quickstart"))
    for i in range(count):
        like = f"x{i - 1}" if i else "dereason"
        data["arms"].append({"name": f"x{i}", "route": {"policy": "random", "like": like}, "phases": [{"kind": "sft"}]})
    path = tmp_path / "r.yaml"
    path.write_text(json.dumps(data))
    if count < 20:
        assert len(load_recipe(path).arms) == count + 1
        return
    with pytest.raises(DereasonError, match="refer to each other over more than 20 others"):
        load_recipe(path)


@pytest.mark.parametrize("key", ["arms.²=1", f"arms.{'9' * 5000}=1", "arms.-1=1", "arms..=1", ".=1"])
def test_a_path_that_is_none_is_refused(key: str) -> None:
    with pytest.raises(DereasonError, match=r"there is no|unknown key"):
        load_recipe(find_recipe("quickstart"), [key])
