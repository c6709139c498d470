r"""The built-in checks: reasoning-gym's scorers on text that has passed a grammar, and our own.

Several of reasoning-gym's scorers run the text that they are given (``eval``, ``sympy.parse_expr``), and some run what
the problem's metadata or reference hold, which come out of data files. So no scorer here sees a text that a grammar of
its family has not read: what the grammar gives back is written anew from what it read. Correct is a score of 1.0.

It runs inside the workers of :mod:`dereason.verify.workers` only.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from typing import Any

from dereason.problems.gym import OURS, SCORED
from dereason.verify.checks import formula
from dereason.verify.checks.formula import NotInGrammar
from dereason.verify.numbers import parse_number

MAX_LENGTH = 20_000
"""Characters of an answer; nothing that a family asks for is longer."""
MAX_BRACKETS = 20
"""How deep a list may be nested."""

Entry = dict[str, Any]
Grammar = Callable[[str, Entry], str]


def load() -> Callable[[list[Any]], list[Any]]:
    """Import reasoning-gym with the data of its scorers, and return what a worker does with a task.

    A task is ``[family, answer, reference, metadata]``, its result ``[right, reason]``.
    """
    for family in SCORED:  # here, where it is no task's time
        scorer(family)
    return decide


def decide(task: list[Any]) -> list[Any]:
    """Whether an answer is right by its family's check, and why, in words.

    Raises:
        Exception: the metadata is not what the family's problems have.
    """
    family, answer, reference, metadata = task
    entry = {"answer": reference, "metadata": entry_metadata(metadata)}
    reason = "no answer"
    for text in dict.fromkeys((answer.strip(), undressed(answer))):
        try:
            if len(text) > MAX_LENGTH:
                raise NotInGrammar(f"longer than {MAX_LENGTH} characters")
            if family in OURS:
                right, reason = _OURS[family](text, entry)
            else:
                written = _GRAMMAR[family](text, entry)
                score = float(scorer(family)(written, entry))
                right, reason = score == 1.0, f"reasoning-gym's score is {score:.3g}"
            if right:
                return [True, reason]
        except NotInGrammar as exc:
            reason = f"not in the form that the problem asks for: {exc}"
        except RecursionError:
            reason = "not in the form that the problem asks for: nested too deep"
    return [False, reason]


def entry_metadata(metadata: Entry) -> Entry:
    """The metadata of reasoning-gym's entry: itself, or what a file of entries has in its field ``metadata``."""
    inner = metadata.get("metadata")
    if isinstance(inner, str):
        inner = json.loads(inner)
    return inner if isinstance(inner, dict) else metadata


@cache
def scorer(family: str) -> Callable[[str, Entry], float]:
    """reasoning-gym's scorer of a family with its default settings, on which none of those in use depends."""
    import reasoning_gym

    assert family in SCORED, family
    score: Callable[[str, Entry], float] = reasoning_gym.create_dataset(family, size=1, seed=0).score_answer
    return score


_FENCE = re.compile(r"\A```[\w+-]*[ \t]*\n(.*?)\n?```\Z", re.DOTALL)
_TEXT = re.compile(r"\\(?:text|mathrm|textbf|mathbf|texttt|mathtt)\{([^{}]*)\}")
_OR = "\u2228"
_COMMANDS = {
    **{r"\to": "→", r"\rightarrow": "→", r"\implies": "→", r"\Rightarrow": "→", r"\leftrightarrow": "↔"},
    **{r"\iff": "↔", r"\Leftrightarrow": "↔", r"\land": "∧", r"\wedge": "∧", r"\lor": _OR, r"\vee": _OR},
    **{r"\neg": "¬", r"\lnot": "¬", r"\times": "×", r"\cdot": "×", r"\degree": "°", r"\circ": "°"},
}
_COMMAND = re.compile(r"\\[A-Za-z]+")


def undressed(text: str) -> str:
    """An answer without code fences, dollar signs, quotation marks and what typesets it."""
    text = text.strip()
    if fenced := _FENCE.match(text):
        text = fenced[1].strip()
    for before, after in (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("`", "`")):
        if text.startswith(before) and text.endswith(after) and len(text) >= len(before) + len(after):
            text = text[len(before) : len(text) - len(after)].strip()
    text = _TEXT.sub(r"\1", text)
    text = _COMMAND.sub(lambda found: _COMMANDS.get(found[0], found[0]), text)
    text = re.sub(r"\^\{?°\}?", "°", text).replace(r"\{", "{").replace(r"\}", "}")
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text


# ------------------------------------------------------------------------------------------------- grammars


def _matching(pattern: str, words: str) -> Grammar:
    """Text that a regular expression matches as a whole."""
    compiled = re.compile(pattern, re.ASCII)

    def read(text: str, entry: Entry) -> str:
        if not compiled.fullmatch(text):
            raise NotInGrammar(f"it is not {words}")
        return text

    return read


def _pieces(pattern: str, between: str, words: str, joined: str) -> Grammar:
    """Pieces that a regular expression matches, with separators between them, written anew."""
    piece, separator = re.compile(pattern, re.ASCII), re.compile(between, re.ASCII)

    def read(text: str, entry: Entry) -> str:
        pieces = [part for part in separator.split(text.strip()) if part]
        if not pieces or not all(piece.fullmatch(part) for part in pieces):
            raise NotInGrammar(f"it is not {words}")
        return joined.join(pieces)

    return read


def structure(text: str) -> Any:
    """JSON, or lists and texts as Python writes them; nothing is run."""
    if max(text.count(sign) for sign in "[{(") > 5000:
        raise NotInGrammar("too many brackets")
    depth = deepest = 0
    for sign in text:
        depth += (sign in "[{(") - (sign in ")}]")
        deepest = max(deepest, depth)
    if deepest > MAX_BRACKETS:
        raise NotInGrammar(f"nested deeper than {MAX_BRACKETS}")
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, TypeError, RecursionError):
        raise NotInGrammar("it is no JSON") from None


def _json(fits: Callable[[Any], bool], words: str) -> Grammar:
    """A structure of the form asked for, written anew as JSON."""

    def read(text: str, entry: Entry) -> str:
        found = structure(text)
        if not fits(found):
            raise NotInGrammar(f"it is not {words}")
        return json.dumps(found)

    return read


def _texts(found: Any) -> bool:
    return isinstance(found, list) and all(isinstance(one, str) for one in found)


def _lists_of_texts(found: Any) -> bool:
    return isinstance(found, list) and all(_texts(one) for one in found)


_MOVE = re.compile(r"move\(box_\w+, (target_\w+|square\[\d+(\.\d+)?, \d+(\.\d+)?\])\)", re.ASCII)


def _plan(found: Any) -> bool:
    """boxnet: a list of steps, each from agents to moves of boxes (the scorer lets targets move too)."""
    return isinstance(found, list) and all(
        isinstance(step, dict)
        and all(
            isinstance(agent, str) and isinstance(move, str) and _MOVE.fullmatch(move) for agent, move in step.items()
        )
        for step in found
    )


def _colouring(found: Any) -> bool:
    return isinstance(found, dict) and all(isinstance(colour, int | str) for colour in found.values())


def _knight_moves(text: str, entry: Entry) -> str:
    if text.lower() == "no":
        return "No"
    return _json(_texts, "'No' or a list of moves")(text, entry)


def _factors(text: str, entry: Entry) -> str:
    """Factors with any sign of multiplication; powers are written out."""
    factors: list[str] = []
    for part in re.split(r"\s*(?:×|\*(?!\*)|·|⋅|\bx\b)\s*", text.replace("**", "^").strip()):
        found = re.fullmatch(r"(\d{1,30})(?:\s*\^\s*\{?(\d{1,3})\}?)?", part, re.ASCII)
        if found is None:
            raise NotInGrammar("it is not factors with × between them")
        factors += [found[1]] * int(found[2] or 1)
    return " × ".join(factors)


def _number(text: str) -> Fraction | None:
    found = parse_number(text)
    return None if found is None else found.absolute()


def _decimal(text: str, entry: Entry) -> str:
    """A number however it is written, as a decimal number."""
    number = _number(text)
    if number is None or (number and not Fraction(1, 10**60) < abs(number) < 10**60):
        raise NotInGrammar("it is no number")
    return format(float(number), ".17g")


def _variables(entry: Entry, *texts: str) -> set[str]:
    """The one-letter names of a family's formulas; what stands for something else in sympy is none."""
    named = {
        str(name) for name in (entry["metadata"].get("variable"), *(entry["metadata"].get("variables") or ())) if name
    }
    named |= {word for text in texts for word in re.findall(r"[A-Za-z]+", text)}
    return {name for name in named if re.fullmatch("[A-Za-z]", name) and name not in "EINOQS" + "C"}


def _antiderivative(text: str, entry: Entry) -> str:
    """An antiderivative, for a scorer that runs it and the integrand of the metadata: both are written anew."""
    metadata = entry["metadata"]
    variable = str(metadata["variable"])
    if not re.fullmatch("[A-Za-z]", variable):
        raise ValueError("the metadata's variable is no letter")
    integrand = formula.parse(str(metadata["integrand"]), {variable})
    entry["metadata"] = metadata | {"integrand": formula.python_text(integrand)}
    body = text.split("=", 1)[1] if re.match(r"\s*[A-Za-z](\([A-Za-z]\))?\s*=", text) else text
    return formula.python_text(formula.parse(body, {variable, "C"}))


def _polynomial(text: str, entry: Entry) -> str:
    """An expanded polynomial, for a scorer that runs it and the reference."""
    names = _variables(entry, str(entry["answer"]))
    entry["answer"] = formula.python_text(formula.parse(str(entry["answer"]), names))
    return formula.python_text(formula.parse(text, names))


def _fraction(text: str, entry: Entry) -> str:
    found = re.fullmatch(
        r"(\d{1,30})\s*/\s*(\d{1,30})|\\[dt]?frac\s*\{\s*(\d{1,30})\s*\}\s*\{\s*(\d{1,30})\s*\}", text, re.ASCII
    )
    if found is None:
        raise NotInGrammar("it is no fraction of two whole numbers")
    return f"{found[1] or found[3]}/{found[2] or found[4]}"


_WORDS = _pieces(r"[^\s,\[\]()]+", r"\s*,\s*", "words with commas between them", ", ")


def _sorted_words(text: str, entry: Entry) -> str:
    """As many words as were given: the scorer lets others follow the sorted ones."""
    written = _WORDS(text, entry)
    if written.count(",") + 1 != len(entry["metadata"]["sorted_words"]):
        raise NotInGrammar("it has another number of words")
    return written


_GRAMMAR: dict[str, Grammar] = {
    "advanced_geometry": _matching(
        r"-?\d{1,12}(\.\d{1,12})?\s*\u00b0?|\(?\s*-?\d{1,12}(\.\d{1,12})?\s*,\s*-?\d{1,12}(\.\d{1,12})?\s*\)?",
        "a number, an angle or a pair of coordinates",
    ),
    "boxnet": _json(_plan, "a list of steps with moves of boxes"),
    "cryptarithm": _pieces(r"[A-Z]\s*=\s*\d", r"\s*,\s*", "letters with their digits (A=1,B=2)", ","),
    "fraction_simplification": _fraction,
    "graph_color": _json(_colouring, "a JSON object from vertices to colours"),
    "group_anagrams": _json(_lists_of_texts, "a list of lists of words"),
    "intermediate_integration": _antiderivative,
    "jugs": _json(_texts, "a list of moves"),
    "kakurasu": _pieces(r"[01](?:[ \t]*[01])*", r"\s*\n\s*", "rows of 0 and 1", "\n"),
    "knight_swap": _knight_moves,
    "knights_knaves": _matching(r"[A-Za-z ,.()\n'-]+", "names and what they are"),
    "number_format": _decimal,
    "palindrome_generation": _matching(r"[A-Za-z]+", "one word"),
    "palindrome_partitioning": _json(_lists_of_texts, "a list of lists of texts"),
    "polynomial_multiplication": _polynomial,
    "power_function": _decimal,
    "prime_factorization": _factors,
    "propositional_logic": _matching(f"[A-Z()∧{_OR}¬→↔ ]{{1,300}}", "a statement of letters and the five signs"),
    "quantum_lock": _pieces("[A-Ca-c]", r"(?:\s|→|->|,|-)+", "a sequence of the buttons A, B and C", " → "),
    "rubiks_cube": _pieces(r"\d?[UDLRFBMESXYZxyz]w?(?:'|\d'?)?", r"\s+", "moves in Singmaster notation", " "),
    "rush_hour": _pieces(r"[A-Z][+-]\d", r"[\s,]+", "moves of cars (F+1 K-2)", " "),
    "shortest_path": _pieces("up|down|left|right|infeasible", r"[\s,]+", "directions, or 'infeasible'", " "),
    "simple_integration": _antiderivative,
    "sokoban": _pieces("[LRUD]+", r"[\s,]+", "a text of L, R, U and D", ""),
    "time_intervals": _matching(
        r"-?\d{1,9}( days?)?|(\d{1,9} days?,\s*)?\d{1,4}:[0-5]\d(:[0-5]\d(\.\d{1,3})?)?",
        "a duration or a number of days",
    ),
    "tower_of_hanoi": _pieces(
        r"Move disk \d{1,3} from Peg \d{1,3} to Peg \d{1,3}", r"\s*\n\s*", "lines of moves", "\n"
    ),
    "word_ladder": _pieces("[A-Za-z]+", r"\s*,\s*", "words with commas between them", ","),
    "word_sorting": _sorted_words,
}


# ------------------------------------------------------------------------------------------------- our own


def _arithmetic(text: str, wanted: list[Any], target: int) -> tuple[bool, str]:
    """Whether an expression uses the numbers given, each once, and has the value asked for."""
    body, equals, result = text.rpartition("=")
    tree = formula.parse(body if equals else text, powers=False, implicit=False)
    given = formula.numbers(tree)
    if not all(number.isdigit() for number in given):
        raise NotInGrammar("a number is not whole")
    if sorted(map(int, given)) != sorted(map(int, wanted)):
        return False, f"it uses {', '.join(given)} where the problem gives {', '.join(map(str, wanted))}"
    found = formula.value(tree)
    if equals and _number(result) != found:
        return False, "its two sides differ"
    return found == target, f"its value is {found}"


def _countdown(text: str, entry: Entry) -> tuple[bool, str]:
    return _arithmetic(text, entry["metadata"]["numbers"], int(entry["metadata"]["target"]))


def _puzzle24(text: str, entry: Entry) -> tuple[bool, str]:
    return _arithmetic(text, entry["metadata"]["numbers"], 24)


def _bitwise(text: str, entry: Entry) -> tuple[bool, str]:
    """reasoning-gym's runs the problem of the metadata."""
    if not re.fullmatch(r"[+-]?(0[xX][0-9a-fA-F]{1,64}|0[bB][01]{1,256}|\d{1,64})", text, re.ASCII):
        raise NotInGrammar("it is no whole number")
    right = _whole(text) == _whole(str(entry["answer"]))
    return right, "the same whole number" if right else "another whole number"


def _whole(text: str) -> int:
    sign, digits = (text[0], text[1:]) if text[:1] in ("+", "-") else ("", text)
    return (-1 if sign == "-" else 1) * int(
        digits, 0 if digits[:1] == "0" and len(digits) > 1 and not digits.isdigit() else 10
    )


def _queens(text: str, entry: Entry) -> tuple[bool, str]:
    """A board as the problem shows one, or as a list of rows; reasoning-gym's runs the latter."""
    if text.lstrip().startswith("["):
        found = structure(text)
        rows = found if _lists_of_texts(found) else []
    else:
        rows = [line.split() for line in text.strip().splitlines()]
    if not rows or any(cell not in ("_", "Q") for row in rows for cell in row):
        raise NotInGrammar("it is no board of _ and Q")
    right = "\n".join(" ".join(row) for row in rows) in entry["metadata"]["valid_answers"]
    return right, "a valid board" if right else "queens attack each other, or one given was moved"


def _sorted_numbers(text: str, entry: Entry) -> tuple[bool, str]:
    """The numbers in order; reasoning-gym's lets each be off by 1."""
    given, wanted = (_number_list(part) for part in (text, str(entry["answer"])))
    return given == wanted, "the same numbers in order" if given == wanted else "other numbers, or another order"


def _number_list(text: str) -> list[Fraction]:
    found = structure(text if text.lstrip().startswith("[") else f"[{text}]")
    numbers = [_number(str(one)) for one in found] if isinstance(found, list) else []
    if not numbers or None in numbers:
        raise NotInGrammar("it is no list of numbers")
    return [number for number in numbers if number is not None]


def _same_json(text: str, entry: Entry) -> tuple[bool, str]:
    """The same value, where the reference is JSON; else the same text."""
    reference = str(entry["answer"]).strip()
    try:
        wanted = json.dumps(json.loads(reference), sort_keys=True)
    except ValueError:
        return text == reference, "the same text" if text == reference else "another text"
    right = json.dumps(structure(text), sort_keys=True, default=str) == wanted
    return right, "the same value" if right else "another value"


_OURS: dict[str, Callable[[str, Entry], tuple[bool, str]]] = {
    "bitwise_arithmetic": _bitwise,
    "codeio": _same_json,
    "countdown": _countdown,
    "n_queens": _queens,
    "number_sorting": _sorted_numbers,
    "puzzle24": _puzzle24,
}
