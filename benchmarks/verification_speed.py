r"""Throughput of the verifier against math-verify called on every pair.

    python benchmarks/verification_speed.py [--data math500.jsonl] [--limit 500] [--seed 0]

Data: JSON Lines with `answer`; the documented numbers are of MATH-500 (hub id HuggingFaceH4/MATH-500, MIT). Without
`--data`: a dozen references that stand below. The pairs: one third of the references with themselves, one third with a
rewrite that means the same, one third with a near miss. Each pair is compared once, with the cache of comparisons off;
a text that stands in several pairs is read once. Both sides are warmed up with other pairs first (imports, parser
tables, the start of the workers); that time is printed apart. math-verify parses both texts and verifies, in process,
its time limits off.

Prints a table and every disagreement; writes nothing.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from dereason.verify.equivalence import compare
from dereason.verify.numbers import parse_number
from dereason.verify.verifier import Verifier, VerifierSettings

REFERENCES = (
    "5",
    "-12",
    r"\frac{3}{4}",
    "x^2 + 3x",
    r"(2,\infty)",
    r"15\mbox{ cm}^2",
    r"2\sqrt{5}",
    r"\text{east}",
    "1,-2",
    "17",
    r"\pi r^2",
    "(3, 4)",
)
IDENTICAL, REWRITTEN, NEAR_MISS = CLASSES = ("identical", "reformatted", "near miss")
Rewrite = Callable[[str, random.Random], str | None]

_FRACTION = re.compile(r"\\[dt]?frac\s?\{(-?[0-9]+)\}\s?\{([0-9]+)\}")
_INTEGER = re.compile(r"(?<![0-9.])[0-9]+(?![0-9.]*[0-9])")
_PLAIN_SUM = re.compile(r"[^{}()\[\]=,<>]*[0-9A-Za-z}] ?[+-] ?[^{}()\[\]=,<>]*")
_TERM = re.compile(r"[+-]?[^+-]+")
_UNITS = {"cm": "m", "inches": "feet", "cents": "dollars", "degrees": "radians", "^\\circ": "\\text{ radians}"}


@dataclass(frozen=True)
class Pair:
    """An answer, the reference, and what is known of them by the way they were made."""

    answer: str
    reference: str
    kind: str
    how: str

    @property
    def equal(self) -> bool:
        return self.kind != NEAR_MISS


def _replace(pattern: str, new: str) -> Rewrite:
    def rewrite(text: str, rng: random.Random) -> str | None:
        out = re.sub(pattern, new, text)
        return out if out != text else None

    return rewrite


def _slash(text: str, rng: random.Random) -> str | None:
    # Only where nothing binds more tightly to the fraction: 1\frac{4}{5} and \frac{3}{5}x change their meaning.
    out = re.sub(rf"(?<![0-9A-Za-z}}\s])({_FRACTION.pattern})(?!\s?[0-9A-Za-z\\(^])", r"\2/\3", text)
    return out if out != text else None


def _decimal(text: str, rng: random.Random) -> str | None:
    number = parse_number(text)
    if number is None or number.percent or "frac" not in text:
        return None
    value = number.value
    denominator = value.denominator
    for prime in (2, 5):
        while denominator % prime == 0:
            denominator //= prime
    return str(float(value)) if denominator == 1 and Fraction(str(float(value))) == value else None


def _thousands(text: str, rng: random.Random) -> str | None:
    if not text.isdigit():
        plain = text.replace(",\\!", "").replace(" ", "")
        return plain if plain != text and plain.isdigit() else None
    return f"{int(text):,}" if len(text) > 3 else f"{text}.0"


def _reordered(text: str, rng: random.Random) -> str | None:
    terms = _terms(text)
    return _join(terms[::-1]) if terms else None


def _terms(text: str) -> list[str]:
    """The terms of a plain sum, each with its sign; none where the text is anything else."""
    bare = re.sub(r"\\sqrt\s?(?:\{[0-9]+\}|[0-9])|\\frac\{[0-9]+\}\{[0-9]+\}", "R", text)
    if _PLAIN_SUM.fullmatch(bare) is None or "\\pm" in text or "^\\circ" in text:
        return []
    terms = [term.strip() for term in _TERM.findall(text)]
    if len(terms) < 2 or "".join(terms).replace(" ", "") != text.replace(" ", ""):
        return []
    return [term if term[0] in "+-" else f"+{term}" for term in terms]


def _join(terms: list[str]) -> str:
    return " ".join(terms).removeprefix("+").strip()


REWRITES: dict[str, Rewrite] = {
    "\\dfrac": _replace(r"\\frac", r"\\dfrac"),
    "a/b": _slash,
    "decimal": _decimal,
    "thousands": _thousands,
    "reordered": _reordered,
    "spaces": _replace(r" ?([+=]|(?<!\\),(?!\s?\\!)) ?", r" \1 "),
    "no spaces": _replace(r"(?<![A-Za-z]) ", ""),
    "\\left \\right": lambda text, rng: (
        text.replace("(", "\\left(").replace(")", "\\right)") if "(" in text and "\\left" not in text else None
    ),
    "no \\left \\right": _replace(r"\\(?:left|right)(?![a-z])", ""),
    "\\text off": _replace(r"\\(?:text|mbox)\{([^{}]*)\}", r"\1"),
    "$...$": lambda text, rng: f"${text}$" if "$" not in text else None,
    "\\text on": lambda text, rng: f"\\text{{{text}}}" if text.isalnum() else None,
}


def _sign(text: str, rng: random.Random) -> str | None:
    if re.search(r"\\text|\\pm|\\infty|=|[({,]", text.replace("frac{", "").replace("sqrt{", "")) or text == "0":
        return None
    return text[1:].strip() if text.startswith("-") else f"-{text}" if not _terms(text) else None


def _number_changed(change: Callable[[str, random.Random], str]) -> Rewrite:
    def rewrite(text: str, rng: random.Random) -> str | None:
        found = list(_INTEGER.finditer(text))
        if not found:
            return None
        match = rng.choice(found)
        return text[: match.start()] + change(match.group(), rng) + text[match.end() :]

    return rewrite


def _other_digit(digits: str, rng: random.Random) -> str:
    place = rng.randrange(len(digits))
    return digits[:place] + str((int(digits[place]) + rng.randrange(1, 9)) % 10) + digits[place + 1 :]


def _dropped(text: str, rng: random.Random) -> str | None:
    terms = _terms(text)
    return _join(terms[:-1]) if terms and terms[-1].strip("+- ") != "0" else None


def _swapped(text: str, rng: random.Random) -> str | None:
    match = re.fullmatch(r"(?:\\left)? ?\(([^,]*),([^,]*?)(?:\\right)? ?\)", text)
    if match is None or match.group(1).strip() == match.group(2).strip() or "infty" in text:
        return None
    return f"({match.group(2).strip()}, {match.group(1).strip()})"


def _unit(text: str, rng: random.Random) -> str | None:
    for unit, other in _UNITS.items():
        if unit in text:
            return text.replace(unit, other)
    return None


def _bracket(text: str, rng: random.Random) -> str | None:
    if "," not in text or not text.endswith((")", "]")) or "\\circ" in text:
        return None
    if "infty" not in text and "cup" not in text and "]" not in text and "[" not in text:
        return None
    return f"{text[:-1]}{']' if text[-1] == ')' else ')'}"


def _other_word(text: str, rng: random.Random) -> str | None:
    match = re.fullmatch(r"\\text\{(.*)\}", text)
    if match is None:
        return None
    label = match.group(1)[0] == "("
    return f"\\text{{({'A' if 'A' not in text else 'B'})}}" if label else "\\text{west}"


NEAR_MISSES: dict[str, Rewrite] = {
    "sign": _sign,
    "off by one": _number_changed(lambda digits, rng: str(int(digits) + 1)),
    "other digit": _number_changed(_other_digit),
    "dropped term": _dropped,
    "swapped": _swapped,
    "wrong unit": _unit,
    "other bracket": _bracket,
    "other word": _other_word,
}


def make_pairs(references: list[str], seed: int) -> list[Pair]:
    """One pair for each reference, of the three classes in turn; rewrites are drawn evenly from those that apply."""
    rng = random.Random(seed)
    order = sorted(references, key=lambda _: rng.random())
    pairs = []
    for i, reference in enumerate(order):
        kind = CLASSES[i % 3]
        table = {REWRITTEN: REWRITES, NEAR_MISS: NEAR_MISSES}.get(kind, {})
        made = {how: rewrite(reference, rng) for how, rewrite in table.items()}
        how = rng.choice([how for how, text in made.items() if text is not None] or ["itself"])
        answer = made.get(how)
        pairs.append(
            Pair(reference, reference, IDENTICAL, how) if answer is None else Pair(answer, reference, kind, how)
        )
    return pairs


def math_verify_all(pairs: list[Pair]) -> list[bool]:
    """What math-verify says of each pair, called as its documentation does."""
    from math_verify import parse, verify

    logging.getLogger("math_verify").setLevel(logging.ERROR)

    def read(text: str) -> list[object]:
        return parse(text if "$" in text.replace("\\$", "") else f"${text}$", parsing_timeout=None)

    return [bool(verify(read(pair.reference), read(pair.answer), timeout_seconds=None)) for pair in pairs]


def cause(pair: Pair, ours: bool | None, theirs: bool) -> str:
    """Whose mistake a disagreement is."""
    if ours is None:
        return "ours failed"
    if ours != pair.equal:
        return "ours a miss"
    return "math-verify rejects a rewrite" if pair.equal else "math-verify accepts a near miss"


def main() -> None:
    """Time both and print the table."""
    parser = argparse.ArgumentParser(description="Throughput of the verifier against math-verify.")
    parser.add_argument("--data", type=Path, help="JSON Lines with answer: the references")
    parser.add_argument("--limit", type=int, default=500, help="references, the first of the file")
    parser.add_argument("--seed", type=int, default=0, help="of the rewrites and their choice")
    chosen = parser.parse_args()
    references = list(REFERENCES)
    if chosen.data is not None:
        references = [json.loads(line)["answer"] for line in chosen.data.read_text(encoding="utf-8").splitlines()]
    pairs = make_pairs(references[: chosen.limit], chosen.seed)
    warm = [
        Pair("x + \\sin^2 y", "x + 1 - \\cos^2 y", "", ""),
        Pair("7 km", "7000 m", "", ""),
        Pair("7 apples", "7 euros", "", ""),
    ]

    began = time.perf_counter()
    math_verify_all(warm)
    start_theirs = time.perf_counter() - began
    seconds: dict[str, tuple[float, float]] = {}
    disagreements = []
    failed = []
    with Verifier(VerifierSettings(cache_size=0)) as verifier:
        began = time.perf_counter()
        verifier.equivalent_many([(pair.answer, pair.reference, None) for pair in warm])
        start_ours = time.perf_counter() - began
        for kind in CLASSES:
            chunk = [pair for pair in pairs if pair.kind == kind]
            began = time.perf_counter()
            ours = verifier.equivalent_many([(pair.answer, pair.reference, None) for pair in chunk])
            middle = time.perf_counter()
            theirs = math_verify_all(chunk)
            seconds[kind] = (middle - began, time.perf_counter() - middle)
            for pair, mine, his in zip(chunk, ours, theirs, strict=True):
                if mine.equal is not pair.equal and mine.equal is his:
                    failed.append(pair)
                if mine.equal is not his:
                    disagreements.append((cause(pair, mine.equal, his), pair))
    print("| class | pairs | in a worker | ours, pairs/s | math-verify, pairs/s | ratio |")
    print("| --- | --- | --- | --- | --- | --- |")
    for kind in (*CLASSES, "all"):
        chunk = [pair for pair in pairs if kind in (pair.kind, "all")]
        mine_s, his_s = (sum(s[i] for k, s in seconds.items() if kind in (k, "all")) for i in (0, 1))
        asked = sum(compare(pair.answer, pair.reference).equal is None for pair in chunk)
        speeds = f"{len(chunk) / mine_s:,.0f} | {len(chunk) / his_s:,.0f} | {his_s / mine_s:.1f}"
        print(f"| {kind} | {len(chunk)} | {asked} | {speeds} |")
    print(f"\nstart: ours {start_ours:.1f} s, math-verify {start_theirs:.1f} s")
    print(f"disagreements: {len(disagreements)} of {len(pairs)}")
    for why, pair in sorted(disagreements, key=lambda d: d[0]):
        print(f"  {why}: {pair.answer!r} for {pair.reference!r} ({pair.kind}, {pair.how})")
    print(f"both wrong: {len(failed)}")
    for pair in failed:
        print(f"  {pair.answer!r} for {pair.reference!r} ({pair.kind}, {pair.how})")


if __name__ == "__main__":
    main()
