"""A real browser for the tests of pages: load one without a network, read its DOM and its console errors.

Used for the synthetic run of tests/report and for the page of a real run alike::

    page = browser.load(Path("runs/quickstart/report.html"), tmp_path)
    assert not page.errors and page.drawn("fig-accuracy")
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--enable-logging=stderr", "--v=0", "--virtual-time-budget=10000", "--hide-scrollbars",
)  # fmt: skip
_VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}


def find() -> str | None:
    """The path of a Chromium or Chrome, or None."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


@dataclass(frozen=True)
class Page:
    """A loaded page: its DOM after scripts ran, as HTML, and what the console called an error."""

    dom: str
    errors: list[str]

    def drawn(self, figure: str, mark: str = "point") -> int:
        """How many marks plotly drew in the element with this id: elements whose class list has ``mark``.

        Raises:
            AssertionError: the element is not there or plotly drew no graphic in it.
        """
        counter = _Marks(figure, mark)
        counter.feed(self.dom)
        assert counter.found, f"no element with id {figure}"
        assert counter.graphics, f"plotly drew nothing in {figure}"
        return counter.marks


class _Marks(HTMLParser):
    """Counts elements by class inside the element with one id."""

    def __init__(self, figure: str, mark: str) -> None:
        super().__init__()
        self.figure, self.mark = figure, mark
        self.depth = self.graphics = self.marks = 0
        self.found = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        if self.depth:
            classes = (known.get("class") or "").split()
            self.graphics += "main-svg" in classes
            self.marks += self.mark in classes
            self.depth += tag not in _VOID
        elif known.get("id") == self.figure:
            self.found, self.depth = True, 1

    def handle_endtag(self, tag: str) -> None:
        if self.depth and tag not in _VOID:
            self.depth -= 1


def load(path: Path, tmp: Path) -> Page:
    """Open a file in the browser, let its scripts run, and return what came of it."""
    done = _run(path, tmp, "--dump-dom")
    lines = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    errors = [line for line in lines if re.search(r"error|uncaught|refused|violat", line, re.IGNORECASE)]
    return Page(done.stdout, errors)


def screenshot(path: Path, tmp: Path, to: Path, width: int = 1366, height: int = 6000) -> Path:
    """A picture of the top ``height`` pixels of the page."""
    _run(path, tmp, f"--screenshot={to}", f"--window-size={width},{height}")
    return to


def pdf(path: Path, tmp: Path, to: Path) -> Path:
    """The page as it prints."""
    _run(path, tmp, f"--print-to-pdf={to}", "--no-pdf-header-footer")
    return to


def _run(path: Path, tmp: Path, *more: str) -> subprocess.CompletedProcess[str]:
    browser = find()
    assert browser is not None, "no browser"
    command = [browser, *_QUIET, f"--user-data-dir={tmp / 'browser'}", *more, path.resolve().as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)
