"""The page of an audit of references: tables and findings, no figure and no script."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dereason.report.contract import need, read_json
from dereason.report.page import environment, save

FILE, VERSION = "audit.json", 1
_KEYS = (
    "pool", "rows", "audited", "references", "kinds", "groups", "table", "refused", "unmet", "missed", "loose",
    "opinions", "evidence", "shares", "exceeded", "settings", "verifier", "reading", "problems", "seconds",
)  # fmt: skip
_AGAIN = "run `dereason problems audit` again"
_SHARES = {
    "unmet": "References that nothing can meet",
    "missed": "A rewriting that says the same is not found correct",
    "loose": "Something else is found correct",
    "doubted": "Samples speak against the reference",
}


def write(folder: Path) -> Path:
    """Write ``folder/audit.html``; see :func:`dereason.report.write_audit`."""
    path = folder / FILE
    found = read_json(path, VERSION, _AGAIN, _AGAIN)
    need(path, "the audit", found, _KEYS, _AGAIN)
    return save(folder / "audit.html", render(found))


def render(found: dict[str, Any]) -> str:
    """The page as HTML."""
    limits = found["settings"]["audit"]["limits"]
    return (
        environment()
        .get_template("audit.html.j2")
        .render(
            a=found,
            shown=found["settings"]["audit"]["shown"],
            shares=[
                {
                    "words": words,
                    "share": found["shares"][name],
                    "limit": limits[name],
                    "above": name in found["exceeded"],
                }
                for name, words in _SHARES.items()
                if found["shares"][name] is not None
            ],
            kinds=[
                {"name": kind, "n": n, "cells": [_cell(found["table"], kind, group) for group in found["groups"]]}
                for kind, n in found["kinds"].items()
            ],
            failed=[row for row in found["table"] if row["failed"]],
        )
    )


def _cell(table: list[dict[str, Any]], kind: str, group: str) -> dict[str, int] | None:
    """What was tried of one kind and group, and what held; None where nothing was."""
    rows = [row for row in table if (row["kind"], row["group"]) == (kind, group)]
    return {name: sum(row[name] for row in rows) for name in ("n", "held", "failed")} if rows else None
