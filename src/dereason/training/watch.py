"""What watches a running phase: checkpoints that count, metrics on file, progress, and stops with a diagnosis.

A checkpoint counts only when its marker is there, so a half-written one is never chosen.
"""

from __future__ import annotations

import json
import logging
import math
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dereason.errors import DereasonError, out_of_memory
from dereason.lm.base import Progress
from dereason.lm.local.model import quiet_libraries

_MARKER = "checkpoint-complete"


def last_checkpoint(work: Path) -> Path | None:
    """The newest checkpoint whose marker was written."""
    found = [p.parent for p in (work / "checkpoints").glob(f"checkpoint-*/{_MARKER}")]
    return max(found, key=lambda p: int(p.name.rsplit("-", 1)[-1]), default=None)


def make_callback(work: Path, names: dict[str, str], progress: Progress, resumed_at: int) -> Any:
    """Trainer callback: metrics to ``metrics.jsonl``, progress, checkpoint markers, and a stop on NaN.

    Args:
        work: the phase's folder.
        names: trainer's metric name -> ours; metrics not named are left out.
        progress: told of each step.
        resumed_at: step of the checkpoint that the phase resumes from; later lines of the file are dropped.
    """
    from transformers import TrainerCallback

    work.mkdir(parents=True, exist_ok=True)
    path = work / "metrics.jsonl"
    kept = []
    if path.is_file():
        kept = [x for x in map(_json_line, path.read_text().splitlines()) if x and x["step"] <= resumed_at]
    path.write_text("".join(json.dumps(line) + "\n" for line in kept))
    spent = kept[-1]["seconds"] if kept else 0.0

    class PhaseCallback(TrainerCallback):
        """See :func:`make_callback`."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.started = time.monotonic()
            progress(state.global_step, state.max_steps, "")

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **kwargs: Any) -> None:
            values = {ours: logs[theirs] for theirs, ours in names.items() if logs.get(theirs) is not None}
            if "loss" not in logs:  # the summary at the end of training
                return
            seconds = round(spent + time.monotonic() - self.started, 3)
            with path.open("a") as handle:
                handle.write(json.dumps({"step": state.global_step, "seconds": seconds, **values}) + "\n")
            shown = "reward" if "reward" in values else "loss"
            progress(state.global_step, state.max_steps, f"{shown} {values.get(shown, math.nan):.3f}")
            for key in ("loss", "grad_norm"):
                if key in values and not math.isfinite(values[key]):
                    raise DereasonError(
                        f"{key} became {values[key]} at optimiser step {state.global_step}",
                        f"lower optimiser.learning_rate; the last good checkpoint is in {args.output_dir}",
                    )

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            (Path(args.output_dir) / f"checkpoint-{state.global_step}" / _MARKER).touch()

    return PhaseCallback()


def _json_line(line: str) -> dict[str, Any] | None:
    try:
        value: dict[str, Any] = json.loads(line)
    except json.JSONDecodeError:
        return None  # the line that a kill cut short
    return value


@contextmanager
def guarded(micro_batch: int) -> Iterator[None]:
    """Turn running out of memory into one line with a mend; keep library chatter off the screen."""
    import datasets

    quiet_libraries()
    logging.getLogger("trl").setLevel(logging.ERROR)  # it warns of every reward of None; our log has their share
    datasets.disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", UserWarning)
            yield
    except (RuntimeError, MemoryError) as exc:
        if not out_of_memory(exc):
            raise
        raise DereasonError(
            f"the phase ran out of memory at micro_batch {micro_batch}",
            "lower optimiser.micro_batch or set optimiser.gradient_checkpointing=true (neither changes the result "
            "beyond rounding), in RL also rollout_batch; the same run goes on from the last checkpoint",
        ) from exc
