"""Readings during RL: at the right steps, of the right samples, without a trace in what is trained."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError
from sacrebleu.metrics import CHRF

from dereason.lm.local.model import ModelSettings, load_tokenizer
from dereason.lm.prompts import Prompt
from dereason.pipeline.build import phase_key
from dereason.pipeline.early_warning import MEASURES, facts
from dereason.pipeline.jobs import RLJob
from dereason.pipeline.single import train_rl
from dereason.problems.schema import frame, write_table
from dereason.training import readings as readings_module
from dereason.training.early_warning import (
    Change,
    EarlyWarning,
    Measures,
    paired,
    probe_table,
    problem_values,
    reading_warnings,
    readings,
    squeezing,
    unpaired,
)
from dereason.training.joint.settings import Joint
from dereason.training.joint.weighted import Weighted
from dereason.training.launch import Launch
from dereason.training.readings import Readings
from dereason.training.rewards.settings import Format, Rewards
from dereason.training.rl import RL, RLOptimiser, run_rl
from dereason.training.rollouts import judged_frame, rollout_table
from dereason.verify.verdict import Judgement, Verdict

PROMPT = Prompt(suffix="Add.")
MEASURED = {"seconds", "memory_gib", "tokens_per_second", "probe/seconds", "early_warning_share"}
WARNING = EarlyWarning(every=3, problems=3, samples=4, k=3, share=1)


def pool(size: int = 5) -> pl.DataFrame:
    rows = [{"id": f"p{i}", "question": f"What is {i} + {i * i}?", "answer": str(i + i * i)} for i in range(size)]
    return frame("problem", [row | {"domain": "sum", "source": "test"} for row in rows])


class Planted:
    """A verifier for a model that never answers right: the text's length decides."""

    def judge_many(self, items: Sequence[Any]) -> list[Judgement]:
        of = [Verdict.CORRECT, Verdict.CORRECT, Verdict.WRONG, Verdict.CORRECT, Verdict.ERROR, Verdict.WRONG]
        return [Judgement(of[len(item.response) % 6], None, "planted") for item in items]

    def rewarded(self, items: Sequence[Any], judged: list[Judgement], marks: Any) -> list[Judgement]:
        return judged


def settings(kind: type[RL] = RL, **kw: Any) -> Any:
    fields: dict[str, Any] = {
        "steps": 7,
        "prompts_per_generation": 2,
        "group_size": 4,
        "updates_per_generation": 2,
        "max_new_tokens": 8,
        "optimiser": RLOptimiser(learning_rate=1e-2, schedule="constant", micro_batch=4, checkpoint_every=4),
    }
    return kind(**fields | kw)


def train(model: Path, work: Path, phase: Any, **kw: Any) -> Path:
    run_rl(
        ModelSettings(name=str(model)),
        PROMPT,
        pool(),
        phase,
        identity="x",
        out=work / "model",
        work=work,
        seed=3,
        verifier=Planted(),  # type: ignore[arg-type]
        measures=MEASURES,
        **kw,
    )
    return work


def logged(work: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (work / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in MEASURED} for row in rows]


def without_times(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k not in MEASURED} for line in lines]


@pytest.fixture(scope="module")
def watched(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A phase with readings."""
    return train(tiny_model, tmp_path_factory.mktemp("watched"), settings(early_warning=WARNING))


def assert_bitwise_the_same(a: Path, b: Path) -> None:
    assert (a / "model" / "model.safetensors").read_bytes() == (b / "model" / "model.safetensors").read_bytes()
    assert rollout_table(a).equals(rollout_table(b))
    assert logged(a) == logged(b)


def test_readings_leave_no_trace_in_training(tiny_model: Path, watched: Path, tmp_path: Path) -> None:
    plain = train(tiny_model, tmp_path, settings())
    assert_bitwise_the_same(plain, watched)
    assert max(row["grad_norm"] for row in logged(plain)) > 0
    assert not readings(plain)
    assert not (plain / "early-warning").exists()


def test_readings_leave_no_trace_where_transformers_draws(tiny_model: Path, tmp_path: Path) -> None:
    """There rollouts come from torch's own random numbers, which a probe draws from as well."""
    phase = {"rollouts": "transformers", "steps": 2, "updates_per_generation": 1, "max_new_tokens": 4}
    found = [
        train(tiny_model, tmp_path / str(i), settings(**phase, early_warning=warning))
        for i, warning in enumerate((None, EarlyWarning(every=1, problems=2, samples=2, k=2, share=1)))
    ]
    assert_bitwise_the_same(*found)
    lines = readings(found[1])
    assert [line["step"] for line in lines] == [0, 1, 2]
    assert {line["probe/entropy"] for line in lines} == {None}, "what it does not tell is not made up"


def independent(samples: pl.DataFrame, k: int) -> dict[str, dict[str, float]]:
    """What :func:`problem_values` gives, by sacrebleu, all subsets and all pairs, sample by sample."""
    chrf = CHRF(char_order=6, word_order=0, beta=2)
    groups: dict[tuple[str, int], list[tuple[str, str]]] = {}
    for row in samples.iter_rows(named=True):
        groups.setdefault((row["problem_id"], row["step"]), []).append((row["verdict"], row["response"]))
    found: dict[str, dict[str, list[float]]] = {"pass_at_1": {}, "pass_at_k": {}, "diversity": {}}
    for (problem, _), group in groups.items():
        judged = [(verdict == "correct", text) for verdict, text in group if verdict != "error"]
        if judged:
            found["pass_at_1"].setdefault(problem, []).append(fmean(right for right, _ in judged))
        if len(judged) >= k:
            subsets = [any(right for right, _ in subset) for subset in itertools.combinations(judged, k)]
            found["pass_at_k"].setdefault(problem, []).append(fmean(subsets))
        right = [text for is_right, text in judged if is_right]
        if len(right) > 1:
            pairs = [1 - chrf.sentence_score(a, [b]).score / 100 for a, b in itertools.permutations(right, 2)]
            found["diversity"].setdefault(problem, []).append(fmean(pairs))
    return {name: {problem: fmean(v) for problem, v in of.items()} for name, of in found.items()}


def test_readings_are_what_the_stored_samples_say(watched: Path) -> None:
    lines = readings(watched)
    assert [line["step"] for line in lines] == [0, 3, 6, 7]
    rollouts, probes = rollout_table(watched), probe_table(watched)
    assert probes is not None
    entropies = {row["step"]: row["entropy"] for row in logged(watched) if "entropy" in row}
    diverse = 0
    for before, line in itertools.pairwise([{"step": 0}, *lines]):
        window = rollouts.filter(pl.col("step").is_between(before["step"], line["step"] - 1))
        probe = probes.filter(step=line["step"])
        for part, samples in (("rollouts", window), ("probe", probe)):
            if samples.is_empty():
                assert not any(key.startswith(part) for key in line)
                continue
            for name, of in independent(samples, 3).items():
                values = list(of.values())
                assert line[f"{part}/{name}_problems"] == len(values)
                assert line[f"{part}/{name}"] == (pytest.approx(fmean(values), abs=1e-9) if values else None)
                if len(values) > 1:
                    error = pl.Series(values).std() / len(values) ** 0.5  # type: ignore[operator]
                    assert line[f"{part}/{name}_error"] == pytest.approx(error, abs=1e-9)
                diverse += name == "diversity" and bool(values)
        if "rollouts/entropy" in line:
            seen = [v for step, v in entropies.items() if before["step"] < step <= line["step"]]
            assert line["rollouts/entropy"] == (pytest.approx(fmean(seen)) if seen else None)
    assert lines[1]["rollouts/entropy"]
    assert diverse > 3
    assert "rollouts/samples" not in lines[0], "there were none before the first step"
    assert "rollouts/samples" in lines[3], "step 6 drew some"


def test_the_probe_asks_the_same_problems_with_the_same_random_numbers(watched: Path, tiny_model: Path) -> None:
    """At step 0 the policy is the starting model: its responses and their probabilities, from scratch."""
    import torch
    from transformers import AutoModelForCausalLM

    probes, questions = probe_table(watched), {r["id"]: r["question"] for r in pool().iter_rows(named=True)}
    assert probes is not None
    asked = probes.group_by("step", maintain_order=True).agg("problem_id", "index")
    assert len({(tuple(p), tuple(i)) for p, i in asked.select("problem_id", "index").iter_rows()}) == 1
    assert asked["index"][0].to_list() == [0, 1, 2, 3] * 3
    assert probes["purpose"].unique().to_list() == ["early_warning"]
    tokenizer = load_tokenizer(ModelSettings(name=str(tiny_model)))
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    from dereason.lm.local.engine import decode

    ids = asked["problem_id"][0].unique(maintain_order=True).to_list()
    prompts = [
        tokenizer.apply_chat_template(
            PROMPT.messages(questions[id], None), add_generation_prompt=True, tokenize=True, return_dict=True
        )["input_ids"]
        for id in ids
    ]
    drawn = decode(
        model,
        prompts,
        4,
        temperature=1.0,
        max_new_tokens=8,
        stop_ids=[tokenizer.eos_token_id],
        pad_id=tokenizer.pad_token_id,
        seed=-4,
        batch_size=8,
    )
    texts = [tokenizer.decode(s.ids, skip_special_tokens=True) for of in drawn for s in of]
    assert probes.filter(step=0)["response"].to_list() == texts
    flat = [logp for of in drawn for s in of for logp in s.logps]
    assert readings(watched)[0]["probe/entropy"] == pytest.approx(-fmean(flat), rel=1e-5)
    assert probes.filter(step=6)["response"].to_list() != texts, "the policy has changed"


def test_a_reading_is_not_repeated_after_a_kill(
    tiny_model: Path, watched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at step 7 with a checkpoint of step 4: the readings of 0 and 3 stay, that of 6 is taken again."""

    def kill(done: int, total: int, words: str) -> None:
        if done == 7:
            raise KeyboardInterrupt

    phase = settings(early_warning=WARNING)
    with pytest.raises(KeyboardInterrupt):
        train(tiny_model, tmp_path, phase, progress=kill)
    assert [line["step"] for line in readings(tmp_path)] == [0, 3, 6]
    kept = readings(tmp_path)[:2]
    with (tmp_path / "early-warning.jsonl").open("a") as handle:
        handle.write('{"step": 7, "see')  # as a kill leaves it
    taken = []
    draw = Readings._draw

    def counted(self: Readings, step: int) -> Any:
        taken.append(step)
        return draw(self, step)

    monkeypatch.setattr(Readings, "_draw", counted)
    train(tiny_model, tmp_path, phase)
    assert taken == [6, 7]
    assert readings(tmp_path)[:2] == kept, "their times too"
    assert without_times(readings(tmp_path)) == without_times(readings(watched))
    assert_bitwise_the_same(tmp_path, watched)
    table = probe_table(tmp_path)
    assert table is not None
    assert table.equals(probe_table(watched))


def test_a_joint_phase_takes_readings(tiny_model: Path, tmp_path: Path) -> None:
    targets = [
        {"problem_id": f"p{i}", "response": f"\\boxed{{{i + i * i}}}", "origin": "reference", "accepted": True}
        for i in range(5)
    ]
    warning = EarlyWarning(every=2, problems=2, samples=4, k=2, share=1)
    phase = settings(Joint, method=Weighted(), steps=3, updates_per_generation=1, early_warning=warning)
    train(tiny_model, tmp_path, phase, demonstrations=frame("target", targets))
    lines = readings(tmp_path)
    assert [line["step"] for line in lines] == [0, 2, 3]
    window = rollout_table(tmp_path).filter(pl.col("step") < 2)
    want = fmean(independent(window, 2)["pass_at_1"].values())
    assert lines[1]["rollouts/pass_at_1"] == pytest.approx(want)
    assert lines[2]["probe/samples"] > 0


@pytest.mark.slow
def test_two_processes_read_what_one_does_and_leave_it_in_the_step(tiny_model: Path, tmp_path: Path) -> None:
    """Three problems of a probe for two processes, which find the measures by their name; with the real verifier."""
    write_table(pool(), tmp_path / "pool.parquet")
    phase = settings(
        steps=2,
        updates_per_generation=1,
        temperature=0.4,  # see test_processes.py
        optimiser=RLOptimiser(learning_rate=1e-5, micro_batch=4),
        rewards=Rewards(of=[Format(shape="regex", pattern=r"(?s)(?:..)*")]),
        early_warning=EarlyWarning(every=1, problems=3, samples=2, k=2),
    )
    tables, lines = [], []
    for name, processes in (("one", 1), ("two", 2)):
        job = RLJob(
            model=ModelSettings(name=str(tiny_model)),
            prompt=PROMPT,
            phase=phase,
            seed=3,
            launch=Launch(processes=processes),
        )
        info = train_rl(tmp_path / "pool.parquet", None, job, tmp_path / name)["info"]
        tables.append(pl.read_parquet(tmp_path / name / "early-warning.parquet").drop("model"))
        lines.append(readings(tmp_path / name))
        assert info["early_warning_share"] == lines[-1][-1]["early_warning_share"] > 0.03
        assert any(words.startswith("the early warning took") for words in info["warnings"])
        assert not (tmp_path / name / "early-warning").exists()
    assert [line["step"] for line in lines[0]] == [0, 1, 2]
    assert tables[0].equals(tables[1])
    assert tables[0].group_by("step", maintain_order=True).len().rows() == [(0, 6), (2, 6)], "no time for the second"
    for a, b in zip(*map(without_times, lines), strict=True):
        assert a.keys() == b.keys()
        for name, value in a.items():
            assert b[name] == (pytest.approx(value, rel=1e-4) if isinstance(value, float) else value), name


# -- what is computed of given samples ---------------------------------------------------------------------------


def table(rows: Sequence[tuple[str, int, str, str]], purpose: str = "rollout") -> pl.DataFrame:
    found = [
        {"problem_id": p, "model": "x", "purpose": purpose, "index": i, "step": s, "verdict": v, "response": text}
        | {"right": {"correct": True, "error": None}.get(v, False)}
        for i, (p, s, v, text) in enumerate(rows)
    ]
    return judged_frame(found)


def test_values_by_hand() -> None:
    """Two groups of one problem are averaged first; errors and guided samples are no samples."""
    plain = Measures(lambda texts: (float(len(texts)), 2.0), MEASURES.pass_at_k)
    rows = [
        *[("a", 0, v, "t") for v in ("correct", "correct", "wrong", "truncated")],  # 1/2; pass@2 = 1 - 1/6
        *[("a", 4, v, "t") for v in ("correct", "error", "unparsable", "wrong")],  # 1/3; pass@2 = 1 - 1/3
        *[("b", 0, v, "t") for v in ("error", "error", "correct", "error")],  # 1; pass@2 unknown
        ("c", 0, "error", "t"),
    ]
    samples = pl.concat([table(rows), table([("a", 0, "correct", "t"), ("d", 0, "wrong", "t")], "guided")])
    values = problem_values(samples, 2, 9, plain, [0])
    assert values["pass_at_1"] == pytest.approx({"a": 5 / 12, "b": 1.0})
    assert values["pass_at_k"] == pytest.approx({"a": (5 / 6 + 2 / 3) / 2})
    assert values["diversity"] == {"a": 2.0}
    assert values["unique_of_two"] == {"a": 2.0}


def test_only_so_many_groups_are_compared() -> None:
    rows = [(f"p{i}", 0, "correct", "t") for i in range(20) for _ in range(2)]
    values = [problem_values(table(rows), 2, 5, MEASURES, [seed]) for seed in (0, 0, 1)]
    assert [len(v["diversity"]) for v in values] == [5, 5, 5]
    assert values[0]["diversity"] == values[1]["diversity"] != values[2]["diversity"]
    assert len(values[0]["pass_at_1"]) == 20


def test_trajectories_of_texts_that_are_alike_or_not() -> None:
    """Two texts three times and one of its own: 6 of 15 pairs... by counting the pairs that are not the same text."""
    texts = ["aaaa bbbb cccc"] * 3 + ["uvwxyz 123456"] * 2 + ["+-*/=()[]{}"]
    apart = 3 * 2 + 3 * 1 + 2 * 1
    assert MEASURES.trajectories(texts) == pytest.approx((apart / 15, 1 + apart / 15))


def changes(**kw: tuple[float, float, float]) -> dict[str, Change | None]:
    default = {
        "pass_at_1": (0.3, 0.4, 0.02),
        "pass_at_k": (0.6, 0.6, 0.02),
        "diversity": (0.5, 0.3, 0.02),
        "entropy": (1.0, 0.9, 0.0),
    }
    return {name: Change(*value) for name, value in (default | kw).items()}


@pytest.mark.parametrize(
    ("more", "fallen"),
    [
        ({}, ["diversity"]),
        ({"entropy": (1.0, 0.7, 0.0)}, ["diversity", "entropy"]),
        ({"diversity": (0.5, 0.41, 0.0)}, []),  # -18 %
        ({"diversity": (0.5, 0.3, 0.11)}, []),  # -40 %, within twice its error
        ({"diversity": (0.5, 0.8, 0.0)}, []),
        ({"pass_at_k": (0.6, 0.63, 0.02)}, []),  # it rose too: RL learns
        ({"pass_at_k": (0.6, 0.61, 0.02)}, ["diversity"]),  # not more than its error
        ({"pass_at_1": (0.3, 0.31, 0.02)}, []),
        ({"pass_at_1": (0.3, 0.1, 0.02), "pass_at_k": (0.6, 0.1, 0.02)}, []),  # it gets worse: another problem
    ],
)
def test_what_is_a_squeeze(more: dict[str, tuple[float, float, float]], fallen: list[str]) -> None:
    assert squeezing(changes(**more), 0.2) == fallen
    assert squeezing(changes(**more) | {"pass_at_k": None}, 0.2) == []


def test_changes_by_hand() -> None:
    found = paired({"a": 0.5, "b": 0.2, "c": 1.0}, {"b": 0.4, "a": 0.3, "d": 0.0})
    assert found is not None
    assert (found.before, found.after) == pytest.approx((0.35, 0.35))
    assert found.error == pytest.approx((0.08 / 2) ** 0.5)  # differences -0.2 and 0.2
    assert paired({"a": 0.5, "b": 0.2}, {"a": 0.5}) is None
    line = {"x": 0.5, "x_error": 0.3, "y": 0.5, "y_error": None}
    found = unpaired(line, {"x": 0.2, "x_error": 0.4}, "x")
    assert found is not None
    assert (found.before, found.after, found.error) == pytest.approx((0.5, 0.2, 0.5))
    assert unpaired(line, line, "y") is None


# -- when, on a clock that stands still but for what is planted --------------------------------------------------

WAYS = ["add the tens, then the ones", "count on from nine: ten, eleven"]


class Phase:
    """Readings of a phase in which nothing is trained: what its policy answers is planted, and so is the time."""

    def __init__(
        self,
        work: Path,
        monkeypatch: pytest.MonkeyPatch,
        answers: Callable[[int], tuple[int, Sequence[str]]],
        warning: EarlyWarning,
        costs: float = 0.0,
    ) -> None:
        self.now, self.step, self.said = 0.0, 0, [""]
        monkeypatch.setattr(readings_module.time, "monotonic", lambda: self.now)
        self.answers, self.costs = answers, costs
        self.work, self.warning = work, warning
        trainer = SimpleNamespace(
            accelerator=SimpleNamespace(is_main_process=True, num_processes=1, process_index=0),
            processing_class=SimpleNamespace(batch_decode=lambda rows, **_: self.texts(len(rows) // warning.samples)),
            eos_token_ids=[0],
            draw_probe=self.draw,
            add_callback=lambda callback: None,
        )
        verifier = SimpleNamespace(
            rewarded=lambda items, judged, marks: judged,
            judge_many=lambda items: [
                Judgement(Verdict.CORRECT if item.response else Verdict.WRONG, None, "planted") for item in items
            ],
        )
        self.readings = Readings(
            RL(early_warning=warning, group_size=4),
            MEASURES,
            verifier,  # type: ignore[arg-type]
            work,
            identity="x",
            seed=0,
            resumed_at=0,
        )
        rows = [{"problem_id": f"p{i}", "answer": "1", "options": []} for i in range(12)]
        self.readings.watch(trainer, rows)
        self.progress = self.readings.tell(lambda done, total, words: self.said.append(words))

    def texts(self, problems: int) -> list[str]:
        solved, texts = self.answers(self.step)
        right = [t for _ in range(solved) for t in texts]
        return right + [""] * (problems * self.warning.samples - len(right))

    def draw(self, problems: Sequence[Any], n: int, seed: int) -> Any:
        self.now += self.costs
        return [([1], [([5, 0], [-1.0, -0.5])] * n) for _ in problems]

    def run(self, steps: int, seconds: float) -> list[dict[str, Any]]:
        self.readings.begin(0)
        for self.step in range(1, steps + 1):
            self.now += seconds
            self.readings.after_step(self.step, steps, {})
            self.progress(self.step, steps, "reward 1")
        return readings(self.work)


def test_a_squeeze_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Six of eight problems are solved in two ways by half of the responses; then five by all of them, in one way.

    pass@2 is 6/8 * 5/6 and then 5/8: the same. In the last reading all is as it was at first.
    """

    def squeezed(step: int) -> tuple[int, Sequence[str]]:
        return (5, [WAYS[0]] * 4) if 10 <= step < 20 else (6, [*WAYS, "", ""])

    warning = EarlyWarning(every=5, problems=8, samples=4, share=1)
    phase = Phase(tmp_path, monkeypatch, squeezed, warning)
    lines = phase.run(20, 1.0)
    assert [bool(line["warning"]) for line in lines] == [False, False, True, True, False]
    chrf = CHRF(char_order=6, word_order=0, beta=2)
    apart = fmean(1 - chrf.sentence_score(a, [b]).score / 100 for a, b in (WAYS, WAYS[::-1]))
    said = lines[3]["warning"]
    assert said.startswith(
        f"RL is squeezing: between steps 0 and 15 the diversity of correct trajectories fell from {apart:.3g} to 0 "
        "(-100 %), while pass@1 rose from 37.5 to 62.5 % and pass@2 did not (62.5 to 62.5 %), measured on the probe"
    )
    assert said in caplog.text
    assert phase.said[16] == "reward 1  RL is squeezing: diversity -100 %"
    assert (phase.said[8], phase.said[20]) == ("reward 1", "reward 1")
    assert reading_warnings(tmp_path, warning) == [f"{said} (the last reading, of step 20, no longer says so)"]


def test_a_probe_waits_until_its_time_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step takes 7 s, the probe 5 s: 3 % of 400 steps are 84 s; in 20 steps there is no time for two."""
    warning = EarlyWarning(problems=4, samples=2, k=2)
    lines = Phase(tmp_path / "long", monkeypatch, lambda step: (0, []), warning, costs=5.0).run(400, 7.0)
    assert [line["step"] for line in lines] == list(range(0, 401, 10))
    probes = [line for line in lines if "probe/samples" in line]
    assert (probes[0]["step"], probes[-1]["step"]) == (0, 400)
    assert 12 <= len(probes) <= 16
    total = 400 * 7.0 + 5.0 * len(probes)
    assert lines[-1]["early_warning_share"] == pytest.approx(5.0 * len(probes) / total, abs=1e-4)
    assert lines[-1]["early_warning_share"] <= 0.03
    assert reading_warnings(tmp_path / "long", warning) == []
    for line in probes[2:]:
        assert line["early_warning_share"] <= 0.03

    lines = Phase(tmp_path / "short", monkeypatch, lambda step: (0, []), warning, costs=5.0).run(20, 7.0)
    assert [line["step"] for line in lines if "probe/samples" in line] == [0, 20]
    (words,) = reading_warnings(tmp_path / "short", warning)
    assert words.startswith("the early warning took 6.7 % of the phase's time")


def test_finishing_keeps_the_probe_in_one_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Phase(tmp_path, monkeypatch, lambda step: (0, []), EarlyWarning(problems=4, samples=2, k=2, share=1)).run(20, 1.0)
    table = probe_table(tmp_path)
    assert facts(tmp_path) == {"early_warning_share": 0.0}
    assert pl.read_parquet(tmp_path / "early-warning.parquet").equals(table)
    assert probe_table(tmp_path).equals(table), "what it was read from stays until the step's record is in place"
    assert facts(tmp_path / "none") == {}


# -- settings ----------------------------------------------------------------------------------------------------


def test_settings() -> None:
    plain = phase_key(RL())
    assert phase_key(RL(early_warning=EarlyWarning(every=3))) == plain
    assert "early_warning" not in plain
    with pytest.raises(ValidationError, match="25"):
        EarlyWarning(every=26)
    with pytest.raises(ValidationError, match="k is 9, and a group has 8"):
        RL(early_warning=EarlyWarning(k=9, samples=16))
    with pytest.raises(ValidationError, match=r"samples is 3: pass@4 needs at least 4"):
        RL(early_warning=EarlyWarning(samples=3))
    RL(early_warning=EarlyWarning(samples=3, problems=0))
    assert EarlyWarning().probe_problems(128) == 16
    assert EarlyWarning().probe_problems(8) == 4
    assert [EarlyWarning().k_of(size) for size in (2, 8)] == [2, 4]


def test_a_phase_without_measures_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs measures"):
        run_rl(
            ModelSettings(name=str(tiny_model)),
            PROMPT,
            pool(),
            settings(early_warning=WARNING),
            identity="x",
            out=tmp_path / "model",
            work=tmp_path,
            seed=3,
        )
