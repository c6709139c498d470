"""Built-in checks, through ``dereason verify``: references and other right answers hold, and no text is run.

A problem of each of reasoning-gym's families, made by our source, so that its metadata has been through JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dereason.cli.main import main
from dereason.errors import DereasonError
from dereason.pipeline.pool import read_pool
from dereason.problems.gym import COMPOSITE, EQUAL, OURS, SCORED
from dereason.problems.sources import GymFamily, GymSource, ProblemFile, read_source
from dereason.training.rewards.rules import CorrectnessReward, Judging
from dereason.verify.verifier import Verifier, VerifierSettings, item_of

CHECKED = SCORED | OURS
FORMS = ("<answer>%s</answer>", r"\boxed{%s}")
MIXED = {"datasets": [{"name": name, "weight": 1, "config": {}} for name in ("countdown", "n_queens")]}
BOARD = "ooooooooBBBoAAooDoooooDooooCCooooooo"


@pytest.fixture(scope="module")
def problems() -> list[dict[str, Any]]:
    families = [GymFamily(family=name, size=1) for name in sorted(CHECKED | EQUAL)]
    families.append(GymFamily(family=COMPOSITE, size=2, args=MIXED))
    return read_source(GymSource(source="reasoning_gym", families=families, seed=3)).table.to_dicts()


def row(problem: dict[str, Any], answer: str, form: str = "<answer>%s</answer>") -> dict[str, Any]:
    given = {name: problem[name] for name in ("domain", "answer", "source", "metadata")}
    return given | {"response": "So I find this.\n" + form % answer}


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier(VerifierSettings(time_limit=120, workers=1)) as one:
        yield one


def judge(verifier: Verifier, family: str, metadata: dict[str, Any], reference: str, answers: list[str]) -> list[str]:
    problem = {"answer": reference, "metadata": json.dumps(metadata | {"answer_check": f"reasoning_gym:{family}"})}
    items = [item_of(f"<answer>{answer}</answer>", False, problem) for answer in answers]
    return [str(judged.verdict) for judged in verifier.judge_many(items)]


def test_the_lists_are_reasoning_gyms_families() -> None:
    from reasoning_gym.factory import DATASETS

    assert len(SCORED) + len(OURS) + len(EQUAL) + 1 == len(DATASETS) == 106
    assert SCORED | OURS | EQUAL | {COMPOSITE} == set(DATASETS)


@pytest.fixture(scope="module")
def judged(
    problems: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[dict[str, Any]], Path]:
    """Every problem with its reference, and then with code, in one call; and the file that the code would write."""
    folder = tmp_path_factory.mktemp("checks")
    canary = folder / "canary"
    run = f"__import__('os').system('touch {canary}')"
    code = [run, f"[[{run}]]", f"exec({run!r})", f"(lambda: {run})()", f"f'{{{run}}}'", f"[c for c in [{run}]]"]
    code += ["().__class__.__base__.__subclasses__()", f'["a", {run}]']
    within = ["{0} + 0*" + run, "{0}\n" + run, "[{0}, " + run + "]"]
    bombs = ["9**9**9", "{0}**9**9**9", "(" * 5000 + "1" + ")" * 5000, "[" * 3000, "A+99999999999", "1" * 20_000]
    rows = [row(problem, problem["answer"], form) for problem in problems for form in FORMS]
    for problem in problems:
        texts = code + [text.replace("{0}", problem["answer"]) for text in within]
        if problem["domain"] in CHECKED:
            texts += [text.replace("{0}", problem["answer"]) for text in bombs]
        rows += [row(problem, text) for text in texts] + [row(problem, run, FORMS[1])]
    path, out = folder / "rows.jsonl", folder / "out.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    assert main(["verify", str(path), "--out", str(out), "--set", "time_limit=120", "--set", "workers=1"]) == 0
    return [json.loads(line) for line in out.read_text().splitlines()], canary


def test_every_reference_is_correct_after_its_way_through_json(judged: tuple[list[dict[str, Any]], Path]) -> None:
    without = {"boxnet", "rush_hour"}  # reasoning-gym gives no answer of these
    found = judged[0][: 2 * 107]
    assert len({each["domain"] for each in found}) == 106
    assert {each["domain"] for each in found if each["verdict"] != "correct"} == without
    assert all(each["strict"] for each in found if each["domain"] not in without)
    checked = [each for each in found if each["domain"] in CHECKED | {COMPOSITE}]
    assert all("reasoning_gym:" in each["reason"] for each in checked)


def test_no_text_is_run(judged: tuple[list[dict[str, Any]], Path]) -> None:
    rows, canary = judged
    found = rows[2 * 107 :]
    assert len(found) >= 12 * 107
    assert not canary.exists()
    assert [each["response"] for each in found if each["verdict"] == "correct"] == []
    assert [each["reason"] for each in found if each["verdict"] == "error" and each["domain"] in CHECKED] == []


def test_metadata_and_references_of_data_are_not_run_either(verifier: Verifier, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    run = f"__import__('os').system('touch {canary}')"
    judge(verifier, "bitwise_arithmetic", {"problem": run}, run, ["0x1"])
    judge(verifier, "number_sorting", {"direction": "ascending"}, f"[{run}]", ["['1']"])
    judge(verifier, "simple_integration", {"variable": "x", "integrand": run}, "x + C", ["x + C"])
    judge(verifier, "simple_integration", {"variable": run, "integrand": "1"}, "x + C", ["x + C"])
    judge(verifier, "polynomial_multiplication", {"variables": ["x"]}, run, ["x"])
    assert not canary.exists()


@pytest.mark.parametrize(
    ("family", "metadata", "reference", "right", "wrong"),
    [
        ("countdown", {"numbers": [6, 94, 4, 61], "target": 309}, "94*4 - 61 - 6",
         ["94*4-6-61 = 309", r"94 \times 4 - (61 + 6)", "-6 + 4*94 - 61"],
         ["309", "94*4 - 67", "94*4 - 61 - 6 + 0", "94*4 - 61 - 6 = 310", "94*4 + 61 - 6", "300 + 9"]),
        ("puzzle24", {"numbers": [10, 8, 5, 6]}, "10*(8 - 5) - 6", ["(8-5)*10 - 6"],
         ["24", "6*4*1*1", "10+8+5+1", "49/2 + 0*8*5", "10*8/5 + 6"]),
        ("n_queens", {"valid_answers": ["_ Q _ _\n_ _ _ Q\nQ _ _ _\n_ _ Q _"]}, "_ Q _ _\n_ _ _ Q\nQ _ _ _\n_ _ Q _",
         ["[['_','Q','_','_'],['_','_','_','Q'],['Q','_','_','_'],['_','_','Q','_']]"], ["Q _ _ _\n" * 4, "_"]),
        ("number_sorting", {"direction": "ascending"}, "['-9.5', '30.0']", ["[-9.5, 30]", "-9.5, 30.0"],
         ["['-9.0', '30.0']", "['30.0', '-9.5']", "[]"]),
        ("bitwise_arithmetic", {"problem": "(0x3 + 0x7)"}, "0xa", ["0xA", "10"], ["0xb", "0", "0x3 + 0x7"]),
        ("codeio", {}, '{"a": [1, 2], "b": null}', ['{"b": null, "a": [1,2]}'], ['{"a": [2, 1], "b": null}', "{}"]),
        ("rush_hour", {"board_config": BOARD}, "any", ["A+1 A+1 C-1 D+1 A+1 A+1"], ["A+9", "A+1", ""]),
        ("boxnet", {"initial_state": {"0.5_0.5": ["box_red"], "0.5_1.5": ["target_red"]}}, "any",
         ['[{"Agent[0.5, 0.5]": "move(box_red, square[0.5, 1.5])"}, {"Agent[0.5, 1.5]": "move(box_red, target_red)"}]'],
         ['[{"Agent[0.5, 1.5]": "move(target_red, square[0.5, 0.5])"},'
          ' {"Agent[0.5, 0.5]": "move(box_red, target_red)"}]', "[]"]),
        ("simple_integration", {"variable": "x", "integrand": "3*x**2 + 4"}, "x**3 + 4*x + C",
         ["4x + x^3", r"x^{3} + 4x + C", "F(x) = x**3 + 4*x - 7"], ["x**3 + 4", "Integral(3*x**2 + 4, x)", "C"]),
        ("polynomial_multiplication", {"variables": ["x"]}, "x**2 + 3*x + 2", ["2 + 3x + x^2"],
         ["(x + 1)*(x + 2)", "x**2 + 3*x"]),
        ("prime_factorization", {"factors": [2, 2, 3]}, "2 × 2 × 3", ["3 * 2 * 2", r"2^2 \times 3"], ["12", "4 × 3"]),
        ("fraction_simplification", {"simplified_numerator": 1, "simplified_denominator": 2, "numerator": 2,
          "denominator": 4}, "$1/2$", [r"\frac{1}{2}", "1/2"], ["2/4", "0.5"]),
        ("graph_color", {"puzzle": {"vertices": [0, 1], "edges": [[0, 1]], "color_options": [1, 2]}}, "{}",
         ['{"0": 2, "1": 1}'], ['{"0": 1, "1": 1}', '{"0": 1, "1": 3}', "{}"]),
        ("word_sorting", {"sorted_words": ["Let", "a", "b"]}, "Let, a, b", ["Let,a,b"],
         ["a, b, Let", "let, a, b", "Let, a, b, c", "Let, a, b, Let, a, b"]),
        ("power_function", {}, "897303639322.6414", ["8.97e+11", r"8.97 \times 10^{11}"], ["8.98e+11", "897"]),
    ],
)  # fmt: skip
def test_other_right_answers_hold_and_holes_are_closed(
    verifier: Verifier, family: str, metadata: dict[str, Any], reference: str, right: list[str], wrong: list[str]
) -> None:
    found = judge(verifier, family, metadata, reference, right + wrong)
    assert found[: len(right)] == ["correct"] * len(right)
    assert "correct" not in found[len(right) :]
    assert "error" not in found


def test_a_file_may_name_built_in_checks_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, words in (("os:system", "a function, which data may not name"), ("reasoning_gym:none", "no built-in")):
        path = tmp_path / "rows.jsonl"
        path.write_text(json.dumps({"response": "5", "answer": "5"}) + "\n")
        path.open("a").write(json.dumps({"response": "5", "answer": "5", "answer_check": name}) + "\n")
        assert main(["verify", str(path), "--out", str(tmp_path / "out.jsonl")]) == 2
        said = capsys.readouterr().err
        assert "rows.jsonl: line 2" in said, said
        assert words in said


def test_rewards_ask_the_check_and_a_recipes_problems_may_not_name_a_function(
    problems: list[dict[str, Any]], verifier: Verifier, tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    chosen = [each for each in problems if each["domain"] in ("countdown", "puzzle24", "n_queens", "graph_color")]
    texts = [each["answer"] for each in chosen] + [f"__import__('os').system('touch {canary}')"] * len(chosen)
    columns = {name: [each[name] for each in chosen * 2] for name in ("answer", "options", "source", "metadata")}
    reward = CorrectnessReward(Judging(judge=verifier.judge_many))
    boxed = [f"\\boxed{{{text}}}" for text in texts]
    paid = reward(prompts=[""] * len(boxed), completions=boxed, completion_ids=[[1]] * len(boxed), **columns)
    assert paid == [1.0] * len(chosen) + [0.0] * len(chosen)
    assert not canary.exists()

    pool = tmp_path / "pool.jsonl"
    pool.write_text('{"question": "Q", "answer": "5", "answer_check": "os:system"}\n')
    with pytest.raises(DereasonError, match=r"pool.jsonl: line 1: 'answer_check' is 'os:system', a function"):
        read_pool(pool, ProblemFile())
