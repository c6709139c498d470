"""Routing policies, checked against sizes and sets worked out by hand."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import polars as pl
import pytest
from pydantic import TypeAdapter, ValidationError

from dereason.errors import DereasonError
from dereason.problems.schema import frame, validate
from dereason.routing.policies import (
    All,
    DomainMatched,
    PassRate,
    Policy,
    Quantile,
    Random,
    Reversed,
    Threshold,
    decided_sizes,
    describe,
    needs,
    route,
    route_warnings,
    sets,
)

ADAPTER: TypeAdapter[Policy] = TypeAdapter(Policy)


def problems(n: int, domains: str = "a") -> pl.DataFrame:
    rows = [
        {
            "id": f"p{i}",
            "question": f"q{i}",
            "answer": "1",
            "domain": domains[i % len(domains)],
            "source": "s",
        }
        for i in range(n)
    ]
    return frame("problem", rows)  # type: ignore[arg-type]


def profiles(
    expectations: list[float] | None = None,
    counts: list[tuple[int, int]] | None = None,
    modes: list[int] | None = None,
    errors: int = 0,
) -> pl.DataFrame:
    rows: list[dict[str, object]] = []
    for i in range(len(expectations or counts or [])):
        row: dict[str, object] = {"problem_id": f"p{i}", "model": "m", "n": 0, "correct": 0, "error": errors}
        if expectations:
            row |= {
                "judge_expectation": expectations[i],
                "judge_mode": modes[i] if modes else round(expectations[i]),
            }
        if counts:
            c, n = counts[i]
            row |= {"n": n, "correct": c, "pass_rate": c / n if n else None}
        rows.append(row)
    return frame("profile", rows)


def routed(table: pl.DataFrame) -> dict[str, str]:
    return dict(zip(table["problem_id"].to_list(), table["set"].to_list(), strict=True))


def sizes(table: pl.DataFrame) -> dict[str, int]:
    return dict(Counter(table["set"].to_list()))


def test_threshold_acts_on_the_mode_by_default() -> None:
    table = profiles([3.9, 4.1, 2.0, 4.0], modes=[4, 3, 2, 5])
    assert routed(route(problems(4), table, Threshold())) == {
        "p0": "rl",
        "p1": "sft",
        "p2": "sft",
        "p3": "rl",
    }
    by_expectation = route(problems(4), table, Threshold(score="expectation"))
    assert routed(by_expectation) == {"p0": "sft", "p1": "rl", "p2": "sft", "p3": "rl"}
    assert by_expectation["reason"][1] == "judge's expected score 4.1 is at least 4"
    assert routed(route(problems(4), table, Threshold(at=2)))["p2"] == "rl"


def test_result_is_a_route_table_in_the_order_of_the_problems() -> None:
    shuffled = problems(5).reverse()
    table = route(shuffled, profiles([1, 2, 3, 4, 5]), Threshold())
    assert validate("route", table, "t").equals(table)
    assert table["problem_id"].to_list() == ["p4", "p3", "p2", "p1", "p0"]
    assert table["policy"].unique().to_list() == ["threshold"]
    assert table["reason"].null_count() == 0


@pytest.mark.parametrize(
    ("n", "fraction", "rl"),
    [
        (4, 0.5, 2),
        (5, 0.5, 3),
        (10, 0.15, 2),
        (10, 0.25, 3),
        (10, 0.349, 3),
        (7, 0.0, 0),
        (7, 1.0, 7),
        (100, 0.285, 29),
    ],
)
def test_quantile_sizes_are_rounded_half_up(n: int, fraction: float, rl: int) -> None:
    scores = [1 + 4 * i / n for i in range(n)]
    result = routed(route(problems(n), profiles(scores), Quantile(rl_fraction=fraction)))
    assert [id for id, name in result.items() if name == "rl"] == [f"p{i}" for i in range(n - rl, n)]


def test_quantile_by_pass_rate_calls_low_hard() -> None:
    table = profiles(counts=[(4, 4), (0, 4), (3, 4), (1, 4)])
    result = route(problems(4), table, Quantile(score="pass_rate"))
    assert routed(result) == {"p0": "sft", "p1": "rl", "p2": "sft", "p3": "rl"}
    assert result["reason"][1] == "pass rate 0/4 = 0: place 1 of 4 from the hardest; places 1-2 are the hard part"


def test_quantile_drops_both_ends_and_splits_what_is_left() -> None:
    policy = Quantile(drop_hardest=0.1, drop_easiest=0.2, rl_fraction=0.5)
    result = routed(route(problems(10), profiles([float(i) for i in range(10)]), policy))
    assert result == {
        "p9": "drop",
        **{f"p{i}": "rl" for i in (8, 7, 6, 5)},
        **{f"p{i}": "sft" for i in (4, 3, 2)},
        **{f"p{i}": "drop" for i in (1, 0)},
    }
    assert sets(policy) == {"sft", "rl", "drop"}


def test_sizes_always_add_up() -> None:
    for n in range(1, 12):
        for top in (0.0, 0.05, 0.25, 0.5, 0.74):
            for bottom in (0.0, 0.24, 0.25):
                policy = Quantile(drop_hardest=top, drop_easiest=bottom, rl_fraction=0.3)
                assert sum(sizes(route(problems(n), profiles([1.0] * n), policy)).values()) == n


def test_ties_follow_the_seed_and_not_the_order_of_the_file() -> None:
    tied = profiles([2.0] * 100)
    first = routed(route(problems(100), tied, Quantile(seed=1)))
    assert first == routed(route(problems(100).reverse(), tied, Quantile(seed=1)))
    assert first != routed(route(problems(100), tied, Quantile(seed=2)))
    early = sum(first[f"p{i}"] == "rl" for i in range(50))
    assert 15 < early < 35
    assert "tied with 99" in route(problems(100), tied, Quantile(seed=1))["reason"][0]


def test_random_has_the_sizes_of_the_other_policy() -> None:
    table = profiles([float(i % 5 + 1) for i in range(200)])
    inner = Quantile(rl_fraction=0.3, drop_hardest=0.1)
    result = route(problems(200), table, Random(like=inner, seed=3))
    assert sizes(result) == sizes(route(problems(200), table, inner)) == {"drop": 20, "rl": 54, "sft": 126}
    assert result["policy"][0] == "random(quantile)"
    assert routed(result) == routed(route(problems(200).reverse(), table, Random(like=inner, seed=3)))
    assert routed(result) != routed(route(problems(200), table, Random(like=inner, seed=4)))


def test_random_is_independent_of_difficulty_and_of_ties() -> None:
    # All scores tied: the other policy's split is by hash too, with the same seed, and must be another one.
    tied = profiles([2.0] * 400)
    by_rank = routed(route(problems(400), tied, Quantile(seed=0)))
    at_random = routed(route(problems(400), tied, Random(like=Quantile(seed=0), seed=0)))
    both = sum(by_rank[id] == at_random[id] == "rl" for id in by_rank)
    assert 75 < both < 125  # 100 expected, standard deviation 5


def test_reversed_swaps_sft_and_rl_only() -> None:
    table = profiles([float(i) for i in range(10)])
    inner = Quantile(drop_hardest=0.2, rl_fraction=0.25)
    plain = routed(route(problems(10), table, inner))
    swapped = routed(route(problems(10), table, Reversed(of=inner)))
    for id, name in plain.items():
        assert swapped[id] == {"sft": "rl", "rl": "sft", "drop": "drop"}[name]
    assert routed(route(problems(10), table, Reversed(of=Reversed(of=inner)))) == plain
    reason = route(problems(10), table, Reversed(of=inner))["reason"][0]
    assert "place 10 of 10" in reason
    assert reason.endswith("sft swapped to rl")


def test_reversed_random_is_a_random_split_with_swapped_sizes() -> None:
    table = profiles([float(i) for i in range(10)])
    result = route(problems(10), table, Reversed(of=Random(like=Quantile(rl_fraction=0.2))))
    assert sizes(result) == {"rl": 8, "sft": 2}
    assert result["policy"][0] == "reversed(random(quantile))"


def test_domain_matched_splits_every_domain() -> None:
    # Domain b is harder throughout: the plain quantile would send all of it to RL and none of a.
    scores = [1.0 + i / 100 + (2 if i % 2 else 0) for i in range(40)]
    pool = problems(40, "ab")
    plain = route(pool, profiles(scores), Quantile())
    matched = route(pool, profiles(scores), DomainMatched(rule=Quantile()))
    domain = dict(zip(pool["id"].to_list(), pool["domain"].to_list(), strict=True))
    assert {domain[id] for id, name in routed(plain).items() if name == "rl"} == {"b"}
    inside = Counter((domain[id], name) for id, name in routed(matched).items())
    assert inside == {("a", "rl"): 10, ("a", "sft"): 10, ("b", "rl"): 10, ("b", "sft"): 10}
    assert routed(matched)["p38"] == "rl"
    assert matched["reason"][0].startswith("in domain a: judge's expected score 1: place 20 of 20")


def test_pass_rate_tiers_include_their_borders_as_in_the_paper() -> None:
    table = profiles(counts=[(0, 4), (1, 4), (2, 4), (3, 4), (4, 4), (1, 5)])
    policy = PassRate(simple="drop", medium="rl", hard="sft")
    result = route(problems(6), table, policy)
    assert list(routed(result).values()) == ["sft", "rl", "rl", "drop", "drop", "sft"]
    assert result["reason"][5] == "pass rate 1/5 = 0.2: hard (below 0.25)"
    assert sets(PassRate()) == {"sft", "rl"}


def test_all_needs_no_profiles() -> None:
    result = route(problems(3), None, All(set="rl"))
    assert sizes(result) == {"rl": 3}
    assert needs(All()) == frozenset()


def test_needs_looks_inside() -> None:
    assert needs(Threshold()) == {"judge"}
    assert needs(Random(like=Reversed(of=DomainMatched(rule=Quantile(score="pass_rate"))))) == {"pass_rate"}
    assert sets(Reversed(of=PassRate(simple="drop", medium="sft", hard="sft"))) == {"drop", "rl"}


def test_policies_parse_from_plain_data_and_back() -> None:
    policy = ADAPTER.validate_python(
        {"policy": "random", "like": {"policy": "domain_matched", "rule": {"policy": "quantile"}}, "seed": 5}
    )
    assert policy == Random(like=DomainMatched(rule=Quantile()), seed=5)
    assert ADAPTER.validate_json(json.dumps(policy.model_dump())) == policy
    assert ADAPTER.validate_python({"policy": "reversed", "of": "dereason"}) == Reversed(of="dereason")


@pytest.mark.parametrize(
    "bad",
    [
        {"policy": "best"},
        {"policy": "threshold", "at": 6},
        {"policy": "quantile", "rl_fraction": 1.5},
        {"policy": "quantile", "fraction": 0.5},
        {"policy": "quantile", "drop_hardest": 0.5, "drop_easiest": 0.5},
        {"policy": "pass_rate", "hard_below": 0.9},
        {"policy": "all", "set": "No Set"},
        {"policy": "random"},
    ],
)
def test_bad_settings_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ADAPTER.validate_python(bad)


def test_every_field_is_described() -> None:
    for model in (Threshold, Quantile, Random, Reversed, DomainMatched, PassRate, All):
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name}"


def test_describe_is_one_sentence() -> None:
    assert describe(Threshold()) == (
        "Problems whose most probable score by the judge is 4 or more go to rl, the others to sft."
    )
    assert describe(Quantile(rl_fraction=0.15, drop_easiest=0.1)) == (
        "The hardest 15 % by the judge's expected score left after dropping the easiest 10 % go to rl, the rest to sft."
    )
    assert describe(Random(like="dereason", seed=7)) == (
        "A random split (seed 7) with the same set sizes as: the policy of arm dereason."
    )
    for policy in (PassRate(), All(), Reversed(of=DomainMatched(rule=Quantile(score="pass_rate")))):
        assert describe(policy).endswith(".")
        assert "\n" not in describe(policy)


def error(pool: pl.DataFrame, table: pl.DataFrame | None, policy: Policy) -> str:
    with pytest.raises(DereasonError) as caught:
        route(pool, table, policy)
    assert caught.value.mend
    return caught.value.cause


def test_errors_name_the_problems() -> None:
    ten = profiles([1.0] * 10)
    assert "no problems" in error(problems(0), ten, Threshold())
    assert error(problems(12), ten, Threshold()) == "2 problems without a profile: p10, p11"
    assert "needs judge scores" in error(problems(3), None, Threshold())
    no_score = profiles(counts=[(1, 2)] * 8)
    assert error(problems(8), no_score, Quantile()) == (
        "8 problems without a judge score: p0, p1, p2, p3, p4 and 3 more"
    )
    assert error(problems(2), ten, PassRate()) == "2 problems without a pass rate: p0, p1"
    assert "more than one row for p0" in error(problems(10), pl.concat([ten, ten.head(1)]), Threshold())
    assert "'p0' in rows 1, 3" in error(pl.concat([problems(2), problems(1)]), ten, Threshold())


def test_verifier_failures_are_told_from_missing_rollouts() -> None:
    table = profiles(counts=[(1, 4), (0, 0)], errors=4)
    assert error(problems(2), table, Quantile(score="pass_rate")) == (
        "1 problem without a pass rate, because the verifier failed on every sample: p1"
    )


def test_unresolved_arms_are_refused() -> None:
    for policy in (Random(like="other"), Reversed(of="other"), DomainMatched(rule=Reversed(of="other"))):
        assert "arm 'other'" in error(problems(2), profiles([1.0, 2.0]), policy)


def test_warning_where_a_threshold_routes_almost_nothing() -> None:
    scores = [1.3 + i / 400 for i in range(200)]
    table, pool = profiles(scores), problems(200)
    for policy in (
        Threshold(),
        Threshold(score="expectation"),
        Reversed(of=Threshold()),
        Random(like=Threshold()),
    ):
        (warning,) = route_warnings(route(pool, table, policy), table, policy)
        assert "routes 0 of 200" in warning
        assert "quantile" in warning
    (warning,) = route_warnings(
        route(pool, table, Threshold(score="expectation")), table, Threshold(score="expectation")
    )
    assert "run from 1.3 to 1.798" in warning


def test_threshold_warning_starts_below_five_percent() -> None:
    for hard, warned in ((4, True), (5, False), (95, False), (96, True)):
        table = profiles([5.0] * hard + [1.0] * (100 - hard))
        assert bool(route_warnings(route(problems(100), table, Threshold()), table, Threshold())) == warned


def test_warning_where_the_border_runs_through_ties() -> None:
    policy = Quantile(score="pass_rate")
    table = profiles(counts=[(0, 4)] * 80 + [(i % 4 + 1, 4) for i in range(20)])
    (warning,) = route_warnings(route(problems(100), table, policy), table, policy)
    assert warning.startswith("80 of 100 problems share the score 0 at the border")
    fine = profiles(counts=[(0, 4)] * 50 + [(1, 4)] * 50)
    assert route_warnings(route(problems(100), fine, policy), fine, policy) == []


def test_warning_where_a_set_is_empty_or_domains_do_not_matter() -> None:
    table = profiles(counts=[(0, 4)] * 3)
    (warning,) = route_warnings(route(problems(3), table, PassRate()), table, PassRate())
    assert "set rl is empty" in warning
    scores = profiles([5.0, 1.0])
    policy = DomainMatched(rule=Threshold())
    (warning,) = route_warnings(route(problems(2), scores, policy), scores, policy)
    assert "changes nothing" in warning
    stratified = DomainMatched(rule=Random(like=Threshold()))
    assert route_warnings(route(problems(2), scores, stratified), scores, stratified) == []
    assert route_warnings(route(problems(2), None, All()), None, All()) == []


@pytest.mark.parametrize(
    "policy",
    [
        {"policy": "all", "set": "rl"},
        {"policy": "quantile", "rl_fraction": 0.3},
        {"policy": "quantile", "rl_fraction": 0.15, "drop_hardest": 0.05, "drop_easiest": 0.1},
        {"policy": "reversed", "of": {"policy": "quantile", "rl_fraction": 0.35, "drop_easiest": 0.25}},
        {"policy": "random", "seed": 3, "like": {"policy": "reversed", "of": {"policy": "quantile"}}},
    ],
)
def test_decided_sizes_are_those_of_routing(policy: dict[str, Any]) -> None:
    built = ADAPTER.validate_python(policy)
    for n in (1, 2, 3, 7, 10, 30, 33):
        for scores in ([float(1 + i % 5) for i in range(n)], [2.0] * n):  # with ties, and nothing but ties
            found = Counter(route(problems(n), profiles(scores), built)["set"])
            decided = decided_sizes(built, n)
            assert decided is not None
            assert {name: size for name, size in decided.items() if size} == found


@pytest.mark.parametrize(
    "policy",
    [
        {"policy": "threshold"},
        {"policy": "pass_rate"},
        {"policy": "domain_matched", "rule": {"policy": "quantile"}},
        {"policy": "random", "like": {"policy": "threshold"}},
        {"policy": "reversed", "of": {"policy": "threshold"}},
    ],
)
def test_sizes_that_scores_or_domains_decide_are_not_guessed(policy: dict[str, Any]) -> None:
    assert decided_sizes(ADAPTER.validate_python(policy), 10) is None
