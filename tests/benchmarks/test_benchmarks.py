"""Each benchmark runs, at its smallest: what the documentation names can be run."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PARTS = {"quality_numbers", "quality_pairs", "quality_science", "quality_structures"}
"""Modules of a benchmark, not benchmarks."""

SMALLEST: dict[str, list[tuple[list[str], str]]] = {
    "adapter": [(["--prompts=2", "--samples=1", "--tokens=4", "--repeats=1", "--model=TINY"], "merged: ")],
    "api_backend": [(["--calls=20", "--concurrency=4", "--delay=0"], "read back from it")],
    "cer_scoring": [(["--group=2", "--answers=2", "--repeats=1", "--model=TINY"], "ratio ")],
    "chrf_pairs": [
        (["--count=8", "--lengths", "200", "--pairs=2", "--repeats=1", "--subsets=2"], "over 8 problems"),
        (["--count=8", "--lengths", "200", "--pairs=2", "--repeats=1", "--subsets=2", "--data=RESPONSES"], "over 2 pr"),
    ],
    "decoding": [
        (["mixed", "--repeats=1", "--places=4", "--lengths=uniform", "--model=TINY"], "ours / transformers: "),
        (["fixed", "--repeats=1", "--places=2", "--model=TINY", "--without-transformers"], "ours: median"),
        (["greedy", "--places=4", "--model=TINY"], "4 prompts × 64 greedy tokens"),
    ],
    "drift_alarm": [(["--phases=2", "--generations=20", "--prompts", "4", "--shares", "0.1"], "| 32 | 0.1 | ")],
    "early_warning": [
        (["--steps=2", "--prompts=2", "--group=2", "--tokens=4", "--every=1", "--model=TINY"], "3 readings")
    ],
    "gpu_smoke": [
        (
            ["--problems=2", "--samples=2", "--tokens=4", "--steps=1", "--model=TINY", "--device=cpu"],
            "3 of 3 parts went",
        )
    ],
    "graph_metrics": [
        (["--nodes=40", "--responses=8", "--steps=10", "--repeats=1", "--study=2", "--graphlets=igraph"], "2 graphs of")
    ],
    "head_memory": [(["--tokens=8", "--blocks", "2", "--model=TINY"], "ours, 2 blocks")],
    "joint_step": [
        (["--methods=weighted", "--steps=2", "--prompts=2", "--group=2", "--tokens=4", "--model=TINY"], "`weighted`")
    ],
    "memory": [(["--models=TINY", "--phases=eval", "--batch=2", "--micro=2", "--tokens=8"], "| eval |")],
    "nodes": [(["--sentences=200", "--nodes=10", "--dimensions=8", "--data=RESPONSES"], "split: 52 responses")],
    "planted_decay": [(["--draws=2"], "| 1.5 | 10240 |")],
    "reward_drift": [
        (
            ["--seeds", "0", "--steps=1", "--prompts=2", "--group=2", "--tokens=4", "--held-out=2", "--model=TINY"],
            "lenient 0.0, strict 0.0, gap 0.0",
        )
    ],
    "rl_step": [(["--steps=1", "--prompts=2", "--group=2", "--tokens=4", "--micro=2", "--model=TINY"], "ratio ")],
    "sft_step": [
        (["--steps=1", "--batch=2", "--model=TINY"], "ours / trl: "),
        (["--steps=1", "--batch=2", "--model=TINY", "--mixed", "--sides", "ours", "--data=SOLVED"], "2 targets"),
    ],
    "supervision_wording": [(["--problems=2", "--n=1", "--model=TINY"], "diagnoses that can be read")],
    "verdict_rate": [(["--problems=8", "--simulations=2"], "8 problems: ")],
    "verification_speed": [([], "| all | 12 |")],
    "verifier_quality": [(["--data=FOLDER", "--limit=40"], "40 pairs in")],
    "vllm_backend": [(["--eager", "--repeats=1"], "tokens/s")],
}
"""Benchmark -> calls: their arguments, and words of what they print."""


def test_every_benchmark_is_run_here_and_says_how() -> None:
    scripts = {path.stem for path in BENCHMARKS.glob("*.py")} - PARTS
    assert scripts == set(SMALLEST)
    for name in scripts:
        text = (BENCHMARKS / f"{name}.py").read_text(encoding="utf-8")
        assert f"benchmarks/{name}.py" in text.split('"""')[1], f"{name} does not name its command"
        assert "../shared" not in text, f"{name} takes data from a folder that users do not have"


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def data_folder(folder: Path) -> Path:
    """What `verifier_quality` reads, a few rows of each file."""
    for name in ("math/test500", "math/train", "aime24", "bbeh_mini"):
        answers = ["14", "-5", r"\frac{3}{8}", "x^2+1", "(2, 3)", r"\text{north}", r"\text{south}", "\\{1, 2\\}"]
        lines(folder / f"{name}.jsonl", [{"answer": answer} for answer in answers])
    for part in ("train", "test"):
        lines(folder / f"gsm8k/{part}.jsonl", [{"answer": "72", "solution": "He has 40 and 32, which makes 72"}])
    units = ["9.6", "3.2e-11", "7.35"]
    lines(folder / "minerva.jsonl", [{"answer": answer, "accepted": [answer]} for answer in units])
    sizes = [{"answer": answer, "unit": unit, "multiple": False} for answer, unit in (("2", None), ("5", "cm"))]
    lines(folder / "olympiad_bench.jsonl", [row | {"answer_type": "Numerical"} for row in sizes])
    options = ["a red fox", "a blue whale", "a green frog", "a white swan"]
    questions = [{"id": f"q{i}", "answer": "ABCD"[i % 4], "options": options} for i in range(12)]
    lines(folder / "mmlu_pro/questions.jsonl", questions)
    said = {"problem_id": "q1", "response": "The answer is (B).", "prediction": "B", "correct": True}
    lines(folder / "mmlu_pro/responses.jsonl", [said])
    return folder


CALLS = [(name, arguments, words) for name, calls in SMALLEST.items() for arguments, words in calls]


@pytest.mark.parametrize(
    ("name", "arguments", "words"), CALLS, ids=[f"{name}-{i}" for i, (name, *_) in enumerate(CALLS)]
)
def test_a_benchmark_runs_at_its_smallest(
    name: str,
    arguments: list[str],
    words: str,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if name == "vllm_backend":
        pytest.importorskip("vllm", reason="vLLM has an environment of its own: make test-vllm")
    import torch

    from dereason.training import update

    said = [{"problem_id": f"p{i % 2}", "response": f"First {i}. Then {i + 1} of them. So {i * 7}."} for i in range(52)]
    solved = [{"question": f"What is {i} + 1?", "solution": f"It is {i + 1}.", "answer": str(i + 1)} for i in range(4)]
    files = {
        "TINY": lambda: tiny_model,
        "RESPONSES": lambda: lines(tmp_path / "responses.jsonl", said),
        "SOLVED": lambda: lines(tmp_path / "solved.jsonl", solved),
        "FOLDER": lambda: data_folder(tmp_path / "data"),
    }
    given = [
        f"{k}={files[v]()}" if v in files else argument
        for argument in arguments
        for k, _, v in [argument.partition("=")]
    ]
    monkeypatch.chdir(tmp_path)  # a benchmark leaves nothing behind, wherever it is called
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setattr(sys, "argv", [name, *given])
    monkeypatch.setattr(update, "CPU_TOKENS", update.CPU_TOKENS)  # sft_step sets it
    threads = torch.get_num_threads()
    before = {path.name for path in tmp_path.iterdir()}
    try:
        runpy.run_path(str(BENCHMARKS / f"{name}.py"), run_name="__main__")
    finally:
        torch.set_num_threads(threads)
    assert words in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == before
