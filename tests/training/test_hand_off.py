"""What a phase saves is what it trained: checked when it is saved, refused where it is not; and models on the way."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dereason.errors import DereasonError
from dereason.lm.local.model import ModelSettings, load_tokenizer, load_weights, model_identity
from dereason.lm.prompts import Prompt
from dereason.problems.schema import frame
from dereason.training.adapters import LoRA
from dereason.training.hand_off import EXACT, check_saved, probe_logits, write_model
from dereason.training.phase import Optimiser, kept_models
from dereason.training.sft import SFT, run_sft


def edit_json(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def one_weight(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors["model.norm.weight"][3] += 1e-6
    save_file(tensors, path, metadata={"format": "pt"})


def no_weight(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.norm.weight"]
    save_file(tensors, path, metadata={"format": "pt"})


def template(folder: Path) -> None:
    path = folder / "chat_template.jinja"
    path.write_text(path.read_text().replace("<|im_start|>", "<<"))


SPOILT: dict[str, tuple[Callable[[Path], None], str]] = {
    "a weight": (one_weight, r"its weight model\.norm\.weight is not the trained one"),
    "a weight is gone": (no_weight, r"lacks 1 of its weights \(model\.norm\.weight\)"),
    "template": (template, "its template is"),
    "stop ids": (lambda f: edit_json(f / "generation_config.json", eos_token_id=[2, 7]), r"its stop_ids is \[2, 7\]"),
    "config": (lambda f: edit_json(f / "config.json", rms_norm_eps=0.5), "its logits differ from the trained model's"),
    "padding": (
        lambda f: edit_json(f / "tokenizer_config.json", pad_token="<|im_start|>"),
        "its pad_token_id is|template",
    ),
}


@pytest.fixture(scope="module")
def saved(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ModelSettings, object]:
    """A saved model, what it began with, and the trained model in memory (changed a little)."""
    start = ModelSettings(name=str(tiny_model))
    live = load_weights(start)
    with torch.no_grad():
        live.model.norm.weight += 0.25
    live.generation_config.eos_token_id = 11  # a trainer's doing; the start's own is saved
    tokenizer = load_tokenizer(start)
    out = tmp_path_factory.mktemp("saved")
    write_model(live, live.state_dict(), tokenizer, out, start, merge=True, logits=probe_logits(live, tokenizer))
    return out, start, live


def test_a_model_saved_as_it_was_trained_passes(saved: tuple[Path, ModelSettings, object]) -> None:
    out, start, live = saved
    facts = json.loads((out / "hand-off.json").read_text())
    assert facts["logits_gap"] == 0
    assert facts["stop_ids"] == [2]
    logits = probe_logits(live, load_tokenizer(start))
    check_saved(out, start, logits, live.state_dict(), EXACT, date.today())  # type: ignore[attr-defined]
    identity = model_identity(ModelSettings(name=str(out)))
    edit_json(out / "hand-off.json", logits_gap=1)
    assert model_identity(ModelSettings(name=str(out))) == identity, "what was checked is no part of the model"


@pytest.mark.parametrize("what", SPOILT)
def test_a_saved_model_that_differs_is_refused(
    what: str, saved: tuple[Path, ModelSettings, object], tmp_path: Path
) -> None:
    out, start, live = saved
    spoil, message = SPOILT[what]
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    spoil(copy)
    logits = probe_logits(live, load_tokenizer(start))
    if what != "a weight is gone":  # with that it cannot even be loaded
        message = f"the saved model is not the one that was trained: .*({message})"
    with pytest.raises(DereasonError, match=message):
        check_saved(copy, start, logits, live.state_dict(), EXACT, date.today())  # type: ignore[attr-defined]


def test_models_are_kept_on_the_way_and_the_phase_does_not_notice(tiny_model: Path, tmp_path: Path) -> None:
    """Six steps, three models: after 2, 4 and 6; the one after 2 is that of a phase that ended there.

    With dropout and a kept adapter: a draw more, such as loading an adapter makes, would change all that follows.
    """
    pool = frame(
        "problem",
        [
            {"id": f"p{i}", "question": f"What is {i} + 1?", "answer": str(i + 1), "domain": "d", "source": "t"}
            for i in range(12)
        ],
    )
    rows = [{"problem_id": f"p{i}", "response": f"\\boxed{{{i + 1}}}" * (1 + i % 2)} for i in range(12)]
    targets = frame("target", [r | {"origin": "reference", "accepted": True} for r in rows])

    def run(name: str, keep: int, epochs: float = 2) -> Path:
        settings = SFT(
            epochs=epochs,
            batch=4,
            keep_checkpoints=keep,
            adapter=LoRA(rank=4, dropout=0.2, merge=False),
            optimiser=Optimiser(learning_rate=1e-2, micro_batch=4, schedule="constant", checkpoint_every=4),
        )
        work = tmp_path / name
        model = ModelSettings(name=str(tiny_model))
        run_sft(model, Prompt(), pool, targets, settings, out=work / "model", work=work, seed=3)
        return work

    stale = tmp_path / "keeping"
    for name in ("model-4", "model-4.part"):  # of an attempt that was killed while it saved
        (stale / name).mkdir(parents=True)
        (stale / name / "config.json").write_text("{")
    plain, keeping, short = run("plain", 1), run("keeping", 3), run("short", 1, epochs=2 / 3)
    assert kept_models(plain) == ["model"]
    assert kept_models(keeping) == ["model-2", "model-4", "model"]
    assert same(keeping / "model", plain / "model"), "saving on the way draws no random number and moves no weight"
    assert same(keeping / "model-2", short / "model")
    assert not same(keeping / "model-2", keeping / "model-4")
    assert json.loads((keeping / "model-4" / "hand-off.json").read_text())["logits_gap"] < 1e-5
    assert not (keeping / "model-4.part").exists()


def same(a: Path, b: Path) -> bool:
    left, right = load_file(a / "adapter_model.safetensors"), load_file(b / "adapter_model.safetensors")
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)
