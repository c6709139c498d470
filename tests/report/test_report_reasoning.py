"""What the page says of an analysis of reasoning: its numbers as they are, its limits said, nothing run or fetched."""

from __future__ import annotations

import copy
import math
import re
from pathlib import Path
from typing import Any

import pytest
import synthetic_reasoning as synthetic
from reading import Reader, strings

import browser
from dereason.errors import DereasonError
from dereason.report import findings, graph_pictures, reasoning, style, text, write_analysis
from dereason.report import reasoning_words as words


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """Findings of four models; read only."""
    return synthetic.findings()


@pytest.fixture(scope="module")
def folder(found: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with those findings and the page made from them."""
    folder = tmp_path_factory.mktemp("analysis")
    synthetic.write(folder, found)
    write_analysis(folder)
    return folder


@pytest.fixture(scope="module")
def shown(folder: Path) -> Reader:
    """That page, read."""
    return Reader((folder / "analysis.html").read_text(encoding="utf-8"))


def _page(found: dict[str, Any], folder: Path) -> Reader:
    synthetic.write(folder, found)
    return Reader(write_analysis(folder).read_text(encoding="utf-8"))


def _ratio(value: dict[str, Any]) -> str:
    return f"{value['estimate']:.2f}[{value['low']:.2f}, {value['high']:.2f}]"


def test_every_verdict_stands_with_its_sentence_and_its_effects(found: dict[str, Any], shown: Reader) -> None:
    bands = {"all": 0, "hard": 0, "medium": 0, "easy": 0}
    for row in found["verdicts"]:
        bands[row["band"]] += 1
        cells = [(name, value) for name, value in row["effects"].items() if value is not None]
        assert all(_ratio(value) in shown.text for _, value in cells)
        if row["band"] == "all":
            title = f"{row['before']} → {row['after']}"
            phase = {"sft": " (SFT)", "rl": " (RL)", None: ""}[row["phase"]]
            because = row["because"][0].upper() + row["because"][1:]
            assert f"{title}{phase}: {row['verdict']}. {because}. n = 16 problems." in shown.text
        else:
            assert f"{row['band']} {row['verdict']} " in shown.text
    assert set(bands.values()) == {len(found["comparisons"])}


@pytest.mark.parametrize(
    ("low", "high", "way"), [(1.01, 2.0, "▲"), (0.2, 0.99, "▼"), (0.9, 1.1, ""), (1.0, 2.0, ""), (None, None, "")]
)
def test_an_effect_points_only_where_its_interval_leaves_1_out(low: Any, high: Any, way: str) -> None:
    found = synthetic.findings(n=4)
    estimate = 0.5 if high is not None and high < 1 else 1.05
    found["verdicts"][0]["effects"]["correct"] = {"estimate": estimate, "low": low, "high": high, "n": 3}
    cell = words.compared(found)[0]["cells"][1]
    assert (cell["way"], cell["n"]) == (way, 3)  # n is said where it is not that of the row


def test_a_missing_effect_says_why(tmp_path: Path) -> None:
    found = synthetic.findings(graphs=False)
    for row in found["verdicts"]:
        row["effects"].update(incorrect=None, diversity_correct=None)
    page = _page(found, tmp_path)
    assert "base → sft – none before ▲ 2.33" in page.text
    assert "– no problem has enough – no graphs – no graphs – no graphs 16" in page.text
    assert "No reasoning graphs were built" in page.text
    assert [cell["why"] for cell in words.compared(found)[0]["cells"]] == [
        "none before", "", "", "no problem has enough", "no graphs", "no graphs", "no graphs",
    ]  # fmt: skip
    assert [cell["why"] for cell in words.compared(synthetic.findings() | {"verdicts": found["verdicts"]})[0]["cells"]][
        4
    ] == "no curve to fit"


@pytest.mark.parametrize(("n", "m", "few_problems", "few_responses"), [(11, 31, True, True), (36, 32, False, False)])
def test_limits_are_said_where_they_hold(n: int, m: int, few_problems: bool, few_responses: bool) -> None:
    found = synthetic.findings(n=n, m=m)
    for model in found["models"]:
        model["verdicts"]["error"] = 0
    limits = words.limits(found)
    assert any(f"{n} problems: too few" in limit for limit in limits) == few_problems
    assert any(f"{m} responses per problem" in limit for limit in limits) == few_responses
    assert any("easy (2)" in limit for limit in limits) != few_problems  # said once, of all or of the bands
    assert not any("verifier failed" in limit for limit in limits)
    assert not any("equally many" in limit for limit in limits)
    assert any("left out <script>" in limit for limit in limits)
    assert any("No reasoning graphs" in limit for limit in words.limits(found | {"graphs": None}))
    found["models"][1]["verdicts"]["error"] = 1
    assert "1 response on which the verifier failed is left out." in words.limits(found)


def test_diversity_on_few_or_no_problems_is_said(found: dict[str, Any]) -> None:
    few = copy.deepcopy(found)
    few["trajectories"]["diversity"][-1]["unique"]["n"] = 5
    assert "Diversity among 8 correct responses rests on the 5 problems that all models have." in words.limits(few)
    few["trajectories"]["diversity"][-1]["unique"] = None
    assert any(limit.startswith("No problem has 8 correct responses of every model") for limit in words.limits(few))
    small = copy.deepcopy(found)
    small["graphs"]["nodes"]["mean"] = 11.0
    assert any(limit.startswith("Graphs have 11 nodes on average") for limit in words.limits(small))
    assert not any(limit.startswith("Graphs have") for limit in words.limits(found))


def test_unique_trajectories_are_dots_with_their_intervals_in_the_order_of_the_models(found: dict[str, Any]) -> None:
    figure = reasoning.unique(found)
    assert len(figure["data"]) == 4
    for panel, (rows, side) in zip(
        figure["data"], [(t, s) for t in ("unique", "diversity") for s in ("incorrect", "correct")], strict=True
    ):
        values = [row["unique"] for row in found["trajectories"][rows] if row["side"] == side]
        assert panel["x"] == [value["estimate"] for value in values]
        assert panel["y"] == [0, 1, 2, 3]
        for value, up, down in zip(values, panel["error_x"]["array"], panel["error_x"]["arrayminus"], strict=True):
            assert (value["estimate"] + up, value["estimate"] - down) == pytest.approx((value["high"], value["low"]))
    assert figure["layout"]["yaxis"]["ticktext"] == ["base", "sft", "rl", "sft-then-rl"]
    bare = copy.deepcopy(found)
    bare["trajectories"]["diversity"] = [row | {"unique": None} for row in bare["trajectories"]["diversity"]]
    assert len(reasoning.unique(bare)["data"]) == 2


def test_numbers_of_trajectories_are_in_the_table(found: dict[str, Any], shown: Reader) -> None:
    for row in found["trajectories"]["unique"]:
        value = row["unique"]
        cell = text.estimate(value).replace(" [", "[", 1)
        assert cell in shown.text
    for row in found["pass_at_k"]:
        for value, low, high in zip(row["value"], row["low"], row["high"], strict=True):
            assert f"{100 * value:.1f} %[{100 * low:.1f}, {100 * high:.1f}]" in shown.text


def test_a_long_curve_keeps_its_last_place_in_the_table(found: dict[str, Any]) -> None:
    rows = found["trajectories"]["by_cut"]
    table = words.grid(found, rows, "cut", "unique", most=5)
    assert table["places"] == [0.3, 0.45, 0.6, 0.75, 0.9]
    assert [cell["estimate"] for cell in table["rows"][0]["cells"]] == [
        rows[0]["unique"][at] for at in (0, 3, 6, 9, 12)
    ]
    short = copy.deepcopy(rows[:2])
    for key in ("cut", "unique", "low", "high"):
        short[1][key] = short[1][key][:4]
    assert words.grid(found, short, "cut", "unique")["rows"][1]["cells"][-1] is None


def test_bands_are_drawn_for_few_models_only(found: dict[str, Any]) -> None:
    assert sum(trace.get("fill") == "toself" for trace in reasoning.by_responses(found)["data"]) == 8
    many = synthetic.findings(seeds=6)
    figure = reasoning.by_responses(many)
    assert not any("fill" in trace for trace in figure["data"])
    assert len(figure["data"]) == 2 * len(many["models"]) == 38
    assert sum(trace["showlegend"] for trace in figure["data"]) == 19


def test_a_band_leaves_out_what_is_not_known(found: dict[str, Any]) -> None:
    gap = copy.deepcopy(found)
    row = gap["pass_at_k"][0]
    row["value"][0] = row["low"][0] = row["high"][0] = None
    figure = reasoning.pass_at_k(gap)
    assert figure is not None
    band = next(trace for trace in figure["data"] if trace.get("fill"))
    assert band["x"] == row["k"][1:] + row["k"][:0:-1]
    assert band["y"] == row["high"][1:] + row["low"][:0:-1]
    assert reasoning.pass_at_k(found | {"pass_at_k": []}) is None


def test_fitted_lines_are_those_of_the_findings(found: dict[str, Any]) -> None:
    figure = reasoning.ranks(found)
    assert figure is not None
    lines = [trace for trace in figure["data"] if trace["mode"] == "lines"]
    points = [trace for trace in figure["data"] if trace["mode"] == "markers"]
    assert len(lines) == len(points) == 12
    rows = sorted(found["graphs"]["curves"], key=lambda row: list(synthetic.QUANTITIES).index(row["quantity"]))
    for row, line, dots in zip(rows, lines, points, strict=True):
        expected = [10 ** (row["alpha"] - row["beta"] * rank) for rank in line["x"]]
        assert line["y"] == pytest.approx(expected, rel=1e-3)
        assert dots["x"][:20] == list(range(1, 21))
        assert len(dots["x"]) <= 80
        assert 120 not in dots["x"]  # its value is zero, which a logarithmic axis does not have
        assert line["x"] == [1, 119]
        at = dict(zip(row["rank"], row["value"], strict=True))
        assert dots["y"] == pytest.approx([at[rank] for rank in dots["x"]], rel=1e-3)
    bare = copy.deepcopy(found)
    bare["graphs"]["curves"] = [row | {"alpha": None, "beta": None} for row in bare["graphs"]["curves"]]
    unfitted = reasoning.ranks(bare)
    assert unfitted is not None
    assert {trace["mode"] for trace in unfitted["data"]} == {"markers"}
    assert sum(trace["showlegend"] for trace in unfitted["data"]) == 4
    assert reasoning.ranks(found | {"graphs": None}) is None


@pytest.mark.parametrize(
    ("values", "ticks"),
    [([1e-6, 1.0], ["10⁻⁶", "10⁻⁴", "10⁻²", "10⁰"]), ([1.0, 9.0], ["1", "2", "5", "10"]), ([], ["1", "2", "5", "10"])],
)
def test_logarithmic_ticks_lie_on_the_axis(values: list[float], ticks: list[str]) -> None:
    found = synthetic.findings(n=4)
    found["graphs"]["curves"] = [
        row | {"rank": list(range(1, len(values) + 1)), "value": values} for row in found["graphs"]["curves"]
    ]
    figure = reasoning.ranks(found)
    assert figure is not None
    axis = figure["layout"]["yaxis"]
    assert axis["ticktext"] == ticks
    assert all(axis["range"][0] <= math.log10(tick) <= axis["range"][1] for tick in axis["tickvals"])


def test_tables_of_graphs_mark_differences_that_leave_zero_out(found: dict[str, Any], shown: Reader) -> None:
    marked = 0
    for table, value in (("topology", "value"), ("graphlets", "share")):
        for row in found["graphs"][table]:
            gap, of = row["difference"], row[value]
            assert of is None or text.estimate(of) in shown.text
            if gap is not None:
                clear = gap["low"] > 0 or gap["high"] < 0
                marked += clear
                assert (f"● {text.estimate(gap)}" in shown.text) == clear
    assert shown.text.count("● ") == marked + 1  # and the caption
    assert 10 < marked < 42
    assert "rl – undefined – undefined" in shown.text
    for row in found["graphs"]["decay"]:
        for ratio in (row["ratio"], row["ratio_otherwise"]):
            assert ratio is None or _ratio(ratio) in shown.text
        assert text.figures(row["r2"]["estimate"], 3) in shown.text
    assert "The same with equally many responses" in shown.text
    assert all(text.figures(row["visits"]["high"], 3) in shown.text for row in found["graphs"]["visits"])


def test_pictures_have_the_same_nodes_at_the_same_places(found: dict[str, Any], shown: Reader) -> None:
    pictures = graph_pictures.pictures(found)
    assert [picture["problem"] for picture in pictures] == ["p00", "p01"]
    for picture, source in zip(pictures, found["graphs"]["pictures"], strict=True):
        places = [[(c["x"], c["y"]) for c in drawing["circles"]] for drawing in picture["drawings"]]
        assert all(place == places[0] for place in places)
        assert all(math.dist(a, b) >= 38 for i, a in enumerate(places[0]) for b in places[0][:i])
        visits = [v for model in source["models"] for v in model["visits"]]
        radii = [c["r"] for drawing in picture["drawings"] for c in drawing["circles"]]
        order = sorted(range(len(visits)), key=visits.__getitem__)
        assert [radii[i] for i in order] == sorted(radii)
        for drawing, model in zip(picture["drawings"], source["models"], strict=True):
            assert len(drawing["arrows"]) == len(model["edges"])
            titles = {f"{a + 1} → {b + 1}: {count} times" for a, b, count in model["edges"]}
            assert {arrow["title"] for arrow in drawing["arrows"]} == titles
            assert f"{100 * model['shown']:.0f} % of its visits are to these nodes" in shown.text
    hollow = [attrs for tag, attrs in shown.elements if tag == "circle" and attrs["fill"] == "#ffffff"]
    assert len(hollow) == sum(v == 0 for p in found["graphs"]["pictures"] for m in p["models"] for v in m["visits"]) > 0


def test_an_arrow_leads_from_rim_to_rim_and_back_on_another_line() -> None:
    there = graph_pictures.arrow((50, 50), (200, 120), 10, 16, 0.5)
    back = graph_pictures.arrow((200, 120), (50, 50), 16, 10, 0.5)
    numbers = [[float(x) for x in re.findall(r"-?[\d.]+", arrow["path"])] for arrow in (there, back)]
    tip = tuple(float(x) for x in there["head"].split()[0].split(","))
    assert math.dist(numbers[0][:2], (50, 50)) == pytest.approx(10, abs=0.2)
    assert math.dist(tip, (200, 120)) == pytest.approx(17, abs=0.2)
    middle = (125.0, 85.0)
    bends = [(n[2] - middle[0], n[3] - middle[1]) for n in numbers]
    assert bends[0] == pytest.approx([-x for x in bends[1]], abs=0.2)
    assert math.hypot(*bends[0]) == pytest.approx(0.16 * math.hypot(150, 70), abs=0.2)
    thin, thick = (graph_pictures.arrow((0, 0), (99, 0), 5, 5, weight)["width"] for weight in (0.0, 1.0))
    assert thin < there["width"] < thick


def test_nodes_at_one_spot_are_pushed_apart_inside_the_picture() -> None:
    places = graph_pictures.spread([(0.0, 0.0)] * 6)
    assert all(math.dist(a, b) > 30 for i, a in enumerate(places) for b in places[:i])
    assert all(0 < x < graph_pictures.WIDTH and 0 < y < graph_pictures.HEIGHT for x, y in places)
    assert graph_pictures.spread([]) == []


def test_examples_are_shown_with_their_sizes(found: dict[str, Any], shown: Reader) -> None:
    assert shown.text.count("12 responses like this one") == 2 * (2 * 4 - 1)
    assert shown.text.count("No correct response.") == 2
    assert shown.text.count("3 more clusters not shown.") == 2 * (2 * 4 - 1)
    blocks = words.examples(found)[0]["blocks"]
    assert [(block["label"], block["side"]) for block in blocks[:3]] == [
        ("base", "incorrect"), ("base", "correct"), ("sft", "incorrect"),
    ]  # fmt: skip


def test_hostile_text_makes_no_element_and_no_script(folder: Path, shown: Reader) -> None:
    tags = {tag for tag, _ in shown.elements}
    assert not tags & {"img", "b", "iframe", "object", "embed", "link"}
    assert not [name for _, attrs in shown.elements for name in attrs if name.startswith("on")]
    assert len([a for tag, a in shown.elements if tag == "script" and "data-figure" not in a]) == 2
    for hostile in (synthetic.SCRIPT, synthetic.MARKUP, "lone ? half"):
        assert hostile in shown.text
    assert any(synthetic.MARKUP in (attrs.get("title") or "") for _, attrs in shown.elements)
    assert not (folder / "analysis.html.part").exists()


def test_plotly_gets_no_markup_from_names_and_knows_every_property(tmp_path: Path) -> None:
    found = synthetic.findings(n=4, long=f" {synthetic.MARKUP[:18]}")
    figures = _page(found, tmp_path).figures()
    assert len(figures) == 5
    tags = {tag for figure in figures for string in strings(figure) for tag in re.findall(r"<[^>]*>", string)}
    assert tags == {"<b>", "</b>", "<extra>", "</extra>"}
    headings = [n["text"] for figure in figures for n in figure["layout"]["annotations"]]
    assert all(re.fullmatch(r"<b>[\w@, ]+</b>", heading) for heading in headings)
    graph_objects = pytest.importorskip("plotly.graph_objects")
    for figure in figures:
        graph_objects.Figure(figure)


def test_no_name_can_act_in_a_hover_template() -> None:
    found = synthetic.findings(n=4, long=" %{y}")
    figure = reasoning.ranks(found)
    assert figure is not None
    templates = {trace["hovertemplate"] for trace in figure["data"] if "hovertemplate" in trace}
    assert templates == {"rank %{x}: %{y:.4g}<extra>%{fullData.name}</extra>"}


def test_long_names_stay_apart(tmp_path: Path) -> None:
    found = synthetic.findings(seeds=6, long=" of an arm with quite a long name, after its phase 2")
    labels = findings.labels(found)
    assert len(set(labels)) == len(labels) == 19
    assert max(map(len, labels)) <= 30
    assert findings.labels(found | {"models": [{"label": "one"}, {"label": "one"}]}) == ["1: one", "2: one"]
    assert findings.labels(found | {"models": [{"label": "abcdefghij"}]}, limit=5) == ["ab…ij"]
    looks = findings.looks(found)
    assert len({(one.colour, one.symbol, one.dash) for one in looks.values()}) == 19
    for kind in ("sft", "rl", "sft-then-rl"):  # the same phases share a colour where there are many models
        assert len({looks[f"{kind}, seed {seed}"].colour for seed in range(6)}) == 1
    assert len({one.colour for one in looks.values()}) == 4
    unknown = findings.looks(found | {"comparisons": []})
    assert len({(one.colour, one.symbol, one.dash) for one in unknown.values()}) == 19
    page = _page(found, tmp_path)
    assert "before → after phase verdict because" in page.text  # a table where the comparisons are many
    for figure in page.figures():
        assert figure["layout"]["width"] == 1060


def test_models_keep_the_colour_of_their_phase(found: dict[str, Any]) -> None:
    colours = {name: one.colour for name, one in findings.looks(found).items()}
    assert colours["base"] == style.phase_colour("base")
    assert colours["sft"] == style.phase_colour("sft")
    assert colours["rl"] == style.phase_colour("rl")
    assert len(set(colours.values())) == 4


def test_one_model_is_described_and_not_said_to_be_trained(tmp_path: Path) -> None:
    found = synthetic.findings(n=4)
    found["models"] = found["models"][:1]
    found |= {"comparisons": [], "verdicts": [], "pass_at_k": []}
    for part in (found["trajectories"], found["graphs"]):
        for name, rows in part.items():
            if isinstance(rows, list):
                part[name] = [row for row in rows if row.get("model", "base") == "base"]
    for picture in found["graphs"]["pictures"]:
        picture["models"] = picture["models"][:1]
    page = _page(found, tmp_path)
    assert "How reasoning varies" in page.text
    assert "64 responses to each of 4 problems (2 hard, 2 easy, by the pass rate" in page.text
    assert "No two models were compared" in page.text
    assert "pass@k was not measured." in page.text
    assert "training seeds" not in page.text


def test_the_section_stands_after_the_results_of_a_run(fresh: Any) -> None:
    step = "steps/analyse-0123"
    synthetic.write(fresh.folder / step, synthetic.findings())
    fresh.summary["reasoning"] = {"path": step}
    page = Reader(fresh.write())
    sections = [attrs["id"] for tag, attrs in page.elements if tag == "section"]
    assert sections[:3] == ["results", "reasoning", "what"]
    hrefs = [attrs["href"] for tag, attrs in page.elements if tag == "a"]
    assert hrefs[:3] == ["#results", "#reasoning", "#what"]
    assert f"All numbers: {step}/findings.json" in page.text
    assert "How training reshaped reasoning" in page.text
    fresh.summary["reasoning"] = None
    assert "How training reshaped reasoning" not in Reader(fresh.write()).text


@pytest.mark.parametrize(
    ("path", "error"),
    [("../elsewhere", "is not inside the run directory"), ("steps/none", r"findings\.json: listed in summary\.json")],
)
def test_findings_of_a_run_must_be_there(fresh: Any, path: str, error: str) -> None:
    fresh.summary["reasoning"] = {"path": path}
    with pytest.raises(DereasonError, match=error):
        fresh.write()


def test_findings_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DereasonError, match=r"findings\.json: no such file — run the analysis again"):
        write_analysis(tmp_path)
    (tmp_path / "findings.json").write_text("{", encoding="utf-8")
    with pytest.raises(DereasonError, match=r"findings\.json: not readable as JSON"):
        write_analysis(tmp_path)
    synthetic.write(tmp_path, synthetic.findings(n=4) | {"schema_version": 2})
    with pytest.raises(DereasonError, match=r"schema_version is 2, this version of dereason reads 1"):
        write_analysis(tmp_path)


@pytest.mark.parametrize(
    ("path", "named"),
    [
        (("verdicts",), "it has no verdicts"),
        (("trajectories", "unique"), "trajectories has no unique"),
        (("trajectories", "by_cut", 2, "cut"), r"trajectories\.by_cut\[2\] has no cut"),
        (("graphs", "decay", 1, "ratio"), r"graphs\.decay\[1\] has no ratio"),
        (("verdicts", 3, "effects"), r"verdicts\[3\] has no effects"),
    ],
)
def test_missing_keys_are_named(path: tuple[Any, ...], named: str, tmp_path: Path) -> None:
    found = synthetic.findings(n=4)
    inner: Any = found
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    synthetic.write(tmp_path, found)
    with pytest.raises(DereasonError, match=named):
        write_analysis(tmp_path)


@pytest.mark.parametrize("keys", [("verdicts", 1, "after"), ("pass_at_k", 0, "model"), ("pictures",)])
def test_a_row_of_no_model_is_named(keys: tuple[Any, ...], tmp_path: Path) -> None:
    found = synthetic.findings(n=4)
    inner: Any = found["graphs"]["pictures"][0]["models"][1] if keys == ("pictures",) else found[keys[0]][keys[1]]
    inner["model" if keys == ("pictures",) else keys[2]] = "nobody"
    synthetic.write(tmp_path, found)
    with pytest.raises(DereasonError, match=r"\[\d\] names an unlisted model 'nobody'"):
        write_analysis(tmp_path)


def test_numbers_in_significant_figures() -> None:
    cases = [(0.0123456, "0.0123"), (12.0, "12.0"), (123.4, "123"), (12345.6, "12,346"), (-0.5, "−0.500"), (0, "0.00")]
    assert [text.figures(value) for value, _ in cases] == [words for _, words in cases]
    assert text.figures(float("nan")) == text.estimate(None) == text.ratio(None) == "–"
    assert text.estimate({"estimate": 1.5, "low": None, "high": None}) == "1.50 [–, –]"
    assert text.ratio({"estimate": 0.0333, "low": 0.004, "high": 1234.0}) == "0.033 [0.0040, 1,234]"


@pytest.mark.skipif(browser.find() is None, reason="no chromium or chrome on the path")
def test_figures_are_drawn_and_nothing_is_refused(folder: Path, tmp_path: Path) -> None:
    page = browser.load(folder / "analysis.html", tmp_path)
    assert page.errors == []
    assert page.drawn("fig-unique") == 4 * 4
    # A line and a band for each model and side; the legend adds one line a model.
    assert page.drawn("fig-by-responses", "js-line") == 4 * 2 * 2 + 4
    assert page.drawn("fig-pass-at-k", "js-line") == 4 * 2 + 4
    assert page.drawn("fig-ranks", "js-line") == 4 * 3 + 4
    assert page.drawn("fig-by-cut") > 0
    assert "<img" not in page.dom.split("<body>")[1].split("</main>")[0]
