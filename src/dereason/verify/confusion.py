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
"""``kinds``: kind -> the five verdicts' counts, ``strict`` (the correct ones whose answer is marked) and ``n`` (all but
``error``); ``errors``: cause -> count, the ten most
frequent, the rest as ``other causes``; ``rules``: extraction rule -> count of answers that it found."""


def confusion(samples: pl.DataFrame) -> Confusion:
    """Summarise a SAMPLE table; kinds stand in the order of :class:`~dereason.verify.kinds.Kind`."""
    return tabulate(samples.select("verdict", "strict", "kind", "how", "reason").iter_rows())


def tabulate(rows: Iterable[tuple[str, bool | None, str | None, str | None, str | None]]) -> Confusion:
    """Summarise (verdict, strict, kind, extraction rule, reason) of any number of judgements."""
    counts: dict[str, Counter[str]] = {}
    causes: Counter[str] = Counter()
    rules: Counter[str] = Counter()
    for verdict, strict, kind, how, reason in rows:
        counts.setdefault(str(kind or UNKNOWN), Counter()).update([str(verdict), *(["strict"] if strict else [])])
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
            kind: {str(v): counts[kind][v] for v in Verdict}
            | {"strict": counts[kind]["strict"], "n": sum(counts[kind][v] for v in Verdict if v is not Verdict.ERROR)}
            for kind in sorted(counts, key=order.index)
        },
        "errors": errors,
        "rules": dict(sorted(rules.items(), key=lambda item: (-item[1], item[0]))),
    }


def found_by(rules: dict[str, int]) -> dict[str, float]:
    """The share of each extraction rule among the answers that were found, the most frequent first."""
    total = sum(rules.values())
    return {rule: count / total for rule, count in rules.items()}


def lines(table: Confusion) -> list[str]:
    """The table as lines of text for a terminal; nothing for an empty one."""
    if not table["kinds"]:
        return []
    columns = [*map(str, Verdict), "strict", "n"]
    rows = [["kind", *columns]]
    rows += [[kind, *(f"{counts[c]:,}" for c in columns)] for kind, counts in table["kinds"].items()]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    out = []
    for first, *cells in rows:
        numbers = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        out.append("  ".join([first.ljust(widths[0]), *numbers]))
    if table["rules"]:
        shares = ", ".join(f"{rule} {100 * share:.0f} %" for rule, share in found_by(table["rules"]).items())
        out.append(f"answers found by: {shares}")
    return out + [f"{count:,} × error: {cause}" for cause, count in table["errors"].items()]
