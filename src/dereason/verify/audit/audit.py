r"""Metamorphic tests over a pool's own references.

Of each reference it is asked whether it meets itself behind every mark of an answer, whether the rewritings hold that
say the same (:mod:`.forms`), and whether anything else meets it: near misses, answers of other problems, hedges, lists
and empty responses. What the verifier says is tested against what the rules of the rewritings say; math-verify gives a
second opinion. Nothing here knows whether a reference is right: that is :mod:`.evidence`.
"""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dereason.problems.schema import Verdict
from dereason.verify.audit.forms import Form, near_misses, rewritings
from dereason.verify.audit.opinion import Opinions
from dereason.verify.audit.responses import (
    answers_of_others,
    carried,
    choice_misses,
    choice_rewritings,
    hedged,
    nothing_said,
)
from dereason.verify.audit.settings import AuditSettings
from dereason.verify.equivalence import option_index
from dereason.verify.kinds import MATHEMATICS, Kind
from dereason.verify.reading import kind_of
from dereason.verify.verdict import Judgement
from dereason.verify.verifier import Item, Verifier

Progress = Callable[[int, int, str], None]

GROUPS = {
    "itself": "the reference itself, behind each mark",
    "rewriting": "rewritings that say the same",
    "near miss": "near misses",
    "several": "hedges and lists",
    "other": "other problems' answers",
    "nothing": "no answer",
}
"""What is tried on a reference, in this order."""
BATCH = 100
MAX_ASKED = 120
"""Characters of an answer and its reference together, of which math-verify is asked."""
_FORMULAS = MATHEMATICS | {Kind.NUMBER}
_MATRIX = re.compile(r"\s*\$?\s*\\begin\{(?:[pbB]?matrix|smallmatrix|array)\}.*\\end\{[a-zA-Z]+\}\s*\$?\s*", re.DOTALL)


@dataclass(frozen=True)
class Subject:
    """References that are alike, audited once."""

    item: Item
    """The first one's, without a response."""
    kind: Kind
    ids: tuple[str, ...]
    """The problems that have it."""
    checked: bool = False
    """Whether a check decides what is right: then nothing is known of what equals the reference but itself."""


@dataclass(frozen=True)
class _Failure:
    subject: Subject
    group: str
    form: Form
    judged: Judgement


def subjects_of(items: Sequence[tuple[str, Item]], verifier: Verifier) -> list[Subject]:
    """The references of problems, equal ones together, in the order of the first of each.

    Args:
        items: (id, item without a response) of every problem.
        verifier: knows which of them a check decides; these have their metadata besides.
    """
    found: dict[Item, list[str]] = {}
    for id, item in items:
        item = replace(item, options=tuple(item.options or ()) or None)
        if verifier.checks.of(item) is None:
            item = replace(item, metadata=Item.metadata)
        found.setdefault(item, []).append(id)
    return [
        Subject(item, kind_of(item.reference, item.options), tuple(ids), verifier.checks.of(item) is not None)
        for item, ids in found.items()
    ]


def audit(
    items: Sequence[tuple[str, Item]],
    verifier: Verifier,
    settings: AuditSettings,
    progress: Progress = lambda done, total, words: None,
) -> dict[str, Any]:
    """Audit references; linear in their number.

    Args:
        items: (id, item without a response) of every problem.
        verifier: what is audited.
        settings: what is tried; its draw and its thresholds are the caller's.
        progress: told of finished references.

    Returns:
        ``references`` (distinct ones), ``table`` (a row for each kind and rule), ``unmet``, ``missed``, ``loose``,
        ``opinions``, and under ``problems`` how many have each finding.
    """
    subjects = subjects_of(items, verifier)
    rng = random.Random(settings.seed)
    pools = _Answers(subjects, rng)
    table: dict[tuple[str, str, str], Counter[str]] = defaultdict(Counter)
    unmet: list[dict[str, Any]] = []
    failures: list[_Failure] = []
    asked: list[tuple[Subject, Form, bool]] = []
    seen = 0
    for at in range(0, len(subjects), BATCH):
        batch = subjects[at : at + BATCH]
        tried = [(s, group, form) for s in batch for group, form in _tries(s, pools, settings)]
        judged = verifier.judge_many([_item(s, group, form) for s, group, form in tried])
        found: dict[Item, list[tuple[str, Form, Judgement]]] = defaultdict(list)
        for (subject, group, form), judgement in zip(tried, judged, strict=True):
            found[subject.item].append((group, form, judgement))
        for subject in batch:
            why = _unmet(subject, found[subject.item], settings)
            if why is not None:
                unmet += [
                    {"id": id, "reference": subject.item.reference, "kind": str(subject.kind), "why": why}
                    for id in subject.ids
                ]
            for group, form, judgement in found[subject.item]:
                if why is not None:
                    break  # it is named once, as a reference that nothing can meet
                held = _held(subject, form, judgement)
                row = table[str(subject.kind), group, form.rule]
                row["n"] += 1
                row["held"] += held
                row["errors"] += judgement.verdict is Verdict.ERROR
                row["lenient"] += held and not form.holds and judgement.verdict is Verdict.CORRECT
                if not held:
                    failures.append(_Failure(subject, group, form, judgement))
                elif settings.opinions and _is_formula(subject, form):
                    seen += 1
                    one = (subject, form, judgement.verdict is Verdict.CORRECT)
                    if len(asked) < settings.opinions:
                        asked.append(one)
                    elif (place := rng.randrange(seen)) < settings.opinions:
                        asked[place] = one
        progress(min(at + BATCH, len(subjects)), len(subjects), f"{len(unmet):,} unmet, {len(failures):,} failed")
    opinions, failed = _second_opinions(asked, failures, table, settings)
    return {
        "references": len(subjects),
        "kinds": {
            str(kind): sum(s.kind is kind for s in subjects) for kind in Kind if any(s.kind is kind for s in subjects)
        },
        "table": _rows(table),
        "unmet": unmet,
        "missed": _listed([one for one in failed if one[0].form.holds]),
        "loose": _listed([one for one in failed if not one[0].form.holds]),
        "opinions": opinions,
        "problems": {
            "unmet": len(unmet),
            "missed": len({id for f, _ in failed if f.form.holds for id in f.subject.ids}),
            "loose": len({id for f, _ in failed if not f.form.holds for id in f.subject.ids}),
        },
    }


class _Answers:
    """Answers of other problems, of the same kind where there are any."""

    def __init__(self, subjects: Sequence[Subject], rng: random.Random) -> None:
        self.rng = rng
        self.by_kind: dict[Kind, list[str]] = defaultdict(list)
        for subject in subjects:
            text = subject.item.reference.strip()
            if not subject.item.options and len(text) <= 200 and text.count("{") == text.count("}"):
                self.by_kind[subject.kind].append(text)
        self.all = [answer for answers in self.by_kind.values() for answer in answers]

    def drawn(self, subject: Subject, count: int) -> list[str]:
        """At most ``count`` different ones, none written as the reference is."""
        pool = self.by_kind[subject.kind] if len(self.by_kind[subject.kind]) > 1 else self.all
        drawn = self.rng.sample(pool, min(len(pool), count + 1))
        return [answer for answer in drawn if answer != subject.item.reference.strip()][:count]


def _tries(subject: Subject, answers: _Answers, settings: AuditSettings) -> list[tuple[str, Form]]:
    """What is tried on a reference, by group."""
    item, kind = subject.item, subject.kind
    reference = item.reference
    found = [("itself", form) for form in carried(reference, choice=bool(item.options))]
    if subject.checked:
        return found + [("nothing", form) for form in nothing_said()]
    if item.options:
        at = option_index(reference, item.options)
        if at is not None:
            found += [("rewriting", form) for form in choice_rewritings(at, item.options)]
            found += [("near miss", form) for form in choice_misses(at, item.options)]
    else:
        tolerance = item.tolerance
        others = answers.drawn(subject, settings.others)
        found += [("rewriting", form) for form in rewritings(reference, kind)]
        found += [("near miss", form) for form in near_misses(reference, kind, *([tolerance] if tolerance else []))]
        found += [("several", form) for form in hedged(reference, others, kind)]
        found += [("other", form) for form in answers_of_others(reference, others)] if not tolerance else []
    return found + [("nothing", form) for form in nothing_said()]


def _item(subject: Subject, group: str, form: Form) -> Item:
    """What is judged. Only the reference itself may be met through a further reference of its problem."""
    accepted = subject.item.accepted if group == "itself" else ()
    return replace(subject.item, response=form.response, accepted=accepted)


def _held(subject: Subject, form: Form, judged: Judgement) -> bool:
    """Whether both verdicts are as the form says: an answer with a mark counts in both, one without in the lenient."""
    correct = judged.verdict is Verdict.CORRECT
    if form.holds:
        return correct and (subject.checked or judged.strict is form.marked)
    return not (correct if form.marked else judged.strict)


def _unmet(subject: Subject, found: Sequence[tuple[str, Form, Judgement]], settings: AuditSettings) -> str | None:
    """Why no response meets a reference, or none ever will, in words."""
    reference, kind = subject.item.reference, subject.kind
    own = [judged for group, _, judged in found if group == "itself"]
    if not any(judged.verdict is Verdict.CORRECT for judged in own):
        reason = next((j.reason for j in own if j.verdict is Verdict.ERROR), own[0].reason)
        reason = reason.removeprefix("verifier failed: ")
        if subject.item.options and re.fullmatch(r"\s*-?[0-9]+\s*", reference):
            return f"{reason}; is it a position among them?"
        return f"it does not meet itself behind any mark: {reason}"
    if subject.item.options or subject.checked:
        return None
    words, lines = len(reference.split()), reference.strip().count("\n") + 1
    if kind is Kind.TEXT and (words > settings.long_words or lines > 3):
        size = f"{words} words in {lines} lines" if lines > 1 else f"{words} words"
        return f"a text of {size}, which no response will say word for word; is it a whole solution?"
    if reference.count("{") != reference.count("}"):
        return "its braces do not balance: only the very same signs meet it"
    if kind is not Kind.MATRIX and reference.count("\\begin{") == 1 and _MATRIX.fullmatch(reference):
        return f"a matrix that is read as {kind}: do its rows have one length? Only the very same signs meet it"
    return None


def _second_opinions(
    asked: Sequence[tuple[Subject, Form, bool]],
    failures: Sequence[_Failure],
    table: dict[tuple[str, str, str], Counter[str]],
    settings: AuditSettings,
) -> tuple[dict[str, Any] | None, list[tuple[_Failure, bool | None]]]:
    """What math-verify says of the failures and of a sample of what held.

    Two problems may have one answer in two notations. Where it says so of another problem's answer, nothing failed.
    """
    if not settings.opinions:
        return None, [(f, None) for f in failures]
    read = [f for f in failures if _is_formula(f.subject, f.form)][: settings.opinions]
    pairs = [(f.form.text.strip(), f.subject.item.reference) for f in read]
    pairs += [(form.text.strip(), subject.item.reference) for subject, form, _ in asked]
    opinions = Opinions()
    try:
        said = opinions.ask(pairs) if pairs else []
    finally:
        opinions.close()
    of_failure = {id(f): opinion for f, opinion in zip(read, said, strict=False)}
    kept: list[tuple[_Failure, bool | None]] = []
    for f in failures:
        opinion = of_failure.get(id(f))
        if f.group == "other" and opinion:
            table[str(f.subject.kind), f.group, f.form.rule]["held"] += 1
        else:
            kept.append((f, opinion))
    differing = [
        {
            "id": s.ids[0],
            "kind": str(s.kind),
            "reference": s.item.reference,
            "rule": form.rule,
            "answer": form.text.strip(),
            "ours": ours,
            "math_verify": opinion,
        }
        for (s, form, ours), opinion in zip(asked, said[len(read) :], strict=True)
        if opinion is not None and opinion is not ours
    ]
    return {
        "asked": len(asked),
        "no_opinion": sum(opinion is None for opinion in said[len(read) :]),
        "differ": len(differing),
        "differing": differing,
    }, kept


def _is_formula(subject: Subject, form: Form) -> bool:
    """Whether math-verify is asked: it knows few units, takes words for no formula, and long ones take it seconds."""
    pair = form.text + subject.item.reference
    return subject.kind in _FORMULAS and not form.whole and "\\text" not in pair and len(pair) <= MAX_ASKED


def _rows(table: dict[tuple[str, str, str], Counter[str]]) -> list[dict[str, Any]]:
    kinds, groups = [str(kind) for kind in Kind], list(GROUPS)
    order = sorted(table, key=lambda key: (kinds.index(key[0]), groups.index(key[1])))
    return [
        {
            "kind": kind,
            "group": group,
            "rule": rule,
            "n": row["n"],
            "held": row["held"],
            "failed": row["n"] - row["held"],
            "errors": row["errors"],
            "lenient": row["lenient"],
        }
        for kind, group, rule in order
        for row in [table[kind, group, rule]]
    ]


def _listed(failures: Sequence[tuple[_Failure, bool | None]]) -> list[dict[str, Any]]:
    return [
        {
            "id": f.subject.ids[0],
            "problems": len(f.subject.ids),
            "kind": str(f.subject.kind),
            "group": f.group,
            "rule": f.form.rule,
            "reference": f.subject.item.reference,
            "response": f.form.response,
            "verdict": str(f.judged.verdict),
            "reason": f.judged.reason,
            "math_verify": opinion,
        }
        for f, opinion in failures
    ]
