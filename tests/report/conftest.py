"""Run directories for the tests, written once each: tests must not change a shared one (see ``fresh``)."""

from __future__ import annotations

import copy
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

# pytest imports tests by path, so helpers beside them and above them are found only through sys.path.
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from synthetic import save, write_run  # noqa: E402

from dereason.report import write_report  # noqa: E402


class Made:
    """A run directory, its summary, and what the page made from it says."""

    def __init__(self, folder: Path, summary: dict[str, Any]) -> None:
        self.folder = folder
        self.summary = summary

    def write(self) -> str:
        """Save the summary as it is now and return the page."""
        save(self.folder, self.summary)
        return write_report(self.folder).read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Two arms, two seeds, everything there; read only."""
    folder = tmp_path_factory.mktemp("run")
    return Made(folder, write_run(folder))


@pytest.fixture(scope="session")
def page(made: Made) -> str:
    """The page of ``made``."""
    return write_report(made.folder).read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def looped(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """One arm of two rounds and two seeds with targets of every origin; read only."""
    folder = tmp_path_factory.mktemp("looped")
    styles = (("solution", "teacher", "bridge"), ("self", "bridge", "critique"))
    summary = write_run(
        folder, {"stage-specific": ["sft", "rl"] * 2}, n_train=150, n_test=40, steps=12, rounds=2, styles=styles
    )
    return Made(folder, summary)


@pytest.fixture(scope="session")
def looped_page(looped: Made) -> str:
    """The page of ``looped``."""
    return write_report(looped.folder).read_text(encoding="utf-8")


@pytest.fixture
def loop(looped: Made, tmp_path: Path) -> Made:
    """A copy of ``looped`` that a test may change."""
    shutil.copytree(looped.folder, tmp_path / "looped")
    return Made(tmp_path / "looped", copy.deepcopy(looped.summary))


@pytest.fixture(scope="session")
def _small(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("small")
    arms = {"only": ["sft", "rl"]}
    return Made(folder, write_run(folder, arms=arms, seeds=(0,), n_train=60, n_test=40, steps=12))


@pytest.fixture
def pair(tmp_path: Path) -> Made:
    """A small run of two arms with different phases and one seed that a test may change."""
    arms = {"dereason": ["sft", "rl"], "random": ["rl"]}
    return Made(tmp_path, write_run(tmp_path, arms=arms, seeds=(0,), n_train=60, n_test=40, steps=12))


@pytest.fixture
def fresh(_small: Made, tmp_path: Path) -> Made:
    """A small run (one arm, one seed) that a test may change."""
    shutil.copytree(_small.folder, tmp_path / "run")
    return Made(tmp_path / "run", copy.deepcopy(_small.summary))
