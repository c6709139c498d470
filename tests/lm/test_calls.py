"""The file of finished calls: what a kill, another process and a full disk do to it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dereason.errors import disk_full
from dereason.lm.calls import Answer, Call, CallStore, question_key, runs

ANSWER = Answer('line\nbreak "quoted" ∑ \U0001f600', 3, True, "", {"1": -0.5})


def stored(path: Path) -> CallStore:
    return CallStore(path, "teacher/model@main")


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    store = stored(tmp_path)
    store.add(Call("k", 2, (ANSWER, Answer("", 0, refusal="no")), 11, "served"))
    store.add(Call("other", 0, (Answer("x", 1),), 5))
    for each in (store, stored(tmp_path)):
        assert each.known("k") == {2, 3}
        assert each.known("nothing") == set()
        assert each.read("k", 2) == (ANSWER, 11)
        assert each.read("k", 3) == (Answer("", 0, refusal="no"), 11)
        assert each.read("other", 0) == (Answer("x", 1), 5)
        assert (each.calls, each.prompt_tokens, each.tokens, each.served) == (2, 16, 4, {"served"})
    assert CallStore(tmp_path, "teacher/model@v2").calls == 0
    assert all(name.startswith("teacher-model@") for name in os.listdir(tmp_path))


def test_a_text_that_is_no_unicode_is_kept_and_read_as_one_that_is(tmp_path: Path) -> None:
    stored(tmp_path).add(
        Call("k", 0, (Answer("a \ud83d b", 1, refusal="\udc00", first={"\ud800": -1.0}),), 1, "m\ud800")
    )
    again = stored(tmp_path)
    assert again.read("k", 0)[0] == Answer("a \ufffd b", 1, refusal="\ufffd", first={"\ufffd": -1.0})
    assert again.served == {"m\ufffd"}


@pytest.mark.parametrize(
    "line",
    [
        '{"key": "k", "at": 0, "answers": [{"text": null, "tokens": 1}], "prompt_tokens": 1, "served": ""}',
        '{"key": "k", "at": 0, "answers": [{"text": "x", "tokens": "many"}], "prompt_tokens": 1, "served": ""}',
        '{"key": "k", "at": 0, "answers": [{"text": "x", "tokens": 1e99}], "prompt_tokens": 1, "served": ""}',
        '{"key": "k", "at": 0, "answers": [{"text": "x", "tokens": 9, "first": 1}], "prompt_tokens": 1, "served": ""}',
        '{"key": "k", "at": 0, "answers": [{"text": "x", "tokens": 9}], "prompt_tokens": null, "served": ""}',
        '{"key": ["k"], "at": 0, "answers": [{"text": "x", "tokens": 9}], "prompt_tokens": 1, "served": ""}',
        '{"key": "k", "at": -1, "answers": [{"text": "x", "tokens": 9}], "prompt_tokens": 1, "served": ""}',
        '{"key": "k", "at": 0, "answers": [3], "prompt_tokens": 1, "served": ""}',
        "[" * 100_000,
        "[1]",
        "null",
        "",
    ],
)
def test_a_line_that_holds_no_call_is_as_if_it_were_not_there(tmp_path: Path, line: str) -> None:
    store = stored(tmp_path)
    store.add(Call("before", 0, (Answer("x", 1),), 1))
    with store.path.open("a") as handle:
        handle.write(line + "\n")
    stored(tmp_path).add(Call("k", 0, (Answer("y", 1),), 1))
    again = stored(tmp_path)
    assert (again.known("before"), again.read("k", 0)[0].text, again.calls) == ({0}, "y", 2)


def test_the_first_answer_that_was_written_stays(tmp_path: Path) -> None:
    stored(tmp_path).add(Call("k", 0, (Answer("first", 1),), 1))
    stored(tmp_path).add(Call("k", 0, (Answer("second", 1), Answer("more", 1)), 1))
    assert [stored(tmp_path).read("k", i)[0].text for i in (0, 1)] == ["first", "more"]


@pytest.mark.parametrize("cut", [2, 20, 60])
def test_a_line_cut_short_anywhere_costs_itself_alone(tmp_path: Path, cut: int) -> None:
    store = stored(tmp_path)
    for i in range(3):
        store.add(Call(f"k{i}", 0, (Answer(f"text {i}", 1),), 1))
    whole = store.path.read_bytes()
    store.path.write_bytes(whole[:-cut])
    again = stored(tmp_path)
    assert [len(again.known(f"k{i}")) for i in range(3)] == [1, 1, 0]
    again.add(Call("k3", 0, (Answer("text 3", 1),), 1))
    for each in (again, stored(tmp_path)):
        assert [len(each.known(f"k{i}")) for i in range(4)] == [1, 1, 0, 1]
        assert each.read("k3", 0)[0].text == "text 3"


def test_a_line_that_lacks_its_end_alone_is_whole(tmp_path: Path) -> None:
    store = stored(tmp_path)
    store.add(Call("k", 0, (Answer("x", 1),), 1))
    store.path.write_bytes(store.path.read_bytes()[:-1])
    stored(tmp_path).add(Call("l", 0, (Answer("y", 1),), 1))
    assert [stored(tmp_path).read(key, 0)[0].text for key in "kl"] == ["x", "y"]


WRITER = """
import sys
from pathlib import Path
from dereason.lm.calls import Answer, Call, CallStore
store = CallStore(Path(sys.argv[1]), "teacher/model@main")
for i in range(200):
    store.add(Call(f"{sys.argv[2]}-{i}", 0, (Answer(sys.argv[2] * (i * 50 % 9000), i),), 1))
    assert store.read(f"{sys.argv[2]}-{i}", 0)[0].tokens == i
"""


def test_processes_that_write_at_once_do_not_mix_their_lines(tmp_path: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), name]) for name in "abc"]
    assert [w.wait(60) for w in writers] == [0, 0, 0]
    store = stored(tmp_path)
    assert store.calls == 600
    for name in "abc":
        assert store.read(f"{name}-170", 0)[0].text == name * (170 * 50 % 9000)


def test_a_disk_that_takes_half_a_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = stored(tmp_path)
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[: len(data) // 2]))
    with pytest.raises(OSError, match="No space left") as caught:
        store.add(Call("k", 0, (Answer("x" * 100, 1),), 1))
    assert disk_full(caught.value)
    monkeypatch.undo()
    store.add(Call("l", 0, (Answer("y", 1),), 1))
    assert stored(tmp_path).known("l") == {0}
    assert stored(tmp_path).known("k") == set()


def test_a_call_is_flushed_before_it_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = stored(tmp_path)
    order: list[Any] = []
    monkeypatch.setattr(os, "fsync", lambda file: order.append(store.known("k")))
    store.add(Call("k", 0, (Answer("x", 1),), 1))
    assert order == [set()]
    assert store.known("k") == {0}


def test_a_key_is_a_function_of_everything_that_decides() -> None:
    asked: dict[str, Any] = {"messages": [{"role": "user", "content": "1?"}], "temperature": 0.7, "seed": 1}
    assert question_key(**asked) == question_key(**dict(reversed(asked.items())))
    changed = [{**asked, name: other} for name, other in (("messages", []), ("temperature", 0.8), ("seed", 2))]
    assert len({question_key(**each) for each in [asked, *changed]}) == 4


def test_stretches_without_gaps() -> None:
    assert runs([0, 1, 2, 5, 7, 8]) == [(0, 3), (5, 1), (7, 2)]
    assert runs([]) == []
