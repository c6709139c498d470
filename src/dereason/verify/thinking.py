"""Which part of a response is thinking aloud, and so not its answer.

Understood: ``<think>``, ``<thinking>``, ``<thought>``, ``<reasoning>``, ``<scratchpad>``, ``<seed:think>`` and their
closing tags, ``<|begin_of_thought|>`` and ``<|end_of_thought|>``, ``[THINK]`` and ``[/THINK]``, the analysis channel
of ``<|channel|>`` formats. A closing tag without an opening one ends a thought that the prompt's template began.
"""

from __future__ import annotations

from dereason.lm.tags import TAG


def outside_thinking(text: str) -> tuple[str, bool]:
    """The text with every thought blanked out, and whether the last thought is still open.

    The result has the length of the text, so that places in one are places in the other. Thoughts do not nest: a
    second opening tag changes nothing, and a closing tag without an opening one ends a thought that began with the
    text. Linear in the length.
    """
    hidden, is_open = _thoughts(text)
    kept: list[str] = []
    position = 0
    for start, end in hidden:
        kept += [text[position:start], "\n" * (end - start)]
        position = end
    return "".join([*kept, text[position:]]), is_open


def without_thinking(text: str) -> str:
    """The text less every thought and the white space at its ends: what stood around a thought are two paragraphs."""
    parts: list[str] = []
    position = 0
    for start, end in _thoughts(text)[0]:
        parts.append(text[position:start].strip())
        position = end
    parts.append(text[position:].strip())
    return "\n\n".join(part for part in parts if part)


def _thoughts(text: str) -> tuple[list[tuple[int, int]], bool]:
    """Where thoughts begin and end, tags included, in order; and whether the last one is still open."""
    hidden: list[tuple[int, int]] = []
    began: int | None = None
    for match in TAG.finditer(text):
        if match["opening"]:
            began = match.start() if began is None else began
        elif began is None:
            hidden = [(0, match.end())]
        else:
            hidden.append((began, match.end()))
            began = None
    if began is not None:
        hidden.append((began, len(text)))
    return hidden, began is not None


def inside_thinking(text: str) -> str:
    """The text with the tags of its thoughts blanked out, so that no tag becomes a part of an answer."""
    return TAG.sub(lambda match: "\n" * len(match.group()), text)
