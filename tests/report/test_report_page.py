"""What the page says: numbers as in the summary, sentences by rule, nothing run or fetched, gaps named."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import synthetic
from reading import Reader, strings

from dereason.report import curves, data, difficulty, headline, results, text, write_report
from dereason.report import page as page_module


def test_every_number_of_the_results_is_on_the_page(made: Any, page: str) -> None:
    shown = Reader(page).text
    for row in made.summary["results"]:
        seed = "all" if row["stage"] == "base" else row["seed"]
        cells = f"{seed} {100 * row['accuracy']:.1f} % [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"
        assert cells in shown
        assert f"{100 * row['answered_accuracy']:.1f} %" in shown
    for row in made.summary["comparisons"]:
        sign = "+" if row["difference"] > 0 else "−"
        assert f"{row['from']} {row['to']} {row['seed']} {sign}{abs(100 * row['difference']):.1f}" in shown
    assert "1,234,567" in shown
    assert "3.07 GiB" in shown
    assert "19 % 131 2.5 GiB no steps/train-dereason-0-1" in shown
    assert "135 M parameters" in shown
    assert "8 min 32 s" in shown
    for row in made.summary["arm_comparisons"]:
        sign = "+" if row["difference"] > 0 else "−"
        assert f"{row['seed']} {sign}{abs(100 * row['difference']):.1f} [" in shown
    assert "−0.41 [−0.49, −0.32] (90 % interval, n = 400 problems)" in shown
    assert "SmolLM2-135M-Instruct, dequantised 4-bit (Q4_1)" in shown


def test_shares_of_answered_are_recomputed_from_the_verdicts(made: Any, page: str) -> None:
    shown = Reader(page).text
    for row in made.summary["results"]:
        v = row["verdicts"]
        share = (v["correct"] + v["wrong"]) / (v["correct"] + v["wrong"] + v["unparsable"] + v["truncated"])
        strict = row["strict"]
        marked = f"{100 * strict['accuracy']:.1f} % [{100 * strict['low']:.1f}, {100 * strict['high']:.1f}]"
        rules = ", ".join(f"{rule} {100 * part:.0f} %" for rule, part in row["found_by"].items())
        assert f"{row['high'] * 100:.1f}] {marked} {rules} {100 * share:.1f} %" in shown


def test_verdicts_by_kind_stand_beside_every_evaluation(made: Any, page: str) -> None:
    shown = Reader(page).text
    for row in made.summary["results"]:
        for kind, counts in row["confusion"]["kinds"].items():
            cells = " ".join(str(counts[verdict]) for verdict in synthetic.VERDICTS)
            shares = " ".join(f"{100 * counts[name] / counts['n']:.1f} %" for name in ("correct", "strict"))
            assert f"{kind} {cells} {counts['strict']} {counts['n']} {shares}" in shown
            assert counts["n"] == sum(counts[v] for v in synthetic.VERDICTS if v != "error")
        if row["verdicts"]["error"]:
            assert f"took longer than 5 s {synthetic.SCRIPT} ({row['verdicts']['error']})" in shown
    for arm in made.summary["arms"]:
        assert f"rollouts: {' '.join(arm['name'].split())}, after 2-rl, seed 1" in shown
    assert "profile: responses of the untrained model" in shown


def test_how_problems_were_read_is_said(made: Any, page: str) -> None:
    shown = Reader(page).text
    assert made.summary["problems"]["reading"]
    assert all(words in shown for words in made.summary["problems"]["reading"])


def test_hostile_text_makes_no_element_and_no_script(page: str) -> None:
    read = Reader(page)
    tags = {tag for tag, _ in read.elements}
    assert not tags & {"img", "b", "iframe", "object", "embed", "link"}
    assert [a["href"] for tag, a in read.elements if tag == "a"] == [
        "#results", "#what", "#difficulty", "#problems", "#supervision", "#training", "#responses", "#record",
    ]  # fmt: skip
    assert not [name for _, attrs in read.elements for name in attrs if name.startswith("on")]
    assert len([a for tag, a in read.elements if tag == "script" and "data-figure" not in a]) == 2
    for hostile in (synthetic.SCRIPT, synthetic.CLOSE, synthetic.MARKUP, synthetic.LATEX):
        assert " ".join(hostile.split()) in read.text


def test_plotly_gets_no_markup_from_data(page: str) -> None:
    # Our own headings are the only tags in any string of any figure: plotly reads HTML in all of them.
    figures = Reader(page).figures()
    assert len(figures) == 10  # accuracy, differences, domains, histograms, agreement, likelihood, 2 arms x 2 phases
    tags = {tag for figure in figures for string in strings(figure) for tag in re.findall(r"<[^>]*>", string)}
    assert tags == {"<b>", "</b>", "<extra>", "</extra>"}
    headings = [note["text"] for figure in figures for note in figure["layout"].get("annotations", [])]
    assert any("&lt;a href=" in heading for heading in headings)
    templates = [t["hovertemplate"] for figure in figures for t in figure["data"] if "hovertemplate" in t]
    ours = r"(seed \d, step %\{x\}: %\{y:.4g\}|%\{x:.3f\} nats per token)<extra></extra>"
    assert all(re.fullmatch(ours, template) for template in templates)


def test_the_page_fetches_nothing_and_allows_only_its_two_scripts(page: str) -> None:
    read = Reader(page)
    for _, attrs in read.elements:
        assert "src" not in attrs
        assert not (attrs.get("href") or "#").startswith(("http", "//"))
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    policy = next(a["content"] for _, a in read.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none';")
    for script in read.scripts[-2:]:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert policy.count("sha256-") == 2


def test_figures_fit_plotlys_own_schema(page: str) -> None:
    graph_objects = pytest.importorskip("plotly.graph_objects")
    for figure in Reader(page).figures():
        graph_objects.Figure(figure)  # raises on any property that plotly does not know


def test_one_arm_and_seed_make_the_sentence(fresh: Any) -> None:
    base, _, last = fresh.summary["results"]
    fresh.summary["comparisons"][1].update(difference=0.0171, low=-0.008, high=0.0423)
    shown = Reader(fresh.write()).text
    assert f"base {100 * base['accuracy']:.1f} % [{100 * base['low']:.1f}, {100 * base['high']:.1f}] →" in shown
    assert f"after 2-rl {100 * last['accuracy']:.1f} %" in shown
    assert "on 40 held-out problems; what RL adds over SFT: +1.7 points [−0.8, +4.2], not distinguishable" in shown


@pytest.mark.parametrize(
    ("low", "high", "reading"),
    [
        (0.001, 0.1, "a gain"),
        (-0.1, -0.001, "a loss"),
        (-0.1, 0.1, "not distinguishable from zero"),
        (0.0, 0.1, "not distinguishable from zero"),
    ],
)
def test_a_difference_is_called_one_only_if_its_interval_excludes_zero(low: float, high: float, reading: str) -> None:
    assert headline.verdict([{"low": low, "high": high}]) == reading
    assert results.excludes_zero({"low": low, "high": high}) == (reading != "not distinguishable from zero")


def test_several_seeds_are_counted_in_the_reading() -> None:
    gain, none, loss = {"low": 0.01, "high": 0.1}, {"low": -0.1, "high": 0.1}, {"low": -0.1, "high": -0.01}
    assert headline.verdict([gain, gain]) == "a gain with every seed"
    assert headline.verdict([none, none]) == "not distinguishable from zero with any seed"
    assert headline.verdict([gain, none]).startswith("a gain with 1 of 2 seeds, otherwise not")
    assert headline.verdict([gain, loss]) == "a gain with 1 of 2 seeds, a loss with 1 of 2 seeds"


def test_two_arms_are_compared_in_a_sentence_and_a_table(pair: Any) -> None:
    strict = {"difference": 0.02, "low": -0.01, "high": 0.05}
    pair.summary["arm_comparisons"][0].update(difference=-0.0123, low=-0.041, high=0.016, level=0.9, strict=strict)
    shown = Reader(pair.write()).text
    row = "−1.2 [−4.1, +1.6] +2.0 [−1.0, +5.0] 90 % not distinguishable from zero 40"
    assert f"dereason, after 2-rl random, after 1-rl 0 {row}" in shown
    sentence = "dereason → random: −1.2 points [−4.1, +1.6], not distinguishable from zero."
    assert f"Between arms (last stages, paired by problem): {sentence}" in shown
    assert "paired by problem. The interval covers the choice of problems, not the spread" in shown
    pair.summary["arm_comparisons"][0].update(high=-0.001)
    shown = Reader(pair.write()).text
    assert "dereason → random: −1.2 points [−4.1, −0.1], a loss." in shown
    assert "−1.2 [−4.1, −0.1] +2.0 [−1.0, +5.0] 90 % a loss 40" in shown


def test_arms_keep_an_interval_for_each_seed(pair: Any) -> None:
    row = pair.summary["arm_comparisons"][0]
    row.update(difference=0.05, low=0.01, high=0.09)
    # Out of order on purpose: the page sorts by seed.
    pair.summary["arm_comparisons"].insert(0, row | {"seed": 1, "difference": 0.01, "low": -0.03, "high": 0.05})
    shown = Reader(pair.write()).text
    assert (
        "dereason → random: +5.0 points [+1.0, +9.0] (seed 0), +1.0 points [−3.0, +5.0] (seed 1), "
        "a gain with 1 of 2 seeds, otherwise not distinguishable from zero." in shown
    )
    assert shown.index("after 1-rl 0 +5.0") < shown.index("after 1-rl 1 +1.0")


def test_many_arms_are_compared_in_the_headline_table(pair: Any) -> None:
    first = pair.summary["arms"][0]
    pair.summary["arms"] += [first | {"name": name} for name in ("third", "fourth")]
    pair.summary["artifacts"]["routes"] |= dict.fromkeys(
        ("third", "fourth"), pair.summary["artifacts"]["routes"]["random"]
    )
    known = pair.summary["arm_comparisons"][0]
    pair.summary["arm_comparisons"].append(known | {"to": "fourth", "difference": 0.2, "low": 0.1, "high": 0.3})
    head = Reader(pair.write()).text.split("Results What was run")[0]
    assert "last stage, paired with dereason" in head
    assert "+20.0 points [+10.0, +30.0], a gain" in head
    assert "Between arms" not in head


def test_one_arm_has_nothing_to_compare(fresh: Any) -> None:
    assert fresh.summary["arm_comparisons"] == []
    shown = Reader(fresh.write()).text
    assert "etween arms" not in shown
    assert "arms in the figure" not in shown


def test_a_summary_without_comparisons_of_arms_says_so(pair: Any) -> None:
    pair.summary["arm_comparisons"] = []
    shown = Reader(pair.write()).text
    assert "The summary holds no paired comparisons between arms." in shown
    assert "Between arms" not in shown


def test_a_shared_base_is_shown_once(pair: Any) -> None:
    base = next(row for row in pair.summary["results"] if row["stage"] == "base")
    cells = f"base 0 {100 * base['accuracy']:.1f} % ["
    label = "one evaluation of the base model, shared by all arms base 0"
    shown = Reader(pair.write()).text
    assert shown.count(cells) == 1
    assert label in shown
    assert "The base rows all show the same evaluation." in shown
    other = [row for row in pair.summary["results"] if row["stage"] == "base"][1]
    other["mean_tokens"] += 1
    shown = Reader(pair.write()).text
    assert shown.count(cells) == 2
    assert label not in shown
    assert "The base rows all show" not in shown


def test_equal_numbers_of_two_base_evaluations_are_not_called_one(pair: Any) -> None:
    listed = [sample for sample in pair.summary["artifacts"]["samples"] if sample["stage"] == "base"]
    copy = pair.folder / "steps/copy.parquet"
    copy.write_bytes((pair.folder / listed[1]["path"]).read_bytes())
    listed[1]["path"] = "steps/copy.parquet"
    assert "one evaluation of the base model" not in pair.write()


def test_a_base_of_one_arm_and_seed_is_not_called_shared(fresh: Any, page: str) -> None:
    assert "one evaluation of the base model" not in fresh.write()
    assert "one evaluation of the base model, shared by all arms and seeds" in page


def test_histograms_count_every_problem_once(made: Any) -> None:
    run = data.load(made.folder)
    figure = difficulty.histograms(run)
    assert figure is not None
    for arm, name in enumerate(run.routes):
        sizes = {s["set"]: s["len"] for s in run.routes[name].group_by("set").len().to_dicts()}
        for col in range(2):
            axis = "x" if arm + col == 0 else f"x{2 * arm + col + 1}"
            bars = {t["name"]: sum(t["y"]) for t in figure["data"] if t["xaxis"] == axis}
            assert bars == sizes


def test_pass_rates_fall_in_their_own_bar(made: Any) -> None:
    run = data.load(made.folder)
    figure = difficulty.histograms(run)
    assert figure is not None
    assert run.profiles is not None
    total = [0] * 5
    for trace in figure["data"]:
        if trace["xaxis"] == "x2":
            assert trace["x"] == [0, 0.25, 0.5, 0.75, 1]
            total = [a + b for a, b in zip(total, trace["y"], strict=True)]
    assert total == [run.profiles.filter(pl.col("correct") == c).height for c in range(5)]


def test_judge_scores_fall_in_the_bar_that_covers_them(made: Any) -> None:
    run = data.load(made.folder)
    figure = difficulty.histograms(run)
    assert figure is not None
    assert run.profiles is not None
    scores = run.profiles["judge_expectation"].to_list()
    first = [trace for trace in figure["data"] if trace["xaxis"] == "x"]
    centres = first[0]["x"]
    half = (centres[1] - centres[0]) / 2
    heights = [sum(column) for column in zip(*(trace["y"] for trace in first), strict=True)]
    assert heights == [sum(c - half <= score < c + half for score in scores) for c in centres]


def test_json_in_a_script_cannot_end_it() -> None:
    hostile = {"text": [synthetic.CLOSE, "<!--<script>", "\u2028&", math.nan]}
    dumped = str(page_module._json(hostile))
    assert not set("<>&\u2028") & set(dumped)
    assert json.loads(dumped) == {"text": [*hostile["text"][:3], None]}


def test_moving_average_equals_the_mean_of_the_window() -> None:
    assert curves.moving_average([1.0, 2.0, 6.0, 3.0], 3) == [1.5, 3.0, 11 / 3, 4.5]


def test_curves_skip_lines_without_the_key(made: Any) -> None:
    curve = next(c for c in data.load(made.folder).curves if c.kind == "rl")
    steps, values = curves.series(curve, "reward")
    assert steps == [step for step in range(1, 121) if step % 17]
    assert all(math.isfinite(value) for value in values)
    assert curves.series(curve, "truncated")[1][0] == pytest.approx(0.2 * (1 - 1 / 120))


def test_one_figure_of_a_phase_shows_what_matters(made: Any) -> None:
    """A quantity that stays at zero, as the verifier's errors and tags here, takes no room."""
    phases = curves.phases(data.load(made.folder))
    shown = {p.kind: [note["text"] for note in p.figure["layout"]["annotations"]] for p in phases if p.figure}
    assert shown["sft"] == [
        "loss, nats per token", "token accuracy", "gradient norm", "tokens per second", "peak memory of a step, GiB",
    ]  # fmt: skip
    assert shown["rl"] == [
        "mean reward", "mixed groups", "right by any answer (lenient)", "right by a marked answer (strict)",
        "lenient less strict", "answers without a mark", "answers in a box", "last numbers, unmarked",
        "correct responses", "wrong responses",
        "unparsable responses", "truncated responses", "response length, tokens", "entropy, nats per token",
        "clipped tokens", "KL to the start, nats per token", "gradient norm", "tokens per second",
        "peak memory of a step, GiB",
    ]  # fmt: skip


def test_without_a_profile_the_page_says_so(fresh: Any) -> None:
    fresh.summary["profile"] = None
    fresh.summary["artifacts"]["profiles"] = None
    page = fresh.write()
    assert "No arm needed a profile" in page
    assert 'id="fig-histograms"' not in page
    assert "not sampled" in page


def test_a_profile_of_judge_scores_only(fresh: Any) -> None:
    fresh.summary["profile"].update(k=None, sampling=None, spearman=None, verdicts=None)
    path = fresh.folder / fresh.summary["artifacts"]["profiles"]
    blank = [pl.lit(None, dtype=t).alias(c) for c, t in {"pass_rate": pl.Float64, "correct": pl.Int32}.items()]
    pl.read_parquet(path).with_columns(*blank, pl.lit(0, dtype=pl.Int32).alias("n")).write_parquet(path)
    page = fresh.write()
    assert "No responses were sampled for the profile." in page
    assert "one of the two was not measured" in page
    assert 'id="fig-histograms"' in page
    assert 'id="fig-agreement"' not in page


def test_without_results_the_page_says_so(fresh: Any) -> None:
    fresh.summary.update(results=[], comparisons=[])
    fresh.summary["artifacts"]["samples"] = []
    page = fresh.write()
    for sentence in (
        "no evaluation results",
        "no paired comparisons",
        "No results by domain",
        "lists no evaluation",
    ):
        assert sentence in page


def test_missing_empty_and_broken_training_logs(fresh: Any) -> None:
    sft, rl = (fresh.folder / c["path"] for c in fresh.summary["artifacts"]["curves"])
    sft.unlink()
    rl.write_text("", encoding="utf-8")
    shown = Reader(fresh.write()).text
    assert f"{fresh.summary['artifacts']['curves'][0]['path']} is not there" in shown
    assert "holds no logged step" in shown
    rl.write_text('{"step": 1, "reward": 0.5}\n{"step": 2, "rew', encoding="utf-8")
    shown = Reader(fresh.write()).text
    assert "1 unreadable line, left out" in shown
    assert "The log has no mixed_groups, completion_length, entropy." in shown
    fresh.summary["artifacts"]["curves"] = []
    assert "No training log is listed for this phase." in fresh.write()


def test_zero_verdicts_and_null_numbers_show_as_dashes(fresh: Any) -> None:
    row = fresh.summary["results"][0]
    row.update(verdicts={}, answered_accuracy=None, mean_tokens=None)
    fresh.summary["peak_memory_bytes"] = None
    fresh.summary["arms"][0]["sets"]["rl"]["mean_judge"] = None
    shown = Reader(fresh.write()).text
    assert "peak memory –" in shown
    assert "None" not in shown
    assert "nan" not in shown


def test_long_responses_keep_their_end_and_say_what_is_left_out(page: str) -> None:
    left_out = re.search(r"\[([\d,]+) characters left out\]", page)
    assert left_out is not None
    assert "Whole text: <code>steps/eval-" in page


def test_writing_twice_gives_the_same_page_and_leaves_no_part(fresh: Any) -> None:
    assert fresh.write() == fresh.write()
    assert not list(fresh.folder.glob("*.part"))


def test_lone_surrogates_and_odd_names_do_not_stop_the_page(fresh: Any) -> None:
    fresh.summary["description"] = "odd \ud800 text"
    assert "odd ? text" in fresh.write()


@pytest.mark.parametrize(
    ("call", "wanted"),
    [
        (text.percent(0.12345), "12.3\u00a0%"),
        (text.percent(None), "–"),
        (text.percent(float("nan")), "–"),
        (text.points(-0.0171), "−1.7"),
        (text.points(0.0004), "0.0"),
        (text.points(-0.0004), "0.0"),
        (text.interval(0.0861, 0.1694), "[8.6, 16.9]"),
        (text.count(1234567), "1,234,567"),
        (text.duration(0.44), "0.4\u00a0s"),
        (text.duration(59.7), "1\u00a0min 00\u00a0s"),
        (text.duration(512.3), "8\u00a0min 32\u00a0s"),
        (text.duration(7499), "2\u00a0h 05\u00a0min"),
        (text.size(3300000000), "3.07\u00a0GiB"),
        (text.size(512), "512\u00a0B"),
        (text.big(134515008), "135\u00a0M"),
        (text.level(0.95), "95\u00a0%"),
        (text.moment("2026-11-21T12:00:00+00:00"), "2026-11-21 12:00 UTC"),
        (text.moment("yesterday"), "yesterday"),
        (text.plain("<b>\n&amp; x", 0), "&lt;b&gt; &amp;amp; x"),
        (text.plain("abcdef", 4), "abc…"),
    ],
)
def test_numbers_and_texts_read_as_they_should(call: str, wanted: str) -> None:
    assert call == wanted


def test_a_joint_phase_shows_its_own_curves(tmp_path: Path) -> None:
    """Its keys are those of RL and of the demonstrations; the ranges of its panels come from the same list."""
    synthetic.write_run(tmp_path / "run", arms={"mixed": ["joint"]})
    for path in (tmp_path / "run").rglob("metrics.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(row | {"demonstration_nll": 1.5, "gain": 0.1}) + "\n" for row in rows))
    page = write_report(tmp_path / "run").read_text()
    assert "nll of demonstrations, nats per token" in page
    assert "cooperative gain (BRIDGE)" in page
