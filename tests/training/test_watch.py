"""What watches a phase: stops before bad weights are kept, checkpoints that count, the log and the trackers."""

from __future__ import annotations

import json
import logging
import shutil
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import Trainer, TrainingArguments

from dereason.errors import DereasonError
from dereason.lm.library_log import quiet_libraries
from dereason.training import watch
from dereason.training.stops import Health, Stops
from dereason.training.watch import (
    Watched,
    check_trackers,
    guarded,
    last_checkpoint,
    make_callback,
    mark,
    phase_facts,
)


class Line(nn.Module):
    """A least-squares model, small enough for a hundred steps a second."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 1)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": (self.layer(x).squeeze(-1) - y).square().mean()}


class Toy(Watched, Trainer):
    """A trainer of transformers as a phase has it, which counts tokens as a phase does."""

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs |= {"trained_tokens": 100, "generated_tokens": 50}
        super().log(logs, start_time)


NAMES = {name: name for name in ("loss", "grad_norm", "reward", "trained_tokens", "generated_tokens")}


def toy(
    work: Path,
    *,
    steps: int = 8,
    save: int = 2,
    spoil: Callable[[int, dict[str, Any]], None] | None = None,
    **more: Any,
) -> Toy:
    """Train the toy in a phase's folder, from its last checkpoint where there is one; one row is one step.

    Args:
        work: the phase's folder.
        steps: optimiser steps.
        save: steps between checkpoints.
        spoil: changes the row of a step, counted from 1.
        more: training arguments.
    """
    draw = torch.Generator().manual_seed(1)
    rows = []
    for step in range(1, 13):
        row: dict[str, Any] = {"x": torch.randn(4, generator=draw), "y": torch.randn((), generator=draw)}
        if spoil is not None:
            spoil(step, row)
        rows.append(row)
    arguments = TrainingArguments(
        output_dir=str(work / "checkpoints"),
        max_steps=steps,
        save_steps=save,
        save_total_limit=2,
        per_device_train_batch_size=1,
        train_sampling_strategy="sequential",
        logging_steps=1,
        logging_nan_inf_filter=False,
        learning_rate=0.1,
        lr_scheduler_type="constant",
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
        **{"report_to": [], **more},
    )
    resume = last_checkpoint(work)
    at = int(resume.name.rsplit("-", 1)[-1]) if resume else 0
    callback = make_callback(work, NAMES, lambda done, total, words: None, at, Stops(gradient_steps=2))
    trainer = Toy(model=Line(), args=arguments, train_dataset=rows, callbacks=[callback])
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    return trainer


def weights(trainer: Toy) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


def steps_of(work: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (work / "metrics.jsonl").read_text().splitlines()]


def nan_at(step: int) -> Callable[[int, dict[str, Any]], None]:
    def spoil(at: int, row: dict[str, Any]) -> None:
        if at == step:
            row["y"] = torch.tensor(float("nan"))

    return spoil


def test_a_nan_gradient_reaches_neither_weights_nor_checkpoint(tmp_path: Path) -> None:
    seen = {}

    class Spy(Toy):
        def _get_grad_norm(self, *args: Any, **kwargs: Any) -> Any:
            seen["weights"] = weights(self)  # before each optimiser step
            return super()._get_grad_norm(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "Toy", Spy)
        with pytest.raises(DereasonError) as stop:
            toy(tmp_path / "nan", spoil=nan_at(6))
    good = toy(tmp_path / "good", steps=5)
    assert torch.equal(seen["weights"], weights(good))
    assert stop.value.cause == "grad_norm became nan at optimiser step 6"
    assert last_checkpoint(tmp_path / "nan") == tmp_path / "nan" / "checkpoints" / "checkpoint-4"
    assert str(tmp_path / "nan" / "checkpoints" / "checkpoint-4") in stop.value.mend
    assert "warmup_ratio" in stop.value.mend


def test_a_checkpoint_whose_weights_gave_nan_no_longer_counts(tmp_path: Path) -> None:
    """Weights that a huge step ruined are still finite when they are saved; the next loss shows it."""
    with pytest.raises(DereasonError, match=r"checkpoint-3$"):
        toy(tmp_path, save=3, spoil=nan_at(7))
    assert (tmp_path / "checkpoints" / "checkpoint-6").is_dir()
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoints" / "checkpoint-3"
    trainer = toy(tmp_path, save=3)  # the mend: here, a row that was mended
    assert torch.equal(weights(trainer), weights(toy(tmp_path / "good", save=3)))
    assert steps_of(tmp_path) == list(range(1, 9))


def test_no_checkpoint_is_saved_while_the_gradient_explodes(tmp_path: Path) -> None:
    def spoil(step: int, row: dict[str, Any]) -> None:
        if step >= 12 - 1:
            row["y"] = torch.tensor(1e9)

    with pytest.raises(DereasonError, match=r"gradient norm is .* at optimiser step 12, and has been above 100 times"):
        toy(tmp_path, steps=12, save=1, spoil=spoil)
    found = last_checkpoint(tmp_path)
    assert found is not None
    assert found.name == "checkpoint-9", "step 11 was the first to explode, on the weights of step 10"
    assert not (tmp_path / "checkpoints" / "checkpoint-11").exists()


def rows_of(norms: list[float]) -> list[dict[str, Any]]:
    return [{"step": i, "loss": 1.0, "grad_norm": norm} for i, norm in enumerate(norms, 1)]


@pytest.mark.parametrize(
    ("norms", "stops_at"),
    [
        ([1e6] * 9 + [1.0] * 30, None),  # large from the first step on: no history says that it is too large
        ([3.0] * 10 + [900.0] * 4 + [3.0] * 10 + [900.0] * 4, None),  # bursts shorter than the bound
        ([0.0] * 40 + [1e-7] * 40 + [5.0] * 40, None),  # rare signal: a KL gradient, then the first rewards
        ([3.0] * 10 + [900.0, 0.0, 900.0, 0.0, 900.0, 900.0, 900.0], 17),  # steps without gradient do not interrupt
        ([0.5] * 60 + [90.0] * 20, None),  # 180 times the median, and no larger than clipping is there for
        ([3.0 * 1.1**i for i in range(60)], None),  # growth that the median follows
        ([3.0 * 1.5**i for i in range(60)], 27),  # and growth that it does not
        ([3.0] * 10 + [301.0] * 5, 15),
    ],
)
def test_what_counts_as_an_exploding_gradient(norms: list[float], stops_at: int | None) -> None:
    health = Health(Stops())
    found = [(row["step"], diagnosis) for row in rows_of(norms) if (diagnosis := health.see(row))]
    assert [step for step, _ in found][:1] == ([] if stops_at is None else [stops_at])
    if found and 0.0 in norms:
        assert found[0][1].spoilt_from == 10


def unrewarded(step: int, **shares: float) -> dict[str, Any]:
    reward = {} if shares.get("error") == 1 else {"reward": 0.0, "reward_std": 0.0}
    verdicts = dict.fromkeys(("correct", "wrong", "unparsable", "truncated", "error"), 0.0)
    return {"step": step, "loss": 0.0, "grad_norm": 0.0, **reward, **verdicts, **shares}


@pytest.mark.parametrize(
    ("shares", "advice"),
    [
        ({"truncated": 0.9, "wrong": 0.1}, "raise max_new_tokens"),
        ({"unparsable": 1.0}, "ask for one in prompt.suffix"),
        ({"wrong": 0.8, "truncated": 0.2}, "too hard for this model"),
        ({"error": 1.0}, "the verifier fails"),
        ({"correct": 1.0}, "look at the phase's rewards"),
        ({"wrong": 0.9, "correct": 0.1}, "where they do not mark their answers"),
    ],
)
def test_steps_without_reward_stop_with_the_reason_for_them(shares: dict[str, float], advice: str) -> None:
    health = Health(Stops(zero_reward_steps=5))
    found = [health.see(unrewarded(step, **shares)) for step in range(1, 6)]
    assert found[:4] == [None] * 4
    assert found[4] is not None
    assert found[4].cause.startswith("no rollout of the last 5 optimiser steps earned a reward (step 5;")
    assert advice in found[4].mend
    assert found[4].spoilt_from is None, "the weights are as good as they were"


def test_a_reward_begins_the_count_anew_and_a_further_update_goes_on_with_it() -> None:
    health = Health(Stops(zero_reward_steps=4))
    update = {"loss": 0.0, "grad_norm": 0.1}
    for step in range(1, 20, 3):
        assert health.see(unrewarded(step, wrong=1.0)) is None
        assert health.see({"step": step + 1, **update}) is None
        assert health.see({**unrewarded(step + 2, wrong=0.9, correct=0.1), "reward": 0.1, "reward_std": 0.3}) is None
    assert health.see(unrewarded(20, wrong=1.0)) is None
    assert [health.see({"step": step, **update}) is None for step in (21, 22, 23)] == [True, True, False]
    never = Health(Stops(zero_reward_steps=0))
    assert not any(never.see(unrewarded(step, wrong=1.0)) for step in range(1, 200))
    flat = Health(Stops(zero_reward_steps=2))
    mean_zero = unrewarded(1, wrong=0.5, correct=0.5) | {"reward": 0.0, "reward_std": 1.0}
    assert not any(flat.see(mean_zero | {"step": step}) for step in range(1, 9)), "rewards of +1 and -1"


def test_how_a_phase_is_watched_is_not_in_its_key() -> None:
    """So that the mend, a stop moved or switched off, goes on with the checkpoints that there are."""
    from dereason.pipeline.build import phase_key
    from dereason.training.rl import RL

    watched = RL(stops=Stops(zero_reward_steps=0), report_to=["wandb"], run_name="mine")
    assert phase_key(watched) == phase_key(RL())


def test_the_count_survives_a_resume(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "metrics.jsonl").write_text(
        "".join(json.dumps(unrewarded(s, wrong=1.0) | {"seconds": s}) + "\n" for s in (1, 2, 3))
    )
    callback = make_callback(work, NAMES, lambda *_: None, 2, Stops(zero_reward_steps=3))
    args = SimpleNamespace(output_dir=str(work / "checkpoints"), save_total_limit=2)
    state = SimpleNamespace(is_world_process_zero=True, global_step=2, max_steps=4, save_steps=2)
    callback.on_train_begin(args, state, None, model=Line())
    assert steps_of(work) == [1, 2]
    state.global_step = 3
    with pytest.raises(DereasonError, match="no rollout of the last 3 optimiser steps"):
        callback.on_log(args, state, None, {"loss": 0.0, "reward": 0.0})


def test_a_full_disk_while_a_checkpoint_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is torch's own for a tmpfs that ran full: it does not name the cause."""
    whole = toy(tmp_path / "whole")
    save = torch.save

    def fail(value: object, path: Any, *args: Any, **kwargs: Any) -> None:
        save(value, path, *args, **kwargs)
        if "checkpoint-4" in str(path):
            Path(path).write_bytes(Path(path).read_bytes()[:100])
            raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", fail)
        with pytest.raises(DereasonError) as stop:
            toy(tmp_path / "full")
    assert "was full while the checkpoint of step 4 was written" in stop.value.cause
    assert stop.value.mend.endswith("checkpoint-2")
    assert [p.name for p in (tmp_path / "full" / "checkpoints").iterdir()] == ["checkpoint-2"]
    assert torch.equal(weights(toy(tmp_path / "full")), weights(whole))


def test_another_error_while_saving_is_not_taken_for_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("something else")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(RuntimeError, match="something else"):
        toy(tmp_path)


def test_a_disk_that_cannot_hold_the_checkpoints_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five float32 parameters: 20 bytes of weights and twice as much of moments; three checkpoints and the model."""
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(watch.shutil, "disk_usage", lambda path: usage._replace(free=199))
    with pytest.raises(DereasonError, match=r"needs about 2e-07 GB .*3 checkpoints"):
        toy(tmp_path)
    assert steps_of(tmp_path) == []
    monkeypatch.setattr(watch.shutil, "disk_usage", lambda path: usage._replace(free=200))
    toy(tmp_path)
    monkeypatch.setattr(watch.shutil, "disk_usage", lambda path: usage._replace(free=20))
    toy(tmp_path)  # finished, but for its model


def test_an_adapter_takes_the_room_of_what_is_trained() -> None:
    model = nn.Sequential(nn.Linear(100, 100, bias=False), nn.Linear(10, 1, bias=False))
    model[0].requires_grad_(False)
    model.peft_config = {}  # type: ignore[assignment]
    assert watch._sizes(model) == (3 * 40, 40_040)


def test_a_checkpoint_counts_when_marked_and_whole(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    for step in (2, 10, 12, 14):
        inner = folder / f"checkpoint-{step}" / "global_step"
        inner.mkdir(parents=True)
        (inner / "weights").write_text("x" * 100)
    assert last_checkpoint(tmp_path) is None
    for step in (2, 10, 12):
        mark(folder / f"checkpoint-{step}")
    assert last_checkpoint(tmp_path) == folder / "checkpoint-12"
    (folder / "checkpoint-12" / "global_step" / "weights").write_text("x" * 50)  # a machine that went down
    assert last_checkpoint(tmp_path) == folder / "checkpoint-10"
    (folder / "checkpoint-10" / "global_step" / "weights").unlink()
    assert last_checkpoint(tmp_path) == folder / "checkpoint-2"
    (folder / "checkpoint-2" / "checkpoint-complete").write_text("{")
    assert last_checkpoint(tmp_path) is None


def test_half_a_checkpoint_of_an_earlier_attempt_is_removed(tmp_path: Path) -> None:
    """With it there, transformers' own rotation could remove the whole one."""
    toy(tmp_path, steps=2)
    half = tmp_path / "checkpoints" / "checkpoint-7"
    half.mkdir()
    toy(tmp_path, steps=4)
    assert not half.exists()
    assert sorted(p.name for p in half.parent.iterdir()) == ["checkpoint-2", "checkpoint-4"]


def test_the_log_has_speed_and_memory_and_the_tracker_gets_them(tmp_path: Path) -> None:
    toy(tmp_path, steps=3, report_to=check_trackers(["tensorboard"]))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        assert 0.01 < line["memory_gib"] < 64
        assert line["tokens_per_second"] > 150, "150 tokens a step, which takes less than a second"
        assert line["trained_tokens"] == 100
    facts = phase_facts(tmp_path)
    seconds = sum(150 / line["tokens_per_second"] for line in lines)
    assert facts["tokens_per_second"] == pytest.approx(3 * 150 / seconds, rel=1e-3)
    assert facts["peak_memory_bytes"] == round(max(line["memory_gib"] for line in lines) * 2**30)
    sent = tracked(tmp_path / "tensorboard")
    assert sent["train/memory_gib"] == pytest.approx([line["memory_gib"] for line in lines])
    assert sent["train/tokens_per_second"] == pytest.approx([line["tokens_per_second"] for line in lines])
    assert sent["train/loss"] == pytest.approx([line["loss"] for line in lines])


def test_a_phase_reports_to_its_tracker(tiny_model: Path, tmp_path: Path) -> None:
    from dereason.lm.local.model import ModelSettings
    from dereason.lm.prompts import Prompt
    from dereason.problems.schema import frame
    from dereason.training.sft import SFT, run_sft

    pool = frame("problem", [{"id": "a", "question": "1 + 1?", "answer": "2", "domain": "sum", "source": "test"}])
    targets = frame("target", [{"problem_id": "a", "response": "\\boxed{2}", "origin": "reference", "accepted": True}])
    folders = {"out": tmp_path / "model", "work": tmp_path}
    settings = SFT(epochs=2, report_to=["tensorboard"])
    run_sft(ModelSettings(name=str(tiny_model)), Prompt(), pool, targets, settings, seed=0, **folders)
    sent = tracked(tmp_path / "tensorboard")
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for name in ("loss", "entropy", "token_accuracy", "trained_tokens", "tokens_per_second", "memory_gib"):
        assert sent[f"train/{name}"] == pytest.approx([line[name] for line in lines])


def tracked(folder: Path) -> dict[str, list[float]]:
    """The scalars in TensorBoard's event files: records of length, check sum, event, check sum."""
    from tensorboardX.proto.event_pb2 import Event

    found: dict[str, list[float]] = {}
    for file in folder.rglob("events.*"):
        content, at = file.read_bytes(), 0
        while at < len(content):
            (size,) = struct.unpack_from("<Q", content, at)
            event = Event.FromString(content[at + 12 : at + 12 + size])
            for value in event.summary.value:
                if value.WhichOneof("value") == "simple_value":
                    found.setdefault(value.tag, []).append(value.simple_value)
            at += size + 16
    return found


def test_a_tracker_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DereasonError, match=r"report_to names wandb, which is not installed — pip install wandb"):
        check_trackers(["wandb"])
    assert check_trackers([]) == []


def test_only_the_main_process_writes(tmp_path: Path) -> None:
    callback = make_callback(tmp_path, NAMES, lambda *_: pytest.fail("progress"), 0)
    args = SimpleNamespace(output_dir=str(tmp_path / "checkpoints"), save_total_limit=2)
    state = SimpleNamespace(is_world_process_zero=False, global_step=0, max_steps=4, save_steps=2)
    (tmp_path / "checkpoints" / "checkpoint-1").mkdir(parents=True)
    callback.on_train_begin(args, state, None, model=Line())
    state.global_step = 1
    callback.on_log(args, state, None, {"loss": 0.5})
    callback.on_save(args, state, None)
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoints"]
    assert list((tmp_path / "checkpoints" / "checkpoint-1").iterdir()) == []
    with pytest.raises(DereasonError, match="loss became nan"):  # and all processes stop
        callback.on_log(args, state, None, {"loss": float("nan")})


def test_what_libraries_warn_of_is_on_file_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In a phase that loads models in between, which quietens the libraries everywhere else."""
    before = [(logging.getLogger(name).level, logging.getLogger(name).propagate) for name in ("trl", "transformers")]
    with guarded(8, tmp_path):
        for _ in range(2):
            warnings.warn("the user's own reward divides by zero", stacklevel=1)
            logging.getLogger("trl.trainer.grpo_trainer").warning("All reward functions returned None for x")
            logging.getLogger("trl.trainer.grpo_trainer").warning("an option is ignored")
            quiet_libraries()
            logging.getLogger("transformers.modeling_utils").warning("a weight was made anew")
            warnings.warn("soon gone", FutureWarning, stacklevel=1)
    said = (tmp_path / "library.log").read_text()
    for words in (
        "UserWarning: the user's",
        ": an option is ignored",
        ": a weight was made anew",
        "FutureWarning: soon",
    ):
        assert said.count(words) == 1
    assert "returned None" not in said
    assert "a weight" not in capsys.readouterr().err
    assert before == [
        (logging.getLogger(name).level, logging.getLogger(name).propagate) for name in ("trl", "transformers")
    ]
    with guarded(8, tmp_path / "quiet"):
        pass
    assert not (tmp_path / "quiet" / "library.log").exists()
