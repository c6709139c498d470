"""Which problems an RL step draws: resting ones replaced, replacements alike on every process and after a resume."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from dereason.training.selection import Bands, Selection

IDS = [f"p{i}" for i in range(20)]
BANDS = Bands(low=0.1, high=0.9, min_samples=4, rest=3, decay=0.5)


def known(selection: Selection) -> Selection:
    selection.observe(0, {"p0": (4, 4), "p1": (0, 4), "p2": (2, 4), "p3": (3, 3), "p4": (0, 0)})
    return selection


def test_a_problem_rests_when_it_is_always_or_never_solved_and_is_tried_again() -> None:
    selection = known(Selection(IDS, seed=1, bands=BANDS))
    assert [selection.resting(f"p{i}", 1) for i in range(5)] == [True, True, False, False, False]
    assert not selection.resting("p0", 3), "rest is over"
    selection.observe(3, {"p0": (2, 4)})
    assert selection.rate("p0") == pytest.approx((4 * 0.5 + 2) / (4 * 0.5 + 4))
    assert not selection.resting("p0", 4)
    assert selection.share_resting(1) == pytest.approx(1 / 20)


def test_resting_problems_are_replaced_by_others_that_do_not_rest() -> None:
    selection = known(Selection(IDS, seed=1, bands=BANDS))
    chosen = selection.choose(["p0", "p1", "p2"], 1)
    assert chosen[2] == "p2"
    assert not {"p0", "p1"} & set(chosen)
    assert len(set(chosen)) == 3
    assert chosen == known(Selection(IDS, seed=1, bands=BANDS)).choose(["p0", "p1", "p2"], 1)
    assert chosen != known(Selection(IDS, seed=2, bands=BANDS)).choose(["p0", "p1", "p2"], 1)


def test_a_batch_stays_as_it_is_where_nobody_can_take_a_place() -> None:
    selection = known(Selection(["p0", "p1"], seed=1, bands=BANDS))
    assert selection.choose(["p0", "p1"], 1) == ["p0", "p1"]
    assert known(Selection(IDS, seed=1)).choose(["p0", "p1"], 1) == ["p0", "p1"], "without bands nobody rests"


def test_further_problems_are_new_and_bounded() -> None:
    selection = Selection(IDS, seed=1)
    more = selection.more(set(IDS[:17]), 5, 2)
    assert sorted(more) == ["p17", "p18", "p19"]
    assert selection.more(set(), 3, 2) != selection.more(set(), 3, 3)


def test_the_state_is_plain_json_and_comes_back() -> None:
    selection = known(Selection(IDS, seed=1, bands=BANDS))
    again = Selection(IDS, seed=1, bands=BANDS)
    again.load_state_dict(json.loads(json.dumps(selection.state_dict())))
    for step in range(5):
        assert again.choose(IDS[:6], step) == selection.choose(IDS[:6], step)
    again.observe(1, {"p2": (1, 4)})
    selection.observe(1, {"p2": (1, 4)})
    assert again.rate("p2") == selection.rate("p2")


def test_bands_must_be_ordered() -> None:
    with pytest.raises(ValidationError, match=r"bands\.low 0\.9 is not below"):
        Bands(low=0.9, high=0.1)
