"""What a person sees: bars on a terminal, lines elsewhere, and text that is never read as markup."""

from __future__ import annotations

import io

from rich.console import Console

from dereason.pipeline.progress import Screen
from dereason.verify.confusion import tabulate


def test_lines_where_there_is_no_terminal() -> None:
    text = io.StringIO()
    screen = Screen(stream=text)
    tell = screen.step("judge [red]")
    tell(1, 2, "half")
    screen.end("judge [red]", "3 s  [bold]done")
    assert text.getvalue().splitlines() == ["  judge [red] ...", "  judge [red]                        3 s  [bold]done"]


def test_what_the_verifier_said_stands_under_its_step() -> None:
    text = io.StringIO()
    screen = Screen(stream=text)
    rows = [
        ("correct", True, "number", "boxed", ""),
        ("error", False, "set", "boxed", "took [red]"),
        ("wrong", False, "number", None, ""),
    ]
    screen.confusion(tabulate(rows))
    screen.confusion(None)
    assert text.getvalue().splitlines() == [
        "      kind    correct  wrong  unparsable  truncated  error  strict  n",
        "      number        1      1           0          0      0       1  2",
        "      set           0      0           0          0      1       0  0",
        "      answers found by: boxed 100 %",
        "      1 × error: took [red]",
    ]


def test_a_bar_on_a_terminal_goes_away_when_the_step_ends() -> None:
    text = io.StringIO()
    screen = Screen(stream=text)
    screen.console = Console(file=text, force_terminal=True, width=100)
    tell = screen.step("judge")
    tell(1, 2, "mean [red]")
    screen.end("judge", "3 s")
    shown = text.getvalue()
    assert "1/2" in shown
    assert "mean [red]" in shown
    assert screen._bar is None
    screen.stop()


def test_quiet_says_nothing() -> None:
    text = io.StringIO()
    screen = Screen(quiet=True, stream=text)
    screen.step("judge")(1, 2, "")
    screen.end("judge", "3 s")
    assert text.getvalue() == ""
