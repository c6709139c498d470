"""Halves of characters: JSON can hold them, files, tables and tokenizers cannot."""

from __future__ import annotations

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def whole_text(text: str) -> str:
    """The text with U+FFFD for each half of a surrogate pair whose other half is missing; two halves become one."""
    try:
        text.encode()
    except UnicodeEncodeError:  # UTF-16 brings the halves together
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
