"""Spellings of common units, written down here and not taken from the table that the verifier reads."""

from __future__ import annotations

_LENGTH, _MASS, _TIME, _SPEED, _VOLUME = "length", "mass", "time", "speed", "volume"
_UNITS: dict[str, tuple[str, tuple[str, ...]]] = {
    "mm": (_LENGTH, ("millimeters",)),
    "cm": (_LENGTH, ("centimeters",)),
    "m": (_LENGTH, ("meters",)),
    "km": (_LENGTH, ("kilometers",)),
    "meters": (_LENGTH, ("m",)),
    "centimeters": (_LENGTH, ("cm",)),
    "kilometers": (_LENGTH, ("km",)),
    "inches": (_LENGTH, ("in",)),
    "feet": (_LENGTH, ("ft",)),
    "ft": (_LENGTH, ("feet",)),
    "miles": (_LENGTH, ("mi",)),
    "g": (_MASS, ("grams",)),
    "kg": (_MASS, ("kilograms",)),
    "grams": (_MASS, ("g",)),
    "kilograms": (_MASS, ("kg",)),
    "pounds": (_MASS, ("lb",)),
    "s": (_TIME, ("seconds",)),
    "seconds": (_TIME, ("s",)),
    "min": (_TIME, ("minutes",)),
    "minutes": (_TIME, ("min",)),
    "hours": (_TIME, ("h",)),
    "days": (_TIME, ("day",)),
    "mph": (_SPEED, ("miles per hour",)),
    "liters": (_VOLUME, ("L",)),
    "mL": (_VOLUME, ("milliliters",)),
}
SPELLINGS: dict[str, tuple[str, ...]] = {unit: others for unit, (_, others) in _UNITS.items()}
"""Other names of a unit."""
_OTHERS = {_LENGTH: "kg", _MASS: "s", _TIME: "kg", _SPEED: "kg", _VOLUME: "s"}


def other_dimension(unit: str) -> str | None:
    """A unit of another dimension, None for a unit that is not known here."""
    found = _UNITS.get(unit)
    return None if found is None else _OTHERS[found[0]]
