"""The `api` backend against a loopback server that fails in every way we know: nothing lost, nothing asked twice."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from dereason.errors import DereasonError
from endpoint import HOW, Act, Endpoint, answers, chats, drawn, error, lines, model, reply, texts, user


def test_every_failure_is_tried_again_and_the_result_is_the_undisturbed_one(tmp_path: Path) -> None:
    failures = {
        "question 1": error(429, "slow down"),
        "question 2": error(500, "broken"),
        "question 4": (200, {}, reply("cut off")[2][:40]),
        "question 5": (200, {}, b'{"choices": []}'),
        "question 6": (200, {"Content-Length": "500"}, b"{"),  # the connection is lost in the middle
        "question 9": (200, {"Content-Length": "500", "X-Slowly": "1"}, b"{"),  # a byte now and then, never all
        "question 7": (200, {}, b'{"error": {"message": "overloaded", "code": 502}}'),
        "question 8": (502, {}, b"<html>bad gateway</html>"),
    }

    def act(body: dict[str, Any], times: int) -> Act:
        if times == 0 and user(body) == "question 3":
            server.closing.wait(60)  # hangs past the time limit
        elif times == 0 and user(body) in failures:
            return failures[user(body)]
        return answers(body)

    with Endpoint(answers) as calm:
        expected = drawn(model(calm.url), chats(10), 2)
    with Endpoint(act) as server:
        lm = model(server.url, tmp_path, timeout_s=3)
        began = time.monotonic()
        found = drawn(lm, chats(10), 2)
        assert time.monotonic() - began < 20, "the limit is for the whole reply"
        asked = server.asked()
    assert found == expected
    assert [c.index for c in found[3]] == [0, 1]
    assert len({c.text for batch in found.values() for c in batch}) == 20
    assert asked == Counter({f"question {i}": 1 if i == 0 else 2 for i in range(10)})
    # a request that a closed connection swallowed is a retry that the server did not see
    assert 9 <= lm.usage.retries == lm.usage.calls - 10
    assert (lm.usage.prompt_tokens, lm.usage.tokens) == (100, 100)  # replies alone are counted
    assert len(lines(tmp_path)) == 10


def test_retry_after_holds_back_every_caller() -> None:
    def act(body: dict[str, Any], times: int) -> Act:
        if user(body) == "question 0" and times == 0:
            return error(429, "wait", Retry_After="0.8")
        time.sleep(0.1)
        return answers(body)

    with Endpoint(act) as server:
        lm = model(server.url, concurrency=1)
        assert len(drawn(lm, chats(3))) == 3
        assert server.times[1] - server.times[0] > 0.8
    with Endpoint(act) as server:
        lm = model(server.url, concurrency=2)
        assert len(drawn(lm, chats(6))) == 6
        refused = server.times[0]
        assert all(at - refused > 0.7 for at in server.times[2:]), "others waited too"


def test_a_wait_of_hours_ends_the_run_in_place_of_sleeping(tmp_path: Path) -> None:
    with Endpoint(lambda body, times: error(429, "quota", Retry_After="7200")) as server:
        with pytest.raises(DereasonError, match="asks to wait 7200 s"):
            drawn(model(server.url, tmp_path), chats(1))
        assert len(server.bodies) == 1


def test_a_refusal_is_a_finished_call(tmp_path: Path) -> None:
    said = {
        "question 0": reply(None, message={"refusal": "I will not."}),
        "question 1": reply("half a", finish_reason="content_filter"),
        "question 2": reply(None),
        "question 3": error(400, "the prompt is too long"),
        "question 4": reply(""),
    }
    act = lambda body, times: said.get(user(body)) or answers(body)  # noqa: E731
    with Endpoint(act) as server:
        found = drawn(model(server.url, tmp_path, concurrency=1), chats(6))
        again = drawn(model(server.url, tmp_path), chats(6))
        assert len(server.bodies) == 6
    assert found == again
    refusals = [found[i][0].refusal for i in range(6)]
    assert refusals == [
        "I will not.",
        "content_filter",
        "no content (finish_reason stop)",
        "HTTP 400: the prompt is too long",
        "",
        "",
    ]
    assert [found[i][0].text for i in range(5)] == [""] * 5


def test_a_rejected_prompt_in_front_of_answered_ones_is_refused_alone(tmp_path: Path) -> None:
    act = lambda body, times: error(422, "no") if user(body) == "question 0" else answers(body)  # noqa: E731
    with Endpoint(act) as server:
        found = drawn(model(server.url, tmp_path, concurrency=1), chats(3), 2)
        # asked with n = 2, once more with 1 to see whether it was the number, and settled
        assert [b.get("n", 1) for b in server.bodies] == [2, 1, 2, 2]
    assert [[c.refusal for c in found[i]] for i in range(3)] == [["HTTP 422: no"] * 2, ["", ""], ["", ""]]


def test_settings_that_the_endpoint_never_takes_end_the_run_and_nothing_is_stored(tmp_path: Path) -> None:
    with Endpoint(lambda body, times: error(400, "use max_completion_tokens")) as server:
        with pytest.raises(
            DereasonError, match=r"rejected the first \d calls; the last: HTTP 400: use max_comp"
        ) as caught:
            drawn(model(server.url, tmp_path, concurrency=2), chats(40))
        assert "api.length_field" in caught.value.mend
        assert len(server.bodies) <= 7
        with pytest.raises(DereasonError, match="rejected every call"):
            drawn(model(server.url, tmp_path), chats(2))
        assert lines(tmp_path) == []
        server.act = answers
        found = drawn(model(server.url, tmp_path, length_field="max_completion_tokens"), chats(2))
        assert server.bodies[-1]["max_completion_tokens"] == 20
        assert not found[0][0].refusal


@pytest.mark.parametrize("fewer", ["ignored", "rejected"])
def test_an_endpoint_that_gives_one_choice_a_call_is_asked_n_times(tmp_path: Path, fewer: str) -> None:
    def act(body: dict[str, Any], times: int) -> Act:
        if "n" in body and fewer == "rejected":
            return error(400, "n must be 1")
        return reply(texts(body)[0])

    with Endpoint(act) as server:
        found = drawn(model(server.url, tmp_path, concurrency=1), chats(4), 3)
        assert all(len({c.text for c in batch}) == 3 for batch in found.values())
        assert len(server.bodies) == (12 if fewer == "ignored" else 13)
        assert [b["n"] for b in server.bodies if "n" in b] == [3]
        assert len({b["seed"] for b in server.bodies}) == 12
        assert drawn(model(server.url, tmp_path), chats(4), 3) == found
        more = drawn(model(server.url, tmp_path), chats(4), 4)
        assert {i: batch[:3] for i, batch in more.items()} == found
        assert len(server.bodies) == (16 if fewer == "ignored" else 17)


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (error(403, "not yours"), "refuses the key"),
        (error(404, "no such model"), "has no model 'teacher'"),
        (error(402, "no credit"), "wants to be paid"),
        ((429, {}, b'{"error": {"message": "spent", "code": "insufficient_quota"}}'), "wants to be paid"),
        (error(405, "not here"), "takes no calls"),
    ],
)
def test_what_trying_again_does_not_mend_is_said_at_once(act: Act, says: str) -> None:
    with Endpoint(lambda body, times: act) as server:
        with pytest.raises(DereasonError, match=says) as caught:
            drawn(model(server.url, concurrency=1), chats(3))
        assert len(server.bodies) == 1
    assert caught.value.mend


def test_a_server_that_is_gone_ends_the_run_and_the_rest_is_asked_later(tmp_path: Path) -> None:
    def act(body: dict[str, Any], times: int) -> Act:
        if user(body) == "question 1":
            return error(503, "down")
        time.sleep(0.2)
        return answers(body)

    with Endpoint(act) as server:
        with pytest.raises(DereasonError, match=r"gave no reply in 2 tries .*HTTP 503: down") as caught:
            drawn(model(server.url, tmp_path, concurrency=4, retries=1), chats(200))
        stored = {line["key"] for line in lines(tmp_path)}
        finished = {q for q, _ in server.asked().items() if q != "question 1"}
        assert len(stored) == len(finished) >= 3  # what was in flight came back and was stored
        assert f"{len(stored)} finished calls are stored" in caught.value.cause
        assert "the same command" in caught.value.mend
        server.act = answers
        before = server.asked()
        assert len(drawn(model(server.url, tmp_path, concurrency=50), chats(200))) == 200
        assert all(server.asked()[q] == before[q] for q in finished)
        assert len(lines(tmp_path)) == 200


def test_a_run_that_ends_waits_for_nobody(tmp_path: Path) -> None:
    def act(body: dict[str, Any], times: int) -> Act:
        if user(body) == "question 0":
            server.closing.wait(20)
        if user(body) == "question 1":
            return error(500, "later", Retry_After="30")
        time.sleep(0.3)
        return error(404, "gone") if user(body) == "question 3" else answers(body)

    with Endpoint(act) as server:
        began = time.monotonic()
        with pytest.raises(DereasonError, match="has no model"):
            drawn(model(server.url, tmp_path), chats(4)[1:])  # one call waits to be tried again
        assert len(lines(tmp_path)) == 1
        coming = model(server.url).generate(chats(3), 1, HOW, 7)
        next(coming)
        coming.close()  # type: ignore[attr-defined]  # one call has no reply yet
        assert time.monotonic() - began < 10


def test_concurrency_is_bounded_and_the_order_of_replies_changes_nothing() -> None:
    results = []
    for delays, concurrency in (([0.01, 0.05, 0, 0.02, 0], 5), ([0, 0, 0.04, 0, 0.03], 3)):
        together = threading.Barrier(concurrency)

        def act(body: dict[str, Any], times: int) -> Act:
            if len(server.bodies) <= concurrency:  # noqa: B023
                together.wait(10)  # noqa: B023
            time.sleep(delays[int(user(body).split()[-1]) % 5])  # noqa: B023
            return answers(body)

        with Endpoint(act) as server:
            results.append(drawn(model(server.url, concurrency=concurrency), chats(30), 2))
            assert server.most == concurrency
    assert results[0] == results[1]


def test_calls_go_on_while_the_caller_works_and_closing_cancels_them(tmp_path: Path) -> None:
    def act(body: dict[str, Any], times: int) -> Act:
        time.sleep(0.05)
        return answers(body)

    with Endpoint(act) as server:
        lm = model(server.url, tmp_path, concurrency=2)
        coming = lm.generate(chats(400), 1, HOW, 7)
        next(coming)
        deadline = time.monotonic() + 60
        while len(server.bodies) < 10:  # though nobody asks for the next
            assert time.monotonic() < deadline
            time.sleep(0.01)
        coming.close()  # type: ignore[attr-defined]
        stored, asked = len(lines(tmp_path)), len(server.bodies)
        assert asked - stored <= 2
        time.sleep(0.2)
        assert len(server.bodies) == asked
        finished = frozenset(range(0, 400, 2))
        rest = dict(model(server.url, tmp_path, concurrency=100).generate(chats(400), 1, HOW, 7, finished))
        assert sorted(rest) == list(range(1, 400, 2))


CHILD = """
import sys
from pathlib import Path
from dereason.lm.load import load_model
from dereason.lm.local.model import ModelSettings
from dereason.lm.base import Sampling
lm = load_model(ModelSettings(name="teacher", backend="api", api={"base_url": sys.argv[1], "concurrency": 4}),
                store=Path(sys.argv[2]))
asked = [[{"role": "user", "content": f"question {i}"}] for i in range(60)]
for number, batch in lm.generate(asked, 2, Sampling(max_new_tokens=20), seed=7):
    pass
"""


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_process_loses_nothing_and_asks_nothing_twice(tmp_path: Path, sent: signal.Signals) -> None:
    def act(body: dict[str, Any], times: int) -> Act:
        time.sleep(0.03)
        return answers(body)

    with Endpoint(act) as server:
        command = [sys.executable, "-c", CHILD, server.url, str(tmp_path)]
        child = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while len(server.bodies) < 25 and time.monotonic() < deadline:
            time.sleep(0.01)
        child.send_signal(sent)
        assert child.wait(10) == -sent
        time.sleep(0.1)
        (path,) = tmp_path.iterdir()
        stored = path.read_bytes().count(b"\n")
        before = server.asked()
        assert 20 <= stored <= len(before) <= stored + 4
        with path.open("ab") as handle:
            handle.write(b'{"key": "torn in the mid')  # as a kill in the middle of a line leaves it
        found = drawn(model(server.url, tmp_path), chats(60), 2)
        assert sum(server.asked().values()) == 60 + sum(before.values()) - stored
        with Endpoint(answers) as calm:
            assert found == drawn(model(calm.url), chats(60), 2)
        again = model(server.url, tmp_path)
        assert drawn(again, chats(60), 2) == found
        assert (again.usage.calls, again.usage.stored) == (0, 120)


def test_the_budget_is_never_passed_and_counts_what_earlier_starts_paid(tmp_path: Path) -> None:
    prices = {"price_in": 1e3, "price_out": 1e3, "concurrency": 4}  # a call is 15 tokens: $0.015
    with Endpoint(answers) as server:
        lm = model(server.url, tmp_path, budget=0.1, **prices)
        with pytest.raises(DereasonError, match=r"api\.budget is \$0.1") as caught:
            drawn(lm, chats(20))
        first = len(server.bodies)
        assert lm.usage.price == pytest.approx(0.015 * first)
        assert 2 <= first <= 6
        assert lm.usage.price <= 0.1
        assert f"{first} finished calls are stored" in caught.value.cause
        with pytest.raises(DereasonError, match=r"api\.budget"):
            drawn(model(server.url, tmp_path, budget=0.1, **prices), chats(20))
        assert len(server.bodies) == first
        assert len(drawn(model(server.url, tmp_path, budget=1, **prices), chats(20))) == 20
        assert len(server.bodies) == 20


def test_trouble_is_said_before_it_ends_the_run(caplog: pytest.LogCaptureFixture) -> None:
    act = lambda body, times: error(500, "broken", Retry_After="0") if times < 4 else answers(body)  # noqa: E731
    with Endpoint(act) as server:
        drawn(model(server.url, retries=5), chats(1))
    (said,) = caplog.records
    assert said.getMessage() == "4 tries of one call failed: HTTP 500: broken"


def test_the_budget_holds_where_nothing_is_counted_and_over_other_settings_of_the_model(tmp_path: Path) -> None:
    """Without usage in the reply a prompt is a quarter of its bytes; a second way to the same model adds up."""
    prices = {"price_in": 1e6, "price_out": 0, "concurrency": 1}  # a dollar a prompt token

    def silent(body: dict[str, Any], times: int) -> Act:
        status, headers, content = answers(body, times)
        return status, headers, json.dumps(json.loads(content) | {"usage": None}).encode()

    asked = [[{"role": "user", "content": "x" * 400 + str(i)}] for i in range(9)]
    with Endpoint(silent) as server:
        one, other = (model(server.url, tmp_path, budget=450, timeout_s=9 + i, **prices) for i in range(2))
        for lm in (one, other):
            with pytest.raises(DereasonError, match=r"api\.budget"):
                drawn(lm, asked)  # type: ignore[arg-type]
        assert 2 <= len(server.bodies) <= 4
