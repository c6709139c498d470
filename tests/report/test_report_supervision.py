"""What the page says of supervision and of rounds: the facts as they are, counts that add up, gaps named."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from reading import Reader, strings
from synthetic import save

import browser
from dereason.errors import DereasonError
from dereason.problems.schema import frame, write_table
from dereason.report import data, likelihood, rounds, supervision, text, traces, write_report


def _phases(made: Any) -> list[dict[str, Any]]:
    return [phase for phase in made.summary["arms"][0]["phases"] if phase["targets"]]


def _table(made: Any, build: supervision.Build, name: str) -> pl.DataFrame:
    return pl.read_parquet(made.folder / getattr(build.paths, name))


def _built(made: Any) -> tuple[data.Run, list[supervision.Build]]:
    save(made.folder, made.summary)
    run = data.load(made.folder)
    return run, supervision.builds(run)


def test_every_source_and_origin_has_a_row(looped: Any, looped_page: str) -> None:
    shown = Reader(looped_page).text
    origins = set()
    for phase in _phases(looped):
        for source in phase["targets"]["sources"]:
            sets = "failed in RL" if source["style"] == "critique" else "sft"
            covered = f"{source['covered']} ({100 * source['covered'] / source['problems']:.0f} %)"
            assert f"{source['style']} {sets} {source['problems']} {covered}" in shown
            for origin, row in source["by_origin"].items():
                origins.add(origin)
                accepted = f"{row['accepted']} ({100 * row['accepted'] / row['candidates']:.0f} %)"
                measured = f"{row['tokens']:.1f} {row['nll']:.2f} {math.exp(row['nll']):.1f}"
                assert f"{origin} {row['candidates']} {accepted} {row['targets']} {measured}" in shown
        for note, n in phase["targets"]["notes"].items():
            assert f"{' '.join(note.split())} ({n})" in shown
    assert origins == set(supervision.ORIGINS)


def test_problems_with_a_target_from_any_source_are_counted_once(looped: Any, looped_page: str) -> None:
    run, built = _built(looped)
    for build in built:
        ids = set(_table(looped, build, "targets")["problem_id"])
        assert supervision.covered(run, build) == (len(ids), 75)  # half of 150 problems
        title = f"{build.title}: {build.facts['n']} targets, {build.facts['accepted']} of them accepted"
        assert f"{title}; {len(ids)} of 75 problems have one" in Reader(looped_page).text


def test_problems_without_a_target_are_counted_by_reason_and_named(looped: Any, looped_page: str) -> None:
    shown = Reader(looped_page).text
    run, built = _built(looped)
    for build in built:
        table = _table(looped, build, "coverage").filter(pl.col("targets") == 0)
        for source in supervision.uncovered(run, build):
            for reason in source["reasons"]:
                same = (pl.col("style") == source["style"]) & (pl.col("reason") == reason["why"])
                ids = sorted(table.filter(same)["problem_id"])
                assert (reason["n"], reason["ids"], reason["more"]) == (len(ids), ids[:3], max(0, len(ids) - 3))
                assert f"{reason['why']} {len(ids)} {', '.join(ids[:3])}" in shown


def test_two_sources_of_one_style_are_not_told_apart_by_their_coverage(loop: Any) -> None:
    sources = _phases(loop)[0]["targets"]["sources"]
    sources.append(sources[0])
    run, (first, _) = _built(loop)
    rows = [row for row in supervision.uncovered(run, first) if row["style"] == "solution"]
    assert len(rows) == 2
    assert all(reason["ids"] == [] for row in rows for reason in row["reasons"])


def test_many_reasons_are_added_up() -> None:
    counts = {f"reason {i}": 20 - i for i in range(9)}
    assert supervision.top(counts, 3) == [
        ("reason 0", 20), ("reason 1", 19), ("reason 2", 18), ("6 other reasons", sum(range(12, 18))),
    ]  # fmt: skip
    assert supervision.top(dict(list(counts.items())[:4]), 3)[-1] == ("reason 3", 17)  # one is named


def test_correct_candidates_that_were_refused_say_why(looped: Any) -> None:
    run, built = _built(looped)
    table = _table(looped, built[0], "candidates")
    left = table.filter(~pl.col("raw") & ~pl.col("accepted") & (pl.col("verdict") == "correct"))
    assert left.height > 5
    found = supervision.refused(run, built[0])
    assert sum(n for _, n in found) == left.height
    assert all(re.match(r"(?s)bridge: it says '.*'$|\d+ other reasons$", why) for why, _ in found)


def test_causes_of_refusal_are_counted_whoever_was_refused() -> None:
    reasons = [
        "rewrite by a (x), refused (it says 'so (b)')", "rewrite by b, refused (it says 'so (b)')",
        "response of a, not verified (cut): the box (5) equals 5", "agrees: by hand", None,
    ]  # fmt: skip
    rows: list[dict[str, object]] = [
        {"origin": "bridge", "raw": False, "accepted": False, "verdict": "correct", "reason": why} for why in reasons
    ]
    rows += [rows[0] | {"verdict": "wrong"}, rows[0] | {"raw": True}, rows[0] | {"accepted": True}]
    assert supervision.refusals(frame("candidate", rows)) == {
        ("bridge", "it says 'so (b)'"): 2,
        ("bridge", "cut"): 1,
        ("bridge", "agrees"): 1,
        ("bridge", "no reason given"): 1,
    }


def test_the_likelihood_figure_shows_every_origin_and_the_raw_traces(looped: Any) -> None:
    run, built = _built(looped)
    (figure,) = likelihood.strips(run, built)
    labels = figure["layout"]["yaxis"]["ticktext"]
    raw = "raw traces, not imitated"
    assert labels == [
        "human", "reference", "teacher", "bridge", raw, "self", "bridge", "diagnosis", "repair", "new_trace", raw,
    ]  # fmt: skip
    middle = dict(zip(zip(["1-sft"] * 5 + ["3-sft"] * 6, labels, strict=True), figure["data"][-1]["x"], strict=True))
    for build in built:
        targets, candidates = _table(looped, build, "targets"), _table(looped, build, "candidates")
        for origin, nll in targets.group_by("origin").agg(pl.col("nll").median()).rows():
            assert middle[build.title[-5:], origin] == pytest.approx(nll)
        assert middle[build.title[-5:], raw] == pytest.approx(candidates.filter("raw")["nll"].median())


def test_a_row_of_many_values_is_thinned_to_the_same_spread() -> None:
    row = likelihood.Values([0.01 * i for i in range(1000)], 1000)
    figure = likelihood._strips([("arm", [("teacher", row, "#000")])], 9.99)
    points = figure["data"][0]["x"]
    assert len(points) <= likelihood.MAX_POINTS
    assert (points[0], points[len(points) // 2]) == (0, pytest.approx(5, abs=0.05))
    assert figure["layout"]["annotations"][-1]["text"] == "5.00 [2.50, 7.49], n = 1,000"


def test_without_measured_likelihoods_the_page_says_so(loop: Any) -> None:
    for build in _built(loop)[1]:
        for name in ("targets", "candidates"):
            _table(loop, build, name).with_columns(nll=pl.lit(None, dtype=pl.Float64)).write_parquet(
                loop.folder / getattr(build.paths, name)
            )
    for phase in _phases(loop):
        for source in phase["targets"]["sources"]:
            for row in source["by_origin"].values():
                row["nll"] = None
            if source["bridge"]:
                source["bridge"]["difference"].update(nll=None, low=None, high=None)
                for side in ("raw", "rewrite"):
                    source["bridge"][side].update(nll=None, perplexity=None)
                del source["bridge"]["rewrite"]["nll_accepted"]
    page = loop.write()
    shown = Reader(page).text
    assert "The student's likelihood of the targets was not measured." in shown
    assert 'id="fig-likelihood"' not in page
    assert "were both measured, so nothing can be said." in shown
    assert re.search(r"nan|None", shown) is None
    run, built = _built(loop)
    figure = likelihood.before_after(run, built)
    assert figure is not None  # lengths are known still
    assert {trace["xaxis"] for trace in figure["data"]} == {"x"}
    assert [one["label"] for one in traces.rewrites(run, built[0])] == ["first", "middle", "last"]


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (-0.2, -0.01, "the chosen rewrites are likelier under the student"),
        (0.01, 0.2, "the chosen rewrites are less likely under the student"),
        (-0.1, 0.2, "(90 %, n = 14 problems): not distinguishable from zero."),
        (-0.1, 0.0, "not distinguishable from zero."),
        (None, None, "too few for an interval."),
    ],
)
def test_what_rewriting_changed_is_said_by_its_interval(low: float | None, high: float | None, said: str) -> None:
    bridge = {"n": 14, "difference": {"nll": 0.05, "low": low, "high": high, "level": 0.9}}
    assert said in supervision.rewriting(bridge)
    assert "+0.050 nats per token" in supervision.rewriting(bridge)


def test_bridge_is_shown_before_and_after(looped: Any, looped_page: str) -> None:
    shown = Reader(looped_page).text
    for phase in _phases(looped):
        (bridge,) = [source["bridge"] for source in phase["targets"]["sources"] if source["bridge"]]
        for name, side in (("raw trace", bridge["raw"]), ("rewrite", bridge["rewrite"])):
            share = f"{side['verified']} of {side['of']} {100 * side['verified'] / side['of']:.1f} %"
            assert f"{name} {share} {side['tokens']:.1f} {side['nll']:.2f} {math.exp(side['nll']):.1f}" in shown
        assert f"all accepted rewrites of these problems {bridge['rewrite']['nll_accepted']:.2f}" in shown
        assert supervision.rewriting(bridge) in shown


def test_pairs_are_the_problems_with_a_chosen_rewrite(looped: Any) -> None:
    run, built = _built(looped)
    for build in built:
        candidates = _table(looped, build, "candidates")
        new = candidates.filter((pl.col("origin") == "bridge") & pl.col("chosen")).sort("problem_id")
        found = likelihood.pairs(run, build)
        assert found["problem_id"].to_list() == new["problem_id"].to_list()
        assert found["nll_new"].to_list() == new["nll"].to_list()
        raw = dict(candidates.filter("raw").select("problem_id", "response").rows())
        assert found["response_raw"].to_list() == [raw[problem] for problem in found["problem_id"]]


def test_examples_of_rewriting_are_the_extremes_and_the_middle(looped: Any, looped_page: str) -> None:
    run, built = _built(looped)
    table = likelihood.pairs(run, built[0])
    gaps = sorted((table["nll_new"] - table["nll_raw"]).to_list())
    shown = traces.rewrites(run, built[0])
    assert [one["gap"] for one in shown] == [gaps[0], gaps[(len(gaps) - 1) // 2], gaps[-1]]
    page = Reader(looped_page).text
    assert f"most in favour of the rewrite: {text.signed(gaps[0], 2)} nats per token" in page


def test_one_rewrite_makes_one_example(loop: Any) -> None:
    run, built = _built(loop)
    keep = likelihood.pairs(run, built[0])["problem_id"][0]
    table = _table(loop, built[0], "candidates").filter(pl.col("problem_id") == keep)
    table.write_parquet(loop.folder / built[0].paths.candidates)
    assert [one["problem"]["id"] for one in traces.rewrites(run, built[0])] == [keep]


def test_critique_is_counted_by_kind_with_one_example_each(looped: Any, looped_page: str) -> None:
    run, built = _built(looped)
    assert traces.critiques(run, built[0]) == []
    found = traces.critiques(run, built[1])
    table = _table(looped, built[1], "candidates")
    shown = Reader(looped_page).text
    assert [one["kind"] for one in found] == list(traces.KINDS)
    for one in found:
        mine = table.filter(pl.col("origin") == one["kind"])
        verdicts = " ".join(str(mine.filter(pl.col("verdict") == verdict).height) for verdict in data.VERDICTS)
        counts = f"{one['kind']} {mine['problem_id'].n_unique()} {mine.height} {verdicts} {mine['accepted'].sum()}"
        assert counts in shown
        first = mine.filter("chosen").sort("problem_id", "index").row(0, named=True)
        assert (one["example"]["problem_id"], one["example"]["index"]) == (first["problem_id"], first["index"])


def test_what_is_given_is_told_from_what_is_imitated(looped: Any, looped_page: str) -> None:
    page = looped_page
    run, built = _built(looped)
    by_kind = {one["kind"]: one["example"] for one in traces.critiques(run, built[1])}
    assert "Attempt:" in by_kind["diagnosis"]["asked"]["head"]
    assert "asked of the critic, and of the student in training" in page
    assert by_kind["new_trace"]["asked"] is None
    assert page.count('<pre class="data begun"') == page.count("given above, imitated below") == 1
    assert by_kind["repair"]["begun"]["head"].startswith("First,")


def test_a_critique_without_any_target_shows_a_candidate_that_was_refused(loop: Any) -> None:
    run, built = _built(loop)
    table = _table(loop, built[1], "candidates")
    table.with_columns(accepted=pl.lit(False), chosen=pl.lit(False)).write_parquet(
        loop.folder / built[1].paths.candidates
    )
    examples = [one["example"] for one in traces.critiques(run, built[1])]
    assert [(one["accepted"], one["index"]) for one in examples] == [(False, 0)] * 3
    assert "repair not accepted" in Reader(loop.write()).text


def test_what_asking_cost_is_added_up(looped: Any, looped_page: str) -> None:
    shown = Reader(looped_page).text
    calls = [call for source in _phases(looped)[1]["targets"]["sources"] for call in source["asked"]]
    prices = [call["price"] for call in calls]
    assert None in prices
    responses, stored = sum(call["responses"] for call in calls), sum(call["stored"] for call in calls)
    whole = f"{16160 * len(calls):,} {43210 * len(calls):,} ${sum(price or 0 for price in prices):.2f}"
    assert f"all {responses:,} {stored:,} {whole}" in shown
    assert "self-self embedded@0.1.2 75 300 0 16,160 43,210 –" in shown


@pytest.mark.parametrize(
    ("value", "wanted"), [(12.5, "$12.50"), (0.0123, "$0.01"), (0.00123, "$0.0012"), (0, "$0.00"), (None, "–")]
)
def test_prices_of_less_than_a_cent_keep_two_figures(value: Any, wanted: str) -> None:
    assert text.money(value) == wanted


def test_rounds_show_how_sets_and_pass_rates_move(looped: Any, looped_page: str) -> None:
    page = looped_page
    shown = Reader(page).text
    moved = {(row["seed"], row["round"]): row for row in looped.summary["arms"][0]["rounds"]}
    for label, key in (("round 1, all seeds", (0, 1)), ("round 2, seed 0", (0, 2)), ("round 2, seed 1", (1, 2))):
        row = moved[key]
        sets = " ".join(
            f"{row['sets'][name]['n']} ({100 * row['sets'][name]['mean_pass_rate']:.1f} %)"
            for name in ("sft", "rl", "drop")
        )
        assert f"{label} {100 * row['pass_rate']:.1f} % {sets}" in shown
    assert shown.count("round 1, all seeds") == 1
    (figure,) = rounds.figures(data.load(looped.folder))
    bars = {trace["name"]: trace["x"] for trace in figure["data"] if trace["type"] == "bar"}
    assert [sum(sizes) for sizes in zip(*bars.values(), strict=True)] == [150] * 3
    assert "round 1: 1-sft on sft → 2-rl on rlround 2: 3-sft on sft → 4-rl on rl" in shown
    assert "Sets of round 1" in shown


def test_seeds_that_begin_differently_are_told_apart_in_round_one(loop: Any) -> None:
    loop.summary["arms"][0]["rounds"][0]["pass_rate"] = 0.123
    shown = Reader(loop.write()).text
    assert "round 1, seed 0 12.3 %" in shown
    assert "round 1, all seeds" not in shown


def test_one_round_shows_no_rounds(fresh: Any) -> None:
    page = fresh.write()
    assert "From round to round" not in page
    assert "Sets of round 1" not in page
    assert "round 1:" not in Reader(page).text


def test_a_step_that_two_arms_share_is_shown_once(pair: Any) -> None:
    first, second = pair.summary["arms"]
    second["phases"] = [first["phases"][0], second["phases"][0] | {"index": 2}]
    listed = pair.summary["artifacts"]["targets"]
    listed.append(listed[0] | {"arm": second["name"]})
    assert [build.title for build in _built(pair)[1]] == ["dereason, random: 1-sft"]


def test_a_seed_with_a_step_of_its_own_is_named(loop: Any) -> None:
    listed = [t for t in loop.summary["artifacts"]["targets"] if t["phase"] == 3]
    for key in ("path", "candidates", "coverage"):
        copy = listed[1][key].replace("targets-0-3", "other")
        (loop.folder / copy).parent.mkdir(exist_ok=True)
        (loop.folder / copy).write_bytes((loop.folder / listed[1][key]).read_bytes())
        listed[1][key] = copy
    assert [build.title for build in _built(loop)[1]] == ["stage-specific: 1-sft", "stage-specific: 3-sft, seed 0"]


def test_a_long_name_does_not_hide_the_phase_in_figures() -> None:
    assert supervision._title({"3-sft": ["a" * 50]}, None, 32) == "a" * 31 + "…: 3-sft"


def test_a_step_that_found_nothing(loop: Any) -> None:
    """A later round may leave an entry without problems, or all of them without a target."""
    facts = _phases(loop)[1]["targets"]
    nothing = {"problems": 0, "candidates": 0, "accepted": 0, "targets": 0, "covered": 0, "uncovered": {}}
    facts.update(n=0, accepted=0, notes={}, confusion=None)
    facts["sources"] = [
        source | nothing | {"by_origin": {}, "bridge": None, "asked": []} for source in facts["sources"]
    ]
    (build,) = [build for build in _built(loop)[1] if build.title.endswith("3-sft")]
    for kind, path in (
        ("target", build.paths.targets),
        ("candidate", build.paths.candidates),
        ("coverage", build.paths.coverage),
    ):
        write_table(frame(kind, []), loop.folder / path)
    shown = Reader(loop.write()).text
    assert "stage-specific: 3-sft: 0 targets, 0 of them accepted; 0 of 0 problems have one" in shown
    assert "self sft 0 0 – 0 0 0 – – –" in shown
    assert "Critique of failed rollouts" not in shown


def test_a_run_without_targets_says_so(pair: Any) -> None:
    pair.summary["artifacts"]["targets"] = []
    for arm in pair.summary["arms"]:
        for phase in arm["phases"]:
            phase["targets"] = None
    assert "No phase imitates targets." in pair.write()


def test_a_card_shows_the_target_that_replies_to_the_problem(loop: Any) -> None:
    """A diagnosis replies to something else; it is counted, and not shown as the problem's target."""
    path = loop.folder / loop.summary["artifacts"]["targets"][0]["path"]
    table = pl.read_parquet(path)
    other = table.with_columns(prompt=pl.lit("Check this."), response=pl.lit("NOT THE PROBLEM'S"))
    pl.concat([other, table]).write_parquet(path)
    page = loop.write()
    assert "NOT THE PROBLEM" not in page
    assert re.search(r"; \d more of this problem\)", page)


@pytest.mark.parametrize(
    ("remove", "named"),
    [
        (("arms", 0, "rounds"), r"arms\[0\] has no rounds"),
        (("arms", 0, "rounds", 1, "pass_rate"), r"arms\[0\]\.rounds\[1\] has no pass_rate"),
        (("arms", 0, "phases", 1, "sets"), r"arms\[0\]\.phases\[1\] has no sets"),
        (("arms", 0, "phases", 0, "targets", "notes"), r"arms\[0\]\.phases\[0\]\.targets has no notes"),
        (
            ("arms", 0, "phases", 0, "targets", "sources", 0, "asked"),
            r"arms\[0\]\.phases\[0\]\.targets\.sources\[0\] has no asked",
        ),
        (("artifacts", "targets", 0, "coverage"), r"artifacts\.targets\[0\] has no coverage"),
    ],
)
def test_missing_facts_are_named(loop: Any, remove: tuple[Any, ...], named: str) -> None:
    inner = loop.summary
    for key in remove[:-1]:
        inner = inner[key]
    del inner[remove[-1]]
    with pytest.raises(DereasonError, match=named):
        loop.write()


@pytest.mark.parametrize("kind", ["candidates", "coverage"])
def test_a_missing_table_of_supervision_is_named(fresh: Any, kind: str) -> None:
    path = fresh.summary["artifacts"]["targets"][0][kind]
    (fresh.folder / path).unlink()
    with pytest.raises(DereasonError, match=path):
        fresh.write()


def test_hostile_text_of_supervision_stays_text(looped: Any, looped_page: str) -> None:
    read = Reader(looped_page)
    assert not {tag for tag, _ in read.elements} & {"img", "b", "iframe", "object", "embed", "link"}
    assert not [name for _, attrs in read.elements for name in attrs if name.startswith("on")]
    tags = {t for figure in read.figures() for s in strings(figure) for t in re.findall(r"<[^>]*>", s)}
    assert tags == {"<b>", "</b>", "<extra>", "</extra>"}
    graph_objects = pytest.importorskip("plotly.graph_objects")
    for figure in read.figures():
        graph_objects.Figure(figure)  # raises on any property that plotly does not know


@pytest.mark.skipif(browser.find() is None, reason="no chromium or chrome on the path")
def test_the_figures_of_supervision_are_drawn(looped: Any, tmp_path: Path) -> None:
    page = browser.load(write_report(looped.folder), tmp_path)
    assert page.errors == []
    run, built = _built(looped)
    measured = sum(_table(looped, b, "targets").height + _table(looped, b, "candidates")["raw"].sum() for b in built)
    # One diamond a row.
    assert page.drawn("fig-likelihood") == measured + 11
    assert page.drawn("fig-bridge") == 2 * sum(likelihood.pairs(run, build).height for build in built)
    assert page.drawn("fig-rounds", "bars") > 0
    # In each of three rows the pool and three sets, by pass rate and by size.
    assert page.drawn("fig-rounds") == 3 * (1 + 3 + 3)
    # The window of this browser is narrower than any figure may become.
    assert 'id="fig-rounds-plot" style="--drawn: 900;"' in re.sub(r' class="[^"]*"', "", page.dom)
