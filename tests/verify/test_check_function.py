"""A user's check: called with what it asks for, guarded, and part of the verifier's key."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from dereason.cli.main import main
from dereason.errors import DereasonError
from dereason.pipeline.export import refuse_functions
from dereason.problems.schema import Verdict
from dereason.verify.checks import guard
from dereason.verify.verifier import Item, Verifier, VerifierSettings

GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "verify.md"
can_guard = not guard.holds(separated=False)
needs_guards = pytest.mark.skipif(not can_guard, reason="this system has neither Landlock of Linux 6.2 nor seccomp")
REVERSED = "def right(answer, reference):\n    return answer[::-1] == reference\n"


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module of the user's in the folder in which the command is called."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "my_checks.py"


def judge(function: str, items: list[Item], **settings: Any) -> list[Any]:
    limits: dict[str, Any] = {"workers": 1, "time_limit": 60.0} | settings
    with Verifier(VerifierSettings(answer_check=f"my_checks:{function}", **limits)) as verifier:
        return verifier.judge_many(items)


@needs_guards
def test_the_guides_example_judges_code(module: Path) -> None:
    text = GUIDE.read_text()
    block = re.search(r"````python\n# my_checks\.py\n(.*?)````", text, re.DOTALL)
    assert block is not None
    module.write_text(block[1])
    cases = [{"input": "2\n", "output": "4\n"}, {"input": "5\n", "output": "10\n"}]
    bodies = [
        "print(2 * int(input()))",
        "print(4)",
        "import os\nprint(open(__file__).read(), flush=True)\nos._exit(0)",
        "",
    ]
    rows = [{"response": f"```python\n{body}\n```", "answer": "double", "cases": cases} for body in bodies]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["verify", "rows.jsonl", "--out", "out.jsonl", "--set", "time_limit=60"]
    assert main([*command, "--set", "answer_check=my_checks:passes"]) == 0
    found = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert [(row["verdict"], row["strict"], row["how"]) for row in found] == [
        ("correct", True, "response"), *[("wrong", False, "response")] * 3,
    ]  # fmt: skip


@needs_guards
def test_a_check_decides_and_only_the_score_one_is_right(module: Path) -> None:
    module.write_text(REVERSED + "def score(answer):\n    return {'a': 1, 'b': 0.5, 'c': 2, 'd': 'yes'}[answer]\n")
    answers = [r"\boxed{321}", r"\boxed{123}", "no answer here", r"\boxed{321"]
    found = judge("right", [Item(text, text.endswith("{321"), "123") for text in answers])
    assert [str(one.verdict) for one in found] == ["correct", "wrong", "unparsable", "truncated"]
    assert [one.strict for one in found] == [True, False, False, False]
    scored = judge("score", [Item(rf"\boxed{{{letter}}}", False, "z") for letter in "abcde"])
    assert [str(one.verdict) for one in scored] == ["correct", "wrong", "error", "error", "error"]
    for one, words in zip(scored[2:], ("it returned 2,", "it returned 'yes',", "KeyError: 'e'"), strict=True):
        assert words in one.reason


HARM = """
import os, signal, socket, subprocess, sys, time

def harm(response, metadata):
    outside, done = metadata["outside"], []
    def attempt(name, act):
        try:
            act()
            done.append(name)
        except (OSError, KeyError, subprocess.CalledProcessError):
            pass
    attempt("write", lambda: open(outside, "w"))
    attempt("new", lambda: open(outside + "2", "w"))
    attempt("truncate", lambda: os.truncate(outside, 0))
    attempt("remove", lambda: os.remove(outside))
    attempt("internet", lambda: socket.socket())
    attempt("unix", lambda: socket.socket(socket.AF_UNIX))
    attempt("kill", lambda: os.kill(metadata["pid"], 0))
    attempt("large", lambda: open("large", "wb").write(bytes(70 << 20)))
    attempt("child", lambda: subprocess.run(
        [sys.executable, "-c", f"open({outside!r}, 'w')"], check=True, stderr=subprocess.DEVNULL))
    attempt("token", lambda: os.environ["SECRET_TOKEN"])
    open("own", "w").write("mine")
    subprocess.Popen(["sleep", "54321"], start_new_session=True)
    raise ValueError(f"did {done} in {os.listdir()}")

def spin(answer):
    while True:
        pass

def large(answer):
    return bool(bytearray(3 << 30))

def leave(answer):
    os._exit(0)
"""


@needs_guards
def test_harm_is_kept_from_files_the_network_and_other_processes(
    module: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module.write_text(HARM)
    monkeypatch.setenv("SECRET_TOKEN", "hidden")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    outside = tmp_path / "outside"
    outside.write_text("untouched")
    metadata = json.dumps({"outside": str(outside), "pid": os.getpid()})
    (one,) = judge("harm", [Item("text", False, "z", metadata=metadata)])
    assert one.verdict is Verdict.ERROR
    assert "did [] in " in one.reason
    assert "'own'" in one.reason
    assert outside.read_text() == "untouched"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["my_checks.py", "outside"], "its folder is gone"
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not any(b"54321" in command for command in commands), "what it started is gone"


@needs_guards
def test_limits_cost_one_call(module: Path) -> None:
    module.write_text(HARM + REVERSED)
    for function, words, limit in (("spin", "longer than 1 s", 1.0), ("large", "more memory", 60.0),
                                   ("leave", "without a verdict", 60.0)):  # fmt: skip
        (one,) = judge(function, [Item(r"\boxed{1}", False, "1")], time_limit=limit)
        assert one.verdict is Verdict.ERROR
        assert words in one.reason


CONFINED = """
import os, socket, sys
from pathlib import Path
from dereason.verify.checks import guard
folder, outside = Path(sys.argv[1]), sys.argv[2]
guard.confine(folder, separated=False)
for act in (lambda: open(outside, "w"), lambda: os.truncate(outside, 0), lambda: os.remove(outside), socket.socket):
    try:
        act()
    except PermissionError:
        print("refused", end=" ")
(folder / "own").write_text("mine")
"""


@needs_guards
def test_landlock_and_seccomp_guard_alone_where_there_are_no_namespaces(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "outside").write_text("untouched")
    command = [sys.executable, "-c", CONFINED, str(tmp_path / "own"), str(tmp_path / "outside")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() == ["refused"] * 4
    assert (tmp_path / "outside").read_text() == "untouched"


def test_where_nothing_guards_a_function_is_not_called(module: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module.write_text(REVERSED)
    site = (
        "import dereason.verify.checks.guard as g\ng.separate = lambda folder: False\ng.holds = lambda s: ['files']\n"
    )
    Path("sitecustomize.py").write_text(site)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")]))
    item = Item(r"\boxed{321}", False, "123")
    (refused,) = judge("right", [item])
    assert refused.verdict is Verdict.ERROR
    assert "nothing guards files; answer_check_unguarded: true calls it all the same" in refused.reason
    (called,) = judge("right", [item], answer_check_unguarded=True)
    assert called.verdict is Verdict.CORRECT


def test_the_source_is_in_the_key_and_is_read_without_running_it(module: Path) -> None:
    settings = VerifierSettings(answer_check="my_checks:right", answer_check_by_source={"a": "reasoning_gym:countdown"})
    module.write_text(REVERSED + "raise RuntimeError\n")
    first = settings.key()
    module.write_text(REVERSED.replace("==", "!=") + "raise RuntimeError\n")
    second = settings.key()
    assert first["checks"]["my_checks:right"] != second["checks"]["my_checks:right"]
    assert first["checks"]["reasoning_gym"] == VerifierSettings().key()["checks"]["reasoning_gym"] != ""
    assert first["answer_check_by_source"] == {"a": "reasoning_gym:countdown"}


@pytest.mark.parametrize(
    ("source", "name", "words"),
    [
        (REVERSED, "my_check:right", "no module 'my_check'"),
        (REVERSED, "my_checks:wrong", "no 'def wrong'"),
        ("def right(answer, solution): ...", "my_checks:right", "takes answer, solution"),
        ("def right(reference): ...", "my_checks:right", "neither the answer nor the response"),
        ("def right(answer:", "my_checks:right", "is no Python"),
        (REVERSED, "my_checks", "neither package.module:function"),
        (REVERSED, "reasoning_gym:chess", "nor a built-in check"),
    ],
)
def test_what_cannot_be_a_check_is_named(
    module: Path, source: str, name: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    module.write_text(textwrap.dedent(source))
    Path("rows.jsonl").write_text('{"response": "5", "answer": "5"}\n')
    assert main(["verify", "rows.jsonl", "--out", "out.jsonl", "--set", f"answer_check={name}"]) == 2
    assert words in capsys.readouterr().err
    assert not Path("out.jsonl").exists()


def test_settings_decide_before_the_problem_and_a_source_before_all(module: Path) -> None:
    module.write_text(REVERSED + "def whole(response): ...\n")
    settings = VerifierSettings(answer_check="my_checks:right", answer_check_by_source={"code": "my_checks:whole"})
    with Verifier(settings) as verifier:
        names = [verifier.checks.of(Item("", False, "1", source=source)) for source in ("code", "")]
    assert [check.name for check in names if check] == ["my_checks:whole", "my_checks:right"]
    with pytest.raises(DereasonError, match="is a function, whose file an export does not hold"):
        refuse_functions(settings)
