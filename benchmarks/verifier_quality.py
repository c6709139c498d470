"""Precision and recall of the verifier against labelled pairs, by the reference's kind.

    python benchmarks/verifier_quality.py --data FOLDER [--limit N] [--seed 0] [--misses | --held-out]

Data: JSON Lines in one folder, each with `answer`, under these names: math/test500.jsonl (hub id
HuggingFaceH4/MATH-500, MIT), math/train.jsonl (MATH, MIT), aime24.jsonl (AIME 2024, MAA), bbeh_mini.jsonl (BIG-Bench
Extra Hard, Apache-2.0), gsm8k/train.jsonl and gsm8k/test.jsonl (openai/gsm8k, MIT; with `solution`), minerva.jsonl
(Minerva's OCW courses; with `accepted`), olympiad_bench.jsonl (OlympiadBench, Apache-2.0; with `answer_type`, `unit`,
`multiple`), mmlu_pro/questions.jsonl (TIGER-Lab/MMLU-Pro, MIT; with `id` and `options`) and mmlu_pro/responses.jsonl
(responses of public models to it: `problem_id`, `response`, `prediction`, `correct`).

A pair is a response, a reference and whether the verifier must find the response correct; ``quality_pairs.py`` says how
they are made. Precision is the share of right pairs among those that the verifier finds correct, recall the share that
it finds correct among the right pairs; an ``error`` is never correct, so it costs recall. Intervals: Jeffreys', 95 %.

The pairs of a tenth of the references, chosen by a hash, are held out: nobody mends a rule by them. ``--held-out``
prints the table of these alone, and no miss.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from quality_pairs import Pair, held_out, labelled_pairs, rows, sample

from dereason.problems.schema import Verdict
from dereason.statistics import beta_interval
from dereason.verify.verdict import Judgement
from dereason.verify.verifier import Item, Verifier, VerifierSettings

CHUNK = 2000


@dataclass(frozen=True)
class Row:
    """One kind's line of the table."""

    kind: str
    positives: int
    negatives: int
    hits: int
    false_alarms: int
    errors: int

    @property
    def precision(self) -> float:
        """1 where nothing was found correct."""
        found = self.hits + self.false_alarms
        return self.hits / found if found else 1.0

    @property
    def recall(self) -> float:
        """1 where there was nothing to find."""
        return self.hits / self.positives if self.positives else 1.0

    def cells(self) -> str:
        """The row of the printed table."""
        shares = [(self.precision, self.hits, self.hits + self.false_alarms), (self.recall, self.hits, self.positives)]
        words = []
        for share, part, whole in shares:
            low, high = beta_interval(part, whole)
            words.append(f"{share:.4f} ({low:.4f}, {high:.4f})")
        return f"| {self.kind} | {self.positives} | {self.negatives} | {' | '.join(words)} | {self.errors} |"


@dataclass(frozen=True)
class Outcome:
    """A pair and what the verifier says of it."""

    pair: Pair
    judged: Judgement

    @property
    def found(self) -> bool:
        """Whether the verifier finds the response correct."""
        return self.judged.verdict == Verdict.CORRECT

    @property
    def missed(self) -> bool:
        """Whether that differs from the label."""
        return self.found != self.pair.equal


def judge(pairs: Sequence[Pair], verifier: Verifier) -> list[Outcome]:
    """Every pair judged, in order."""
    outcomes: list[Outcome] = []
    for at in range(0, len(pairs), CHUNK):
        chunk = pairs[at : at + CHUNK]
        items = [Item(p.response, p.hit_limit, p.reference, p.options) for p in chunk]
        outcomes += [Outcome(p, j) for p, j in zip(chunk, verifier.judge_many(items), strict=True)]
    return outcomes


def table(outcomes: Sequence[Outcome]) -> list[Row]:
    """One row a kind, and the row "all"."""
    lines = []
    for kind in [*sorted({o.pair.kind for o in outcomes}), "all"]:
        of_kind = [o for o in outcomes if kind in (o.pair.kind, "all")]
        lines.append(
            Row(
                kind,
                positives=sum(o.pair.equal for o in of_kind),
                negatives=sum(not o.pair.equal for o in of_kind),
                hits=sum(o.pair.equal and o.found for o in of_kind),
                false_alarms=sum(not o.pair.equal and o.found for o in of_kind),
                errors=sum(o.judged.verdict == Verdict.ERROR for o in of_kind),
            )
        )
    return lines


def agreement(data: Path, verifier: Verifier) -> Counter[tuple[str, str]]:
    """Every response of ``mmlu_pro/responses.jsonl``: (the data's own verdict, ours)."""
    questions = {row["id"]: row for row in rows(data / "mmlu_pro/questions.jsonl")}
    responses = rows(data / "mmlu_pro/responses.jsonl")
    judged = verifier.judge_many(
        [
            Item(
                row["response"], False, questions[row["problem_id"]]["answer"], questions[row["problem_id"]]["options"]
            )
            for row in responses
        ]
    )
    # The data's own reader found no letter where it says "prediction": null.
    theirs = ["no letter" if row["prediction"] is None else "right" if row["correct"] else "wrong" for row in responses]
    return Counter((their, str(j.verdict)) for their, j in zip(theirs, judged, strict=True))


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 90 else f"{flat[:40]} ... {flat[-45:]}"


def unmarked_solutions(data: Path, verifier: Verifier) -> Counter[str]:
    """Verdicts of GSM8K's worked solutions, in which nothing says what the answer is: the last number counts."""
    solved = [row for part in ("train", "test") for row in rows(data / "gsm8k" / f"{part}.jsonl")]
    judged = verifier.judge_many([Item(row["solution"], False, row["answer"]) for row in solved])
    return Counter(str(j.verdict) for j in judged)


def main() -> None:
    """Print the table and the misses."""
    parser = argparse.ArgumentParser(description="Precision and recall of the verifier, by kind.")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets, see the head of this file")
    parser.add_argument("--limit", type=int, default=None, help="pairs, spread over kinds and causes; all unless given")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of pairs")
    parser.add_argument("--misses", action="store_true", help="print every miss, not one of each cause")
    parser.add_argument("--held-out", action="store_true", help="the tenth of references that no rule is mended by")
    chosen = parser.parse_args()
    pairs = [pair for pair in labelled_pairs(chosen.data, chosen.seed) if held_out(pair) is chosen.held_out]
    pairs = pairs if chosen.limit is None else sample(pairs, chosen.limit)
    with Verifier(VerifierSettings()) as verifier:
        began = time.perf_counter()
        outcomes = judge(pairs, verifier)
        seconds = time.perf_counter() - began
        models = agreement(chosen.data, verifier)
        solutions = unmarked_solutions(chosen.data, verifier)
    print("| kind | must match | must not | precision | recall | errors |\n| --- | --- | --- | --- | --- | --- |")
    for row in table(outcomes):
        print(row.cells())
    print(f"\n{len(pairs)} pairs in {seconds:.1f} s\n")
    if chosen.held_out:
        return
    print("Responses of models: the data's own verdict, ours, how many")
    for (theirs, ours), n in sorted(models.items()):
        print(f"    {theirs}, {ours}: {n}")
    print(f"GSM8K solutions without a marked answer: {dict(solutions)}\n")
    misses = [o for o in outcomes if o.missed]
    totals = Counter((o.pair.kind, o.pair.cause) for o in outcomes)
    shown: Counter[tuple[str, str]] = Counter()
    for o in sorted(misses, key=lambda o: (o.pair.equal, o.pair.kind, o.pair.cause)):
        cause = (o.pair.kind, o.pair.cause)
        shown[cause] += 1
        if shown[cause] == 1:
            n = sum((m.pair.kind, m.pair.cause) == cause for m in misses)
            what = "not found" if o.pair.equal else "FOUND"
            print(f"{what}: {cause[0]}, {cause[1]}: {n} of {totals[cause]}")
        if shown[cause] == 1 or chosen.misses:
            print(f"    reference {o.pair.reference!r}, wrapper {o.pair.wrapper!r}: {_short(o.pair.response)!r}")
            print(f"    -> {o.judged.verdict}, extracted {o.judged.extracted!r}: {_short(o.judged.reason)}")


if __name__ == "__main__":
    main()
