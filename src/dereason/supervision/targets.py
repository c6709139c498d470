"""Which targets an SFT phase imitates, and where they come from."""

from __future__ import annotations

from typing import Literal

import polars as pl
from pydantic import Field, model_validator

from dereason.lm.base import Sampling
from dereason.lm.local.model import ModelSettings
from dereason.problems.schema import Origin, frame
from dereason.settings import Settings


class TeacherSampling(Sampling):
    """How a teacher responds."""

    temperature: float = Field(default=0.7, ge=0)
    """Softmax temperature; 0 takes the most probable token (greedy)."""
    max_new_tokens: int = Field(default=4096, gt=0)
    """Length limit of a response, in tokens, the end token included."""


class Targets(Settings):
    """What an SFT phase imitates."""

    style: Literal["solution", "steps", "answer", "teacher"] = "solution"
    """The data's worked solution, steps derived from an arithmetic expression, the bare answer, or a teacher's
    response."""
    keep: Literal["accepted", "all"] = "accepted"
    """Train on targets that the verifier accepts, or on all (DeReason uses unfiltered teacher responses)."""
    teacher: ModelSettings | None = None
    """The teaching model, for style `teacher`."""
    sampling: TeacherSampling = TeacherSampling()
    """How the teacher responds, one response a problem."""
    seed: int = 0
    """Seed of the teacher's sampling streams."""

    @model_validator(mode="after")
    def _teacher_named(self) -> Targets:
        if (self.style == "teacher") != (self.teacher is not None):
            raise ValueError("style `teacher` needs `teacher: {name: ...}`, and only that style takes one")
        return self


def teacher_targets(samples: pl.DataFrame) -> pl.DataFrame:
    """A teacher's judged responses (SAMPLE table) as a TARGET table; nothing is left out here."""
    return frame(
        "target",
        [
            {
                "problem_id": r["problem_id"],
                "response": r["response"],
                "origin": str(Origin.TEACHER),
                "accepted": r["verdict"] == "correct",
                "note": f"response of {r['model']}, verdict {r['verdict']}",
            }
            for r in samples.iter_rows(named=True)
        ],
    )
