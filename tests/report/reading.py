"""Reading a page back, as a browser's parser sees it."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any


class Reader(HTMLParser):
    """The page as a browser's parser sees it: elements with attributes, visible text, and script contents."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.words: list[str] = []
        self.inside: list[str] = []
        self.feed(page)
        self.text = " ".join("".join(self.words).replace("\u00a0", " ").split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.words += [" "] if tag in ("td", "th", "dd", "dt", "p", "li", "h3", "h4") else []
        if tag in ("script", "style"):
            self.inside.append(tag)
            self.scripts += [""] if tag == "script" else []

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self.inside.pop()

    def handle_data(self, data: str) -> None:
        if not self.inside:
            self.words.append(data)
        elif self.inside[-1] == "script":
            self.scripts[-1] += data

    def figures(self) -> list[dict[str, Any]]:
        """The figures as the page's script will read them."""
        tags = [attrs for tag, attrs in self.elements if tag == "script"]
        return [json.loads(s) for s, a in zip(self.scripts, tags, strict=True) if "data-figure" in a]


def strings(value: Any) -> list[str]:
    """All strings inside a figure, dictionary keys aside."""
    if isinstance(value, dict):
        return [s for item in value.values() for s in strings(item)]
    if isinstance(value, list):
        return [s for item in value for s in strings(item)]
    return [value] if isinstance(value, str) else []
