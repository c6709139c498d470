"""The judge: how much reasoning a problem asks for, 1 to 5, read from the logits of five digits.

DeReason (arXiv 2603.11193) scores *reasoning intensity* with a language model: 1-2 recall or direct
application, 4-5 multi-step derivation or synthesis. The paper's rubric and decoding are not known to us;
the rubric below is ours, and so is reading the whole distribution from one forward pass instead of
generating a number: it costs no generation, and it keeps the expectation that ranking needs.

Small models' scores are badly calibrated: SmolLM2-135M puts nearly every problem between 1 and 3, whatever it
asks, and may rank a pool hardly better than chance. Route by rank (``quantile``) unless a threshold has been
looked at, and look at the report's correlation of judge score and pass rate before trusting either.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import polars as pl
from pydantic import Field

from dereason.lm.base import LanguageModel, Message, Progress
from dereason.lm.local.model import ModelSettings
from dereason.lm.stored import begin
from dereason.settings import Settings

SCORES = ("1", "2", "3", "4", "5")

RUBRIC = """Rate how much reasoning a problem needs, from 1 to 5.
1: one remembered fact answers it.
2: one simple operation answers it.
3: a few plain steps.
4: many dependent steps.
5: a long derivation.
Reply with one digit."""
"""The default rubric (ours)."""


class Judge(Settings):
    """The judge profiler: a model reads each problem and gives a distribution over the scores 1 to 5."""

    enabled: bool | None = None
    """Whether the judge runs; null: where an arm reads its scores (`dereason profile`: always)."""
    model: ModelSettings | None = None
    """The judging model; null takes the recipe's own model."""
    rubric: str = RUBRIC
    """What the judge is told before the problem."""
    batch_size: int = Field(default=32, gt=0)
    """Problems per forward pass."""

    def rubric_hash(self) -> str:
        """Hash of the rubric, for provenance."""
        return hashlib.sha256(self.rubric.encode()).hexdigest()[:12]

    def messages(self, question: str, options: list[str] | None) -> list[Message]:
        """The judge's chat for one problem; the rubric comes first, so that all problems share it."""
        text = question.strip()
        if options:
            text += "\n" + "\n".join(f"- {option}" for option in options)
        return [{"role": "user", "content": f"{self.rubric}\n\nProblem: {text}\n\nScore:"}]


def judge_scores(
    lm: LanguageModel,
    problems: pl.DataFrame,
    judge: Judge,
    *,
    store: Path,
    progress: Progress = lambda done, total, words: None,
) -> pl.DataFrame:
    """Score every problem.

    Finished batches are kept in ``store`` as .npy files; a second call with the same arguments computes only what is
    missing, and one that asks something else (of other problems, of another judge) begins anew.

    Returns:
        Table with problem_id, judge_probs (five numbers that sum to 1), judge_expectation, judge_mode.
    """
    chats = [judge.messages(q, o) for q, o in problems.select("question", "options").iter_rows()]
    begin(store, "scores-*.npy", lm.identity, lm.template_hash(), chats, judge.batch_size)
    starts = list(range(0, len(chats), judge.batch_size))
    parts: list[np.ndarray] = []
    for number, start in enumerate(starts):
        file = store / f"scores-{number:06d}.npy"
        batch = chats[start : start + judge.batch_size]
        probs = _stored(file, len(batch))
        if probs is None:
            (probs,) = lm.choice_probabilities(batch, SCORES, judge.batch_size)
            part = file.with_suffix(".part")
            with part.open("wb") as handle:
                np.save(handle, probs)
            part.replace(file)
        parts.append(probs)
        progress(number + 1, len(starts), f"mean score {np.concatenate(parts).mean(0) @ np.arange(1, 6):.2f}")
    probs = np.concatenate(parts)
    return pl.DataFrame(
        {
            "problem_id": problems["id"],
            "judge_probs": probs.tolist(),
            "judge_expectation": probs @ np.arange(1.0, 6.0),
            "judge_mode": (probs.argmax(1) + 1).astype(np.int32),
        }
    )


def _stored(file: Path, problems: int) -> np.ndarray | None:
    """The scores of a stored batch, shape (problems, 5); None where it is not there or cannot be read."""
    try:
        probs: np.ndarray = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return probs if probs.shape == (problems, len(SCORES)) else None
