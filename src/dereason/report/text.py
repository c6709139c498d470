"""Numbers as people read them, one way each, for the page and the figures alike.

Values that are missing or not finite become an en dash, so that no table shows ``None`` or ``nan``.
"""

from __future__ import annotations

import html
import math
from datetime import datetime
from typing import Any

NONE = "–"


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def percent(share: Any, digits: int = 1) -> str:
    """A share in 0..1 as ``12.1 %``."""
    return f"{100 * share:.{digits}f}\u00a0%" if _finite(share) else NONE


def signed(value: float, digits: int = 1) -> str:
    """A number with its sign; the minus is a real minus and zero has no sign."""
    text = f"{abs(value):.{digits}f}"
    if float(text) == 0:
        return text
    return ("−" if value < 0 else "+") + text


def points(share: Any, digits: int = 1) -> str:
    """A difference of shares as signed percentage points, ``+1.7``."""
    return signed(100 * share, digits) if _finite(share) else NONE


def interval(low: Any, high: Any, digits: int = 1) -> str:
    """An interval of shares in percent, ``[8.6, 16.9]``."""
    if not (_finite(low) and _finite(high)):
        return f"[{NONE}]"
    return f"[{100 * low:.{digits}f}, {100 * high:.{digits}f}]"


def points_interval(low: Any, high: Any, digits: int = 1) -> str:
    """An interval of differences in percentage points, ``[−0.8, +4.2]``."""
    return f"[{points(low, digits)}, {points(high, digits)}]"


def level(value: Any) -> str:
    """A confidence level: 0.95 is ``95 %``, 0.999 is ``99.9 %``."""
    return f"{100 * value:g}\u00a0%" if _finite(value) else NONE


def number(value: Any, digits: int = 2) -> str:
    """A plain number with a fixed count of decimals."""
    return signed(value, digits).lstrip("+") if _finite(value) else NONE


def figures(value: Any, digits: int = 3) -> str:
    """A number with so many significant figures, ``0.0123`` or ``12.0``; never fewer than its whole part."""
    if not _finite(value):
        return NONE
    if abs(value) >= 10**digits:
        return f"{'−' if value < 0 else ''}{abs(value):,.0f}"
    return f"{value:#.{digits}g}".rstrip(".").replace("-", "−")


def estimate(found: Any, digits: int = 3) -> str:
    """An interval of the findings of an analysis as ``0.620 [0.510, 0.740]``; a dash where there is none."""
    if found is None:
        return NONE
    limits = ", ".join(figures(found[side], digits) for side in ("low", "high"))
    return f"{figures(found['estimate'], digits)} [{limits}]"


def ratio(found: Any) -> str:
    """An interval of ratios as ``0.62 [0.51, 0.74]``; a dash where there is none."""
    if found is None:
        return NONE
    value, low, high = (
        number(found[side]) if not _finite(found[side]) or 0.1 <= found[side] < 100 else figures(found[side], 2)
        for side in ("estimate", "low", "high")
    )
    return f"{value} [{low}, {high}]"


def count(value: Any) -> str:
    """A count with thousands separated, ``12,345``."""
    return f"{round(value):,}" if _finite(value) else NONE


def money(value: Any) -> str:
    """An amount in dollars, ``$1.25``; less than a cent with its first two figures, ``$0.0013``."""
    if not _finite(value):
        return NONE
    return f"${value:,.2f}" if value == 0 or value >= 0.01 else f"${value:.2g}"


def duration(seconds: Any) -> str:
    """Seconds as ``0.4 s``, ``45 s``, ``8 min 32 s`` or ``2 h 05 min``."""
    if not _finite(seconds):
        return NONE
    if seconds < 9.95:
        return f"{seconds:.1f}\u00a0s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}\u00a0s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}\u00a0min {rest:02d}\u00a0s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours}\u00a0h {minutes:02d}\u00a0min"


def moment(value: Any) -> str:
    """An ISO 8601 time as ``2026-11-21 12:00 UTC``; anything else as it is."""
    try:
        when = datetime.fromisoformat(str(value))
    except ValueError:
        return str(value)
    return f"{when:%Y-%m-%d %H:%M} {when.tzname() or ''}".strip()


def size(value: Any) -> str:
    """Bytes in binary units, ``3.07 GiB``."""
    if not _finite(value):
        return NONE
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    power = 0
    while value >= 1024 and power < len(units) - 1:
        value /= 1024
        power += 1
    return f"{value:.0f}\u00a0B" if power == 0 else f"{value:.3g}\u00a0{units[power]}"


def big(value: Any) -> str:
    """A parameter count, ``135 M`` or ``1.7 B``."""
    if not _finite(value):
        return NONE
    for scale, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= scale:
            return f"{value / scale:.3g}\u00a0{unit}"
    return f"{value:.0f}"


def stage(name: str) -> str:
    """``base`` stays; ``1-sft`` becomes ``after 1-sft``."""
    return name if name == "base" else f"after {name}"


def shorten(value: Any, limit: int = 0) -> str:
    """The ``str`` of anything on one line, cut to ``limit`` characters with an ellipsis; 0 leaves the length alone."""
    text = " ".join(str(value).split())
    return text[: limit - 1] + "…" if limit and len(text) > limit else text


def plain(value: Any, limit: int = 0) -> str:
    """Text that plotly shows as it is: plotly reads a subset of HTML in every string that it draws.

    Args:
        value: anything; its ``str`` is used, line breaks become spaces.
        limit: cut to so many characters, the last one an ellipsis; 0 leaves the length alone.
    """
    return html.escape(shorten(value, limit), quote=False)
