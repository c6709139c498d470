"""Figures of labelled rows under headings: one row a stage, a comparison or a kind of target, one block an arm."""

from __future__ import annotations

from typing import Any

from dereason.report import style
from dereason.report.text import plain

ROW = 25
"""Height of a row in CSS pixels."""
_PAGE_ROWS = 44

Block = tuple[str, list[Any]]
"""A heading and its rows, each a label (safe for plotly), what it shows, and a colour."""


def split(blocks: list[Block]) -> list[list[Block]]:
    """Blocks of rows in groups that each fit on a printed page, a block never split."""
    parts: list[list[Block]] = []
    room = 0
    for block in blocks:
        need = len(block[1]) + 1
        if not parts or need > room:
            parts.append([])
            room = _PAGE_ROWS
        parts[-1].append(block)
        room -= need
    return parts


def stack(
    blocks: list[Block],
) -> tuple[list[tuple[int, Any, str]], list[tuple[int, str]], list[tuple[int, str]], int]:
    """Rows under each other with a heading above each block.

    Returns:
        The rows as (position, what it shows, colour), their labels and the headings with their positions, and
        the number of positions.
    """
    rows, labels, heads = [], [], []
    position = 0
    for name, block in blocks:
        heads.append((position, name))
        for at, (label, row, colour) in enumerate(block, start=position + 1):
            rows.append((at, row, colour))
            labels.append((at, label))
        position += len(block) + 1
    return rows, labels, heads, position


def headings(heads: list[tuple[int, str]]) -> list[dict[str, Any]]:
    """The headings as annotations at the left edge of the first panel."""
    return [
        style.note(
            f"<b>{plain(name, 60)}</b>",
            0,
            at,
            xref="x domain",
            yref="y",
            xanchor="left",
            xshift=-4,
            bgcolor="#ffffff",
            borderpad=1,
        )
        for at, name in heads
    ]


def categories(labels: list[tuple[int, str]], length: int) -> dict[str, Any]:
    """The y axis that names the rows, the first one at the top."""
    return style.axis(
        tickvals=[at for at, _ in labels],
        ticktext=[label for _, label in labels],
        range=[length - 0.4, -0.6],
        showgrid=False,
        ticks="",
    )
