"""Takes the readings of :mod:`~dereason.training.early_warning` while an RL phase trains.

A reading belongs to the policy after an optimiser step, and is on file before that step's checkpoint is: a phase that
goes on from the checkpoint does not repeat it, and takes those of later steps again. The probe's responses come from
random numbers of its own, and the state of torch's is put back: weights and rollouts are bitwise those of a phase
without readings (not with vLLM, whose engine has one stream for all requests).

Time is kept on the main process, which decides for all whether a probe is drawn. Time for one more is kept back for the
end, so that the share holds in every phase that is long enough for a third one.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from dereason.lm.base import Progress
from dereason.lm.endings import without_end
from dereason.problems.schema import write_table
from dereason.training.early_warning import (
    FILE,
    PARTS,
    PROBE_FOLDER,
    VALUES,
    Change,
    Measures,
    Values,
    brief,
    paired,
    problem_values,
    readings,
    sentence,
    squeezing,
    summary,
    unpaired,
)
from dereason.training.rewards.rules import right_of
from dereason.training.rollouts import judged_frame
from dereason.training.watch import read_line
from dereason.verify.verifier import Verifier, item_of

if TYPE_CHECKING:
    from dereason.training.rl import RL

_READ = ["problem_id", "purpose", "step", "response", "right"]
_logger = logging.getLogger(__name__)


class Readings:
    """The readings of one phase.

    Args:
        settings: of the phase; its ``early_warning`` is set.
        measures: what is computed of responses.
        verifier: judges the probe's.
        work: the phase's folder.
        identity: name of the phase, the samples' ``model``.
        seed: of the phase.
        resumed_at: step of the checkpoint that the phase goes on from.
    """

    def __init__(
        self,
        settings: RL,
        measures: Measures,
        verifier: Verifier,
        work: Path,
        *,
        identity: str,
        seed: int,
        resumed_at: int,
    ) -> None:
        assert settings.early_warning is not None
        self.settings = settings.early_warning
        self.k = self.settings.k_of(settings.group_size)
        self.marks = settings.rewards.counted
        self.measures, self.verifier = measures, verifier
        self.work, self.identity = work, identity
        self.seed, self.resumed_at = seed, resumed_at
        self.probe_size = self.settings.probe_problems(settings.prompts_per_generation)
        self.lines: list[dict[str, Any]] = []
        self._entropies: dict[int, float] = {}
        self._first_values: tuple[int, Values] | None = None
        self._words = ""

    def tell(self, progress: Progress) -> Progress:
        """A progress function that also says what the last reading warned of."""
        return lambda done, total, words: progress(done, total, f"{words}  {self._words}".rstrip())

    def watch(self, trainer: Any, rows: Sequence[dict[str, Any]]) -> None:
        """Have a trainer take the readings.

        Args:
            trainer: before training.
            rows: the phase's problems, as the trainer has them.
        """
        from transformers import TrainerCallback

        readings_ = self
        self.trainer = trainer
        chosen = np.random.default_rng([self.seed, 2]).permutation(len(rows))[: self.probe_size]
        self.rows = [rows[i] for i in sorted(chosen.tolist())]

        class ReadingsCallback(TrainerCallback):
            """See :meth:`Readings.watch`."""

            adds_to_the_log = True

            def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                readings_.begin(state.global_step)

            def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **kwargs: Any) -> None:
                if "loss" in logs:  # not the summary at the end of training
                    readings_.after_step(state.global_step, state.max_steps, logs)

        trainer.add_callback(ReadingsCallback())

    # -- when ----------------------------------------------------------------------------------------------------

    def begin(self, step: int) -> None:
        """Take up what an earlier attempt left, and draw the first probe where there is none yet."""
        self.lines = [line for line in readings(self.work) if line["step"] <= self.resumed_at]
        metrics = self.work / "metrics.jsonl"
        logged = [x for x in map(read_line, metrics.read_text().splitlines()) if x] if metrics.is_file() else []
        before = [row for row in logged if row["step"] <= self.resumed_at]
        self._entropies = {row["step"]: row["entropy"] for row in before if row.get("entropy") is not None}
        # a line of the log is written before the reading of its step
        self._earlier = before[-1]["seconds"] if before else 0.0
        self._earlier += sum(line["seconds"] for line in self.lines if line["step"] == self.resumed_at)
        self._started = time.monotonic()
        if self._main:
            (self.work / PROBE_FOLDER).mkdir(parents=True, exist_ok=True)
            kept = {self._probe_file(line["step"]) for line in self._probes()}
            for file in (self.work / PROBE_FOLDER).iterdir():
                if file not in kept:  # of a reading that may not be taken this time
                    file.unlink()
            part = (self.work / FILE).with_suffix(".part")
            part.write_text("".join(json.dumps(line) + "\n" for line in self.lines), encoding="utf-8")
            part.replace(self.work / FILE)
        if self._agreed(bool(self.rows) and not self._probes()):
            self._take(step, probe=True)

    def after_step(self, step: int, last: int, logs: dict[str, Any]) -> None:
        """Take the reading of a step, where one is due; its numbers are added to ``logs``."""
        if logs.get("entropy") is not None:
            self._entropies[step] = float(logs["entropy"])
        if step % self.settings.every and step != last:
            return
        line = self._take(step, probe=self._affordable(step == last))
        logs |= {f"early_warning/{key}": v for key, v in line.items() if isinstance(v, int | float) and key != "step"}

    @property
    def _main(self) -> bool:
        return bool(self.trainer.accelerator.is_main_process)

    def _elapsed(self) -> float:
        """Seconds that the phase has taken up to now, in all attempts."""
        return float(self._earlier + time.monotonic() - self._started)

    def _probes(self) -> list[dict[str, Any]]:
        return [line for line in self.lines if "probe/seconds" in line]

    def _probe_file(self, step: int) -> Path:
        return self.work / PROBE_FOLDER / f"step-{step:06d}.parquet"

    def _affordable(self, last: bool) -> bool:
        """Whether a probe is drawn: the time for it is there, and for the last one after it."""
        if not self.rows or last or self.settings.share == 1:
            return bool(self.rows)
        return self._agreed(self._main and self._within_share())

    def _within_share(self) -> bool:
        cost: float = self._probes()[-1]["probe/seconds"]
        return sum(line["seconds"] for line in self.lines) + 2 * cost <= self.settings.share * self._elapsed()

    def _agreed(self, mine: bool) -> bool:
        """What the main process thinks."""
        from accelerate.utils import gather_object

        return bool(gather_object([mine])[0])

    # -- what ----------------------------------------------------------------------------------------------------

    def _take(self, step: int, *, probe: bool) -> dict[str, Any]:
        """Take a reading and write its line; on the other processes the line holds times alone."""
        began = time.monotonic()
        line: dict[str, Any] = {"step": step, "k": self.k}
        changes: dict[str, dict[str, Change | None]] = {}
        if probe:
            samples, entropy = self._draw(step)
            if self._main:
                write_table(samples, self._probe_file(step))
                values = self._values(samples, step)
                line |= summary("probe", samples, values, entropy)
                changes["probe"] = self._since_first_probe(line, values)
            line["probe/seconds"] = round(time.monotonic() - began, 3)
        if self._main:
            changes["rollouts"] = self._read_rollouts(line)
        line["warning"] = self._warn(line, changes)
        line["seconds"] = round(time.monotonic() - began, 3)
        spent = sum(each["seconds"] for each in (*self.lines, line))
        line["early_warning_share"] = round(spent / max(self._elapsed(), 1e-9), 5)
        self.lines.append(line)
        if self._main:
            with (self.work / FILE).open("a", encoding="utf-8") as handle:
                handle.write(json.dumps(line) + "\n")
        return line

    def _values(self, samples: pl.DataFrame, step: int) -> Values:
        return problem_values(samples, self.k, self.settings.groups, self.measures, [self.seed, 3, step])

    def _read_rollouts(self, line: dict[str, Any]) -> dict[str, Change | None]:
        """Add the rollouts since the reading before to a line; returns what changed since the first one."""
        step = line["step"]
        # not further back, where an earlier attempt took no readings
        since = max(self.lines[-1]["step"] if self.lines else 0, step - self.settings.every)
        folder = self.work / "rollouts"
        files = [folder / f"step-{s:06d}.parquet" for s in range(since, step)]
        tables = [pl.read_parquet(file, columns=_READ) for file in files if file.is_file()]
        seen = [self._entropies[s] for s in range(since + 1, step + 1) if s in self._entropies]
        if not tables:
            return dict.fromkeys((*VALUES, "entropy"))
        samples = pl.concat(tables)
        line |= summary("rollouts", samples, self._values(samples, step), fmean(seen) if seen else None)
        first = self._first("rollouts", line)
        found = {name: unpaired(first, line, f"rollouts/{name}") for name in VALUES}
        return found | {"entropy": _entropy_change(first, line, "rollouts")}

    def _since_first_probe(self, line: dict[str, Any], values: Values) -> dict[str, Change | None]:
        first = self._first("probe", line)
        at = first["step"]
        if first is line:
            self._first_values = at, values
        elif self._first_values is None or self._first_values[0] != at:  # of an earlier attempt
            self._first_values = at, self._values(pl.read_parquet(self._probe_file(at)), at)
        found = {name: paired(self._first_values[1][name], values[name]) for name in VALUES}
        return found | {"entropy": _entropy_change(first, line, "probe")}

    def _first(self, part: str, line: dict[str, Any]) -> dict[str, Any]:
        """The line that a part is compared with: the first one that knows its diversity, with an error; or this one."""
        return next((each for each in self.lines if each.get(f"{part}/diversity_error") is not None), line)

    def _warn(self, line: dict[str, Any], changes: dict[str, dict[str, Change | None]]) -> str | None:
        """The sentence that a reading warns with, of the probe before the rollouts; it is logged and shown."""
        self._words = ""
        for part in sorted(changes, key=PARTS.index, reverse=True):
            fallen = squeezing(changes[part], self.settings.fall)
            if fallen:
                steps = self._first(part, line)["step"], line["step"]
                words = sentence(part, steps, self.k, changes[part], fallen)
                self._words = brief(changes[part], fallen)
                _logger.warning("%s", words)
                return words
        return None

    def _draw(self, step: int) -> tuple[pl.DataFrame, float | None]:
        """The probe's responses of all processes as a SAMPLE table, and the entropy that they were drawn with.

        Each process answers as many problems (vLLM's server wants it so): some of the first twice, which are dropped.
        The mean of minus the log-probability over the drawn tokens estimates the entropy.
        """
        from accelerate.utils import gather_object

        accelerator, n = self.trainer.accelerator, self.settings.samples
        each = -(-len(self.rows) // accelerator.num_processes)
        places = range(accelerator.process_index * each, (accelerator.process_index + 1) * each)
        mine = [self.rows[place % len(self.rows)] for place in places]
        # training's seeds are not negative
        drawn = self.trainer.draw_probe(mine, n, -1 - self.seed)
        tokenizer, stops = self.trainer.processing_class, self.trainer.eos_token_ids
        texts = tokenizer.batch_decode(
            [without_end(ids, stops) for _, of in drawn for ids, _ in of], skip_special_tokens=True
        )
        limits = [ids[-1] not in stops for _, of in drawn for ids, _ in of]
        rows = [row for row in mine for _ in range(n)]
        items = [item_of(text, limit, row) for text, limit, row in zip(texts, limits, rows, strict=True)]
        judged = self.verifier.judge_many(items)
        paid = self.verifier.rewarded(items, judged, self.marks)
        flat = [(prompt, ids, logps) for prompt, of in drawn for ids, logps in of]
        samples = [
            {
                "place": places[i // n],
                "problem_id": rows[i]["problem_id"],
                "model": self.identity,
                "purpose": "early_warning",
                "index": i % n,
                "step": step,
                "response": texts[i],
                "prompt_tokens": len(prompt),
                "tokens": len(ids),
                "hit_limit": limits[i],
                "nll": None if logps is None else -sum(logps),
                **judged[i].columns(),
                "right": right_of(paid[i]),
            }
            for i, (prompt, ids, logps) in enumerate(flat)
        ]
        every = [row for row in gather_object(samples) if row.pop("place") < len(self.rows)]
        sums = [row.pop("nll") for row in every]
        entropy = None if None in sums else sum(sums) / sum(row["tokens"] for row in every)
        return judged_frame(every), entropy


def _entropy_change(first: dict[str, Any], line: dict[str, Any], part: str) -> Change | None:
    """Of thousands of tokens: its error is small beside the fall that warns."""
    before, after = first.get(f"{part}/entropy"), line.get(f"{part}/entropy")
    return None if before is None or after is None else Change(before, after, 0.0)
