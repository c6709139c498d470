"""What watches a running phase: checkpoints that count, metrics on file, progress, and stops with a diagnosis.

A checkpoint counts when its marker is there and every file has the size that the marker notes, so a half-written one
is never chosen. With several processes the main one writes metrics and markers, a marker only after all have saved.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import math
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from dereason.errors import DereasonError, disk_full, out_of_memory
from dereason.lm.base import Progress
from dereason.lm.library_log import LIBRARY_LOG, library_log, quiet_libraries
from dereason.memory import begin_interval, interval_peak_bytes
from dereason.training.drift import Alarm
from dereason.training.stops import Diagnosis, Health, Stops, not_finite

_MARKER = "checkpoint-complete"
_logger = logging.getLogger(__name__)

Tracker = Literal["tensorboard", "trackio", "wandb"]
_MODULES: dict[Tracker, tuple[str, ...]] = {
    "tensorboard": ("tensorboard", "tensorboardX"),
    "trackio": ("trackio",),
    "wandb": ("wandb",),
}


def last_checkpoint(work: Path) -> Path | None:
    """The newest whole checkpoint of a phase's folder."""
    return _newest(work / "checkpoints")


def _newest(folder: Path) -> Path | None:
    found = sorted(folder.glob("checkpoint-*"), key=_step_of, reverse=True)
    return next(filter(_whole, found), None)


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rsplit("-", 1)[-1])


def mark(checkpoint: Path) -> None:
    """Mark a checkpoint as complete, noting the size of each of its files."""
    sizes = {
        str(p.relative_to(checkpoint)): p.stat().st_size
        for p in checkpoint.rglob("*")
        if p.is_file() and not p.name.startswith(_MARKER)
    }
    part = checkpoint / f"{_MARKER}.part"
    part.write_text(json.dumps(sizes))
    part.replace(checkpoint / _MARKER)


def _whole(checkpoint: Path) -> bool:
    sizes = read_line(marker.read_text()) if (marker := checkpoint / _MARKER).is_file() else None
    if not sizes:
        return False
    files = {name: checkpoint / name for name in sizes}
    return all(file.is_file() and file.stat().st_size == sizes[name] for name, file in files.items())


def check_trackers(names: Sequence[Tracker]) -> list[str]:
    """The trackers, as transformers' ``report_to`` wants them.

    Raises:
        DereasonError: one of them is not installed.
    """
    for name in names:
        if not any(importlib.util.find_spec(module) for module in _MODULES[name]):
            raise DereasonError(
                f"report_to names {name}, which is not installed", f"pip install {name}, or take it out of report_to"
            )
    return list(names)


class Watched:
    """Mixin for a trainer of transformers, before it in the bases: what a callback cannot do."""

    args: Any
    state: Any
    control: Any
    callback_handler: Any

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As transformers', with our callbacks before the trackers, which get what these add to the log."""
        from transformers.integrations import TensorBoardCallback

        callbacks = self.callback_handler.callbacks
        # the readings come behind the line of the log that their step has
        callbacks.sort(key=lambda c: 0 if hasattr(c, "health") else 1 if hasattr(c, "adds_to_the_log") else 2)
        for callback in callbacks:
            if isinstance(callback, TensorBoardCallback) and callback.logging_dir is None:
                # transformers' own choice lies among the checkpoints, which a finished phase drops
                callback.logging_dir = str(Path(self.args.output_dir).parent / "tensorboard")
        return super().train(*args, **kwargs)  # type: ignore[misc]

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """As transformers', but for a phase that was killed after its last step: there it would take one more."""
        if self.state.global_step < self.state.max_steps:
            super()._run_epoch(*args, **kwargs)  # type: ignore[misc]
        else:
            self.control.should_training_stop = True

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """The norm, checked before the optimiser takes its step: a gradient of NaN never reaches the weights."""
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)  # type: ignore[misc]
        if norm is not None and not math.isfinite(float(norm)):
            step = self.state.global_step + 1
            raise _stopped(not_finite("grad_norm", float(norm), step), self.args, self.state)
        return norm

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        try:
            super()._save_checkpoint(model, trial)  # type: ignore[misc]
        except Exception as exc:  # torch, safetensors and files each have their own for a full disk
            if not disk_full(exc):
                raise
            folder = Path(self.args.output_dir)
            half = folder / f"checkpoint-{self.state.global_step}"
            if self.args.should_save:
                shutil.rmtree(half, ignore_errors=True)
            raise DereasonError(
                f"the disk (or the quota) was full while the checkpoint of step {self.state.global_step} was written "
                f"to {folder}; it takes about {_gigabytes(_sizes(model)[0])}",
                f"free some space and run the same command again: {_kept(folder)}",
            ) from exc


def make_callback(
    work: Path,
    names: dict[str, str],
    progress: Progress,
    resumed_at: int,
    stops: Stops = Stops(),  # noqa: B008  (frozen)
    alarm: Alarm | None = None,
) -> Any:
    """Trainer callback: metrics to ``metrics.jsonl``, progress, checkpoint markers, stops, and the alarm of drift.

    It adds to what is logged: ``memory_gib``, the step's peak memory, and ``tokens_per_second``, where the trainer logs
    ``trained_tokens`` (and ``generated_tokens``) of the step.

    Args:
        work: the phase's folder.
        names: trainer's metric name -> ours; metrics not named are left out.
        progress: told of each step.
        resumed_at: step of the checkpoint that the phase resumes from; later lines of the file are dropped.
        stops: when the phase ends itself.
        alarm: told of each line; what it warns of is logged and shown. None for a phase without rollouts.
    """
    from accelerate import PartialState
    from transformers import TrainerCallback

    path = work / "metrics.jsonl"
    names = names | {"memory_gib": "memory_gib", "tokens_per_second": "tokens_per_second"}
    kept = []
    if path.is_file():
        kept = [x for x in map(read_line, path.read_text().splitlines()) if x and x["step"] <= resumed_at]
    spent = kept[-1]["seconds"] if kept else 0.0

    class PhaseCallback(TrainerCallback):
        """See :func:`make_callback`."""

        health = Health(stops)

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            for row in kept:
                self.health.see({k: v for k, v in row.items() if v is not None})
                if alarm is not None:
                    alarm.see(row)
            if state.is_world_process_zero:
                work.mkdir(parents=True, exist_ok=True)
                _rewrite(path, kept)
                for half in Path(args.output_dir).glob("checkpoint-*"):
                    if not _whole(half):
                        shutil.rmtree(half)
                _check_space(work, args, state, kwargs["model"])
                progress(state.global_step, state.max_steps, "")
            self.started = self.step_started = time.monotonic()
            begin_interval()

        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.step_started = time.monotonic()

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **kwargs: Any) -> None:
            if "loss" not in logs:  # the summary at the end of training
                return
            now = time.monotonic()
            logs["memory_gib"] = round(interval_peak_bytes() / 2**30, 3)
            begin_interval()
            if tokens := _tokens(logs):
                logs["tokens_per_second"] = round(tokens / (now - self.step_started), 1)
            values = {ours: logs[theirs] for theirs, ours in names.items() if logs.get(theirs) is not None}
            row = {"step": state.global_step, "seconds": round(spent + now - self.started, 3), **values}
            moved = alarm.see(row) if alarm is not None else []
            if state.is_world_process_zero:
                with path.open("a") as handle:
                    handle.write(_line(row))
                for words in moved:
                    _logger.warning("step %d: %s", state.global_step, words)
                shown = "reward" if "reward" in values else "loss"
                words = f"{shown} {values.get(shown, math.nan):.3f}  {alarm.brief() if alarm is not None else ''}"
                progress(state.global_step, state.max_steps, words.rstrip())
            diagnosis = self.health.see(row)
            if diagnosis:
                raise _stopped(diagnosis, args, state)
            if self.health.exploding:  # the log comes before the save
                control.should_save = False

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            PartialState().wait_for_everyone()
            if state.is_world_process_zero:
                mark(Path(args.output_dir) / f"checkpoint-{state.global_step}")

    return PhaseCallback()


def phase_facts(work: Path) -> dict[str, float | None]:
    """Peak memory and speed of a phase, from its ``metrics.jsonl``.

    Returns:
        ``peak_memory_bytes`` of its optimiser steps, and ``tokens_per_second`` (trained and generated tokens by the
        time of the steps); None where not logged.
    """
    path = work / "metrics.jsonl"
    rows = [row for row in map(read_line, path.read_text().splitlines()) if row] if path.is_file() else []
    peaks = [row["memory_gib"] for row in rows if row.get("memory_gib") is not None]
    speeds = [(_tokens(row), row["tokens_per_second"]) for row in rows if row.get("tokens_per_second")]
    seconds = sum(tokens / speed for tokens, speed in speeds)
    return {
        "peak_memory_bytes": round(max(peaks) * 2**30) if peaks else None,
        "tokens_per_second": round(sum(tokens for tokens, _ in speeds) / seconds, 1) if seconds else None,
    }


def _tokens(row: dict[str, Any]) -> float:
    """Tokens of an optimiser step, trained and generated."""
    return sum(row[name] for name in ("trained_tokens", "generated_tokens") if row.get(name) is not None)


def _line(row: dict[str, Any]) -> str:
    """One line of JSON, which has no NaN."""
    finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
    return json.dumps(finite) + "\n"


def _rewrite(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    part = path.with_suffix(".part")
    part.write_text("".join(map(_line, rows)))
    part.replace(path)


def read_line(line: str) -> dict[str, Any] | None:
    """A line of a metrics file; None where a kill cut it short."""
    try:
        value: dict[str, Any] = json.loads(line)
    except json.JSONDecodeError:
        return None
    return value


def _stopped(diagnosis: Diagnosis, args: Any, state: Any) -> DereasonError:
    """The error that ends the phase; checkpoints that the diagnosis distrusts lose their marker."""
    folder = Path(args.output_dir)
    if diagnosis.spoilt_from is not None and state.is_world_process_zero:
        for checkpoint in folder.glob("checkpoint-*"):
            if _step_of(checkpoint) >= diagnosis.spoilt_from:
                (checkpoint / _MARKER).unlink(missing_ok=True)
    return DereasonError(diagnosis.cause, f"{diagnosis.mend}; {_kept(folder)}")


def _kept(folder: Path) -> str:
    newest = _newest(folder)
    return f"the last good checkpoint is {newest}" if newest else "no checkpoint had been saved before"


def _sizes(model: Any) -> tuple[int, int]:
    """Bytes of one checkpoint and of the trained model on disk, estimated.

    A checkpoint holds the weights (with LoRA the adapter's alone), what is trained ``beside`` the model if anything is,
    and Adam's two moments of what is trained.
    """
    every = trained = 0
    for parameter in model.parameters():
        size = getattr(parameter, "ds_numel", parameter.numel()) * parameter.element_size()  # ZeRO-3 empties numel
        every += size
        trained += size * parameter.requires_grad
    beside = sum(p.numel() * p.element_size() for p in getattr(model, "beside", ()))
    return (trained if hasattr(model, "peft_config") else every) + 2 * trained + 3 * beside, every


def _check_space(work: Path, args: Any, state: Any, model: Any) -> None:
    """Refuse a phase whose checkpoints will not fit on the disk.

    Raises:
        DereasonError: it will not.
    """
    each, final = _sizes(model)
    there = sum(1 for _ in Path(args.output_dir).glob("checkpoint-*"))
    coming = math.ceil((state.max_steps - state.global_step) / state.save_steps)
    # A checkpoint is written before the oldest is removed.
    most = min(args.save_total_limit + 1, there + coming)
    needed = each * (most - there) + final
    free = shutil.disk_usage(work).free
    if needed > free:
        raise DereasonError(
            f"the phase needs about {_gigabytes(needed)} in {work} ({most} checkpoints of {_gigabytes(each)} at once "
            f"and the model), and {_gigabytes(free)} are free",
            "free some space, or put the run on another disk",
        )


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.2g} GB" if size < 1e10 else f"{size / 1e9:.0f} GB"


@contextmanager
def guarded(micro_batch: int, work: Path) -> Iterator[None]:
    """Turn running out of memory into one line with a mend; put what libraries warn of into a file of the phase."""
    import datasets

    quiet_libraries()
    datasets.disable_progress_bars()
    try:
        with library_log(work / LIBRARY_LOG):
            yield
    except (RuntimeError, MemoryError) as exc:
        if not out_of_memory(exc):
            raise
        raise DereasonError(
            f"the phase ran out of memory at micro_batch {micro_batch}",
            "lower optimiser.micro_batch or set optimiser.gradient_checkpointing=true (neither changes the result "
            "beyond rounding), in RL also rollout_batch; the same run goes on from the last checkpoint",
        ) from exc
