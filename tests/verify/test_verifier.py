"""The verifier: bombs cost at most their limit, batches are judged as single responses are, comparisons are kept."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Any

import pytest

from dereason.problems.schema import Verdict
from dereason.verify import verifier as module
from dereason.verify.tolerance import EXACT
from dereason.verify.verdict import Judgement
from dereason.verify.verifier import ComparisonError, Item, Verifier, VerifierSettings, default_verifier
from dereason.verify.workers import Pool

LIMIT = 1.0
SLACK = 30.0
"""Seconds for killing a worker and starting the next one, on a busy machine; a bomb without a limit takes for ever."""

UNDECIDED = [
    (r"\sin^2(x) + \cos^2(x) + y", "1 + y", True),
    (r"\ln(x^2 y)", r"\ln x + \ln(x y)", None),  # true only for positive numbers: either answer will do
    (r"\cos(2x)", r"1 - 2\sin^2 x", True),
    (r"\cos(2x)", r"1 - 2\cos^2 x", False),
]
"""Pairs that need sympy."""


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    """With more time than a comparison takes on the busiest machine."""
    with Verifier(VerifierSettings(time_limit=60, workers=2)) as made:
        yield made


@pytest.fixture(scope="module")
def limited() -> Iterator[Verifier]:
    """With limits that are reached soon."""
    with Verifier(VerifierSettings(time_limit=LIMIT, memory_limit=128, workers=2)) as made:
        yield made


def test_what_the_rules_leave_open_is_decided_by_sympy(verifier: Verifier) -> None:
    assert any(module._fast((answer, reference, None, EXACT)) is None for answer, reference, _ in UNDECIDED), (
        "no rule knows"
    )
    for answer, reference, expected in UNDECIDED:
        if expected is not None:
            assert verifier.equivalent(answer, reference)[0] is expected, (answer, reference)


BOMBS = [
    ("9**9**9**9", "2^{10}", True),
    ("9^{9^{9^9}}", "2^{10}", True),
    (r"9^{9^{9^9}}", r"\sqrt{2} + x", True),
    ("(10^{7})!", r"\sqrt{2} + x", True),
    (r"\int_0^1 e^{x^3}\sin(x^5) dx", r"\frac{\sqrt{\pi}}{2}", True),  # sympy looks for a closed form
    ("2^{10^{10}}", r"\sqrt{2} + x", True),
    ("(" * 400 + "x" + "+1)" * 400, "x + 400", False),
    ("x^{" * 500 + "2" + "}" * 500, "x", False),
    ("{" * 50_000 + "x" + "}" * 50_000, "x^2 + 1", False),
    (r"\frac{1}{" * 3000 + "x" + "}" * 3000, "x^2 + 1", False),
    ("-" * 50_000 + "x", "x + y", False),
]
"""Answer, reference, and whether it has to reach a limit; False where a rule may decide it before sympy (then it is
wrong)."""
REACHED = ["took longer than 1 s", "needed more than 128 MiB"]
"""What the cause says: which limit comes first depends on how fast the machine takes memory."""


@pytest.mark.parametrize(("answer", "reference", "reaches"), BOMBS, ids=[a[:20] for a, *_ in BOMBS])
def test_a_bomb_costs_at_most_its_limit(
    limited: Verifier, answer: str, reference: str, reaches: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = time.monotonic()
    judged = limited.judge(f"So \\boxed{{{answer}}}", False, reference)
    assert time.monotonic() - started < LIMIT + SLACK
    assert judged.verdict is Verdict.ERROR if reaches else judged.verdict in (Verdict.ERROR, Verdict.WRONG)
    if judged.verdict is Verdict.ERROR:
        assert any(words in judged.reason for words in (REACHED if reaches else ["symbolic comparison"]))
    assert judged.extracted is not None
    monkeypatch.setattr(Pool, "run", lambda *_: pytest.fail("a failure is remembered"))
    assert limited.judge(f"So \\boxed{{{answer}}}", True, reference) == judged


def test_bombs_do_not_touch_the_rest_of_a_batch(limited: Verifier) -> None:
    items, expected = [], []
    for i in range(1000):
        items.append(
            Item(f"With \\boxed{{{i} + {i}}} we get \\boxed{{x + {i}}}", False, f"{i} + x" if i % 2 else f"{i}x")
        )
        expected.append(Verdict.CORRECT if i % 2 else Verdict.WRONG)
    for at, (bomb, reference, _) in zip((100, 500, 900), BOMBS[1:4], strict=True):
        items[at] = Item(f"\\boxed{{{bomb}+0}}", False, reference)
        expected[at] = Verdict.ERROR
    started = time.monotonic()
    judged = limited.judge_many(items)
    assert time.monotonic() - started < 3 * (LIMIT + SLACK) + 30
    assert [j.verdict for j in judged] == expected
    assert all(any(words in j.reason for words in REACHED) for j in judged if j.verdict is Verdict.ERROR)


def test_a_batch_is_judged_as_its_items_are(verifier: Verifier) -> None:
    rng = random.Random(4)
    pieces = [r"\boxed{", "}", "the answer is ", "#### ", "7", "x", "^2", "(B)", "\n", " ", "+", r"\frac{1}{2}"]
    references = [("7", None), ("x^2 + x", None), ("B", ["6", "7"]), ("Z", ["6", "7"]), ("", None), (r"\{1, x\}", None)]
    items = []
    for _ in range(400):
        reference, options = rng.choice(references)
        items.append(Item("".join(rng.choices(pieces, k=rng.randrange(9))), rng.random() < 0.3, reference, options))
    judged = verifier.judge_many(items)
    assert {j.verdict for j in judged} == set(Verdict)
    with Verifier(VerifierSettings(time_limit=LIMIT, memory_limit=128, workers=1, cache_size=0)) as other:
        single = [other.judge(i.response, i.hit_limit, i.reference, i.options) for i in items[:100]]
    assert judged[:100] == single
    for item, j in zip(items, judged, strict=True):
        assert (j.start is None) == (j.how is None)
        if j.start is not None:
            assert 0 <= j.start < (j.end or 0) <= len(item.response)
    assert verifier.judge_many([]) == []


def test_a_judgement_says_where_it_looked(verifier: Verifier) -> None:
    response = r"First 3, then \boxed{x+x}."
    judged = verifier.judge(response, False, "2x")
    assert (judged.verdict, judged.kind, judged.how) == (Verdict.CORRECT, "expression", "boxed")
    assert response[judged.start : judged.end] == "x+x"
    assert judged.columns() == {
        "verdict": "correct", "strict": True,
        "extracted": "x+x", "reason": judged.reason, "kind": "expression", "how": "boxed",
    }  # fmt: skip


def test_equivalence_alone(verifier: Verifier, limited: Verifier) -> None:
    assert verifier.equivalent("0.5", "1/2")[0] is True
    assert verifier.equivalent("b", "two", ["one", "two"])[0] is True
    found = limited.equivalent_many(
        [("1", "1", None), ("9^{9^{9^9}}", "2^{10}", []), ("x", "", None), ("1", "2", None)]
    )
    assert [c.equal for c in found] == [True, None, None, False]
    with pytest.raises(ComparisonError, match="|".join(REACHED)):
        limited.equivalent("9^{9^{9^9}}", "2^{10}")
    with pytest.raises(ComparisonError, match="names none of the 2 options"):
        verifier.equivalent("B", "Q", ["one", "two"])


class Counted(Verifier):
    """Counts what goes to the workers."""

    sent: int = 0

    def _ask_workers(self, undecided: dict[Any, Any], out: list[Any]) -> None:
        self.sent += len(undecided)
        super()._ask_workers(undecided, out)


def test_a_pair_is_compared_once() -> None:
    answer, reference, _ = UNDECIDED[2]
    with Counted(VerifierSettings(workers=1, cache_size=3)) as counted:
        assert len({c for c in counted.equivalent_many([(answer, reference, None)] * 50)}) == 1
        assert counted.sent == 1, "duplicates in a batch"
        counted.equivalent(answer, reference)
        assert counted.sent == 1, "remembered"
        counted.equivalent_many([(str(i), "7", None) for i in range(10)])
        assert len(counted._remembered) == 3, "bounded"
        counted.equivalent(answer, reference)
        assert counted.sent == 2, "forgotten"


def test_long_texts_are_remembered_by_their_hash() -> None:
    long = "x" * 10_000
    keys = {
        module._key((*p, EXACT))
        for p in [(long, "a", None), (long + "x", "a", None), (long, "b", None), ("a", "b", None)]
    }
    keys |= {module._key((*p, EXACT)) for p in [("a", "b", ["c"]), ("a", "b", ["c", "d"]), ("\ud800" * 300, "b", None)]}
    assert len(keys) == 7
    assert all(len(str(key)) < 100 for key in keys)


def test_what_is_no_text_is_an_error_and_no_crash(verifier: Verifier) -> None:
    items: list[Any] = [Item(None, False, "7"), Item("7", False, None), Item("7", False, "7", [1, None])]  # type: ignore[arg-type,list-item]
    assert [j.verdict for j in verifier.judge_many([*items, Item("7", False, "7")])] == [
        *[Verdict.ERROR] * 3,
        Verdict.CORRECT,
    ]


def test_a_worker_that_does_not_start_is_an_error_that_is_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    answer, reference, _ = UNDECIDED[2]
    broken = Verifier(VerifierSettings(workers=1))
    with monkeypatch.context() as planted:
        planted.setattr("sys.executable", "/nowhere/python")
        judged = broken.judge(f"\\boxed{{{answer}}}", False, reference)
    assert judged.verdict is Verdict.ERROR
    assert "no worker" in judged.reason
    assert "/nowhere/python" in judged.reason
    broken._pool._retry_at = 0.0  # as if the time until the next attempt had passed
    assert broken.judge(f"\\boxed{{{answer}}}", False, reference).verdict is Verdict.CORRECT
    broken.close()


def test_several_threads(verifier: Verifier) -> None:
    def judge(i: int) -> Judgement:
        return verifier.judge(f"\\boxed{{\\cos(2x) + {i}}}", False, rf"1 + {i} - 2\sin^2 x")

    with ThreadPoolExecutor(6) as threads:
        assert {j.verdict for j in threads.map(judge, range(24))} == {Verdict.CORRECT}


def test_after_a_fork_the_child_can_judge_although_a_thread_held_the_locks(verifier: Verifier) -> None:
    answer, reference, _ = UNDECIDED[2]
    holding, release = threading.Event(), threading.Event()

    def hold() -> None:
        with verifier._lock, verifier._pool._lock, module._default_lock:
            holding.set()
            release.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    holding.wait(20)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            ok = verifier.judge(rf"\boxed{{{answer} + 1 - 1}}", False, reference).verdict is Verdict.CORRECT
            code = 0 if ok and default_verifier().judge("7", False, "7").verdict is Verdict.CORRECT else 2
            verifier.close()
        finally:
            os._exit(code)
    release.set()
    thread.join()
    deadline = time.monotonic() + 300
    while (done := os.waitpid(child, os.WNOHANG))[0] == 0:
        if time.monotonic() > deadline:
            os.kill(child, 9)
        time.sleep(0.05)
    assert done[1] == 0


def test_what_changes_no_verdict_is_not_in_the_key() -> None:
    settings = VerifierSettings(time_limit=3, memory_limit=100, workers=2, cache_size=9)
    exact = {"relative": None, "absolute": None, "significant": None}
    assert settings.key() == {
        "time_limit": 3.0, "memory_limit": 100, "tolerance": exact, "tolerance_by_source": {},
        "answer_check": None, "answer_check_by_source": {}, "checks": {"reasoning_gym": version("reasoning-gym")},
    }  # fmt: skip
