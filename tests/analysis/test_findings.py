"""The analysis as a whole, on responses whose trajectories and steps are known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from dereason.analysis import embeddings
from dereason.analysis.comparison import Comparison
from dereason.analysis.findings import analyse
from dereason.analysis.settings import Analysis, Steps
from dereason.errors import DereasonError
from dereason.problems.schema import frame

PROBLEMS = [f"p{i}" for i in range(10)]
# Nothing in common, so each is a trajectory of its own.
WAYS = [
    "Aaaa bbb cc. Then d.",
    "1234 5678 90. So 11.",
    "ÄÖÜ ßéè ñ. Ô ç.",
    "Kkkk jjj hh. Gg ff.",
    "Xyz wvu tsr. Qpo nml.",
]


def _silent(done: int, total: int, words: str) -> None:
    pass


def _samples(model: str, correct: Sequence[str], incorrect: Sequence[str]) -> pl.DataFrame:
    """The same responses on each problem."""
    rows = []
    for problem in PROBLEMS:
        texts = [(t, "correct") for t in correct] + [(t, "wrong") for t in incorrect]
        rows += [
            {"problem_id": problem, "model": model, "purpose": "probe", "index": i, "response": t, "verdict": v}
            | {"tokens": 9, "hit_limit": False}
            for i, (t, v) in enumerate(texts)
        ]
    return frame("sample", rows)


BASE = _samples("base", WAYS[:1] * 4, [*WAYS[1:5]])
AFTER = _samples("after", WAYS[:2] * 2, WAYS[4:5] * 4)


@pytest.fixture
def embedder(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sentence vectors from the sentence alone; the list counts the calls."""
    calls: list[int] = []

    class Scripted:
        name = "scripted"

        def __call__(self, sentences: Sequence[str]) -> np.ndarray:
            calls.append(len(sentences))
            out = [np.random.default_rng(list(s.encode())).normal(size=8) for s in sentences]
            return np.stack([v / np.linalg.norm(v) for v in out]).astype(np.float32)

    monkeypatch.setattr(embeddings, "load_embedder", lambda name: Scripted())
    return calls


def _run(work: Path, **settings: object) -> dict:
    work.mkdir(exist_ok=True)
    given = Analysis.model_validate({"workers": 1, "resamples": 200, **settings})
    return analyse({"base": BASE, "after": AFTER}, None, [Comparison("base", "after", "rl")], given, work, _silent)


def test_known_trajectories_are_counted(tmp_path: Path) -> None:
    found = _run(tmp_path, steps=None)
    assert found["responses"] == 8
    assert found["graphs"] is None
    unique = {(r["model"], r["side"]): r["unique"]["estimate"] for r in found["trajectories"]["unique"]}
    assert unique == {
        ("base", "correct"): 1,
        ("base", "incorrect"): 4,
        ("after", "correct"): 2,
        ("after", "incorrect"): 1,
    }
    curve = next(r for r in found["trajectories"]["by_responses"] if (r["model"], r["side"]) == ("base", "incorrect"))
    # Four of eight responses, each alone in its cluster: m of eight meet m / 2 of them.
    assert curve["m"] == [1, 2, 4, 8]
    assert curve["unique"] == pytest.approx([0.5, 1, 2, 4])
    verdict = found["verdicts"][0]
    assert (verdict["band"], verdict["n_problems"], verdict["verdict"]) == ("all", 10, "both")
    assert "Following accuracy: unique incorrect trajectories ×0.25" in verdict["because"]
    assert verdict["effects"]["incorrect"]["estimate"] == pytest.approx(0.25)
    assert verdict["effects"]["correct"]["estimate"] == pytest.approx(2)
    # All four correct ones of "after" are two clusters, those of base one; the incorrect ones went from four to one.
    assert found["side_responses"] == 4
    assert verdict["effects"]["diversity_correct"]["estimate"] == pytest.approx(2)
    assert verdict["effects"]["diversity_incorrect"]["estimate"] == pytest.approx(0.25)
    two = _run(tmp_path / "two", steps=None, side_responses=2)
    # Two of four, two of each kind: of the six pairs two are alike, so 1 + 2/3 clusters on average, by 64 draws.
    assert two["verdicts"][0]["effects"]["diversity_correct"]["estimate"] == pytest.approx(5 / 3, abs=0.1)
    assert found["bands"] == {"hard": 0, "medium": 10, "easy": 0}
    passed = {r["model"]: r["value"] for r in found["pass_at_k"]}
    assert passed["base"] == passed["after"] == pytest.approx([0.5, 1 - 4 * 3 / (8 * 7), 1 - 1 / 70, 1.0])
    labels = pl.read_parquet(tmp_path / "trajectories.parquet")
    inside = labels.filter((pl.col("problem_id") == "p3") & (pl.col("model") == "after")).sort("index")
    assert inside["cluster"].to_list() == [0, 1, 0, 1, 0, 0, 0, 0]
    assert json.loads((tmp_path / "findings.json").read_text()) == found


def test_accuracy_alone_is_no_verdict(tmp_path: Path) -> None:
    """The same ways to be right and wrong, drawn alike, and only more often right: the counts move, the verdict not."""
    ways = ["".join(chr(97 + (7 * i + 3 * j) % 26) for j in range(40)) + f" {i * 1111}" for i in range(16)]

    def drawn(rate: float, seed: int) -> pl.DataFrame:
        rng = np.random.default_rng(seed)
        rows = []
        for problem in range(12):
            for index in range(32):
                right = bool(rng.random() < rate)
                way = ways[int(rng.integers(8)) + (0 if right else 8)]
                row = {"problem_id": f"p{problem}", "model": "m", "purpose": "probe", "index": index, "response": way}
                verdict = {"verdict": "correct" if right else "wrong", "tokens": 9, "hit_limit": False}
                rows.append(row | verdict)
        return frame("sample", rows)

    settings = Analysis(steps=None, workers=1, trajectories={"cut": 0.95})
    samples = {"base": drawn(0.3, 0), "after": drawn(0.7, 1)}
    found = analyse(samples, None, [Comparison("base", "after")], settings, tmp_path, _silent)
    verdict = found["verdicts"][0]
    assert verdict["effects"]["correct"]["low"] > 1
    assert verdict["effects"]["incorrect"]["high"] < 1
    assert verdict["verdict"] == "neither"


def test_a_near_empty_model_does_not_shrink_the_others(tmp_path: Path, embedder: list[int]) -> None:
    """Graphs are compared at equally many visits, and a model with next to none has no graph instead."""
    only_one = pl.when(pl.col("index") == 0).then(pl.lit("Aaaa.")).otherwise(pl.lit(""))
    quiet = BASE.with_columns(only_one.alias("response"))
    samples = {"base": BASE, "after": AFTER, "quiet": quiet}
    found = analyse(samples, None, [], Analysis(workers=1, steps=Steps(sentences_per_node=1)), tmp_path, _silent)
    visits = {row["model"]: row["visits"]["estimate"] for row in found["graphs"]["visits"]}
    assert visits == {"base": 16, "after": 16, "quiet": 0}


def test_graphs_of_known_paths(tmp_path: Path, embedder: list[int]) -> None:
    found = _run(tmp_path, steps={"nodes": 50, "sentences_per_node": 1})
    # Two sentences each way, ten ways' sentences in all: every sentence is its own node.
    assert found["graphs"]["nodes"] == {"mean": 8.0, "max": 10}
    assert found["graphs"]["sentences"] == 2 * 8 * 2 * len(PROBLEMS)
    assert found["provenance"]["embedding"] == "scripted"
    decay = {(r["model"], r["quantity"]): r for r in found["graphs"]["decay"]}
    # Visits of base: 4, 4, and eight times 1 (shares of 16); least squares by hand with numpy.
    expected = -np.polyfit(np.arange(1, 11), np.log10([4, 4, *[1] * 8]), 1)[0]
    assert decay["base", "visits"]["beta"]["estimate"] == pytest.approx(expected)
    after = -np.polyfit(np.arange(1, 7), np.log10([4, 4, 2, 2, 2, 2]), 1)[0]
    assert decay["after", "visits"]["ratio"]["estimate"] == pytest.approx(after / expected)
    assert decay["base", "visits"]["ratio"] is None
    picture = found["graphs"]["pictures"][0]
    assert {n["label"] for n in picture["nodes"]} == {s + "." for w in WAYS for s in w.rstrip(".").split(". ")}
    for model in picture["models"]:
        assert model["shown"] == 1.0
        assert sum(model["visits"]) == 16
        assert sum(count for _, _, count in model["edges"]) == 8
    measures = pl.read_parquet(tmp_path / "measures.parquet")
    assert measures.filter(pl.col("measure") == "beta_visits").height == 2 * len(PROBLEMS)


def test_a_second_call_goes_on_where_the_first_was_cut(tmp_path: Path, embedder: list[int]) -> None:
    whole = _run(tmp_path / "a", steps={})
    assert len(embedder) == 1  # the problems' sentences are the same, so one file has their vectors
    again = _run(tmp_path / "a", steps={})
    assert again == whole
    assert len(embedder) == 1  # nothing was embedded again
    parts = sorted((tmp_path / "a" / "parts").glob("*.json"))
    assert len(parts) == len(PROBLEMS)
    for part in parts[:3]:
        part.unlink()
    kept = parts[3].stat().st_mtime_ns
    assert _run(tmp_path / "a", steps={}) == whole
    assert len(embedder) == 1
    assert parts[3].stat().st_mtime_ns == kept
    assert _run(tmp_path / "b", steps={}, workers=2) == whole  # processes change nothing


def test_parts_of_another_embedding_or_of_other_problems_are_not_taken(
    tmp_path: Path, embedder: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _run(tmp_path, steps={})
    load = embeddings.load_embedder

    def changed(name: str) -> Any:
        other = load(name)
        other.name = "changed"
        return other

    monkeypatch.setattr(embeddings, "load_embedder", changed)
    again = _run(tmp_path, steps={})
    assert len(embedder) == 2
    assert again == first | {"provenance": {"embedding": "changed"}}
    assert len(list((tmp_path / "parts").glob("*.json"))) == 2 * len(PROBLEMS)
    # Nodes that all problems share come from all of them: with fewer problems no part is the same.
    few = {name: t.filter(pl.col("problem_id") < "p5") for name, t in (("base", BASE), ("after", AFTER))}
    settings = Analysis.model_validate({"workers": 1, "resamples": 200, "steps": {"scope": "all"}})
    (tmp_path / "b").mkdir()
    for samples in ({"base": BASE, "after": AFTER}, few):
        analyse(samples, None, [], settings, tmp_path / "b", _silent)
    assert len(list((tmp_path / "b" / "parts").glob("*.json"))) == len(PROBLEMS) + 5


def test_settings_have_their_effect(tmp_path: Path, embedder: list[int]) -> None:
    shared = _run(tmp_path / "a", steps={"scope": "all", "nodes": 4, "sentences_per_node": 1})
    assert shared["graphs"]["nodes"]["max"] <= 4
    assert Steps().scope == "problem"
    only = _run(tmp_path / "b", steps={}, graphs={"responses": "correct"})
    assert only["graphs"]["sentences"] == 2 * 4 * 2 * len(PROBLEMS)
    fewer = _run(tmp_path / "c", steps=None, responses=4)
    assert fewer["responses"] == 4
    unique = {(r["model"], r["side"]): r["unique"]["estimate"] for r in fewer["trajectories"]["unique"]}
    assert unique["base", "incorrect"] == pytest.approx(2)


def test_models_with_unequal_numbers_are_compared_at_the_fewest(tmp_path: Path) -> None:
    """Twice the responses in the same proportions: what a response is worth does not change by that."""
    more = pl.concat([AFTER, AFTER.with_columns(pl.col("index") + 8)])
    found = analyse({"base": AFTER, "after": more}, None, [], Analysis(steps=None, workers=1), tmp_path, _silent)
    assert found["responses"] == 8
    assert found["warnings"] == []
    worth = {(r["model"], r["side"]): r["per_response"]["estimate"] for r in found["trajectories"]["unique"]}
    # Base: one cluster of 4 in 8. After: of 8 in 16, seen by 8 responses all but surely, 4 of which are incorrect.
    assert worth["base", "incorrect"] == pytest.approx(1 / 4)
    assert worth["after", "incorrect"] == pytest.approx((1 - 1 / 12870) / 4)
    few = BASE.filter((pl.col("problem_id") != "p3") | (pl.col("index") < 3))
    found = analyse({"base": BASE, "after": few}, None, [], Analysis(steps=None, workers=1), tmp_path, _silent)
    assert found["responses"] == 3
    assert "compared at 3 responses, for after has no more to p3; most have 8" in found["warnings"][0]


def test_pass_at_k_claims_no_certainty_where_all_problems_are_alike(tmp_path: Path) -> None:
    found = _run(tmp_path, steps=None)
    at_m = {r["model"]: (r["value"][-1], r["low"][-1], r["high"][-1]) for r in found["pass_at_k"]}["base"]
    # All ten problems are solved by one of eight: Wilson's interval of 10 of 10.
    assert at_m == pytest.approx((1.0, 10 / (10 + 1.959964**2), 1.0))


def test_what_cannot_be_compared_is_said(tmp_path: Path) -> None:
    other = AFTER.with_columns(pl.col("problem_id") + "x")
    with pytest.raises(DereasonError, match="none of 20 problems has 2 responses"):
        analyse({"base": BASE, "after": other}, None, [], Analysis(steps=None), tmp_path, _silent)
    with pytest.raises(DereasonError, match="names 'sft', which has no samples"):
        analyse({"base": BASE}, None, [Comparison("base", "sft")], Analysis(steps=None), tmp_path, _silent)
    missing = AFTER.filter(pl.col("problem_id") != "p0")
    failed = missing.with_columns(
        pl.when(pl.col("problem_id") == "p1").then(pl.lit("error")).otherwise(pl.col("verdict")).alias("verdict")
    )
    found = analyse({"base": BASE, "after": failed}, None, [], Analysis(steps=None, workers=1), tmp_path, _silent)
    assert [p["id"] for p in found["problems"]] == PROBLEMS[2:]
    assert found["warnings"] == ["2 of 10 problems left out: not every model has 2 judged responses to them"]
    assert found["models"][1]["verdicts"]["error"] == 8


def test_one_model_alone_is_described(tmp_path: Path, embedder: list[int]) -> None:
    found = analyse({"pool": BASE}, None, [], Analysis(workers=1), tmp_path, _silent)
    assert found["verdicts"] == []
    assert found["graphs"]["decay"][0]["ratio"] is None
