"""Replies as servers that call themselves compatible write them: what was paid for is read, kept and never in the way.

The fuzzed ones: no reply ends as a bug, and what was stored once is there at the next start.
"""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dereason.cli.main import main
from dereason.errors import DereasonError
from dereason.lm.api.endpoint import asked_wait
from dereason.lm.api.reply import NoReply, read_reply
from dereason.lm.base import Sampling
from dereason.lm.calls import Answer, Call, CallStore
from dereason.lm.load import load_model
from dereason.lm.local.model import ModelSettings
from dereason.problems.schema import frame, write_table
from endpoint import Act, Endpoint, answers, chats, drawn, model, reply, texts, user


def body(choice: Any, **fields: Any) -> bytes:
    choices = choice if isinstance(choice, list) else [choice]
    return json.dumps({"model": "m", "choices": choices, **fields}).encode()


def said(content: Any, end: Any = "stop", **fields: Any) -> dict[str, Any]:
    return {"index": 0, "finish_reason": end, "message": {"role": "assistant", "content": content, **fields}}


def answer(choice: Any, length: int = 20, **fields: Any) -> Answer:
    (found,) = read_reply(body(choice, **fields), length).answers
    return found


@pytest.mark.parametrize(
    "end",
    [
        *("length", "LENGTH", "max_tokens", "MAX_TOKENS", "FinishReason.MAX_TOKENS", "max_output_tokens"),
        *("model_length", "max_completion_tokens", "max_new_tokens", "max_length"),
        {"type": "length", "length": 20},
    ],
)
def test_every_spelling_of_the_length_limit_is_truncation(end: Any) -> None:
    assert answer(said("2 + ", end)).hit_limit
    assert answer(said(None, end)) == Answer("", 0, hit_limit=True)  # all of it went into thoughts that are not sent
    assert answer(said(None, end, reasoning_content="hm")).text == "<think>\nhm"


def test_a_limit_that_is_not_named_is_seen_by_the_count() -> None:
    whole = {"completion_tokens": 20}
    assert answer(said("2 + ", None), usage=whole).hit_limit
    assert not answer(said("4", "stop"), usage=whole).hit_limit
    assert not answer(said("4", None), usage={"completion_tokens": 19}).hit_limit


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "output_text", "text": "It is 4."}],
        [{"type": "text", "text": "It is "}, {"type": "output_text", "text": "4.", "annotations": []}],
        [{"type": "text", "text": {"value": "It is 4."}}],
        [{"text": "It is 4."}],
        ["It is", " 4."],
        {"type": "text", "text": "It is 4."},
        [{"type": "image_url", "image_url": {"url": "x"}}, {"type": "text", "text": "It is 4."}],
    ],
)
def test_every_form_of_content_is_text(content: Any) -> None:
    assert answer(said(content)) == Answer("It is 4.", 2)


@pytest.mark.parametrize(
    "message",
    [
        {"content": "4", "reasoning_content": "2 + 2"},
        {"content": "4", "reasoning": "2 + 2"},
        {"content": "4", "reasoning_content": None, "reasoning": [{"type": "reasoning.text", "text": "2 + 2"}]},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "2 + 2"}]}, {"text": "4"}]},
        {"content": [{"type": "reasoning", "summary": [{"text": "2 + 2"}]}, {"type": "output_text", "text": "4"}]},
        {"content": [{"text": "2 + 2", "thought": True}, {"text": "4"}]},
    ],
)
def test_every_form_of_a_thought_stands_in_front(message: Any) -> None:
    assert answer({"finish_reason": "stop", "message": message}).text == "<think>\n2 + 2\n</think>\n\n4"


@pytest.mark.parametrize(
    ("choice", "why"),
    [
        (said(None, refusal="I will not."), "I will not."),
        (said([{"type": "refusal", "refusal": "I will not."}]), "I will not."),
        (said("half of", "content_filter"), "content_filter"),
        (said(None, "SAFETY"), "safety"),
        (said(None, "stop"), "no content (finish_reason stop)"),
        (said(None, "tool_calls", tool_calls=[{"id": "1"}]), "no content (finish_reason tool_calls)"),
        ({"finish_reason": "stop", "message": None}, "no content (finish_reason stop)"),
        ({"finish_reason": None, "index": None}, "no content (finish_reason None)"),
    ],
)
def test_what_is_no_response_is_a_refusal_with_its_reason(choice: Any, why: str) -> None:
    found = answer(choice)
    assert (found.text, found.refusal) == ("", why)


def test_log_probabilities_that_nobody_asked_for_are_no_failure() -> None:
    place: dict[str, Any] = {"token": "4", "logprob": -0.1, "top_logprobs": None}
    for logprobs in (None, [], {"content": None}, {"content": [None]}, {"content": [place]}):
        assert answer({**said("4"), "logprobs": logprobs}) == Answer("4", 1)
    wrong = [{"token": "5", "logprob": float(number)} for number in ("nan", "inf", "-inf", "7")]
    found = answer({**said("4"), "logprobs": {"content": [{**place, "top_logprobs": [*wrong, None, {"token": 1}]}]}})
    assert found.first == {"4": -0.1}


@pytest.mark.parametrize("usage", [None, [], {}, {"completion_tokens": None}, {"completion_tokens": float("nan")}])
@pytest.mark.parametrize("more", [{}, {"prompt_tokens": -1}, {"prompt_tokens": "many"}, {"prompt_tokens": 10**30}])
def test_a_count_that_is_none_is_guessed(usage: Any, more: dict[str, Any]) -> None:
    found = read_reply(body(said("about four"), usage=usage if usage is None or usage == [] else usage | more), 20)
    assert (found.answers[0].tokens, found.prompt_tokens) == (3, 0)


def test_counts_are_read_under_both_names() -> None:
    for names in (("prompt_tokens", "completion_tokens"), ("input_tokens", "output_tokens")):
        found = read_reply(body(said("4"), usage=dict(zip(names, (7, 9), strict=True))), 20)
        assert (found.prompt_tokens, found.answers[0].tokens) == (7, 9)


def test_a_broken_choice_costs_itself_alone() -> None:
    good, other = {**said("a"), "index": 2}, {**said("b"), "index": 1}
    broken = [None, "text", {**said("c", "error"), "index": 0}]
    assert [a.text for a in read_reply(body([good, *broken, other]), 20).answers] == ["b", "a"]
    same = [{**said(text), "index": 0} for text in "cab"]  # a server that numbers none of them
    assert [a.text for a in read_reply(body(same), 20).answers] == ["c", "a", "b"]
    for nothing in ([], broken):
        with pytest.raises(NoReply, match="no completion"):
            read_reply(body(nothing), 20)


def test_an_endpoint_that_gives_some_of_the_choices_is_asked_for_the_rest(tmp_path: Path) -> None:
    with Endpoint(lambda body, times: reply(*texts(body)[:2])) as server:
        found = drawn(model(server.url, tmp_path, concurrency=1), chats(2), 5)
        assert [body.get("n", 1) for body in server.bodies] == [5, 3, 1] * 2
        assert all(len({completion.text for completion in found[i]}) == 5 for i in (0, 1))
        assert drawn(model(server.url, tmp_path), chats(2), 5) == found
        assert len(server.bodies) == 6


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"<html>sign in</html>", b"null", b"[]", b"3", b'{"error": {"code": 429}}', b'{"choices": null}'),
        *(b'{"choices": {"message": {"content": "4"}}}', b"[" * 100_000, b'{"choices": [' + b"9" * 5000 + b"]}"),
    ],
)
def test_what_is_no_completion_is_tried_again(content: bytes) -> None:
    with pytest.raises(NoReply):
        read_reply(content, 20)


def test_bytes_and_halves_that_are_no_unicode_are_replaced_and_counted() -> None:
    raw = body(said("caf? ok", model="x")).replace(b"?", b"\xe9")
    assert read_reply(raw, 20).answers[0].text == "caf\ufffd ok"
    assert read_reply(b"\xef\xbb\xbf" + body(said("4")), 20).answers[0].text == "4"
    cut = read_reply(body(said("a \ud83d b \udc00"), model="m\ud800"), 20)
    assert (cut.answers[0].text, cut.replaced, cut.served) == ("a \ufffd b \ufffd", 2, "m\ufffd")
    # a character whose halves came in two parts is whole
    halves = read_reply(body(said([{"text": "\ud83d"}, {"text": "\ude00"}])), 20)
    assert (halves.answers[0].text, halves.replaced) == ("\U0001f600", 0)
    assert answer(said(None, refusal="no \udc00")).refusal == "no \ufffd"


def test_a_temperature_of_null_is_left_to_the_endpoint(tiny_model: Path) -> None:
    with Endpoint(answers) as server:
        drawn(model(server.url), chats(1), 2, Sampling(temperature=None))
    assert "temperature" not in server.bodies[0]
    assert server.bodies[0]["n"] == 2
    local = load_model(ModelSettings(name=str(tiny_model), device="cpu"))
    with pytest.raises(DereasonError, match=r"sampling\.temperature is null, which leaves it to an endpoint"):
        dict(local.generate(chats(1), 1, Sampling(temperature=None), 0))


def test_a_prompt_that_no_request_can_hold_is_named() -> None:
    with pytest.raises(DereasonError, match=r"holds half a character.*mend the text"):
        drawn(model("http://localhost:1/v1"), [[{"role": "user", "content": "1 + \ud83d?"}]])


def evaluate(folder: Path, out: str, url: str, *more: str) -> int:
    sets = ["model.name=m", "model.backend=api", f"model.api.base_url={url}", "model.api.retries=0", *more]
    pool = folder / "pool.jsonl"
    rows = [{"id": f"p{i}", "question": f"question {i}", "answer": "4"} for i in range(4)]
    pool.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return main(["eval", str(pool), "--out", str(folder / out), *[part for s in sets for part in ("--set", s)]])


def a_half(body: dict[str, Any], times: int) -> Act:
    return reply("\\boxed{4} \ud83d" if "question 2" in user(body) else "\\boxed{4}")


def test_half_a_character_ends_no_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Endpoint(a_half) as server:
        assert evaluate(tmp_path, "scored", server.url) == 0
    responses = pl.read_parquet(tmp_path / "scored" / "samples.parquet")["response"].to_list()
    assert responses.count("\\boxed{4} \ufffd") == 1
    info = json.loads((tmp_path / "scored" / "step.json").read_text())["info"]
    assert info["replaced_characters"] == 1
    (record,) = [r for r in caplog.records if "no Unicode" in r.getMessage()]
    assert record.levelname == "WARNING"


def test_a_store_with_halves_of_characters_is_read_and_costs_nothing_again(tmp_path: Path) -> None:
    with Endpoint(a_half) as server:
        assert evaluate(tmp_path, "scored", server.url) == 0
        made = len(server.bodies)
        (file,) = (tmp_path / "scored.calls").glob("*.jsonl")
        poisoned = file.read_bytes().replace("\ufffd".encode(), "\ud83d".encode("utf-8", "surrogatepass"))
        assert poisoned != file.read_bytes()
        (tmp_path / "again.calls").mkdir()
        (tmp_path / "again.calls" / file.name).write_bytes(poisoned)
        assert evaluate(tmp_path, "again", server.url) == 0
        assert len(server.bodies) == made


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["text", "type", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)
ends = st.sampled_from(["stop", "length", "MAX_TOKENS", "content_filter", "error", ""]) | json_values
messages = st.fixed_dictionaries(
    {},
    optional={
        name: json_values
        for name in ("content", "reasoning_content", "reasoning", "refusal", "tool_calls", "role", "annotations")
    },
)
places = st.fixed_dictionaries({}, optional={name: json_values for name in ("token", "logprob", "top_logprobs")})
logprobs = st.fixed_dictionaries({"content": st.lists(places, max_size=2) | json_values})
choices = st.fixed_dictionaries(
    {"message": messages | json_values},
    optional={"finish_reason": ends, "index": json_values, "logprobs": logprobs | json_values, "text": json_values},
)
counts = st.fixed_dictionaries({}, optional={name: json_values for name in ("completion_tokens", "prompt_tokens")})
replies = st.fixed_dictionaries(
    {"choices": st.lists(choices | json_values, max_size=4) | json_values},
    optional={"usage": counts | json_values, "model": json_values, "error": json_values},
)
contents = (replies | json_values).map(lambda value: json.dumps(value).encode()) | st.binary(max_size=40)


@settings(derandomize=True, database=None, deadline=None, max_examples=400)
@given(contents)
def test_no_reply_is_a_bug_and_what_is_kept_is_read_again(content: bytes) -> None:
    try:
        found = read_reply(content, 20)
    except NoReply:
        return
    with TemporaryDirectory() as folder:
        call = Call("k", 0, found.answers, found.prompt_tokens, found.served)
        CallStore(Path(folder), "m").add(call)
        store = CallStore(Path(folder), "m")
        read = [store.read("k", at)[0] for at in range(len(found.answers))]
        assert read == list(found.answers)
        rows = [
            {"problem_id": "p", "model": found.served, "purpose": "eval", "verdict": "wrong"}
            | {"response": a.text, "tokens": a.tokens, "prompt_tokens": found.prompt_tokens, "reason": a.refusal}
            for a in read
        ]
        write_table(frame("sample", rows), Path(folder) / "samples.parquet")


waits = st.sampled_from(["", "nan", "inf", "-3", "1e999", "Fri, 31 Dec 9999 23:59:59 GMT", "Mon, 01 Jan 0001 0:00:00"])
statuses = st.sampled_from([200, 200, 204, 300, 304, 400, 402, 404, 408, 418, 422, 429, 500, 503, 529, 599])


@settings(derandomize=True, database=None, deadline=None, max_examples=60)
@given(statuses, contents, waits)
def test_no_status_is_a_bug_and_nothing_that_was_answered_is_lost(status: int, content: bytes, wait: str) -> None:
    def act(body: dict[str, Any], times: int) -> Act:
        return (status, {"Retry-After": wait}, content) if user(body) == "question 1" else answers(body)

    assert (asked_wait({"retry-after": wait}) or 0.0) >= 0
    with TemporaryDirectory() as folder, Endpoint(act) as server:
        drawn(model(server.url, Path(folder), retries=0), chats(1))
        try:
            drawn(model(server.url, Path(folder), retries=0), chats(2))
        except DereasonError as error:
            error.line().encode()
        assert server.asked()["question 0"] == 1
        assert len(drawn(model(server.url, Path(folder), retries=0), chats(1))[0]) == 1
        assert server.asked()["question 0"] == 1
