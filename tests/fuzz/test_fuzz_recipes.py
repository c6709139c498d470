"""Whatever a recipe or an override says, reading it ends well or with a cause and a mend."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dereason.cli.shared import job_of
from dereason.errors import DereasonError
from dereason.pipeline.jobs import JOBS
from dereason.pipeline.reading import explain
from dereason.pipeline.recipe import Recipe, load_recipe, resolved_yaml, shipped
from fuzz_inputs import changed, check_helpful, texts, values

RECIPES = {name: path.read_text(encoding="utf-8") for name, path in shipped().items()}
KEYS = sorted({key.rsplit(".", 1)[-1] for key, *_ in explain(Recipe)})
odd_yaml = st.one_of(
    st.sampled_from(["2024-13-45", "0x", "1e999", ".nan", "!!int x", "!!python/object:os.system x", "&a [*a]", "*a"]),
    st.sampled_from(["? {}", "!!binary x", "{[1]: 2}", "{? [a] : b}", "<<: 1", "0o9", "1_0:99:99", "\t", "- - -", "'"]),
    st.sampled_from(["%TAG", "---\n---", "!!timestamp 9999-99-99", "!!set {a, b}", "!!omap [a: 1]", "!!float x"]),
    st.sampled_from(["!!bool 3", "|\n x", "[" * 500, "{" * 500, "9" * 5000, "- " * 500, "a:\n" * 3]),
)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def try_recipe(path: Path, overrides: list[str] | None = None) -> None:
    try:
        recipe = load_recipe(path, overrides)
    except DereasonError as exc:
        check_helpful(exc)
        return
    path.write_text(resolved_yaml(recipe), encoding="utf-8")
    assert load_recipe(path) == recipe


@given(data=st.data(), name=st.sampled_from(sorted(RECIPES)))
def test_recipes_with_bytes_changed(folder: Path, data: st.DataObject, name: str) -> None:
    path = folder / "bytes.yaml"
    path.write_bytes(data.draw(changed(RECIPES[name].encode())))
    try_recipe(path)


@given(text=st.one_of(st.text(max_size=60), st.binary(max_size=60), odd_yaml))
def test_any_text(folder: Path, text: str | bytes) -> None:
    path = folder / "text.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    try_recipe(path)


@given(data=st.data(), name=st.sampled_from(sorted(RECIPES)), value=st.one_of(values, odd_yaml))
def test_recipes_with_another_value_somewhere(folder: Path, data: st.DataObject, name: str, value: Any) -> None:
    tree = yaml.safe_load(RECIPES[name])
    here = tree
    while True:
        keys = list(here) if isinstance(here, dict) else list(range(len(here)))
        key = data.draw(st.sampled_from(keys))
        if not (isinstance(here[key], dict | list) and here[key]) or data.draw(st.integers(0, 3)) == 0:
            break
        here = here[key]
    if isinstance(here, dict) and data.draw(st.booleans()):
        key = data.draw(st.one_of(st.sampled_from(KEYS), texts))
    here[key] = value
    path = folder / "value.yaml"
    path.write_text(yaml.safe_dump(tree, allow_unicode=False), encoding="utf-8")
    try_recipe(path)


paths = st.lists(st.one_of(st.sampled_from(KEYS), st.sampled_from(["0", "1", "99", "-1", "²"]), texts), max_size=5)
overrides = st.builds(
    lambda parts, sign, value: ".".join(parts) + sign + value,
    paths,
    st.sampled_from(["=", "=", "=", ""]),
    st.one_of(texts, odd_yaml, st.sampled_from(["1", "-1", "0.5", "{}", "[]", "null", "true", "x"])),
)


@given(name=st.sampled_from(sorted(RECIPES)), given_=st.lists(overrides, min_size=1, max_size=2))
def test_overrides_of_recipes(folder: Path, name: str, given_: list[str]) -> None:
    path = folder / "override.yaml"
    path.write_text(RECIPES[name], encoding="utf-8")
    try_recipe(path, given_)


@given(kind=st.sampled_from(sorted(JOBS)), given_=st.lists(overrides, min_size=1, max_size=2))
def test_overrides_of_single_commands(kind: str, given_: list[str]) -> None:
    try:
        job_of(kind, None, None, given_)
    except DereasonError as exc:
        check_helpful(exc)
