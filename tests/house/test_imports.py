"""The import direction of docs/design.md holds, and the contracts that check it say what the page says."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "dereason"


def lint_imports(folder: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter on the source tree in ``folder``."""
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--cache-dir", str(cache)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder / "src")},
        capture_output=True,
        text=True,
        timeout=600,
    )


def design_table() -> dict[str, set[str]]:
    """room -> rooms that it may import, from the table in docs/design.md."""
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8").split("## Rooms")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \|.*\| (.+?) \|$", text, re.MULTILINE)
    return {room: set(re.findall(r"`(\w+)`", allowed)) for room, allowed in rows}


def contracts() -> dict[str, set[str]]:
    """Source module -> modules that its contract forbids, names without the ``dereason.`` before them."""
    with (ROOT / "pyproject.toml").open("rb") as handle:
        listed = tomllib.load(handle)["tool"]["importlinter"]["contracts"]
    return {
        source.removeprefix("dereason."): {m.removeprefix("dereason.") for m in contract["forbidden_modules"]}
        for contract in listed
        for source in contract["source_modules"]
    }


def test_contracts_hold(tmp_path: Path) -> None:
    result = lint_imports(ROOT, tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr


def test_contracts_say_what_the_design_page_says() -> None:
    table, found = design_table(), contracts()
    rooms = {p.parent.name for p in PACKAGE.glob("*/__init__.py")}
    assert set(table) == rooms, "docs/design.md lists other rooms than src/dereason has"
    for room in rooms:
        forbidden = rooms - table[room] - {room}
        assert found.get(room, set()) == forbidden, f"the contract of {room} in pyproject.toml"
    assert found["errors"] == found["settings"] == rooms


@pytest.mark.parametrize(
    ("room", "statement"),
    [
        ("routing", "from dereason.lm import base"),
        ("problems", "def f():\n    import dereason.verify"),
        (
            "report",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from dereason.pipeline import x",
        ),
    ],
)
def test_a_forbidden_import_is_found(tmp_path: Path, room: str, statement: str) -> None:
    shutil.copytree(PACKAGE, tmp_path / "src" / "dereason", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "src" / "dereason" / "pipeline" / "x.py").touch()
    (tmp_path / "src" / "dereason" / room / "intruder.py").write_text(statement + "\n")
    result = lint_imports(tmp_path, tmp_path / "cache")
    assert result.returncode != 0
    assert f"dereason.{room}.intruder" in result.stdout


def test_rooms_do_not_import_the_package_that_gathers_them() -> None:
    """``from dereason import profile`` inside a room would pass the contracts and import anything."""
    guilty = []
    for path in PACKAGE.glob("*/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == "dereason" and not node.level:
                names = {alias.name for alias in node.names} - {"__version__", "errors", "settings"}
                guilty += [f"{path.relative_to(ROOT)}:{node.lineno} imports {n}" for n in sorted(names)]
    assert not guilty, "import from the module that defines it:\n" + "\n".join(guilty)
