"""chrF of all pairs against sacrebleu called on each, both ways."""

from __future__ import annotations

import importlib
import random
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sacrebleu.metrics import CHRF

from dereason.analysis import chrf

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared/data/mmlu_pro/responses.jsonl"


def reference(texts: list[str], order: int = 6, beta: float = 2.0) -> np.ndarray:
    """The mean of sacrebleu's scores of both directions, 0..1."""
    metric = CHRF(char_order=order, word_order=0, beta=beta)  # type: ignore[arg-type]
    one_way = np.array([[metric.sentence_score(a, [b]).score for b in texts] for a in texts])
    return np.asarray((one_way + one_way.T) / 200)


def drawn(alphabet: str, longest: int, count: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return ["".join(rng.choices(alphabet, k=rng.randrange(longest + 1))) for _ in range(count)]


# Whitespace is what str.split takes for it: separators of files too, but no zero-width space (200B) and no BOM (FEFF).
SPACES = " \t\n\v\f\r\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2003\u2028\u2029\u202f\u205f\u3000\u200b\ufeff"
FAMILIES = {
    "many repeats": drawn("ab", 60, 24),
    "one letter": drawn("a", 30, 20),
    "few letters": drawn("abcde \n", 80, 24),
    "shorter than the order": drawn("ab", 7, 30),
    "unicode": drawn("aé日本😀👍🏽e\u0301\u0308\u200d\x00", 25, 24),
    "lone surrogates": drawn("a\ud800\udfff", 12, 16),
    "whitespace": drawn("xy" + SPACES, 40, 20),
    "an alphabet of thousands": ["".join(map(chr, range(0x4E00 + i, 0x4E00 + 900 * i, 1 + i))) for i in range(1, 9)],
    "near-copies": [
        "Let x = 12. Then 3x + 4 = 40, so the answer is 40."[:k] + "#" + "Let x = 12. Then 3x"[k:] for k in range(20)
    ],
    "empties": ["", " ", "\n", "a", "", "b", "ab", "\u200b"],
    "nothing but empties": ["", " ", ""],
    "one": ["one text"],
    "none": [],
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("order", "beta"), [(6, 2.0), (1, 1.0), (3, 0.5), (9, 3.0)])
def test_equals_sacrebleu(family: str, order: int, beta: float) -> None:
    texts = FAMILIES[family]
    found = chrf.similarities(texts, order, beta)
    assert found.shape == (len(texts), len(texts))
    if texts:
        np.testing.assert_allclose(found, reference(texts, order, beta), rtol=0, atol=1e-12)
    assert (found == found.T).all()
    assert ((found >= 0) & (found <= 1)).all()


def test_by_hand() -> None:
    # Orders 1 and 2 of "ab" and "abc": 2 and 1 n-grams shared, so P = (2/2 + 1/1) / 2 = 1 and R = (2/3 + 1/2) / 2 =
    # 7/12; F = 5PR / (4P + R) = 7/11, and 7/8 the other way round.
    found = chrf.similarities(["a b", "abc"], order=2)
    np.testing.assert_allclose(found, [[1, 133 / 176], [133 / 176, 1]], rtol=4e-15)  # a dozen roundings and more


def test_equal_but_for_whitespace() -> None:
    found = chrf.similarities(["2 + 2 = 4", "2+2=4", "\t2+2 =4\n", "", "  "])
    assert (found[:3, :3] == 1).all()
    assert (found[3:] == 0).all(), "as sacrebleu has it, a text without characters is not even like itself"


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("portion", "block"), [(1, 1), (40, 50), (1 << 20, 1 << 20)])
def test_any_split_gives_the_same(monkeypatch: pytest.MonkeyPatch, share: float, portion: int, block: int) -> None:
    """Portions of first characters, blocks of features, sparse and dense products: none changes the result."""
    texts = drawn("abcdefgh", 50, 20) + drawn("ab", 50, 10) + ["", "a"]
    expected = reference(texts)
    monkeypatch.setattr(chrf, "_DENSE_SHARE", share)
    monkeypatch.setattr(chrf, "_PORTION", portion)
    monkeypatch.setattr(chrf, "_BLOCK", block)
    np.testing.assert_allclose(chrf.similarities(texts), expected, rtol=0, atol=1e-12)


def test_rounding_never_exceeds_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Anagrams are 1 at order 1, as the sum of one rounded quotient for each character."""
    monkeypatch.setattr(chrf, "_PORTION", 1)
    rng = random.Random(0)
    for length in range(2, 60):
        text = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=length))
        score = chrf.similarities([text + "#", "#" + text], order=1)[0, 1]
        assert score <= 1
        assert score == pytest.approx(1, rel=1e-14)


@pytest.mark.parametrize(
    ("order", "beta"), [(0, 2.0), (-1, 2.0), (6, 0.0), (6, -1.0), (6, float("nan")), (6, float("inf"))]
)
def test_impossible_settings(order: int, beta: float) -> None:
    with pytest.raises(ValueError, match="order of at least 1 and a finite beta above 0"):
        chrf.similarities(["a", "b"], order, beta)


def peak(texts: list[str]) -> int:
    tracemalloc.start()
    try:
        chrf.similarities(texts)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("count", "length", "alphabet"), [(800, 50, "abcdef"), (50, 8000, "abcdefghijkl")])
def test_memory_stays_below_what_is_documented(
    monkeypatch: pytest.MonkeyPatch, count: int, length: int, alphabet: str
) -> None:
    texts = ["".join(random.Random(i).choices(alphabet, k=length - i % 50)) for i in range(count)]
    characters = sum(map(len, texts))
    documented = 24 * characters + 8 * count**2 + 40 * len(set(texts)) ** 2
    assert peak(texts) < documented + 60e6
    # Working memory is that of a portion and a block: with small ones, hardly any.
    monkeypatch.setattr(chrf, "_PORTION", 1 << 12)
    monkeypatch.setattr(chrf, "_BLOCK", 1 << 12)
    assert peak(texts) < documented + 2e6


@pytest.fixture(scope="module")
def benchmark() -> Any:
    if not DATA.is_file():
        pytest.skip(f"no real data: {DATA} is absent")
    before = list(sys.path)
    sys.path.insert(0, str(ROOT / "benchmarks"))
    yield importlib.import_module("chrf_pairs")
    sys.path[:] = before


def test_real_texts_equal_and_fast(benchmark: Any) -> None:
    """The benchmark itself, small: 64 texts, for which 63 * 64 calls of sacrebleu take over fifty times as long."""
    responses = [text for texts in benchmark.read(DATA, seed=0).values() for text in texts]
    texts = benchmark.pooled(responses, count=64, length=2000, seed=1)
    found = benchmark.measure(texts, pairs=15, repeats=3, seed=0)
    assert found.difference < 1e-9
    assert max(found.ratios) > 50
