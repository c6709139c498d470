"""The `api` backend against a loopback server that fails in every way we know: nothing lost, nothing asked twice."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from dereason.errors import DereasonError
from dereason.lm.api.endpoint import asked_wait, read_reply
from dereason.lm.api.model import ApiModel
from dereason.lm.base import Completion, Message, Sampling
from dereason.lm.cost import estimate, usage
from dereason.lm.load import check_model, load_model
from dereason.lm.local.model import ModelSettings
from dereason.verify.thinking import outside_thinking
from endpoint import Act, Endpoint, error, reply, user

HOW = Sampling(max_new_tokens=20)


def chats(count: int) -> list[list[Message]]:
    return [[{"role": "user", "content": f"question {i}"}] for i in range(count)]


def model(url: str, store: Path | None = None, kwargs: dict[str, Any] | None = None, **api: Any) -> ApiModel:
    settings = ModelSettings(name="teacher", backend="api", api={"base_url": url, "retries": 3, **api})
    lm = load_model(settings, kwargs, store=store)
    assert isinstance(lm, ApiModel)
    return lm


def drawn(lm: ApiModel, asked: list[list[Message]], n: int = 1, how: Sampling = HOW) -> dict[int, list[Completion]]:
    return dict(lm.generate(asked, n, how, seed=7))


def texts(body: dict[str, Any]) -> list[str]:
    """Answers that tell which request got them."""
    return [f"{user(body)}: answer {body['seed']}.{i}" for i in range(body.get("n", 1))]


def answers(body: dict[str, Any], times: int = 0) -> Act:
    return reply(*texts(body))


def lines(store: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in store.glob("*.jsonl") for line in path.read_text().splitlines()]


def test_every_failure_is_tried_again_and_the_result_is_the_undisturbed_one(tmp_path: Path) -> None:
    failures = {
        "question 1": error(429, "slow down"),
        "question 2": error(500, "broken"),
        "question 4": (200, {}, reply("cut off")[2][:40]),
        "question 5": (200, {}, b'{"choices": []}'),
        "question 6": (200, {"Content-Length": "500"}, b"{"),  # the connection is lost in the middle
        "question 7": (200, {}, b'{"error": {"message": "overloaded", "code": 502}}'),
        "question 8": (502, {}, b"<html>bad gateway</html>"),
    }

    def act(body: dict[str, Any], times: int) -> Act:
        if times == 0 and user(body) == "question 3":
            server.closing.wait(3)  # hangs past the time limit
        elif times == 0 and user(body) in failures:
            return failures[user(body)]
        return answers(body)

    with Endpoint(answers) as calm:
        expected = drawn(model(calm.url), chats(10), 2)
    with Endpoint(act) as server:
        lm = model(server.url, tmp_path, timeout_s=1)
        found = drawn(lm, chats(10), 2)
        asked = server.asked()
    assert found == expected
    assert [c.index for c in found[3]] == [0, 1]
    assert len({c.text for batch in found.values() for c in batch}) == 20
    assert asked == Counter({f"question {i}": 2 if 1 <= i <= 8 else 1 for i in range(10)})
    # a request that a closed connection swallowed is a retry that the server did not see
    assert 8 <= lm.usage.retries == lm.usage.calls - 10
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


def test_what_an_endpoint_asks_to_wait_is_read_in_every_form() -> None:
    assert asked_wait({"retry-after": "7"}) == 7
    assert asked_wait({"retry-after-ms": "250"}) == 0.25
    assert asked_wait({"retry-after": formatdate(time.time() + 60, usegmt=True)}) == pytest.approx(60, abs=2)
    assert asked_wait({"retry-after": formatdate(time.time() - 60, usegmt=True)}) == 0
    assert asked_wait({"retry-after": "soon"}) is None
    assert asked_wait({}) is None


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


def test_greedy_responses_are_asked_one_a_call() -> None:
    """vLLM rejects several greedy choices."""
    with Endpoint(answers) as server:
        drawn(model(server.url), chats(1), 2, Sampling(temperature=0))
        assert ["n" in b for b in server.bodies] == [False, False]


def test_the_request_says_what_the_settings_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another-endpoint")
    monkeypatch.setenv("TEACHER_KEY", "sk-teacher")
    with Endpoint(lambda body, times: reply("a", "b")) as server:
        lm = model(
            server.url, None, {"enable_thinking": False}, key_env="TEACHER_KEY", extra={"top_p": 0.9}, seed=False
        )
        drawn(lm, chats(1), 2, Sampling(max_new_tokens=9, temperature=0.5))
        assert server.bodies[0] == {
            "model": "teacher",
            "messages": chats(1)[0],
            "temperature": 0.5,
            "max_tokens": 9,
            "n": 2,
            "chat_template_kwargs": {"enable_thinking": False},
            "top_p": 0.9,
        }
        drawn(model(server.url), chats(1), 2)
        assert server.keys == ["Bearer sk-teacher", "Bearer none"]


def test_the_key_is_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHER_KEY", "sk-secret")
    act = lambda body, times: error(401, "bad key sk-secret") if user(body) == "question 1" else answers(body)  # noqa: E731
    with Endpoint(act) as server:
        lm = model(server.url, tmp_path, key_env="TEACHER_KEY")
        drawn(lm, chats(1))
        with pytest.raises(DereasonError, match="refuses the key") as caught:
            drawn(lm, chats(4))
        assert server.asked()["question 1"] == 1
    assert "TEACHER_KEY" in caught.value.mend
    assert "sk-secret" not in caught.value.line() + "".join(p.read_text() for p in tmp_path.iterdir())
    assert "sk-secret" not in lm.settings.model_dump_json() + repr(lm.settings)


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


def test_concurrency_is_bounded_and_the_order_of_replies_changes_nothing() -> None:
    def slow(delays: list[float]) -> Any:
        return lambda body, times: (time.sleep(delays[int(user(body).split()[-1]) % 5]), answers(body))[1]

    results = []
    for delays, concurrency in (([0.04, 0.08, 0.03, 0.05, 0.03], 5), ([0.03, 0.03, 0.06, 0.03, 0.05], 3)):
        with Endpoint(slow(delays)) as server:
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
        time.sleep(0.5)
        assert len(server.bodies) >= 10
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


def test_other_steps_get_stored_answers_and_other_questions_do_not(tmp_path: Path) -> None:
    with Endpoint(answers) as server:
        drawn(model(server.url, tmp_path), chats(3), 2)
    with Endpoint(answers) as server:  # at another address
        first = model(server.url, tmp_path, concurrency=1, price_in=1, price_out=1)
        twice = [*chats(3), *chats(2)]  # equal prompts are one question, as for a local model
        found = drawn(first, twice, 2, Sampling(max_new_tokens=20, batch_size=1))
        assert server.bodies == []
        assert [c.text for c in found[3]] == [c.text for c in found[0]]
        drawn(model(server.url, tmp_path, extra={"top_p": 0.5}), chats(1), 2)
        drawn(model(server.url, tmp_path, {"enable_thinking": True}), chats(1), 2)
        drawn(model(server.url, tmp_path), chats(1), 2, Sampling(max_new_tokens=21))
        drawn(model(server.url, tmp_path), chats(1), 2, Sampling(max_new_tokens=20, temperature=0.9))
        dict(model(server.url, tmp_path).generate(chats(1), 2, HOW, seed=8))
        assert len(server.bodies) == 5
        renamed = ModelSettings(name="teacher", revision="v2", backend="api", api={"base_url": server.url})
        dict(load_model(renamed, store=tmp_path).generate(chats(1), 2, HOW, 7))
        assert len(server.bodies) == 6
        assert len(list(tmp_path.glob("*.jsonl"))) == 2


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


def test_estimates_and_totals(tmp_path: Path) -> None:
    with Endpoint(answers) as server:
        lm = model(server.url, tmp_path, price_in=2, price_out=100)
        plan = estimate(lm, chats(10), 2, HOW, 7)
        assert (plan.responses, plan.stored, plan.prompt_tokens, plan.max_new_tokens) == (20, 0, 60, 400)
        assert plan.price == pytest.approx((60 * 2 + 400 * 100) / 1e6)
        assert plan.words() == "20 responses, about 60 prompt tokens, at most 400 generated; at most about $0.04"
        drawn(lm, chats(4), 2)
        before = usage(lm)
        assert (before.calls, before.prompt_tokens, before.tokens) == (4, 40, 40)
        assert before.words() == "4 calls, 40 + 40 tokens, $0.0041"
        plan = estimate(lm, chats(10), 2, HOW, 7)
        assert (plan.stored, plan.prompt_tokens, plan.max_new_tokens) == (8, 18, 240)
        assert estimate(lm, chats(4), 2, HOW, 7).words() == "8 responses, all stored"
        drawn(lm, chats(5), 2)
        took = usage(lm).since(before)
        assert (took.calls, took.stored, took.price) == (1, 8, pytest.approx((10 * 2 + 10 * 100) / 1e6))


def test_a_local_models_prompt_tokens_are_exact(tiny_model: Path) -> None:
    from dereason.lm.local.model import LocalModel

    lm = LocalModel(ModelSettings(name=str(tiny_model), device="cpu"))
    plan = estimate(lm, chats(3), 2, HOW, 0)
    assert plan.prompt_tokens == sum(len(lm.encode(chat)) for chat in chats(3))
    assert "about" not in plan.words()
    assert usage(lm).words() == ""


def test_reasoning_stands_in_front_as_a_thought() -> None:
    act = lambda body, times: {  # noqa: E731
        "question 0": reply("It is 4.", message={"reasoning_content": "2 + 2"}),
        "question 1": reply(None, finish_reason="length", message={"reasoning": "hm, boxed{3}"}),
    }[user(body)]
    with Endpoint(act) as server:
        found = drawn(model(server.url), chats(2))
    (whole,), (cut,) = found[0], found[1]
    assert outside_thinking(whole.text)[0].strip() == "It is 4."
    assert "2 + 2" in whole.text
    assert not whole.hit_limit
    assert outside_thinking(cut.text) == ("\n" * len(cut.text), True)
    assert (cut.hit_limit, cut.refusal) == (True, "")


def test_tokens_of_several_choices_sum_to_what_the_endpoint_counted() -> None:
    choices = [
        {"message": {"content": "a" * size}, "finish_reason": end}
        for size, end in ((9, "stop"), (50, "length"), (22, "stop"))
    ]
    content = json.dumps({"choices": choices, "usage": {"prompt_tokens": 3, "completion_tokens": 31}}).encode()
    assert [a.tokens for a in read_reply(content, 20).answers] == [3, 20, 8]
    assert sum(a.tokens for a in read_reply(content, 64).answers) == 31  # an endpoint's own limit
    cut = [{**choice, "finish_reason": "length"} for choice in choices[:2]]
    both = json.dumps({"choices": cut, "usage": {"completion_tokens": 40}}).encode()
    assert [a.tokens for a in read_reply(both, 20).answers] == [20, 20]
    uncounted = json.dumps({"choices": choices}).encode()
    assert [a.tokens for a in read_reply(uncounted, 20).answers] == [3, 13, 6]


def test_an_endpoint_that_does_not_sample_is_named(caplog: pytest.LogCaptureFixture) -> None:
    with Endpoint(lambda body, times: reply(*["the same long answer, whatever the seed may be"] * 2)) as server:
        lm = model(server.url)
        drawn(lm, chats(6), 2)
        drawn(lm, chats(6), 2)
    (said,) = caplog.records
    assert "the same response 2 times to each of 3 prompts" in said.getMessage()


def test_another_model_behind_the_same_name_is_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Endpoint(answers) as server:
        drawn(model(server.url, tmp_path), chats(2))
        server.act = lambda body, times: (200, {}, answers(body)[2].replace(b'"served"', b'"served-2"'))
        drawn(model(server.url, tmp_path), chats(6))
    (said,) = caplog.records
    assert "served-2 answers now, and served answered the stored calls; set revision" in said.getMessage()


def test_trouble_is_said_before_it_ends_the_run(caplog: pytest.LogCaptureFixture) -> None:
    act = lambda body, times: error(500, "broken", Retry_After="0") if times < 4 else answers(body)  # noqa: E731
    with Endpoint(act) as server:
        drawn(model(server.url, retries=5), chats(1))
    (said,) = caplog.records
    assert said.getMessage() == "4 tries of one call failed: HTTP 500: broken"


def first_tokens(**logps: float) -> dict[str, Any]:
    top = [{"token": token, "logprob": logp} for token, logp in logps.items()]
    return {"content": [{"token": top[0]["token"], "logprob": top[0]["logprob"], "top_logprobs": top}]}


def test_a_judge_reads_the_first_token(tmp_path: Path) -> None:
    said = {
        "question 0": first_tokens(**{"1": -1.0, "3": -2.0, " 2": -0.1, "The": -0.5}),
        "question 1": first_tokens(**{"The": -0.5, " 2": -1.0, "\n2": -3.0}),
        "question 2": first_tokens(**{"2": -1.0}),
    }
    act = lambda body, times: reply("x", logprobs=said[user(body)])  # noqa: E731
    with Endpoint(act) as server:
        asked = [chats(3)[i] for i in (0, 1, 2, 0)]
        parts = list(model(server.url, tmp_path).choice_probabilities(asked, ("1", "2", "3"), 3))
        assert [p.shape for p in parts] == [(3, 3), (1, 3)]
        a, b = math.exp(-1), math.exp(-2)
        assert parts[0][0].tolist() == pytest.approx([a / (a + b), 0, b / (a + b)])
        assert parts[0][1].tolist() == [0, 1, 0]
        assert parts[1][0].tolist() == parts[0][0].tolist()
        assert len(server.bodies) == 3
        wanted = {"max_tokens": 1, "logprobs": True, "top_logprobs": 20}
        assert server.bodies[0].items() >= wanted.items()
        again = list(model(server.url, tmp_path).choice_probabilities(asked, ("1", "2", "3"), 4))
        assert again[0].tolist() == [*parts[0].tolist(), *parts[1].tolist()]
        assert len(server.bodies) == 3
        with pytest.raises(DereasonError, match="none of 4, 5 is among the likeliest first tokens"):
            next(model(server.url, tmp_path).choice_probabilities(asked, ("4", "5"), 4))


def test_an_endpoint_without_log_probabilities_is_no_judge(tmp_path: Path) -> None:
    with Endpoint(lambda body, times: reply("3")) as server:
        for _ in range(2):  # nothing is stored that would say so for good
            with pytest.raises(DereasonError, match="gives no log-probabilities") as caught:
                next(model(server.url, tmp_path).choice_probabilities(chats(1), "123", 1))
        assert len(server.bodies) == 2
    assert "vLLM" in caught.value.mend


def test_identity_and_hash_come_from_names_and_the_address_is_not_among_them(tmp_path: Path) -> None:
    at = {"base_url": "http://localhost:1/v1"}
    one = load_model(ModelSettings(name="a/b", revision="7", backend="api", api=at))
    other = load_model(ModelSettings(name="a/b", revision="7", backend="api", api={"base_url": "http://x/v1/"}))
    assert one.identity == other.identity == "a/b@7"
    assert one.template_hash() == other.template_hash() != load_model(one.settings, {"x": 1}).template_hash()
    numerics = ModelSettings(name="m", backend="api", dtype="float16", api={**at, "concurrency": 3}).numerics()
    assert numerics == ModelSettings(name="m", backend="api", device="cpu", api=at).numerics()
    assert numerics != ModelSettings(name="m", backend="api", api={**at, "extra": {"top_p": 0.5}}).numerics()
    assert numerics != ModelSettings(name="m").numerics()
    (tmp_path / "m").mkdir()  # a folder of that name here is not what the endpoint serves
    assert load_model(ModelSettings(name=str(tmp_path / "m"), backend="api", api=at)).identity.endswith("/m@main")


def test_settings_that_cannot_work_are_refused_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    good = {"base_url": "http://localhost:8000/v1"}
    with pytest.raises(DereasonError, match=r"no address.*set api\.base_url"):
        check_model(ModelSettings(name="m", backend="api"))
    with pytest.raises(DereasonError, match=r"names \$NO_SUCH_KEY, which is not set"):
        check_model(ModelSettings(name="m", backend="api", api={**good, "key_env": "NO_SUCH_KEY"}))
    assert check_model(ModelSettings(name="m", backend="api", api=good)) == "endpoint"
    for wrong, says in [
        ({"base_url": "localhost:8000"}, "an address such as"),
        ({"base_url": "https://me:secret@host/v1"}, "no user, password"),
        ({"base_url": "http://host/v1/chat/completions"}, "must end before"),
        ({**good, "extra": {"n": 2, "model": "x"}}, "model, n cannot be set here"),
        ({**good, "price_in": 1.0}, "go together"),
        ({**good, "budget": 1.0}, "needs price_in"),
    ]:
        with pytest.raises(ValueError, match=says):
            ModelSettings(name="m", backend="api", api=wrong)
    with pytest.raises(ValueError, match="as the endpoint lists it"):
        ModelSettings(backend="api", api=good)
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(DereasonError, match="needs the packages openai") as caught:
        check_model(ModelSettings(name="m", backend="api", api=good))
    assert "dereason[api]" in caught.value.mend


def test_reading_the_settings_loads_no_client() -> None:
    code = "import sys, dereason.lm.load; sys.exit(bool({'openai', 'tenacity', 'torch'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], env={**os.environ}).returncode == 0
