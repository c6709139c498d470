"""What samples say against references: strong models that agree on another answer, and a weaker one that solves what
stronger ones never do. Both rules and their thresholds are ours: they raise doubts for a person to settle.

A model's strength is its share of correct samples over all problems that it answered, since a name says nothing of it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dereason.problems.schema import Verdict
from dereason.verify.audit.settings import Evidence
from dereason.verify.equivalence import option_index
from dereason.verify.verifier import Item, Verifier

Sample = tuple[str, str, str, bool]
"""Model, id of the problem, response, whether it stopped at its length limit."""
BATCH = 1000
MAX_ANSWERS = 12
"""Different wrong answers to a problem that are compared with each other, the most frequent first."""


@dataclass
class _Tally:
    """What one model answered to one problem."""

    n: int = 0
    correct: int = 0
    others: Counter[str] = field(default_factory=Counter)
    """Wrong answers, as they were written."""

    @property
    def answered(self) -> int:
        return self.correct + self.others.total()


def evidence(
    samples: Sequence[Sample],
    items: Mapping[str, Item],
    verifier: Verifier,
    settings: Evidence,
    progress: Callable[[int, int, str], None] = lambda done, total, words: None,
) -> dict[str, Any]:
    """Judge samples and find the references that they speak against.

    Args:
        samples: of any models; those of other problems are left out.
        items: id -> item without a response.
        verifier: judges. The verdict ``error`` counts for nothing.
        settings: the rules' thresholds.
        progress: told of judged samples.

    Returns:
        ``models`` (name, samples, problems, accuracy, strong), ``problems`` (how many were answered), ``doubted``.
    """
    known = [sample for sample in samples if sample[1] in items]
    tallies: dict[str, dict[str, _Tally]] = defaultdict(lambda: defaultdict(_Tally))
    for at in range(0, len(known), BATCH):
        batch = known[at : at + BATCH]
        asked = [replace(items[id], response=response, hit_limit=limit) for _, id, response, limit in batch]
        for (model, id, _, _), judged in zip(batch, verifier.judge_many(asked), strict=True):
            if judged.verdict is Verdict.ERROR:
                continue
            tally = tallies[id][model]
            tally.n += 1
            tally.correct += judged.verdict is Verdict.CORRECT
            if judged.verdict is Verdict.WRONG and judged.extracted:
                tally.others[judged.extracted.strip()] += 1
        progress(min(at + BATCH, len(known)), len(known), "samples judged")
    strength = _strength(tallies)
    same = _classes(tallies, items, verifier)
    doubted = []
    for id, by_model in tallies.items():
        found = _agreed(id, by_model, strength, same, settings) or _solved_by_weaker(by_model, strength, settings)
        if found is not None:
            named = {"reference": items[id].reference, "answer": found["answer"]}
            doubted.append({"id": id, **found, **{k: _with_text(v, items[id]) for k, v in named.items()}})
    counts: Counter[str] = Counter()
    for by_model in tallies.values():
        counts.update(by_model.keys())
    total = {model: sum(t[model].n for t in tallies.values() if model in t) for model in strength}
    return {
        "models": [
            {"model": m, "samples": total[m], "problems": counts[m], "accuracy": a, "strong": a >= settings.strong}
            for m, a in sorted(strength.items(), key=lambda one: -one[1])
        ],
        "problems": len(tallies),
        "doubted": doubted,
    }


def _with_text(answer: str | None, item: Item) -> str | None:
    """An answer, behind the letter of an option that option's text."""
    at = None if answer is None or not item.options else option_index(answer, item.options)
    return answer if at is None or not item.options else f"{chr(ord('A') + at)}. {item.options[at]}"


def _strength(tallies: Mapping[str, Mapping[str, _Tally]]) -> dict[str, float]:
    n, correct = Counter[str](), Counter[str]()
    for by_model in tallies.values():
        for model, tally in by_model.items():
            n[model] += tally.n
            correct[model] += tally.correct
    return {model: correct[model] / n[model] for model in n}


def _classes(
    tallies: Mapping[str, Mapping[str, _Tally]], items: Mapping[str, Item], verifier: Verifier
) -> dict[tuple[str, str], str]:
    """(problem, wrong answer) -> the first of the answers that it equals."""
    same: dict[tuple[str, str], str] = {}
    pairs: list[tuple[str, str, str]] = []
    for id, by_model in tallies.items():
        counted: Counter[str] = Counter()
        for tally in by_model.values():
            counted.update(tally.others)
        texts = [text for text, _ in counted.most_common(MAX_ANSWERS)]
        options = items[id].options
        if options:
            for text in texts:
                at = option_index(text, options)
                same[id, text] = text if at is None else chr(ord("A") + at)
        else:
            pairs += [(id, text, before) for i, text in enumerate(texts) for before in texts[:i]]
    compared = verifier.equivalent_many([(text, before, None) for _, text, before in pairs])
    for (id, text, before), comparison in zip(pairs, compared, strict=True):
        if comparison.equal and (id, text) not in same:
            same[id, text] = same.get((id, before), before)
    return same


def _agreed(
    id: str,
    by_model: Mapping[str, _Tally],
    strength: Mapping[str, float],
    same: Mapping[tuple[str, str], str],
    settings: Evidence,
) -> dict[str, Any] | None:
    """Strong models that agree on another answer."""
    strong = {model: t for model, t in by_model.items() if strength[model] >= settings.strong and t.answered}
    behind: dict[str, list[str]] = defaultdict(list)
    for model, tally in strong.items():
        grouped: Counter[str] = Counter()
        for text, count in tally.others.items():
            grouped[same.get((id, text), text)] += count
        for other, count in grouped.most_common(1):
            if len(strong) > 1 and 2 * count > tally.answered:
                behind[other].append(model)
            alone = len(strong) == 1 and tally.answered >= settings.samples and not tally.correct
            if alone and count >= settings.one_model * tally.answered:
                words = f"the one strong model says so in {count} of {tally.answered} answers, and never the reference"
                return {"rule": "one strong model", "answer": other, "models": [model], "words": words}
    if not behind:
        return None
    other, models = max(behind.items(), key=lambda one: len(one[1]))
    if len(models) < settings.models or len(models) <= settings.share * len(strong):
        return None
    words = f"{len(models)} of {len(strong)} strong models agree on it"
    return {"rule": "strong models agree", "answer": other, "models": models, "words": words}


def _solved_by_weaker(
    by_model: Mapping[str, _Tally], strength: Mapping[str, float], settings: Evidence
) -> dict[str, Any] | None:
    """A weaker model that meets a reference which stronger ones never meet."""
    for model, tally in sorted(by_model.items(), key=lambda one: strength[one[0]]):
        if tally.correct < settings.solved:
            continue
        above = {m: t for m, t in by_model.items() if strength[m] >= strength[model] + settings.gap}
        n = sum(t.n for t in above.values())
        if n >= settings.never and not any(t.correct for t in above.values()):
            words = (
                f"{model} ({100 * strength[model]:.0f} % over all) meets it in {tally.correct} of {tally.n} samples, "
                f"{', '.join(above)} in none of {n}"
            )
            return {"rule": "solved by a weaker model", "answer": None, "models": [model], "words": words}
    return None
