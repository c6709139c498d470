"""Routing: pure functions from problems and profiles to a set for each problem.

To add a policy, write its settings model in :mod:`dereason.routing.settings` (and its line in ``Policy``,
``needs``, ``sets`` and ``_clause``), then its function and its line in ``_ROUTE`` here.

Where scores are tied, the order comes from a seeded hash of the problem's id, so that it follows neither the
order of the file nor of the ids.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import polars as pl

from dereason.errors import DereasonError
from dereason.problems.hygiene import check_unique_ids
from dereason.problems.schema import frame
from dereason.routing.settings import (
    DROP,
    RL,
    SFT,
    SWAPPED,
    All,
    DomainMatched,
    Need,
    PassRate,
    Policy,
    Quantile,
    Random,
    Reversed,
    Threshold,
    describe,
    inner_policy,
    innermost_policy,
    label,
    needs,
    sets,
)

__all__ = [
    "All",
    "DomainMatched",
    "PassRate",
    "Policy",
    "Quantile",
    "Random",
    "Reversed",
    "Threshold",
    "decided_sizes",
    "describe",
    "needs",
    "route",
    "route_warnings",
    "sets",
]


@dataclass(frozen=True)
class _Problem:
    """What the policies read of one problem: its id, domain and, where a policy needs it, its profile row."""

    id: str
    domain: str
    profile: dict[str, Any]


_Route = tuple[str, str]  # the set and the reason


def route(problems: pl.DataFrame, profiles: pl.DataFrame | None, policy: Policy) -> pl.DataFrame:
    """Assign each problem to a set.

    Args:
        problems: a problem table (the columns ``id`` and ``domain`` are read).
        profiles: a profile table with one row for each problem; None where :func:`needs` is empty.
        policy: the policy; an arm's name inside it must have been replaced by that arm's policy.

    Returns:
        A route table in the order of the problems; every reason holds the numbers that decided.

    Raises:
        DereasonError: no problems, duplicated ids, an arm's name left in the policy, or a profile or score
            that the policy needs and some problem lacks.
    """
    if problems.height == 0:
        raise DereasonError("there are no problems to route", "check the source of the problems")
    check_unique_ids(problems, "the problems to route")
    needed = needs(policy)
    rows = _profile_rows(problems["id"].to_list(), profiles, needed) if needed else {}
    table = [
        _Problem(id, domain, rows.get(id, {}))
        for id, domain in zip(problems["id"].to_list(), problems["domain"].to_list(), strict=True)
    ]
    return frame(
        "route",
        [
            {"problem_id": problem.id, "set": name, "policy": label(policy), "reason": reason}
            for problem, (name, reason) in zip(table, _apply(table, policy), strict=True)
        ],
    )


def decided_sizes(policy: Policy, total: int) -> dict[str, int] | None:
    """The sizes of the sets that a policy's settings alone fix, whatever the scores; None where those decide.

    Args:
        policy: what would route.
        total: problems in the pool.
    """
    match policy:
        case All():
            return {policy.set: total}
        case Quantile():
            ends = _quantile_ends(total, policy)
            sizes = Counter[str]()
            for (name, _), begin, end in zip(_QUANTILE_PARTS, (0, *ends[:-1]), ends, strict=True):
                sizes[name] += end - begin
            return dict(sizes)
        case Random():
            return decided_sizes(inner_policy(policy), total)
        case Reversed():
            swapped = decided_sizes(inner_policy(policy), total)
            return None if swapped is None else {SWAPPED.get(name, name): n for name, n in swapped.items()}
        case _:
            return None


def route_warnings(routes: pl.DataFrame, profiles: pl.DataFrame | None, policy: Policy) -> list[str]:
    """What a user should know before training on these routes; empty where all is well.

    Args:
        routes: what :func:`route` returned.
        profiles: the profiles it was given.
        policy: the policy it was given.
    """
    warnings = []
    total = routes.height
    sizes: Counter[str] = Counter(routes["set"].to_list())
    core, around = innermost_policy(policy)
    if isinstance(core, Threshold) and total:
        warnings += _threshold_warning(core, sizes, total, _scores(routes, profiles, core))
    else:
        for name in sorted(sets(policy) - {DROP}):
            if sizes[name] == 0:
                warnings.append(f"the set {name} is empty: no problem was routed to it ({describe(policy)})")
    if isinstance(core, Quantile) and not {"random", "domain_matched"} & set(around):
        warnings += _tie_warning(core, _scores(routes, profiles, core))
    inside = around[around.index("domain_matched") :] if "domain_matched" in around else []
    if inside and "random" not in inside and isinstance(core, Threshold | PassRate | All):
        warnings.append(
            f"domain_matched changes nothing here: {core.policy} judges each problem by itself, so applying "
            "it inside each domain gives the same sets; use quantile as its rule"
        )
    return warnings


def _apply(table: list[_Problem], policy: Policy) -> list[_Route]:
    return _ROUTE[policy.policy](table, policy)


def _route_threshold(table: list[_Problem], policy: Threshold) -> list[_Route]:
    what = "most probable score" if policy.score == "mode" else "expected score"
    routes = []
    for problem in table:
        score = problem.profile[_column(policy)]
        name, side = (RL, "at least") if score >= policy.at else (SFT, "below")
        routes.append((name, f"judge's {what} {score:.4g} is {side} {policy.at:g}"))
    return routes


def _route_quantile(table: list[_Problem], policy: Quantile) -> list[_Route]:
    sign = -1 if policy.score == "judge" else 1
    hardest_first = sorted(
        range(len(table)),
        key=lambda i: (sign * table[i].profile[_column(policy)], _hash("tie", policy.seed, table[i].id)),
    )
    total = len(table)
    ends = _quantile_ends(total, policy)
    tied = Counter(problem.profile[_column(policy)] for problem in table)
    routes: list[_Route] = [("", "")] * total
    for place, i in enumerate(hardest_first, start=1):
        part = next(part for part, end in enumerate(ends) if place <= end)
        name, words = _QUANTILE_PARTS[part]
        begin, end = ends[part - 1] if part else 0, ends[part]
        reason = f"{_score_words(table[i], policy)}: place {place} of {total} from the hardest"
        same = tied[table[i].profile[_column(policy)]] - 1
        if same:
            reason += f" (tied with {same}, ordered by seed {policy.seed})"
        routes[i] = (name, f"{reason}; places {begin + 1}-{end} are {words}")
    return routes


_QUANTILE_PARTS = ((DROP, "too hard"), (RL, "the hard part"), (SFT, "the easy part"), (DROP, "too easy"))


def _quantile_ends(total: int, policy: Quantile) -> tuple[int, int, int, int]:
    """The last place of each part, hardest first. Sizes are rounded half up, from the decimals as written."""
    top = _round_half_up(policy.drop_hardest, total)
    bottom = _round_half_up(policy.drop_easiest, total)
    left = total - top - bottom
    return top, top + _round_half_up(policy.rl_fraction, left), top + left, total


def _route_random(table: list[_Problem], policy: Random) -> list[_Route]:
    inner = inner_policy(policy)
    sizes = Counter(name for name, _ in _apply(table, inner))
    order = sorted(range(len(table)), key=lambda i: _hash("random", policy.seed, table[i].id))
    names = [name for name in sorted(sizes) for _ in range(sizes[name])]
    total = len(table)
    routes: list[_Route] = [("", "")] * total
    for place, (i, name) in enumerate(zip(order, names, strict=True), start=1):
        reason = f"drawn at random with seed {policy.seed}: place {place} of {total}"
        routes[i] = (name, f"{reason}; {sizes[name]} places are {name}, as many as by {label(inner)}")
    return routes


def _route_reversed(table: list[_Problem], policy: Reversed) -> list[_Route]:
    return [
        (
            SWAPPED.get(name, name),
            f"{reason}; {name} swapped to {SWAPPED[name]}" if name in SWAPPED else reason,
        )
        for name, reason in _apply(table, inner_policy(policy))
    ]


def _route_domain_matched(table: list[_Problem], policy: DomainMatched) -> list[_Route]:
    places: dict[str, list[int]] = {}
    for i, problem in enumerate(table):
        places.setdefault(problem.domain, []).append(i)
    routes: list[_Route] = [("", "")] * len(table)
    for domain, members in places.items():
        inside = _apply([table[i] for i in members], inner_policy(policy))
        for i, (name, reason) in zip(members, inside, strict=True):
            routes[i] = (name, f"in domain {domain}: {reason}")
    return routes


def _route_pass_rate(table: list[_Problem], policy: PassRate) -> list[_Route]:
    routes = []
    for problem in table:
        rate = problem.profile["pass_rate"]
        if rate >= policy.simple_at:
            name, tier = policy.simple, f"simple (at least {policy.simple_at:g})"
        elif rate < policy.hard_below:
            name, tier = policy.hard, f"hard (below {policy.hard_below:g})"
        else:
            name, tier = policy.medium, f"medium ({policy.hard_below:g} to {policy.simple_at:g})"
        routes.append((name, f"{_pass_words(problem)}: {tier}"))
    return routes


def _route_all(table: list[_Problem], policy: All) -> list[_Route]:
    return [(policy.set, f"every problem goes to {policy.set}")] * len(table)


_ROUTE: dict[str, Callable[[list[_Problem], Any], list[_Route]]] = {
    "threshold": _route_threshold,
    "quantile": _route_quantile,
    "random": _route_random,
    "reversed": _route_reversed,
    "domain_matched": _route_domain_matched,
    "pass_rate": _route_pass_rate,
    "all": _route_all,
}


def _column(policy: Threshold | Quantile) -> str:
    match policy.score:
        case "mode":
            return "judge_mode"
        case "pass_rate":
            return "pass_rate"
        case _:
            return "judge_expectation"


def _score_words(problem: _Problem, policy: Quantile) -> str:
    if policy.score == "pass_rate":
        return _pass_words(problem)
    return f"judge's expected score {problem.profile['judge_expectation']:.4g}"


def _pass_words(problem: _Problem) -> str:
    row = problem.profile
    return f"pass rate {row['correct']}/{row['n']} = {row['pass_rate']:.4g}"


def _round_half_up(fraction: float, total: int) -> int:
    # By way of the decimal that the user wrote: 0.15 of 10 is 1.5, which binary floating point misses.
    return int((Decimal(repr(fraction)) * total).quantize(Decimal(1), rounding=ROUND_HALF_UP))


def _hash(purpose: str, seed: int, problem_id: str) -> bytes:
    # The purpose keeps a random draw independent of the order of ties under the same seed.
    return hashlib.blake2b(f"{purpose}\0{seed}\0{problem_id}".encode(), digest_size=16).digest()


def _named(ids: list[str]) -> str:
    more = f" and {len(ids) - 5} more" if len(ids) > 5 else ""
    return ", ".join(ids[:5]) + more


def _profile_rows(ids: list[str], profiles: pl.DataFrame | None, needed: frozenset[Need]) -> dict[str, dict[str, Any]]:
    """The profile row of each problem, every score that is needed present."""
    words = " and ".join("judge scores" if need == "judge" else "pass rates" for need in sorted(needed))
    if profiles is None:
        raise DereasonError(f"this policy needs {words}; there are no profiles", "profile the problems first")
    wanted = set(ids)
    rows: dict[str, dict[str, Any]] = {}
    twice: list[str] = []
    for row in profiles.iter_rows(named=True):
        id = row["problem_id"]
        if id in rows:
            twice.append(id)
        elif id in wanted:
            rows[id] = row
    if twice:
        raise DereasonError(
            f"the profiles hold more than one row for {_named(twice)}", "keep the profiles of one model only"
        )
    _refuse(
        [id for id in ids if id not in rows],
        "without a profile",
        "profile them, or drop them",
    )
    if "judge" in needed:
        _refuse(
            [id for id in ids if rows[id]["judge_expectation"] is None or rows[id]["judge_mode"] is None],
            "without a judge score",
            "profile them with the judge",
        )
    if "pass_rate" in needed:
        _refuse(
            [id for id in ids if not rows[id]["n"] and rows[id]["error"]],
            "without a pass rate, because the verifier failed on every sample",
            "drop them from the problems, or profile them again",
        )
        _refuse(
            [id for id in ids if rows[id]["pass_rate"] is None],
            "without a pass rate",
            "profile them with rollouts of the student",
        )
    return rows


def _refuse(ids: list[str], what: str, mend: str) -> None:
    if ids:
        raise DereasonError(f"{len(ids)} problem{'s' * (len(ids) > 1)} {what}: {_named(ids)}", mend)


def _scores(routes: pl.DataFrame, profiles: pl.DataFrame | None, policy: Threshold | Quantile) -> list[float]:
    if profiles is None:
        return []
    kept = profiles.filter(pl.col("problem_id").is_in(routes["problem_id"].to_list()))
    return [float(score) for score in kept[_column(policy)].drop_nulls().to_list()]


def _threshold_warning(policy: Threshold, sizes: Counter[str], total: int, scores: list[float]) -> list[str]:
    small = min((SFT, RL), key=lambda name: sizes[name])
    if sizes[small] / total >= 0.05:
        return []
    seen = f"the judge's scores run from {min(scores):.4g} to {max(scores):.4g}" if scores else "no scores are known"
    return [
        f"the threshold {policy.at:g} routes {sizes[small]} of {total} problems to {small}: {seen}; "
        "small judges are badly calibrated: use the quantile policy, which splits by rank"
    ]


def _tie_warning(policy: Quantile, scores: list[float]) -> list[str]:
    """Warn where the border between rl and sft runs through many problems with one score."""
    ordered = sorted(scores, reverse=policy.score == "judge")
    end = _quantile_ends(len(ordered), policy)[1]
    if not 0 < end < len(ordered) or ordered[end - 1] != ordered[end]:
        return []
    same = ordered.count(ordered[end])
    if same < len(ordered) / 10:
        return []
    return [
        f"{same} of {len(ordered)} problems share the score {ordered[end]:.4g} at the border of rl and sft: "
        "among them the split is by seeded chance, not by difficulty; take more samples, or another score"
    ]
