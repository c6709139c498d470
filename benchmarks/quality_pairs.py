"""Labelled pairs of (response, reference), built from the data sets that ``verifier_quality.py`` names.

A pair is made of a reference, a rewrite that must match or a near-miss that must not, and a wrapper: the prose that a
model puts around an answer. The label is right by construction, so what cannot be known is left out: options that say
the same, rewrites that another rule of the verifier forbids, wrappers in which it is a matter of taste what the answer
is. Nothing here uses the verifier's own parsers; :func:`kind_of` only files the pairs.
"""

from __future__ import annotations

import json
import random
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quality_numbers import CONVERSIONS, Forms, quantity_forms
from quality_science import (
    CHEMISTRY,
    FORMULA,
    SCIENTIFIC,
    UNITS,
    formula_forms,
    listed_forms,
    scientific_forms,
)
from quality_structures import SHAPES, boolean_forms, expression_forms, set_forms, text_maker

from dereason.verify.kinds import Kind
from dereason.verify.reading import kind_of


@dataclass(frozen=True)
class Pair:
    """One response with its label."""

    kind: str
    """The reference's kind."""
    cause: str
    """What was done to the reference."""
    wrapper: str
    """What was put around the answer."""
    response: str
    reference: str
    options: list[str] | None
    hit_limit: bool
    equal: bool
    """Whether the verifier must find the response correct."""


# Distractors stand before and after the answer; "@" is the answer.
_WRAPPERS: dict[str, str] = {
    "boxed": "First, 3 + 4 = 7, and (A) is tempting. So the result is \\boxed{@}.",
    "boxed, prose after": "We get $\\boxed{@}$.\n\nCheck: 2 steps, as in (C), were enough.",
    "two boxes": "A first try gives \\boxed{999}, which is too large. Hence \\boxed{@}",
    "display": "Therefore\n\\[\n\\boxed{@}\n\\]\nin 12 lines.",
    "think tags": "<think>Maybe \\boxed{999}? The answer is 998.</think>\n\n\\boxed{@}",
    "think tags, phrase": "<think>\nThe answer is 998. (B)?\n</think>\nThe answer is @.",
    "answer tags": "<reasoning>It is 998, I think.</reasoning>\n<answer>@</answer>",
    "hash": "He has 3 and 4 of them.\n#### @",
    "the answer is": "Adding 3 and 4 leads there. The answer is @.",
    "final answer": "We add 3 and 4.\n\nFinal answer: @",
    "final answer, lines after": "We add 3 and 4.\n\n**Final Answer:** @\n\nThat took 2 steps.",
    "heading": "We add 3 and 4.\n\n### Final Answer\n\n**@**\n",
    "bold label": "We add 3 and 4.\n\n**Answer: @**",
    "quote": "We add 3 and 4.\n\n> **Answer:** @\n",
    "German": "Wir addieren 3 und 4. Die Antwort ist @.",
    "French": "On additionne 3 et 4. La réponse est @.",
    "Spanish": "Sumamos 3 y 4. La respuesta es @.",
    "Russian": "Складываем 3 и 4. Ответ: @",
    "Chinese": "3加4。答案是@。",
    "Japanese": "3と4を足す。答えは@です。",
}
_DISTRACTORS = {"2", "3", "4", "7", "12", "998", "999"}
_CLOSED = ("boxed", "boxed, prose after", "two boxes", "display", "think tags", "answer tags")
"""Wrappers that mark where the answer ends, so that any answer fits in."""


def labelled_pairs(data: Path, seed: int = 0, per_form: int = 1) -> list[Pair]:
    """All pairs, in an order that depends on the seed alone.

    Args:
        data: the folder with the data sets.
        seed: of the choice of wrappers, near-misses and permutations.
        per_form: wrappers drawn for each form of each reference.
    """
    rng = random.Random(seed)
    pairs: list[Pair] = []
    for reference, make in _references(data, rng):
        forms = make(reference, rng)
        for cause, answer, equal in forms:
            for wrapper in _wrappers(answer, rng, per_form):
                response = _WRAPPERS[wrapper].replace("@", answer)
                pairs.append(_pair(reference, None, cause, wrapper, response, equal))
        if forms:
            pairs += _responses(reference, forms, rng)
    pairs += _choices(data, rng)
    pairs += _real_responses(data)
    rng.shuffle(pairs)
    return pairs


def sample(pairs: list[Pair], limit: int) -> list[Pair]:
    """At most ``limit`` pairs, spread evenly over kinds and causes."""
    groups: dict[tuple[str, str], list[Pair]] = {}
    for pair in pairs:
        groups.setdefault((pair.kind, pair.cause), []).append(pair)
    kept: list[Pair] = []
    depth = 0
    while len(kept) < min(limit, len(pairs)):
        kept += [group[depth] for group in groups.values() if depth < len(group)]
        depth += 1
    return kept[:limit]


def _pair(
    reference: str, options: list[str] | None, cause: str, wrapper: str, response: str, equal: bool, cut: bool = False
) -> Pair:
    return Pair(str(kind_of(reference, options)), cause, wrapper, response, reference, options, cut, equal)


def _wrappers(answer: str, rng: random.Random, n: int) -> list[str]:
    names = list(_WRAPPERS)
    # An answer with a sentence's punctuation or a comma followed by a word has no clear end in running text.
    if re.search(r"[.?!](?:\s|$)|, [A-Za-z]|\n|=|[()\[\]]", answer) or len(answer) > 60:
        names = list(_CLOSED)
    elif not answer or re.match(r"\W*$", answer):
        names = ["boxed", "answer tags"]
    return rng.sample(names, min(n, len(names)))


def _responses(reference: str, forms: Forms, rng: random.Random) -> Iterator[Pair]:
    """Near-misses of whole responses: what is no answer must not become one."""
    wrong = [answer for cause, answer, equal in forms if not equal and cause in _PLAIN_WRONG and answer]
    right = reference
    kinds: dict[str, tuple[str, bool]] = {
        "still thinking": (f"<think>It is \\boxed{{{right}}}, or is it", False),
        "open box": (f"It could be anything \\boxed{{{right}", True),
        "empty response": ("", False),
        "empty box": ("I give up: \\boxed{}", False),
    }
    if re.fullmatch(r"[1-9]\d*", right):
        kinds["question restated"] = (f"What is 40 + {right}?", False)
        kinds["unevaluated at the end"] = (f"So we have to compute 40 + {right}.", False)
        kinds["cut in a calculation"] = (f"First, 3 + 4 is {right} and then", True)
        kinds["denied"] = (f"I am sure that it is not {right}.", False)
        kinds["numbered step"] = (f"I see 3 ways.\n\nStep {right}: the sum is unclear", False)
        if len(right) < 3:
            kinds["list marker"] = (f"I see 999 ways.\n{right}. The sum is unclear", False)
    if wrong:
        other = rng.choice(wrong)
        kinds["thought, then another answer"] = (f"<think>\\boxed{{{right}}}</think>\n\n\\boxed{{{other}}}", False)
        kinds["corrected at the end"] = (f"\\boxed{{{right}}}? No, I forgot one. \\boxed{{{other}}}", False)
        kinds["two boxes joined"] = (f"\\boxed{{{other}}} or \\boxed{{{right}}}", False)
    for name in rng.sample(list(kinds), 2):
        response, cut = kinds[name]
        yield _pair(reference, None, name, "-", response, False, cut)


_PLAIN_WRONG = (
    "sign",
    "off by one",
    "one element changed",
    "swapped",
    "another text",
    "opposite",
    "coefficient changed",
)


# ---------------------------------------------------------------------------------------------------- references


def rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file."""
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _references(data: Path, rng: random.Random) -> Iterator[tuple[str, Callable[[str, random.Random], Forms]]]:
    """Each reference once, with the function that rewrites it."""
    files = ("math/test500", "math/train", "aime24", "bbeh_mini", "gsm8k/test")
    every = dict.fromkeys(str(row["answer"]).strip() for name in files for row in rows(data / f"{name}.jsonl"))
    # Integers and fractions abound, and one is like another.
    integers = [reference for reference in every if re.fullmatch(r"-?\d+", reference)]
    fractions = [reference for reference in every if re.fullmatch(r"-?\\[dt]?frac\{\d+\}\{\d+\}", reference)]
    negative = [n for n in integers if n.startswith("-")]
    large = [n for n in integers if len(n) > 3]
    left_out = {*integers[150:], *fractions[150:]} - {*negative[:50], *large[:100]}
    left_out |= _DISTRACTORS
    # There a pair of numbers without brackets is two answers in order.
    ordered = {str(row["answer"]).strip() for row in rows(data / "bbeh_mini.jsonl")}
    texts: list[str] = []
    for reference in every:
        make = next((make for pattern, make in SHAPES if re.fullmatch(pattern, reference)), None)
        if make is expression_forms and kind_of(reference) != Kind.EXPRESSION:
            make = None
        if make is set_forms and reference in ordered:
            continue
        if make is not None and reference not in left_out:
            yield reference, make
        elif make is None and re.fullmatch(r"(?:\\text\{)?[A-Za-z][A-Za-z ]{2,40}\}?", reference):
            texts.append(reference)
    for unit in sorted(CONVERSIONS):
        for n in rng.sample(range(2, 999), 8):
            yield f"{n} {unit}", quantity_forms
    for reference in ("Yes", "No", "True", "False", "yes", "no") * 3:
        yield reference, boolean_forms
    for reference in texts:
        yield reference, text_maker(texts)
    yield from _science(data)


def _science(data: Path) -> Iterator[tuple[str, Callable[[str, random.Random], Forms]]]:
    """The references of the sciences, and what their own sources accept besides."""
    for reference, _, _ in (*UNITS, *CHEMISTRY):
        yield reference, listed_forms
    minerva = rows(data / "minerva.jsonl")
    olympiad = [row for row in rows(data / "olympiad_bench.jsonl") if not row["multiple"]]
    for reference in dict.fromkeys(str(row["answer"]).strip() for row in (*minerva, *olympiad)):
        bare = reference.strip("$ ")
        if re.fullmatch(SCIENTIFIC, bare):
            yield reference, scientific_forms
        elif re.fullmatch(FORMULA, bare) and not re.search(r"\\(?:text|mathrm|in|le|ge|pm)|[,<>]", bare):
            yield reference, formula_forms
    for row in minerva:
        others = [
            text for text in dict.fromkeys(row["accepted"]) if text != row["answer"] and not re.match(r"\d|.*C_", text)
        ]
        if others:
            yield (
                row["answer"],
                lambda _, __, others=others: [("accepted by the source", text, True) for text in others],
            )


def held_out(pair: Pair) -> bool:
    """Whether the pair is of the tenth of references that no rule is mended by."""
    return zlib.crc32("\n".join([pair.reference, *(pair.options or [])]).encode()) % 10 == 0


# ------------------------------------------------------------------------------------------------------- choices

_LETTERS = "ABCDEFGHIJ"


def permuted(options: list[str], answer: int, rng: random.Random) -> tuple[list[str], int]:
    """The options in another order, and where the answer now stands."""
    order = rng.sample(range(len(options)), len(options))
    return [options[i] for i in order], order.index(answer)


def clear_options(options: list[str]) -> bool:
    """Whether each option's text names one option and no label."""
    bare = [re.sub(r"[\W_]+", "", option).casefold() for option in options]
    return len(set(bare)) == len(bare) and all(len(text) > 1 for text in bare)


def _choices(data: Path, rng: random.Random) -> Iterator[Pair]:
    asked = rows(data / "mmlu_pro/questions.jsonl")
    for row in rng.sample(asked, min(400, len(asked))):
        options, right = permuted(row["options"], _LETTERS.index(row["answer"]), rng)
        letter, text = _LETTERS[right], options[right]
        other = rng.choice([i for i in range(len(options)) if i != right])
        forms: Forms = [
            ("letter", letter, True),
            ("letter in parentheses", f"({letter})", True),
            ("letter and text", f"{letter}. {text}", True),
            ("option word", f"option {letter}", True),
            ("wrong letter", _LETTERS[other], False),
            ("wrong letter and text", f"({_LETTERS[other]}) {options[other]}", False),
            ("lower-case letter", f"({letter.lower()})", True),
            ("bold letter", f"**{letter}**", True),
            ("letter, not another", f"{letter}, not {_LETTERS[other]}", True),
            ("both letters", f"both {letter} and {_LETTERS[other]}", False),
            ("denied letter", f"not {letter}", False),
            ("two letters", f"{letter} or {_LETTERS[other]}", False),
            ("letter list", f"({letter}), ({_LETTERS[other]})", False),
            ("none of them", "none of these", False),
        ]
        plain = len(text) < 80 and not re.search(r"[{}$@\\\n]", text + options[other])
        if clear_options(options) and plain:
            forms += [("option text", text, True), ("neighbour's text", options[other], False)]
            # The reference may be the text too.
            yield _pair(text, options, "reference is the text", "boxed", f"So \\boxed{{{letter}}}.", True)
            yield _pair(
                text, options, "reference is the text, wrong letter", "boxed", f"\\boxed{{{_LETTERS[other]}}}", False
            )
        for cause, answer, equal in rng.sample(forms, 6):
            if "text" in cause and not plain:
                continue
            wrapper = rng.choice(list(_CLOSED) if "text" in cause else list(_WRAPPERS))
            if wrapper == "hash" and "none" in cause:
                continue
            yield _pair(letter, options, cause, wrapper, _WRAPPERS[wrapper].replace("@", answer), equal)
        whole = {
            "concluding line": (f"The others are too slow.\n**{letter}**", True),
            "concluding option": (f"The others are too slow, so I take option {letter}.", True),
            "concluding wrong option": (f"The others are too slow, so I take option {_LETTERS[other]}.", False),
            "first-letter guess": (f"{letter} good question, that one. I am not sure at all", False),
            "options restated": ("\n".join(f"{_LETTERS[i]}. {o}" for i, o in enumerate(options)), False),
            "exclusion": (f"I can exclude option {letter}", False),
            "letters in prose": (f"Both ({letter}) and ({_LETTERS[other]}) may be right.", False),
            "still thinking": (f"<think>The answer is ({letter}). Or is it", False),
        }
        name = rng.choice(list(whole))
        response, equal = whole[name]
        yield _pair(letter, options, name, "-", response, equal)


def _real_responses(data: Path) -> Iterator[Pair]:
    """Responses of public models that state one letter, once: then the data's own verdict is sure."""
    questions = {row["id"]: row for row in rows(data / "mmlu_pro/questions.jsonl")}
    for row in rows(data / "mmlu_pro/responses.jsonl"):
        stated = re.findall(r"(?i)answer is:? \(?([A-J])\)?(.{0,12})", row["response"])
        if len(stated) != 1 or row["response"].lower().count("answer") != 1 or re.search(r"\([A-J]\)", stated[0][1]):
            continue
        question = questions[row["problem_id"]]
        equal = stated[0][0].upper() == question["answer"]
        cause = "a model's response, right" if equal else "a model's response, wrong"
        yield _pair(question["answer"], question["options"], cause, "-", row["response"], equal)
