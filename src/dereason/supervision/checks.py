"""What Bridge and critique share: how a problem is shown to their models, which attempt is, and when a text is refused.

A correct answer is not enough to be worth imitating: a bare answer verifies too, and so does a text that was cut off
behind its answer, that speaks of the student, or whose steps are wrong.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import polars as pl

from dereason.lm.base import Message
from dereason.lm.prompts import Prompt
from dereason.problems.schema import Verdict
from dereason.supervision.desk import Desk
from dereason.supervision.likelihood import score
from dereason.supervision.reference import NotArithmetic, derive_steps
from dereason.verify.locate import locate
from dereason.verify.reading import kind_of
from dereason.verify.thinking import without_thinking

# A word or a number; the name of a LaTeX command is neither.
_WORD = re.compile(r"(?<![\\\w])\w+")
# "So the final answer is": the clause that leads to an answer is no reasoning.
_LEAD_IN = re.compile(r"(?:^|(?<=[\n.,;:!]))[^\n.,;:!\d]*\b(?:answer|result)\b[^.,;!\d]*\Z", re.IGNORECASE)

# Whole numbers only, and nothing around them that could mean more: a variable, a unit, "mod 12", "remainder 2".
_CALCULATION = re.compile(
    r"(?<![\w.,$€£^\\])(?P<left>-?\d+(?:[ \t]*[-+*×][ \t]*-?\d+)+)[ \t]*(?:=|equals)[ \t]*(?P<right>-?\d+)"
    r"(?![.,]?\d|[ \t]*(?:[-+/×^%=(\w\\]|\*(?!\*)))"
)
_BEFORE = re.compile(r"(?:^|[\n:;,.!?*_`$(]|(?<![\\\w])[A-Za-z]{2,})[ \t]*\Z")


def chat(text: str) -> list[Message]:
    """What a teacher or critic is asked: the text alone, not under the student's system message."""
    return [{"role": "user", "content": text}]


def question(problem: dict[str, Any]) -> str:
    """The question of a row of a PROBLEM table with its options, as the student sees it, less the prompt's suffix."""
    return Prompt(suffix="").messages(problem["question"], problem["options"])[-1]["content"]


def failed_attempts(samples: pl.DataFrame) -> dict[str, str]:
    """For every problem with a failed response that is not empty, the most telling one, without its thoughts.

    One with a wrong answer comes before one without any, then the shorter, then the lower index. What was thought aloud
    is left out: a line of it is no line of the attempt, and a thought cut in two could never be ended rightly.

    Args:
        samples: SAMPLE table.
    """
    samples = spoken(samples)
    failed = samples.filter(
        pl.col("verdict").is_in([Verdict.WRONG, Verdict.UNPARSABLE, Verdict.TRUNCATED])
        & (pl.col("response").str.strip_chars() != "")
    )
    best = failed.sort(pl.col("verdict") != Verdict.WRONG, "tokens", "index", "response").unique(
        "problem_id", keep="first", maintain_order=True
    )
    return dict(best.select("problem_id", "response").iter_rows())


def spoken(samples: pl.DataFrame) -> pl.DataFrame:
    """The samples, their responses without what the model thought aloud and without white space at the ends.

    A teacher's thoughts are about the task of rewriting, which the student does not have. No verdict changes: the
    verifier does not look there.
    """
    texts = [without_thinking(text) for text in samples["response"]]
    return samples.with_columns(response=pl.Series(texts, dtype=pl.String))


def words_before_answer(response: str, answer: str, options: Sequence[str] | None) -> int | None:
    """Words and numbers before the final answer, the clause that announces it left out.

    Returns:
        None where the response does not say what its answer is: the verifier took the last number or line for it.
    """
    found = locate(response, kind=kind_of(answer, options), options=options)
    if found is None or found.how in ("number", "alone"):
        return None
    return len(_WORD.findall(_LEAD_IN.sub("", response[: found.start])))


def stray_phrase(response: str, problem: str, phrases: Sequence[str]) -> str | None:
    """The first of the phrases (lower case) that the response has, whole words, and whose last word the problem lacks.

    A problem about students may have "the student" in its solution.
    """
    text, given = response.lower(), problem.lower()

    def strays(phrase: str) -> bool:
        return phrase.split()[-1] not in given and re.search(rf"\b{re.escape(phrase)}\b", text) is not None

    return next(filter(strays, phrases), None)


def false_calculation(text: str) -> str | None:
    """The first calculation with whole numbers in a text that does not come out, such as ``7 + 4 - 6 = 11``.

    A right answer can stand behind wrong steps, above all where the writer was shown it. What is not plainly a sum,
    difference or product of whole numbers (a formula, a number with a unit, a quotient) is not looked at.
    """
    for match in _CALCULATION.finditer(text):
        before = text[max(0, match.start() - 40) : match.start()]
        if _BEFORE.search(before) is None:
            continue
        try:
            _, value = derive_steps(match["left"].replace("×", "*"))
            wrong = value != int(match["right"])
        except (NotArithmetic, ValueError):  # zeros in front, or longer than anybody calculates
            continue
        if wrong:
            return match.group()
    return None


def refusals(samples: pl.DataFrame, problems: pl.DataFrame, min_words: int, stray: Sequence[str]) -> list[str | None]:
    """Why each response is not to be imitated though its answer is correct; None where nothing speaks against it.

    Args:
        samples: SAMPLE table.
        problems: PROBLEM table with the problems of the samples.
        min_words: fewest words before the answer.
        stray: phrases that refuse a response; see :func:`stray_phrase`.
    """
    by_id = {row["id"]: row for row in problems.iter_rows(named=True)}

    def why(sample: dict[str, Any]) -> str | None:
        problem, response = by_id[sample["problem_id"]], sample["response"]
        if sample["verdict"] != Verdict.CORRECT:
            return None
        if sample["hit_limit"]:
            return "cut at the length limit"
        words = words_before_answer(response, problem["answer"], problem["options"])
        if words is None:
            return "its answer is not marked as one"
        if words < min_words:
            return f"fewer than {min_words} words before the answer"
        if false_calculation(response) is not None:
            return "a calculation in it is false"
        phrase = stray_phrase(response, question(problem), stray)
        return None if phrase is None else f"it says {phrase!r}"

    return [why(sample) for sample in samples.iter_rows(named=True)]


def refuse(candidates: pl.DataFrame, why: Sequence[str | None], what: str) -> pl.DataFrame:
    """The candidates, those with a ``why`` no longer accepted and with that for a reason.

    Args:
        candidates: CANDIDATE table.
        why: one a row.
        what: "rewrite by" or the like; the model's name follows it.
    """
    cause = pl.Series("_why", list(why), dtype=pl.String)
    words = pl.format("{} {}, refused ({})", pl.lit(what), pl.col("model"), pl.col("_why"))
    refused = pl.col("_why").is_not_null()
    return (
        candidates.with_columns(cause)
        .with_columns(
            accepted=pl.col("accepted") & ~refused,
            reason=pl.when(refused).then(words).otherwise(pl.col("reason")),
        )
        .drop("_why")
    )


def score_accepted(desk: Desk, candidates: pl.DataFrame, problems: pl.DataFrame, name: str) -> pl.DataFrame:
    """The candidates, the accepted ones with the student's likelihood and with their length in the student's tokens.

    Two models may count differently; before, ``tokens`` is what the writing model generated, its thoughts included.
    """
    recounted = pl.when(~pl.col("accepted")).then(pl.col("tokens"))
    return score(desk, candidates.with_columns(tokens=recounted), problems, pl.col("accepted"), name)
