"""What the verifier said, by kind of answer: the summary that goes into every log and report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import polars as pl

from dereason.problems.schema import Verdict
from dereason.verify.kinds import Kind

UNKNOWN = "unknown"
"""The kind of a reference that could not be read, and of samples that were judged before kinds were kept."""
MAX_CAUSES = 10
OTHER = "other causes"

Confusion = dict[str, Any]
"""``kinds``: kind -> the five verdicts' counts and ``n`` (all but ``error``); ``errors``: cause -> count, the ten most
frequent, the rest as ``other causes``; ``rules``: extraction rule -> count of answers that it found."""


def confusion(samples: pl.DataFrame) -> Confusion:
    """Summarise a SAMPLE table; kinds stand in the order of :class:`~dereason.verify.kinds.Kind`."""
    return tabulate(samples.select("verdict", "kind", "how", "reason").iter_rows())


def tabulate(rows: Iterable[tuple[str, str | None, str | None, str | None]]) -> Confusion:
    """Summarise (verdict, kind, extraction rule, reason) of any number of judgements."""
    counts: dict[str, Counter[str]] = {}
    causes: Counter[str] = Counter()
    rules: Counter[str] = Counter()
    for verdict, kind, how, reason in rows:
        counts.setdefault(str(kind or UNKNOWN), Counter())[str(verdict)] += 1
        if how is not None:
            rules[str(how)] += 1
        if verdict == Verdict.ERROR:
            causes[reason or "no cause given"] += 1
    order = [*map(str, Kind), UNKNOWN]
    ranked = sorted(causes.items(), key=lambda item: (-item[1], item[0]))
    errors = dict(ranked[:MAX_CAUSES])
    if rest := sum(count for _, count in ranked[MAX_CAUSES:]):
        errors[OTHER] = rest
    return {
        "kinds": {
            kind: {str(v): counts[kind][v] for v in Verdict} | {"n": sum(counts[kind].values()) - counts[kind]["error"]}
            for kind in sorted(counts, key=order.index)
        },
        "errors": errors,
        "rules": dict(sorted(rules.items(), key=lambda item: (-item[1], item[0]))),
    }


def lines(table: Confusion) -> list[str]:
    """The table as lines of text for a terminal; nothing for an empty one."""
    if not table["kinds"]:
        return []
    columns = [*map(str, Verdict), "n"]
    rows = [["kind", *columns]]
    rows += [[kind, *(f"{counts[c]:,}" for c in columns)] for kind, counts in table["kinds"].items()]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    out = []
    for first, *cells in rows:
        numbers = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        out.append("  ".join([first.ljust(widths[0]), *numbers]))
    return out + [f"{count:,} × error: {cause}" for cause, count in table["errors"].items()]
