"""Recipes: read strictly, refused with the line and the mend, resolved in full."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from dereason.errors import DereasonError
from dereason.pipeline.jobs import JOBS
from dereason.pipeline.reading import explain, inner_models
from dereason.pipeline.recipe import Recipe, find_recipe, load_recipe, resolved_yaml, shipped

MINIMAL = """\
name: mini
problems:
  train: {source: file, path: pool.jsonl}
  test: {source: file, path: test.jsonl}
arms:
  - name: split
    route: {policy: quantile}
    phases:
      - kind: sft
        epochs: 1
      - kind: rl
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "epochs: 1",
            "epoch: 1",
            r"line 10: arms\.0\.phases\.0\.epoch: unknown key — did you mean 'epochs'\?",
        ),
        ("epochs: 1", "epochs: many", r"line 10: arms\.0\.phases\.0\.epochs: .*got 'many'"),
        ("policy: quantile", "policy: quantil", r"line 7: arms\.0\.route"),
        ("name: mini", "name: a/b", r"line 1: name: .*got 'a/b'"),
        ("name: mini", "nam: mini", r"(name: missing|nam: unknown key)"),
        (
            "kind: rl",
            "kind: rl\n        set: gold",
            r"phases\[1\]\.set is 'gold', which the policy 'quantile'",
        ),
        ("{policy: quantile}", "{policy: random, like: nobody}", r"names no arm"),
        ("{policy: quantile}", "{policy: random, like: split}", r"circle: split -> split"),
        ("path: pool.jsonl}", "path: pool.jsonl", r"line \d+: not YAML"),
        ("epochs: 1", "epochs: 1\n        epochs: 2", r"line 11: the key 'epochs' stands twice"),
        ("name: mini", "name: mini\nseeds: [1, 1]", r"line 2: seeds: a seed stands twice"),
        ("name: split", "name: [split]", r"line 6: arms\.0\.name: input should be a valid string"),
        ("epochs: 1", "epochs: !!bool 3", r"not YAML: '3'"),
        ("name: mini", 'name: mini\ndescription: "\\ud800"', r"line 2: half a character \(a lone surrogate\)"),
        (
            "name: mini",
            "name: mini\nprofile: {judge: {enabled: false}}",
            r"routes by judge, and profile\.judge\.enabled",
        ),
    ],
)
def test_what_is_wrong_is_refused_with_its_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in MINIMAL
    path = write(tmp_path, MINIMAL.replace(old, new))
    with pytest.raises(DereasonError, match=message) as caught:
        load_recipe(path)
    line = caught.value.line()
    assert str(path) in line
    assert "\n" not in line
    assert caught.value.mend


def test_yaml_cannot_build_objects(tmp_path: Path) -> None:
    with pytest.raises(DereasonError, match="not YAML"):
        load_recipe(write(tmp_path, "name: !!python/object/apply:os.system ['true']\n"))


def test_overrides_reach_any_field_and_are_checked(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL)
    recipe = load_recipe(path, ["arms.0.phases.0.epochs=3", "profile.pass_rate.k=2", "seeds=[1, 2]"])
    assert recipe.arms[0].phases[0].epochs == 3  # type: ignore[union-attr]
    assert recipe.profile.pass_rate.k == 2
    assert recipe.seeds == [1, 2]
    for text, message in (
        ("profile.pass_rate.kk=2", "--set profile.pass_rate.kk=2: .*unknown key"),
        ("arms.4.name=x", "there is no arms.4"),
        ("arms", "no '='"),
    ):
        with pytest.raises(DereasonError, match=message):
            load_recipe(path, [text])


def test_arm_names_stand_for_their_policies(tmp_path: Path) -> None:
    more = MINIMAL + "  - {name: control, route: {policy: random, like: split, seed: 7}, phases: [{kind: rl}]}\n"
    recipe = load_recipe(write(tmp_path, more))
    assert recipe.arms[1].route.model_dump()["like"] == recipe.arms[0].route.model_dump()


def test_resolved_recipe_reads_back_as_itself(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, MINIMAL))
    text = resolved_yaml(recipe)
    assert "max_new_tokens: 1024" in text, "defaults are written out"
    assert Recipe.model_validate(yaml.safe_load(text)) == recipe


def test_the_recipe_kept_with_a_run_finds_its_files_from_anywhere(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, MINIMAL))
    kept = yaml.safe_load(resolved_yaml(recipe, tmp_path))
    assert kept["problems"]["train"]["path"] == str(tmp_path / "pool.jsonl")


@pytest.mark.parametrize("name", sorted(shipped()))
def test_shipped_recipes_are_valid(name: str) -> None:
    assert load_recipe(find_recipe(name)).name == name


def test_an_unknown_recipe_suggests_one() -> None:
    with pytest.raises(DereasonError, match="did you mean 'quickstart'"):
        find_recipe("quikstart")


@pytest.mark.parametrize("model", [Recipe, *JOBS.values()])
def test_every_field_is_described(model: type[BaseModel]) -> None:
    rows = explain(model)
    assert len(rows) == len({path for path, *_ in rows})
    assert [path for path, _, _, words in rows if len(words) < 10] == []


@pytest.mark.parametrize("model", [Recipe, *JOBS.values()])
def test_naming_one_setting_of_a_group_leaves_the_others_at_their_defaults(model: type[BaseModel]) -> None:
    """`evaluation: {sampling: {max_new_tokens: 48}}` must stay greedy: a group's default is its model's own."""
    seen: set[type[BaseModel]] = set()

    def check(owner: type[BaseModel]) -> None:
        seen.add(owner)
        for name, field in owner.model_fields.items():
            default = field.get_default(call_default_factory=True)
            if isinstance(default, BaseModel):
                assert default == type(default)(), f"{owner.__name__}.{name}"
                kinds = [field.annotation, *(inner for _, inner in inner_models(field.annotation))]
                assert type(default) in kinds, f"{owner.__name__}.{name}"
            for _, inner in inner_models(field.annotation):
                if inner not in seen:
                    check(inner)

    check(model)
    assert len(seen) > 1


def test_explain_reaches_every_kind_of_phase_policy_and_source() -> None:
    paths = {path for path, *_ in explain(Recipe)}
    for path in (
        "arms.phases<sft>.optimiser.learning_rate",
        "arms.phases<rl>.group_size",
        "arms.route<quantile>.rl_fraction",
        "arms.route<random>.like",
        "arms.phases<sft>.targets<bridge>.instructions",
        "arms.phases<sft>.targets<critique>.critic.name",
        "problems.train<hub>.name",
        "profile.judge.model.name",
    ):
        assert path in paths
