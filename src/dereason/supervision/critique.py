"""Critique fine-tuning of problems that a whole rollout group failed (arXiv 2606.04466; critiques: 2501.17703).

Three kinds of targets, each checked before use:

``diagnosis``  the problem and a failed attempt, and as reply where and why it fails; the student learns
               P(critique | problem, attempt). It has to conclude what the verifier said, and to name a line that exists
``repair``     the attempt's lines before its first wrong one are given, and the student learns the correct end
``new_trace``  a fresh solution

What is asked, and how replies are checked and chosen, is ours.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from dereason.problems.schema import Origin, Verdict, frame
from dereason.supervision.candidates import candidates, choose
from dereason.supervision.checks import (
    chat,
    failed_attempts,
    question,
    refusals,
    refuse,
    score_accepted,
    spoken,
)
from dereason.supervision.desk import Desk
from dereason.supervision.settings import CritiqueTargets
from dereason.supervision.wording import SHOWN_ANSWER, SHOWN_SOLUTION, STRAY, fill
from dereason.verify.thinking import outside_thinking
from dereason.verify.verdict import Judgement
from dereason.verify.verifier import Item, item_of

CONFIRMED = "diagnosis confirmed by a repair"

_LINE = re.compile(r"^.*\S.*$", re.MULTILINE)
_DRESS = r"[\s*_`#>:=.\[(\-]*"
_NAMED = re.compile(
    rf"first{_DRESS}wrong{_DRESS}line{_DRESS}(?:is{_DRESS})?(?:(?:line|number){_DRESS})*(\d{{1,6}}|none)\b"
    r"(?![ \t]*(?:or\b|[-+*/=×][ \t]*\d))",  # "2 or 3"; the line itself in place of its number
    re.IGNORECASE,
)
_CONCLUDED = re.compile(
    rf"conclusion{_DRESS}(?:the{_DRESS}attempt{_DRESS})?(?:is{_DRESS})?(right|wrong|correct|incorrect)\b(?!\W*or\b)",
    re.IGNORECASE,
)


def critique_candidates(
    desk: Desk, problems: pl.DataFrame, entry: CritiqueTargets, rollouts: pl.DataFrame | None
) -> pl.DataFrame:
    """Ask for diagnoses, repairs and new traces of the problems that failed, and choose one of each kind.

    Args:
        desk: where the critic is asked and the student scores.
        problems: PROBLEM table of those to cover.
        entry: whom, what and how often.
        rollouts: SAMPLE table of the RL phase before, of any problems; None where there is none.

    Returns:
        CANDIDATE table: diagnoses, then repairs, then new traces; empty where no problem failed.

    Raises:
        DereasonError: what asking or scoring raises.
    """
    failed, attempts = failed_problems(problems, entry, rollouts)
    diagnoses = repairs = new_traces = frame("candidate", [])
    if {"diagnosis", "repair"} & set(entry.kinds):
        found = _diagnoses(desk, failed, attempts, entry)
        if "repair" in entry.kinds:
            best = _best(found)
            repairs = _repairs(desk, failed, attempts, best, entry)
            if entry.shown == "none":  # who has seen the answer repairs from any line
                found = _confirm(found, best, repairs)
        diagnoses = _choose_diagnoses(found, "diagnosis" in entry.kinds)
    if "new_trace" in entry.kinds:
        new_traces = _new_traces(desk, failed, entry)
    # The critic has said all: the student, which scores, need not share the memory with it.
    scored = score_accepted(desk, pl.concat([repairs, new_traces]), problems, "likelihood")
    by_kind = [scored.filter(pl.col("origin") == str(kind)) for kind in (Origin.REPAIR, Origin.NEW_TRACE)]
    return pl.concat([diagnoses, *(choose(table, "likelihood", 1) for table in by_kind)])


def failed_problems(
    problems: pl.DataFrame, entry: CritiqueTargets, rollouts: pl.DataFrame | None
) -> tuple[pl.DataFrame, dict[str, str]]:
    """The problems whose last group failed, and a failed attempt at each.

    A group is the rollouts of one problem at one step. It failed if none is correct and at least one was judged: where
    the verifier failed on all, nothing is known. Of groups, the last counts: what the student solves by now it need
    not be told. Where there are more than ``entry.max_problems``, those with the least hashes of seed and id are
    taken, which follows no order and takes the same ones if problems are added elsewhere.

    Returns:
        PROBLEM table in the problems' order, and the attempt by id; a problem whose failed rollouts are all empty
        has none.
    """
    if rollouts is not None:  # what began with an expert's words is no attempt of the student's
        rollouts = rollouts.filter(pl.col("purpose") != "guided")
    if rollouts is None or rollouts.is_empty():
        return problems.clear(), {}
    last = rollouts.filter(pl.col("step") == pl.col("step").max().over("problem_id"))
    verdict = pl.col("verdict")
    groups = last.group_by("problem_id").agg(
        failed=~(verdict == Verdict.CORRECT).any() & (verdict != Verdict.ERROR).any()
    )
    ids = set(groups.filter("failed")["problem_id"]) & set(problems["id"])
    taken = sorted(ids, key=lambda id: hashlib.sha256(f"{entry.seed}:{id}".encode()).digest())[: entry.max_problems]
    return problems.filter(pl.col("id").is_in(taken)), failed_attempts(last.filter(pl.col("problem_id").is_in(taken)))


@dataclass(frozen=True)
class Diagnosis:
    """What a diagnosis says in its closing lines."""

    line: int | None
    """The number of the first wrong line; None where it says that there is none."""
    wrong: bool
    """Whether it concludes that the attempt is wrong."""


def read_diagnosis(text: str) -> Diagnosis | str:
    """What a diagnosis says, or in words why that cannot be told. Markdown, case and closing dots do not matter."""
    outside = outside_thinking(text)[0]
    lines = {found.lower() for found in _NAMED.findall(outside)}
    conclusions = {found.lower() in ("wrong", "incorrect") for found in _CONCLUDED.findall(outside)}
    if not lines or not conclusions:
        return f"it does not say {'which line is wrong first' if conclusions else 'what it concludes'}"
    if len(lines) > 1 or len(conclusions) > 1:
        return "it contradicts itself"
    line = lines.pop()
    return Diagnosis(None if line == "none" else int(line), conclusions.pop())


def judge_diagnoses(items: Sequence[Item]) -> list[Judgement]:
    """Judge diagnoses of failed attempts: ``correct`` where one concludes what the verifier said, that it is wrong.

    ``extracted`` is the line that it names. Whether there is such a line is not seen here.
    """
    return [_judge_diagnosis(item) for item in items]


def _judge_diagnosis(item: Item) -> Judgement:
    said = read_diagnosis(item.response)
    if isinstance(said, str):
        verdict = Verdict.TRUNCATED if item.hit_limit else Verdict.UNPARSABLE
        return Judgement(verdict, None, said, "diagnosis")
    line = "none" if said.line is None else str(said.line)
    if said.wrong:
        return Judgement(Verdict.CORRECT, line, "it finds the failed attempt wrong", "diagnosis")
    return Judgement(Verdict.WRONG, line, "it finds the failed attempt right", "diagnosis")


def attempt_lines(attempt: str) -> list[tuple[int, str]]:
    """The lines of an attempt that are not blank: where each begins in it, and its text."""
    return [(match.start(), match.group()) for match in _LINE.finditer(attempt)]


def _diagnoses(desk: Desk, problems: pl.DataFrame, attempts: dict[str, str], entry: CritiqueTargets) -> pl.DataFrame:
    """CANDIDATE table with a further column ``line``; none chosen. What is asked is what the student is asked."""
    tried = problems.filter(pl.col("id").is_in(list(attempts)))
    if tried.is_empty():
        return frame("candidate", []).with_columns(line=pl.lit(None, dtype=pl.Int64))
    lines = {id: attempt_lines(attempt) for id, attempt in attempts.items()}
    prompts = {
        row["id"]: fill(
            entry.diagnosis,
            problem=question(row),
            attempt="\n".join(f"[{k}] {text.strip()}" for k, (_, text) in enumerate(lines[row["id"]], 1)),
        )
        for row in tried.iter_rows(named=True)
    }
    samples = desk.ask(
        entry.critic,
        tried,
        name="critique-diagnosis",
        n=entry.n,
        sampling=entry.sampling,
        seed=entry.seed,
        purpose="diagnosis",
        chats=[chat(prompts[id]) for id in tried["id"]],
        judge=judge_diagnoses,
    )
    samples = spoken(samples)
    named = [int(k) if k is not None and k.isdecimal() else None for k in samples["extracted"]]
    why = [
        _refuse_diagnosis(sample, line, len(lines[sample["problem_id"]]), entry.min_words)
        for sample, line in zip(samples.iter_rows(named=True), named, strict=True)
    ]
    table = candidates(samples, Origin.DIAGNOSIS, prompt=[prompts[id] for id in samples["problem_id"]])
    agrees = pl.format("diagnosis by {}, agrees with the verdict", pl.col("model"))
    table = table.with_columns(reason=pl.when("accepted").then(agrees).otherwise(pl.col("reason")))
    return refuse(table, why, "diagnosis by").with_columns(line=pl.Series(named, dtype=pl.Int64))


def _refuse_diagnosis(sample: dict[str, Any], line: int | None, lines: int, min_words: int) -> str | None:
    if sample["verdict"] != Verdict.CORRECT:
        return None
    if sample["hit_limit"]:
        return "cut at the length limit"
    if line is None:
        return "it names no wrong line"
    if not 1 <= line <= lines:
        return "there is no such line"
    said = _CONCLUDED.sub("", _NAMED.sub("", sample["response"]))
    return None if len(re.findall(r"\w+", said)) >= min_words else f"fewer than {min_words} words of why"


def _best(diagnoses: pl.DataFrame) -> dict[str, int]:
    """For every problem the line that most accepted diagnoses name; of equals the earliest."""
    votes: dict[str, Counter[int]] = {}
    for id, line in diagnoses.filter("accepted").select("problem_id", "line").iter_rows():
        votes.setdefault(id, Counter())[line] += 1
    return {id: min(lines, key=lambda k: (-lines[k], k)) for id, lines in votes.items()}


def _confirm(diagnoses: pl.DataFrame, best: dict[str, int], repairs: pl.DataFrame) -> pl.DataFrame:
    """Say of each accepted diagnosis that names its problem's best line whether a repair from there verified."""
    line = pl.col("problem_id").replace_strict(best, default=None, return_dtype=pl.Int64)
    named = pl.col("accepted") & (pl.col("line") == line)
    confirmed = pl.col("problem_id").is_in(repairs.filter("accepted")["problem_id"].unique().implode())
    tried = pl.col("problem_id").is_in(repairs["problem_id"].unique().implode())
    return diagnoses.with_columns(
        reason=pl.when(named & confirmed)
        .then(pl.lit(CONFIRMED))
        .when(named & ~tried)
        .then(pl.col("reason") + pl.lit("; nothing stands before its line to repair"))
        .otherwise(pl.col("reason"))
    )


def _choose_diagnoses(diagnoses: pl.DataFrame, wanted: bool) -> pl.DataFrame:
    """One of each problem: confirmed ones first, then the shortest; none where they were asked for repairs alone."""
    accepted, confirmed = pl.col("accepted"), pl.col("reason") == CONFIRMED
    table = diagnoses.drop("line")
    if not wanted:
        alone = pl.when(accepted).then(pl.lit("; not chosen: asked for repairs alone")).otherwise(pl.lit(""))
        return table.with_columns(reason=pl.col("reason") + alone)
    beaten = table.select(accepted & ~confirmed & (accepted & confirmed).any().over("problem_id")).to_series()
    chosen = choose(table.with_columns(accepted=table["accepted"] & ~beaten), "shortest", 1)
    words = pl.when(beaten).then(pl.lit("; not chosen: a confirmed one was taken")).otherwise(pl.lit(""))
    return chosen.with_columns(accepted=table["accepted"], reason=pl.col("reason") + words)


def _repairs(
    desk: Desk, problems: pl.DataFrame, attempts: dict[str, str], best: dict[str, int], entry: CritiqueTargets
) -> pl.DataFrame:
    """CANDIDATE table; a problem whose first line is wrong has nothing to repair, and no rows."""
    begun = {id: attempts[id][: attempt_lines(attempts[id])[line - 1][0]] for id, line in best.items()}
    begun = {id: prefix for id, prefix in begun.items() if prefix.strip()}
    rows = list(problems.filter(pl.col("id").is_in(list(begun))).iter_rows(named=True))
    if not rows:
        return frame("candidate", [])
    samples = desk.ask(
        entry.critic,
        problems.filter(pl.col("id").is_in(list(begun))),
        name="critique-repair",
        n=entry.n,
        sampling=entry.sampling,
        seed=entry.seed,
        purpose="repair",
        chats=[
            chat(
                fill(entry.repair, problem=question(row), prefix=begun[row["id"]].strip("\n"), shown=_shown(row, entry))
            )
            for row in rows
        ],
        prefixes=[begun[row["id"]] for row in rows],
    )
    prefixes = [begun[id] for id in samples["problem_id"]]
    samples = _continuations(desk, spoken(samples), problems, prefixes)
    return _solutions(samples, problems, entry, Origin.REPAIR, prefixes)


def _continuations(desk: Desk, samples: pl.DataFrame, problems: pl.DataFrame, prefixes: Sequence[str]) -> pl.DataFrame:
    """The samples; those that begin with a copy of what they were given lose it, and are judged again."""
    by_id = {row["id"]: row for row in problems.iter_rows(named=True)}
    rows = list(samples.iter_rows(named=True))
    copies = []
    for row, prefix in zip(rows, prefixes, strict=True):
        text = without_beginning(row["response"], prefix)
        if text != row["response"]:
            row["response"] = text
            problem = by_id[row["problem_id"]]
            copies.append((row, item_of(prefix + text, row["hit_limit"], problem)))
    for (row, _), judged in zip(copies, desk.verifier.judge_many([item for _, item in copies]), strict=True):
        row |= judged.columns() | {"reason": f"its copy of the beginning left out; {judged.reason}"}
    return frame("sample", rows)


def without_beginning(text: str, beginning: str) -> str:
    """The text without its first lines where these are the lines of the beginning, white space aside."""
    given = [line.strip() for _, line in attempt_lines(beginning)]
    lines = attempt_lines(text)
    if [line.strip() for _, line in lines[: len(given)]] != given:
        return text
    return text[lines[len(given)][0] :] if len(lines) > len(given) else ""


def _new_traces(desk: Desk, problems: pl.DataFrame, entry: CritiqueTargets) -> pl.DataFrame:
    if problems.is_empty():
        return frame("candidate", [])
    samples = desk.ask(
        entry.critic,
        problems,
        name="critique-new_trace",
        n=entry.n,
        sampling=entry.sampling,
        seed=entry.seed,
        purpose="new_trace",
        chats=[
            chat(fill(entry.new_trace, problem=question(row), shown=_shown(row, entry)))
            for row in problems.iter_rows(named=True)
        ],
    )
    return _solutions(spoken(samples), problems, entry, Origin.NEW_TRACE)


def _shown(problem: dict[str, Any], entry: CritiqueTargets) -> str:
    """What the critic sees of the data; the answer where a solution is lacking."""
    if entry.shown == "none":
        return ""
    if entry.shown == "solution" and (problem["solution"] or "").strip():
        return fill(SHOWN_SOLUTION, solution=problem["solution"].strip())
    return fill(SHOWN_ANSWER, answer=problem["answer"])


def _solutions(
    samples: pl.DataFrame,
    problems: pl.DataFrame,
    entry: CritiqueTargets,
    origin: Origin,
    prefix: Sequence[str] | None = None,
) -> pl.DataFrame:
    """Repairs or new traces as CANDIDATE table, those that are not worth imitating refused."""
    why = refusals(samples, problems, entry.min_words, STRAY)
    return refuse(candidates(samples, origin, prefix=prefix), why, f"{origin.replace('_', ' ')} by")
