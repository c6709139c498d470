"""The page in a real browser, without a network: no console errors, and the figures are drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import browser
from dereason.report import write_report

pytestmark = pytest.mark.skipif(browser.find() is None, reason="no chromium or chrome on the path")


def test_figures_are_drawn_and_nothing_is_refused(made: Any, tmp_path: Path) -> None:
    path = write_report(made.folder)
    page = browser.load(path, tmp_path)
    assert page.errors == []
    rows = len(made.summary["results"])
    # Three markers (accuracy, strict accuracy, correct of answered) and a bar segment for each of the five verdicts.
    assert page.drawn("fig-accuracy") == 8 * rows
    assert page.drawn("fig-accuracy", "bars") > 0
    assert page.drawn("fig-differences") == len(made.summary["comparisons"])
    assert page.drawn("fig-domains") == sum(len(row["by_domain"]) for row in made.summary["results"])
    assert page.drawn("fig-histograms", "bars") > 0
    assert page.drawn("fig-agreement") > made.summary["profile"]["spearman"]["n"]
    # Four phases; with 120 steps each panel has a faint raw and a strong averaged line for each of two seeds;
    # the legend adds one line a seed.
    assert [page.drawn(f"fig-curve-{i}", "js-line") for i in (1, 2, 3, 4)] == [22, 78, 22, 78]
    assert "alert(1)" in page.dom
    assert "<img" not in page.dom.split("<body>")[1].split("</main>")[0]


def test_the_bare_page_has_no_errors_either(fresh: Any, tmp_path: Path) -> None:
    fresh.summary.update(profile=None, results=[], comparisons=[], warnings=[])
    fresh.summary["artifacts"].update(profiles=None, samples=[], curves=[], targets=[])
    fresh.write()
    page = browser.load(fresh.folder / "report.html", tmp_path)
    assert page.errors == []
    assert "main-svg" not in page.dom.split("</main>")[0].split("<main>")[1]


def test_the_helper_sees_a_console_error(tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text("<p id=x></p><script>nothing.there()</script>", encoding="utf-8")
    loaded = browser.load(page, tmp_path)
    assert any("Uncaught" in line for line in loaded.errors)
    with pytest.raises(AssertionError, match="drew nothing in x"):
        loaded.drawn("x")
