"""Our SFT update against plain TRL's in float64, and what may not change it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, MixtralConfig
from trl import SFTConfig, SFTTrainer

from dereason.errors import DereasonError
from dereason.lm.local.model import ModelSettings, load_tokenizer
from dereason.lm.prompts import Prompt
from dereason.training.phase import Optimiser
from dereason.training.sft import SFT, make_row
from dereason.training.sft_trainer import make_trainer_class
from dereason.training.update import EpochBatches
from rounding import assert_same_gradient

PROMPT = Prompt(system="Add.", suffix="Use \\boxed{}.")
PAIRS = [
    (f"What is {i} + {i * i}?" + " Think." * (i % 3), f"\\boxed{{{i + i * i}}}" * (1 + 4 * (i % 2))) for i in range(8)
]


def gradients(
    kind: str, folder: Path, work: Path, micro: int, **load: Any
) -> tuple[dict[str, torch.Tensor], float, float]:
    """Gradient, loss and token accuracy of one optimiser step over all pairs: ``kind`` ours or trl."""
    tokenizer = load_tokenizer(ModelSettings(name=str(folder)))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, **load)
    base: Any = make_trainer_class() if kind == "ours" else SFTTrainer

    class Recorded(base):
        def training_step(self, *args: Any, **kw: Any) -> Any:
            value = super().training_step(*args, **kw)
            losses.append(float(value))
            grads.update({n: p.grad.clone() for n, p in self.model.named_parameters()})
            return value

    losses: list[float] = []
    grads: dict[str, torch.Tensor] = {}
    rows = [make_row(tokenizer, PROMPT.messages(q, None), r, PROMPT, q) for q, r in PAIRS]
    if kind == "ours":
        data = [{"row": i, "input_ids": list(row.prompt), "labels": list(row.prompt)} for i, row in enumerate(rows)]
        options: dict[str, Any] = {"per_device_train_batch_size": 1, "dataset_kwargs": {"skip_prepare_dataset": True}}
    else:
        data = [
            {"prompt": PROMPT.messages(q, None), "completion": [{"role": "assistant", "content": r}]} for q, r in PAIRS
        ]
        options = {"per_device_train_batch_size": micro, "gradient_accumulation_steps": 8 // micro}
    trainer = Recorded(
        model=model,
        args=SFTConfig(
            output_dir=str(work),
            max_steps=1,
            learning_rate=1e-9,
            max_grad_norm=1e9,
            max_length=None if kind == "ours" else 512,
            report_to=[],
            use_cpu=True,
            bf16=False,
            disable_tqdm=True,
            save_strategy="no",
            logging_steps=1,
            seed=0,
            **options,
        ),
        train_dataset=Dataset.from_list(data),
        processing_class=tokenizer,
    )
    if kind == "ours":
        trainer.phase, trainer.rows = SFT(batch=8, optimiser=Optimiser(micro_batch=micro)), rows
    trainer.train()
    first = trainer.state.log_history[0]
    return grads, sum(losses), first["token_accuracy" if kind == "ours" else "mean_token_accuracy"]


def test_the_gradient_is_trls_and_does_not_depend_on_the_micro_batch(tiny_model: Path, tmp_path: Path) -> None:
    """Rows of several lengths, 1 x 8, 2 x 4 and 8 x 1; TRL's own gradient of 8 x 1."""
    theirs, their_loss, their_accuracy = gradients("trl", tiny_model, tmp_path / "trl", 8)
    for micro in (1, 2, 8):
        ours, loss, accuracy = gradients("ours", tiny_model, tmp_path / str(micro), micro)
        vocabulary = max(gradient.shape[0] for gradient in ours.values())
        assert_same_gradient(ours, theirs, terms=vocabulary)  # TRL's logits are float32
        assert loss == pytest.approx(their_loss, rel=1e-5)
        assert accuracy == pytest.approx(their_accuracy, abs=1e-3)


@pytest.mark.parametrize("balanced", [False, True])
def test_only_a_routers_own_loss_depends_on_the_micro_batch(balanced: bool, tiny_model: Path, tmp_path: Path) -> None:
    """It is a product of means over the tokens of one pass: the one thing in a step that is not a sum over them."""
    tokenizer = load_tokenizer(ModelSettings(name=str(tiny_model)))
    torch.manual_seed(0)
    config = MixtralConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_local_experts=4,
        initializer_range=0.5,
        router_aux_loss_coef=float(balanced),
        eos_token_id=tokenizer.eos_token_id,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "moe")
    tokenizer.save_pretrained(tmp_path / "moe")
    plain = {"experts_implementation": "eager"}  # the fused one has no float64
    one, all_ = (gradients("ours", tmp_path / "moe", tmp_path / str(micro), micro, **plain)[0] for micro in (1, 8))
    gap = max(float((one[n] - all_[n]).abs().max() / all_[n].abs().max()) for n in one if "gate" in n)
    assert (gap > 1e-3) if balanced else (gap < 1e-5)  # routers compute in float32


def test_a_template_that_does_not_continue_the_prompt_is_refused(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(ModelSettings(name=str(tiny_model)))
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}answer: {% endif %}"
    )
    with pytest.raises(DereasonError, match="of problem 'p7': the chat template does not put a reply behind"):
        make_row(tokenizer, PROMPT.messages("1 + 1?", None), "2", PROMPT, "p7")


@pytest.mark.parametrize("drop", [False, True])
def test_each_epoch_has_its_own_order_and_holds_every_item_once(drop: bool) -> None:
    batches = EpochBatches(10, 4, seed=3, repeats=2, drop_last=drop)
    seen = []
    for epoch in (0, 1, 0):
        batches.set_epoch(epoch)
        got = list(batches)
        assert len(got) == len(batches) == (4 if drop else 6)
        assert got[0::2] == got[1::2]
        items = [i for batch in got[0::2] for i in batch]
        assert len(set(items)) == len(items) == (8 if drop else 10)
        seen.append(items)
    assert seen[0] == seen[2] != seen[1]
