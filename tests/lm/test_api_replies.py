"""What the `api` backend asks, what it reads out of a reply, what it refuses, and what it says that it costs."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from dereason.errors import DereasonError
from dereason.lm.api.endpoint import asked_wait
from dereason.lm.api.reply import read_reply
from dereason.lm.base import Sampling
from dereason.lm.cost import estimate, usage
from dereason.lm.load import check_model, load_model
from dereason.lm.local.model import ModelSettings
from dereason.verify.thinking import outside_thinking
from endpoint import HOW, Act, Endpoint, answers, chats, drawn, error, model, reply, user


def test_what_an_endpoint_asks_to_wait_is_read_in_every_form() -> None:
    assert asked_wait({"retry-after": "7"}) == 7
    assert asked_wait({"retry-after-ms": "250"}) == 0.25
    assert asked_wait({"retry-after": formatdate(time.time() + 60, usegmt=True)}) == pytest.approx(60, abs=2)
    assert asked_wait({"retry-after": formatdate(time.time() - 60, usegmt=True)}) == 0
    assert asked_wait({"retry-after": "soon"}) is None
    assert asked_wait({}) is None


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
            server.url,
            None,
            {"enable_thinking": False},
            key_env="TEACHER_KEY",
            extra={"reasoning_effort": "low"},
            seed=False,
        )
        drawn(lm, chats(1), 2, Sampling(max_new_tokens=9, temperature=0.5))
        assert server.bodies[0] == {
            "model": "teacher",
            "messages": chats(1)[0],
            "temperature": 0.5,
            "max_tokens": 9,
            "n": 2,
            "chat_template_kwargs": {"enable_thinking": False},
            "reasoning_effort": "low",
        }
        drawn(model(server.url), chats(1), 2)
        assert server.keys == ["Bearer sk-teacher", "Bearer none"]


def test_filters_are_sent_and_one_that_an_endpoint_does_not_take_is_named() -> None:
    def act(body: dict[str, Any], times: int) -> Act:
        return error(400, "Unrecognized request argument supplied: min_p") if "min_p" in body else reply("a")

    with Endpoint(act) as server:
        drawn(model(server.url), chats(1), 1, Sampling(top_p=0.95, top_k=20))
        assert (server.bodies[0]["top_p"], server.bodies[0]["top_k"]) == (0.95, 20)
        assert "min_p" not in server.bodies[0], "what is left off is left to the endpoint"
        with pytest.raises(DereasonError, match=r"does not take min_p: .*Unrecognized request argument") as caught:
            drawn(model(server.url), chats(8), 2, Sampling(top_p=0.95, min_p=0.1))
        assert "leave sampling.min_p out" in caught.value.mend
        assert len(server.bodies) <= 9
    with pytest.raises(ValidationError, match="top_p cannot be set here"):
        model("http://localhost/v1", extra={"top_p": 0.9})


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


def test_other_steps_get_stored_answers_and_other_questions_do_not(tmp_path: Path) -> None:
    with Endpoint(answers) as server:
        drawn(model(server.url, tmp_path), chats(3), 2)
    with Endpoint(answers) as server:  # at another address
        first = model(server.url, tmp_path, concurrency=1, price_in=1, price_out=1)
        twice = [*chats(3), *chats(2)]  # equal prompts are one question, as for a local model
        found = drawn(first, twice, 2, Sampling(max_new_tokens=20, batch_size=1))
        assert server.bodies == []
        assert [c.text for c in found[3]] == [c.text for c in found[0]]
        drawn(model(server.url, tmp_path, extra={"reasoning_effort": "low"}), chats(1), 2)
        drawn(model(server.url, tmp_path), chats(1), 2, Sampling(max_new_tokens=20, top_k=5))
        drawn(model(server.url, tmp_path, {"enable_thinking": True}), chats(1), 2)
        drawn(model(server.url, tmp_path), chats(1), 2, Sampling(max_new_tokens=21))
        drawn(model(server.url, tmp_path), chats(1), 2, Sampling(max_new_tokens=20, temperature=0.9))
        dict(model(server.url, tmp_path).generate(chats(1), 2, HOW, seed=8))
        assert len(server.bodies) == 6
        renamed = ModelSettings(name="teacher", revision="v2", backend="api", api={"base_url": server.url})
        dict(load_model(renamed, store=tmp_path).generate(chats(1), 2, HOW, 7))
        assert len(server.bodies) == 7
        assert len(list(tmp_path.glob("*.jsonl"))) == 2


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
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "2 + 2"}]}
    parts = [thinking, {"type": "text", "text": "It is "}, {"type": "text", "text": "4."}]
    act = lambda body, times: {  # noqa: E731
        "question 0": reply("It is 4.", message={"reasoning_content": "2 + 2"}),
        "question 1": reply(None, finish_reason="length", message={"reasoning": "hm, boxed{3}"}),
        "question 2": reply(None, message={"content": parts}),
    }[user(body)]
    with Endpoint(act) as server:
        found = drawn(model(server.url), chats(3))
    (whole,), (cut,), (listed,) = found[0], found[1], found[2]
    assert (listed.text, listed.refusal) == (whole.text, "")
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
        drawn(lm, chats(4), 2)
        drawn(lm, chats(8), 2, Sampling(temperature=0.2))
        assert not caplog.records
        drawn(lm, chats(6), 2)
    (said,) = caplog.records
    assert "the same response 2 times to each of 5 prompts" in said.getMessage()


def test_another_model_behind_the_same_name_is_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Endpoint(answers) as server:
        drawn(model(server.url, tmp_path), chats(2))
        server.act = lambda body, times: (200, {}, answers(body)[2].replace(b'"served"', b'"served-2"'))
        drawn(model(server.url, tmp_path), chats(6))
    (said,) = caplog.records
    assert "served-2 answers now, and served answered the stored calls; set revision" in said.getMessage()


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
    assert (
        numerics != ModelSettings(name="m", backend="api", api={**at, "extra": {"reasoning_effort": "low"}}).numerics()
    )
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
