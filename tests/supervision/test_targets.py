"""Targets from a teacher: real responses of a model, judged, kept as asked."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from pydantic import ValidationError

from dereason.errors import DereasonError
from dereason.lm.local.model import ModelSettings
from dereason.lm.prompts import Prompt
from dereason.pipeline.actions import Context, do_targets
from dereason.pipeline.progress import Screen
from dereason.problems.schema import frame
from dereason.supervision.targets import Targets, TeacherSampling, teacher_targets


def pool() -> pl.DataFrame:
    row = {"question": "Say a word.", "answer": "42", "domain": "d", "source": "s"}
    return frame("problem", [row | {"id": f"p{i}"} for i in range(3)])


def test_teacher_responses_are_targets_with_their_verdict() -> None:
    sample = {"problem_id": "p0", "model": "teacher@1", "response": "\\boxed{42}"}
    table = teacher_targets(frame("sample", [sample | {"verdict": v} for v in ("correct", "wrong")]))
    assert table["origin"].unique().to_list() == ["teacher"]
    assert table["accepted"].to_list() == [True, False]
    assert table["note"][1] == "response of teacher@1, verdict wrong"


def test_unfiltered_teacher_responses_are_kept_only_when_asked_for(tiny_model: Path, tmp_path: Path) -> None:
    ctx = Context(Prompt(), Screen(quiet=True))
    sampling = TeacherSampling(temperature=1.0, max_new_tokens=6)
    everything = Targets(style="teacher", teacher=ModelSettings(name=str(tiny_model)), keep="all", sampling=sampling)
    info = do_targets(tmp_path, pool(), everything, ctx)
    table = pl.read_parquet(tmp_path / "targets.parquet")
    samples = pl.read_parquet(tmp_path / "samples.parquet")
    assert table["response"].to_list() == samples["response"].to_list()
    assert info["tokens_generated"] == samples["tokens"].sum() > 0
    # a random model accepts nothing: the default refuses to train on it
    accepted = everything.model_copy(update={"keep": "accepted"})
    with pytest.raises(DereasonError, match="none of 3 targets was accepted"):
        do_targets(tmp_path, pool(), accepted, ctx)


def test_a_teacher_and_its_style_go_together() -> None:
    with pytest.raises(ValidationError, match="needs `teacher"):
        Targets(style="teacher")
    with pytest.raises(ValidationError, match="needs `teacher"):
        Targets(style="answer", teacher=ModelSettings())
