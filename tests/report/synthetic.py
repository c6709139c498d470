"""A made-up run directory that looks like a real one, with hostile text wherever data or models put text."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from pathlib import Path
from typing import Any

from synthetic_supervision import write_step

from dereason.problems.schema import frame, write_table

SCRIPT = "<script>alert(1)</script>"
CLOSE = "</script><img src=x onerror=alert(2)>"
MARKUP = '<a href="https://evil.example">link</a> & <b>bold</b> \'"%{x}'
UNICODE = "ответ 答え ∑ \u202eevil\u202c 🙂"
LATEX = r"\(\frac{a}{b}\) $x_i^2$ \boxed{42}"
HOSTILE = [SCRIPT, CLOSE, MARKUP, UNICODE, LATEX]

DOMAINS = ["chain_sum", "gsm_symbolic", "basic_arithmetic", "number_sorting", f"odd {SCRIPT} & $x$"]
VERDICTS = ["correct", "wrong", "unparsable", "truncated", "error"]
ARMS = {"dereason": ["sft", "rl"], f"random {MARKUP}": ["sft", "rl"]}
_SHARES = {"base": (0.12, 0.38, 0.2, 0.29), "sft": (0.41, 0.5, 0.02, 0.07), "rl": (0.43, 0.52, 0.01, 0.04)}


def write_run(
    folder: Path,
    arms: dict[str, list[str]] | None = None,
    seeds: tuple[int, ...] = (0, 1),
    profile: bool = True,
    n_train: int = 400,
    n_test: int = 240,
    steps: int = 120,
    rounds: int = 1,
    styles: tuple[tuple[str, ...], ...] = (("solution",),),
) -> dict[str, Any]:
    """Write the directory and return its summary.

    ``arms`` maps a name to the kinds of its phases, all rounds in a row; ``styles`` holds the sources of each SFT
    phase, the last for all that follow.
    """
    arms = ARMS if arms is None else arms
    rng = random.Random(7)
    train = _problems(rng, "train", n_train)
    test = _problems(rng, "test", n_test)
    (folder / "steps/problems-aa").mkdir(parents=True)
    write_table(frame("problem", train), folder / "steps/problems-aa/train.parquet")
    write_table(frame("problem", test), folder / "steps/problems-aa/test.parquet")
    profiles = _profiles(rng, train)
    if profile:
        (folder / "steps/profile-bb").mkdir()
        write_table(frame("profile", profiles), folder / "steps/profile-bb/profiles.parquet")
    artifacts: dict[str, Any] = {
        "train_problems": "steps/problems-aa/train.parquet",
        "test_problems": "steps/problems-aa/test.parquet",
        "profiles": "steps/profile-bb/profiles.parquet" if profile else None,
        "routes": {},
        "targets": [],
        "curves": [],
        "samples": [],
    }
    out_arms, results, comparisons = [], [], []
    last: dict[int, list[dict[str, Any]]] = {seed: [] for seed in seeds}
    for number, (arm, kinds) in enumerate(arms.items()):
        sets = _route(folder, rng, number, arm, train, profiles, artifacts)
        phases, built = [], 0
        for index, kind in enumerate(kinds, start=1):
            targets = None
            if kind == "sft":
                wanted = set(sets["sft"]["ids"])
                mine = [problem for problem in train if problem["id"] in wanted]
                path = f"steps/targets-{number}-{index}"
                sources = list(styles[min(built, len(styles) - 1)])
                targets = write_step(folder, path, rng, mine, sources, HOSTILE, ["sft"])
                built += 1
                artifacts["targets"] += [
                    {"arm": arm, "seed": seed, "phase": index, "path": f"{path}/targets.parquet",
                     "candidates": f"{path}/candidates.parquet", "coverage": f"{path}/coverage.parquet"}
                    for seed in seeds
                ]  # fmt: skip
            turn = 1 + (index - 1) * rounds // len(kinds)
            phases.append({"index": index, "kind": kind, "round": turn, "sets": [kind], "targets": targets})
        for entry in sets.values():
            entry.pop("ids")
        moved = [_round(sets, seed, turn) for seed in seeds for turn in range(1, rounds + 1)]
        policy = f"rank by judge {MARKUP}"
        out_arms.append({"name": arm, "policy": policy, "sets": sets, "phases": phases, "rounds": moved})
        for seed in seeds:
            before: dict[str, Any] | None = None
            for index, kind in enumerate(["base", *kinds]):
                stage = "base" if kind == "base" else f"{index}-{kind}"
                if kind != "base":
                    _curve(folder, rng, number, arm, seed, index, kind, steps, artifacts)
                if kind == "base" and results:  # as in a real run: one evaluation for all arms and seeds
                    result = results[0] | {"arm": arm, "seed": seed}
                    artifacts["samples"].append(artifacts["samples"][0] | {"arm": arm, "seed": seed})
                else:
                    result = _evaluate(folder, rng, number, arm, seed, index, stage, kind, test, artifacts)
                results.append(result)
                if before is not None:
                    comparisons.append(_compare(arm, seed, before, result))
                before = result
            last[seed].append(result)
    summary = {
        "schema_version": 4,
        "name": f"synthetic {SCRIPT}",
        "description": f"A made-up run with hostile text: {CLOSE} {MARKUP} {UNICODE} {LATEX}",
        "finished": "2026-11-21T12:00:00+00:00",
        "seconds": 512.3,
        "model": {
            "name": "embedded", "identity": "smollm2-135m-instruct@q4_1:0d1e",
            "note": "SmolLM2-135M-Instruct, dequantised 4-bit (Q4_1)", "parameters": 134515008,
        },
        "prompt": {
            "template_hash": "c0ffee12", "system": "", "suffix": "Put the answer in \\boxed{}.",
            "example": f"<|im_start|>user\n{SCRIPT} {LATEX}<|im_end|>\n<|im_start|>assistant\n",
        },
        "problems": {
            "train": {
                "n": n_train, "domains": dict(Counter(str(p["domain"]) for p in train)),
                "dropped": {"duplicate question": 3, "also in the test set": 2, "unanswered": 0},
            },
            "test": {"n": n_test, "domains": dict(Counter(str(p["domain"]) for p in test)), "dropped": {}},
            "reading": [f"problems.train: whole numbers are read as positions {SCRIPT}"],
        },
        "profile": {
            "k": 4, "sampling": {"temperature": 0.7, "max_new_tokens": 48},
            "spearman": {"value": -0.412, "low": -0.493, "high": -0.322, "level": 0.9, "n": n_train},
            "verdicts": {"correct": 212, "wrong": 821, "unparsable": 65, "truncated": 502, "error": 0},
            "strict": 98,
            "confusion": _confusion({"correct": 212, "wrong": 821, "unparsable": 65, "truncated": 502, "error": 0}),
            "warnings": [f"judge scores span 0.5 of 4 points {SCRIPT}"],
        } if profile else None,
        "arms": out_arms,
        "results": results,
        "comparisons": comparisons,
        "arm_comparisons": [
            _compare_arms(rows[0], row) for rows in last.values() for row in rows[1:]
        ],
        "budgets": [
            {"arm": arm, "seed": seed, "problems": 40, "tokens_trained": 12_000, "tokens_generated": 3_000}
            | {"tokens_of_targets": 500, "flops": 10**13}
            for arm in arms
            for seed in seeds
        ],
        "steps": [
            {"name": name, "key": key, "seconds": seconds, "cached": cached, "path": f"steps/{name}-{key}"}
            | ({"peak_memory_bytes": 2.5 * 2**30, "tokens_per_second": 131.4} if name.startswith("train") else {})
            for name, key, seconds, cached in (
                ("problems", "aa12cd34ef56", 1.31, False), ("profile", "bb12cd34ef56", 151.2, True),
                ("train-dereason-0-1", "0a12cd34ef56", 97.8, False),
                ("eval-dereason-0-base", "4512cd34ef56", 262, False),
            )
        ],
        "tokens": {"generated": 1234567, "trained": 45678},
        "peak_memory_bytes": 3300000000,
        "environment": {
            "python": "3.11.7", "platform": "Linux-6.1-x86_64", "cpu": "A processor", "cores": 2,
            "memory_bytes": 8 * 2**30, "device": "cpu", "gpu": None,
            "versions": {"torch": "2.13.0+cpu", "transformers": "5.23.0", "dereason": "0.1.0"},
        },
        "warnings": [f"4 of 400 targets were not accepted {CLOSE}"],
        "artifacts": artifacts,
    }  # fmt: skip
    save(folder, summary)
    (folder / "recipe.yaml").write_text(f"name: synthetic\n# {CLOSE}\nseeds: [0, 1]\n", encoding="utf-8")
    return summary


def save(folder: Path, summary: dict[str, Any]) -> None:
    """Write ``summary.json``."""
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")


def _problems(rng: random.Random, part: str, n: int) -> list[dict[str, object]]:
    weights = [0.4, 0.25, 0.18, 0.12, 0.05]
    rows: list[dict[str, object]] = []
    for i in range(n):
        a, b, c = (rng.randrange(10, 999) for _ in range(3))
        extra = f" {HOSTILE[i % 5]}" if i % 3 == 0 else ""
        rows.append(
            {
                "id": f"{part}-{i:04d}", "question": f"What is {a} + {b} − {c}?{extra}",
                "answer": str(a + b - c),
                "domain": rng.choices(DOMAINS, weights)[0], "source": "synthetic", "metadata": "{}",
            }
        )  # fmt: skip
    return rows


def _profiles(rng: random.Random, train: list[dict[str, object]]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for problem in train:
        hard = rng.random()
        correct = sum(rng.random() > 0.35 + 0.9 * hard for _ in range(4))
        judge = 1.3 + 0.4 * hard + rng.gauss(0, 0.06)
        rows.append(
            {
                "problem_id": problem["id"], "model": "m", "n": 4, "correct": correct, "wrong": 4 - correct,
                "pass_rate": correct / 4, "judge_expectation": judge, "judge_mode": round(judge),
            }
        )  # fmt: skip
    return rows


def _route(
    folder: Path, rng: random.Random, number: int, arm: str, train: list[dict[str, object]],
    profiles: list[dict[str, object]], artifacts: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    judge = {p["problem_id"]: float(str(p["judge_expectation"])) for p in profiles}
    rate = {p["problem_id"]: float(str(p["pass_rate"])) for p in profiles}
    order = sorted(judge, key=lambda i: judge[i] if number == 0 else rng.random())
    parts = {"sft": order[: len(order) // 2], "rl": order[len(order) // 2 : -20], "drop": order[-20:]}
    domain = {p["id"]: p["domain"] for p in train}
    sets, rows = {}, []
    for name, ids in parts.items():
        sets[name] = {
            "n": len(ids), "domains": dict(Counter(str(domain[i]) for i in ids)), "ids": ids,
            "mean_pass_rate": sum(rate[i] for i in ids) / len(ids),
            "mean_judge": sum(judge[i] for i in ids) / len(ids),
        }  # fmt: skip
        rows += [
            {
                "problem_id": i,
                "set": name,
                "policy": "rank",
                "reason": f"judge rank {n} of {len(order)} {SCRIPT}",
            }
            for n, i in enumerate(ids)
        ]
    path = f"steps/route-{number}"
    (folder / path).mkdir()
    write_table(frame("route", rows), folder / path / "routes.parquet")
    artifacts["routes"][arm] = f"{path}/routes.parquet"
    return sets


def _round(sets: dict[str, Any], seed: int, turn: int) -> dict[str, Any]:
    """In each round after the first more problems have become easy: a tenth of rl goes to drop; seeds differ a bit."""
    counts = {name: entry["n"] for name, entry in sets.items()}
    moving = (turn - 1) * (counts["rl"] // 10 + seed)
    counts["rl"], counts["drop"] = counts["rl"] - moving, counts["drop"] + moving
    return {
        "seed": seed, "round": turn, "pass_rate": 0.42 + 0.06 * (turn - 1) + 0.01 * seed * (turn > 1),
        "sets": {
            name: {"n": counts[name], "domains": entry["domains"], "mean_judge": entry["mean_judge"],
                   "mean_pass_rate": min(1.0, entry["mean_pass_rate"] + 0.05 * (turn - 1))}
            for name, entry in sets.items()
        },
    }  # fmt: skip


def _curve(
    folder: Path, rng: random.Random, number: int, arm: str, seed: int, index: int, kind: str, steps: int,
    artifacts: dict[str, Any],
) -> None:  # fmt: skip
    path = f"steps/train-{number}-{seed}-{index}"
    (folder / path).mkdir()
    lines = []
    for step in range(1, steps + 1):
        t = step / steps
        row: dict[str, Any] = {"step": step, "seconds": 0.8 * step, "learning_rate": 1e-5 * (1 - t)}
        row["grad_norm"] = 0.6 + rng.random() * 0.3
        row |= {"tokens_per_second": 85 + rng.gauss(0, 4), "memory_gib": 3.1 + 0.2 * rng.random()}
        if kind == "sft":
            row |= {
                "loss": 0.3 + 1.5 * math.exp(-4 * t) + rng.gauss(0, 0.05),
                "token_accuracy": 0.6 + 0.3 * t,
            }
        else:
            row |= {
                "loss": rng.gauss(0, 0.01), "reward": 0.2 + 0.1 * t + rng.gauss(0, 0.04),
                "mixed_groups": min(1.0, max(0.0, 0.4 + rng.gauss(0, 0.1))), "unparsable": 0.03 * (1 - t),
                "completion_length": 32 - 4 * t + rng.gauss(0, 1),
                "entropy": 0.9 - 0.3 * t + rng.gauss(0, 0.02),
                "truncated": 0.2 * (1 - t), "clip_share": 0.01 * rng.random(), "kl": 0.02 * t * rng.random(),
                "correct": 0.2 + 0.1 * t, "wrong": 0.57 + 0.13 * t, "error": 0.0,
                "lenient": 0.2 + 0.1 * t, "strict": 0.2 - 0.1 * t, "gap": 0.2 * t, "unmarked": 0.3 * t, "at_limit": 0.0,
                "several_answers": 0.0, "how/boxed": 0.9 - 0.3 * t, "how/number": 0.3 * t, "how/tag": 0.0,
            }  # fmt: skip
        if step % 17:  # any key may be missing on a line
            lines.append(json.dumps(row))
        else:
            lines.append(json.dumps({"step": step, "seconds": 0.8 * step}))
    (folder / path / "metrics.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    artifacts["curves"].append(
        {"arm": arm, "seed": seed, "phase": index, "kind": kind, "path": f"{path}/metrics.jsonl"}
    )


def _evaluate(
    folder: Path, rng: random.Random, number: int, arm: str, seed: int, index: int, stage: str, kind: str,
    test: list[dict[str, object]], artifacts: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    path = f"steps/eval-{number}-{seed}-{index}"
    (folder / path).mkdir()
    shares = _SHARES.get(kind, _SHARES["rl"])
    rows: list[dict[str, object]] = []
    for i, problem in enumerate(test):
        verdict = rng.choices(VERDICTS, [*shares, 0.01])[0]
        text = f"{problem['question']} Let us see {HOSTILE[i % 5]}. \\boxed{{{problem['answer']}}} "
        rows.append(
            {
                "problem_id": problem["id"], "model": stage, "purpose": "eval", "index": 0,
                "response": text * (60 if i % 9 == 0 else 1), "tokens": 20 + i % 29, "prompt_tokens": 30,
                "hit_limit": verdict == "truncated", "verdict": verdict,
                "extracted": f"{problem['answer']}{SCRIPT}" if verdict in ("correct", "wrong") else None,
                "reason": "the boxed answer equals the reference" if verdict == "correct" else f"no {MARKUP}",
            }
        )  # fmt: skip
    write_table(frame("sample", rows), folder / path / "samples.parquet")
    artifacts["samples"].append({"arm": arm, "seed": seed, "stage": stage, "path": f"{path}/samples.parquet"})
    verdicts = Counter(str(row["verdict"]) for row in rows)
    accuracy, low, high = _share(verdicts["correct"], len(rows) - verdicts["error"])
    strict = _share(verdicts["correct"] // 3, len(rows) - verdicts["error"])
    by_kind = _confusion(verdicts)
    answers = sum(by_kind["rules"].values())
    by_domain: dict[str, Any] = {}
    for name in DOMAINS:
        mine = [str(r["verdict"]) for r, p in zip(rows, test, strict=True) if p["domain"] == name]
        if mine:
            value = _share(mine.count("correct"), len(mine))
            by_domain[name] = dict(zip(("accuracy", "low", "high"), value, strict=True)) | {"n_problems": len(mine)}
    answered = verdicts["correct"] + verdicts["wrong"]
    return {
        "arm": arm, "seed": seed, "stage": stage, "phase": index, "accuracy": accuracy, "low": low,
        "high": high, "level": 0.95, "n_problems": len(rows), "n_samples": len(rows),
        "strict": dict(zip(("accuracy", "low", "high"), strict, strict=True)),
        "verdicts": {name: verdicts[name] for name in VERDICTS},
        "found_by": {rule: count / answers for rule, count in by_kind["rules"].items()},
        "confusion": by_kind,
        "rollouts": _confusion(Counter(correct=311, wrong=1702, truncated=35)) if kind == "rl" else None,
        "answered_accuracy": verdicts["correct"] / answered if answered else None,
        "mean_tokens": sum(int(str(r["tokens"])) for r in rows) / len(rows), "by_domain": by_domain,
    }  # fmt: skip


def _confusion(verdicts: dict[str, int]) -> dict[str, Any]:
    """As the verifier writes it: a third of each verdict (rounded down) on expressions, the rest on numbers."""
    kinds = {}
    for kind, part in (("number", lambda n: n - n // 3), ("expression", lambda n: n // 3)):
        counts = {name: part(verdicts.get(name, 0)) for name in VERDICTS}
        kinds[kind] = counts | {"strict": counts["correct"] // 3, "n": sum(counts.values()) - counts["error"]}
    errors = {f"symbolic comparison took longer than 5 s {SCRIPT}": verdicts["error"]} if verdicts.get("error") else {}
    return {"kinds": kinds, "errors": errors, "rules": {"boxed": verdicts["correct"], "number": verdicts["wrong"]}}


def _compare(arm: str, seed: int, before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    difference = after["accuracy"] - before["accuracy"]
    strict = after["strict"]["accuracy"] - before["strict"]["accuracy"]
    return {
        "arm": arm, "seed": seed, "from": before["stage"], "to": after["stage"], "difference": difference,
        "low": difference - 0.058, "high": difference + 0.061, "level": 0.95, "problems_left_out": 0,
        "strict": {"difference": strict, "low": strict - 0.04, "high": strict + 0.04},
        "n_problems": after["n_problems"],
    }  # fmt: skip


def _compare_arms(first: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    row = _compare("", first["seed"], first, other)
    del row["arm"]
    return row | {
        "from": first["arm"], "to": other["arm"], "stage_from": first["stage"], "stage_to": other["stage"],
    }  # fmt: skip


def _share(correct: int, n: int) -> tuple[float, float, float]:
    p = correct / n
    half = 1.96 * math.sqrt((p * (1 - p) + 0.02) / n)
    return p, max(0.0, p - half), min(1.0, p + half)
