"""A model whose chat template prints today's date, on a clock on which each look is another day."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from dereason.cli.main import main
from dereason.lm.local.model import ModelSettings, load_tokenizer
from dereason.lm.prompts import Prompt, template_hash
from dereason.training.launch import Job
from dereason.training.phase import load_student

pytestmark = pytest.mark.slow

TEMPLATE = (
    "Today: {{ strftime_now('%d %B %Y') }}.\n"
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% else %}{{ '\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> list[date]:
    """Every look at the clock, ours or a template's, is a day later; the days that were seen."""
    seen = [date(2026, 11, 30)]

    def later() -> date:
        seen.append(seen[-1] + timedelta(days=1))
        return seen[-1]

    class Day(date):
        @classmethod
        def today(cls) -> Any:
            return date.fromisoformat(later().isoformat())

    class Moment(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.combine(later(), datetime.min.time())

    monkeypatch.setattr("dereason.lm.dates.date", Day)
    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", Moment)
    return seen


@pytest.fixture(scope="module")
def dated(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("dated") / "model"
    shutil.copytree(tiny_model, folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


def recipe_file(folder: Path, model: Path) -> Path:
    gym = {"source": "reasoning_gym", "families": [{"family": "chain_sum", "size": 8}]}
    optimiser = {"learning_rate": 1e-3, "micro_batch": 4}
    rl = {"steps": 1, "prompts_per_generation": 2, "group_size": 2, "max_new_tokens": 4, "optimiser": optimiser}
    few = {"max_new_tokens": 4, "batch_size": 8}
    recipe = {
        "name": "dated",
        "model": {"name": str(model)},
        "problems": {"train": gym | {"seed": 1}, "test": gym | {"seed": 2}},
        "profile": {"pass_rate": {"k": 2, "sampling": few}},
        "arms": [
            {
                "name": "split",
                "route": {"policy": "quantile"},
                "phases": [
                    {"kind": "sft", "batch": 4, "targets": {"style": "steps"}, "optimiser": optimiser},
                    {"kind": "rl", **rl},
                ],
            },
        ],
        "evaluation": {"sampling": few | {"temperature": 0.0}},
    }
    path = folder / "dated.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def infos(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted((folder / "steps").glob("*/step.json")):
        yield json.loads(path.read_text())["info"]


def test_a_run_over_many_midnights_asks_every_model_on_one_day(
    dated: Path, tmp_path: Path, clock: list[date], capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, run = recipe_file(tmp_path, dated), tmp_path / "run"
    assert main(["run", str(recipe), "--run-dir", str(run), "--json"]) == 0
    summary = json.loads((run / "summary.json").read_text())
    day = date.fromisoformat((run / "date").read_text().strip())
    assert clock[1:] == [day]  # nobody looked again
    assert f"Today: {day:%d %B %Y}." in summary["prompt"]["example"]
    assert summary["prompt"]["date"] == day.isoformat()
    assert yaml.safe_load((run / "recipe.yaml").read_text())["prompt"]["date"] == day.isoformat()
    assert json.loads((run / "manifest.json").read_text())["runs"][0]["date"] == day.isoformat()
    hashes = {info["template_hash"] for info in infos(run) if "template_hash" in info}
    assert hashes == {summary["prompt"]["template_hash"]}
    # what is saved is the model's own template
    saved = [path.read_text() for path in run.glob("steps/train-*/model/chat_template.jinja")]
    assert saved == [TEMPLATE] * 2
    stamps = {path: path.stat().st_mtime_ns for path in run.glob("steps/*/step.json")}
    assert main(["run", str(recipe), "--run-dir", str(run), "--json"]) == 0
    assert {path: path.stat().st_mtime_ns for path in run.glob("steps/*/step.json")} == stamps
    capsys.readouterr()
    assert main(["run", str(recipe), "--run-dir", str(run), "--json", "--dry-run"]) == 0
    assert all(step["cached"] for step in json.loads(capsys.readouterr().out)["steps"])
    # verl would render with the day on which it trains
    assert main(["export", str(run), "--to", "verl", "--out", str(tmp_path / "verl")]) == 0
    found = json.loads((tmp_path / "verl" / "export.json").read_text())
    assert found["date"] == day.isoformat()
    tokenizer = load_tokenizer(ModelSettings(name=found["model"]), date(2000, 1, 1))
    template = found["overrides"]["+data.apply_chat_template_kwargs.chat_template"]
    chat = pl.read_parquet(tmp_path / "verl" / "train.parquet")["prompt"][0].to_list()
    assert f"Today: {day:%d %B %Y}." in tokenizer.apply_chat_template(chat, tokenize=False, chat_template=template)
    # another day is another question
    assert main(["run", str(recipe), "--run-dir", str(run), "--json", "--set", "prompt.date=2024-07-26"]) == 0
    assert "Today: 26 July 2024." in json.loads((run / "summary.json").read_text())["prompt"]["example"]
    assert len(list(run.glob("steps/eval-*"))) == 6


def test_a_single_command_keeps_the_day_of_its_first_start(dated: Path, tmp_path: Path, clock: list[date]) -> None:
    pool = tmp_path / "pool.jsonl"
    pool.write_text(
        "".join(json.dumps({"id": f"p{i}", "question": f"{i} + 1", "answer": f"{i + 1}"}) + "\n" for i in range(6))
    )
    sets = [f"model.name={dated}", "evaluation.sampling.max_new_tokens=4", "evaluation.sampling.batch_size=2"]
    command = ["eval", str(pool), "--out", str(tmp_path / "out"), *[part for s in sets for part in ("--set", s)]]
    assert main(command) == 0
    day = (tmp_path / "out" / "date").read_text()
    hashed = json.loads((tmp_path / "out" / "step.json").read_text())["info"]["template_hash"]
    assert main(command) == 0  # some days later it is the same output
    # an interrupted one goes on with its day
    shutil.rmtree(tmp_path / "out")
    partial = tmp_path / "out.partial"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dereason.pipeline.actions.draw_samples", _stopped)
        assert main(command) == 130
    begun = (partial / "date").read_text()
    assert begun != day
    assert main(command) == 0
    assert (tmp_path / "out" / "date").read_text() == begun
    assert json.loads((tmp_path / "out" / "step.json").read_text())["info"]["template_hash"] != hashed


def test_every_process_of_a_phase_is_told_the_day(dated: Path, tmp_path: Path) -> None:
    """A worker reads its job from a file."""
    prompt = Prompt(date=date(2024, 7, 26))
    job = Job(
        processes=2, kind="sft", work=tmp_path, model={"name": str(dated)}, prompt=prompt, seed=0, expected_hash=None
    )
    read = Job.model_validate_json(job.model_dump_json())
    assert read.prompt.date == prompt.date
    hashes = {load_student(read.model, read.prompt, None)[2] for _ in range(2)}
    assert hashes == {template_hash(load_tokenizer(read.model, prompt.date), {})}


def _stopped(*args: Any, **kwargs: Any) -> pl.DataFrame:
    raise KeyboardInterrupt


def test_a_template_without_a_date_leaves_no_trace_of_the_day(tiny_model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    recipe = recipe_file(tmp_path, tiny_model)
    sets = [
        "--set",
        "arms=[{name: a, route: {policy: quantile}, phases: [{kind: sft, batch: 4, targets: {style: steps}}]}]",
    ]
    for _ in range(2):
        assert main(["run", str(recipe), "--run-dir", str(run), "--json", *sets]) == 0
    assert not (run / "date").exists()
    assert json.loads((run / "manifest.json").read_text())["runs"][0]["date"] is None
    assert len(list(run.glob("steps/eval-*"))) == 2
