"""Models, tokenizers and templates as users have them: what cannot be used ends as one line with the mend."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from dereason.cli.main import main
from dereason.problems.schema import frame, write_table

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4665\nsize 269060552\n"
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def learned_positions(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random GPT-2, whose positions are a table: of 96."""
    import torch
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    folder = tmp_path_factory.mktemp("gpt2")
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=96,
            n_embd=16,
            n_layer=1,
            n_head=2,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def pool_file(folder: Path, **row: Any) -> Path:
    path = folder / "pool.jsonl"
    path.write_text(json.dumps({"id": "a", "question": "What is 1 + 2?", "answer": "3", **row}) + "\n")
    return path


def refused(capsys: pytest.CaptureFixture[str], arguments: list[str], out: Path) -> str:
    """The one line of a command that ends with exit code 2, without an output."""
    code = main([*arguments, "--out", str(out)])
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert (code, len(lines)) == (2, 1), captured.err
    assert captured.err.endswith(lines[0] + "\n")
    assert " — " in lines[0], "no mend"
    assert not out.exists()
    return lines[0]


def copied(model: Path, to: Path) -> Path:
    shutil.copytree(model, to)
    return to


def edit(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def template(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "chat_template.jinja").write_text(text) and None  # type: ignore[return-value]


def written(name: str, content: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(content) and None  # type: ignore[return-value]


def without(*names: str) -> Callable[[Path], None]:
    return lambda folder: [(folder / name).unlink() for name in names] and None  # type: ignore[return-value]


def config(**values: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "config.json", lambda content: content.update(values))


def no_ends(folder: Path) -> None:
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).is_file():
            edit(folder / name, lambda content: [content.pop(k, None) for k in ("eos_token", "pad_token")] and None)


def cut_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def shards_missing(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def few_embeddings(folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    model.resize_token_embeddings(1000)
    model.save_pretrained(folder)


def other_kind(name: str, folder: Path, **sizes: int) -> None:
    """Weights of a model of another kind in place of those that are there."""
    import transformers

    made = getattr(transformers, name)
    (folder / "model.safetensors").unlink()
    made(made.config_class(vocab_size=49152, **sizes)).save_pretrained(folder)


SMALL = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (no_ends, "eos_token"),
        (few_embeddings, "embeddings for 1000 tokens"),
        (template("{% for m in messages %}{{ m['content'] }"), r"chat template of .* cannot render"),
        (template("{{ messages[0]['content'] + nothing }}"), r"chat template of .* cannot render"),
        (template("{{ 1 / 0 }}"), r"chat template of .* cannot render"),
        (template("{% if false %}x{% endif %}"), "makes nothing of a chat"),
        (lambda folder: [p.unlink() for p in folder.iterdir()], r"model\.name"),
        (written("model.safetensors", "rubbish"), r"model\.safetensors cannot be read as safetensors"),
        (written("model.safetensors", ""), r"model\.safetensors cannot be read as safetensors"),
        (cut_weights, r"model\.safetensors cannot be read as safetensors"),
        (written("model.safetensors", POINTER), r"model\.safetensors is a git-lfs pointer.*git lfs pull"),
        (written("tokenizer.json", POINTER), r"tokenizer\.json is a git-lfs pointer"),
        (without("model.safetensors"), r"model\.name"),
        (shards_missing, r"model\.name"),
        (without("tokenizer.json", "tokenizer_config.json"), r"model\.name"),
        (written("tokenizer.json", '{"version": "1.0"}'), r"model\.name"),
        (written("tokenizer_config.json", "{"), r"tokenizer_config\.json cannot be read as JSON"),
        (without("config.json"), r"model\.name"),
        (written("config.json", "{"), r"config\.json cannot be read as JSON"),
        (written("config.json", "[]"), r"model\.name"),
        (config(model_type="nosuch", architectures=["NoSuchForCausalLM"]), r"nosuch"),
        (config(model_type="mine", auto_map={"AutoConfig": "mine.Config"}), r"model\.name"),
        (config(hidden_size=64), r"model\.name"),
        (config(hidden_size="many"), r"model\.name"),
        (config(num_hidden_layers=4), r"lacks 18 of its weights"),
        (config(quantization_config={"quant_method": "gptq", "bits": 4}), r"model\.name"),
        (config(quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}), r"model\.name"),
        (config(architectures=["LlamaForSequenceClassification"]), r"is a LlamaForSequenceClassification"),
        (written("generation_config.json", "{"), r"generation_config\.json cannot be read as JSON"),
        (written("adapter_config.json", "{"), r"adapter_config\.json"),
        (written("adapter_config.json", "[]"), r"adapter_config\.json"),
        (written("adapter_config.json", '{"base_model_name_or_path": "nosuch-folder/x"}'), r"model\.name"),
        (lambda folder: other_kind("T5ForConditionalGeneration", folder, d_model=8, num_layers=1, d_ff=8), r"T5Config"),
        (lambda folder: other_kind("BertForMaskedLM", folder, **SMALL), r"is a BertForMaskedLM"),
    ],
)
def test_a_model_that_cannot_be_used_is_one_line_with_a_mend(
    damage: Callable[[Path], None], words: str, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copied(tiny_model, tmp_path / "model")
    damage(folder)
    arguments = ["eval", str(pool_file(tmp_path)), "--model", str(folder)]
    error = refused(capsys, [*arguments, "--set", "evaluation.sampling.max_new_tokens=4"], tmp_path / "out")
    assert re.search(words, error), error


COMMANDS = {
    "profile": ["profile", "POOL", "profile.judge.enabled=false", "profile.pass_rate.k=2"],
    "judge": ["profile", "POOL", "profile.pass_rate.enabled=false"],
    "eval": ["eval", "POOL"],
    "sft": ["train sft", "POOL", "--targets", "TARGETS"],
    "rl": ["train rl", "POOL", "phase.prompts_per_generation=1", "phase.group_size=2", "phase.steps=1"],
    "joint": ["train joint", "POOL", "--targets", "TARGETS", "phase.prompts_per_generation=1", "phase.group_size=2"],
}


def command(name: str, model: Path, folder: Path, *sets: str, **row: Any) -> list[str]:
    """A command that needs the model, on one problem and its target."""
    targets = frame(
        "target",
        [{"problem_id": "a", "response": "1 + 2 = 3\n\\boxed{3}", "origin": "human", "accepted": True}],
    )
    write_table(targets, folder / "targets.parquet")
    words = [w for part in COMMANDS[name] for w in part.split(" ")]
    files = {"POOL": str(pool_file(folder, **row)), "TARGETS": str(folder / "targets.parquet")}
    arguments = [x for word in [*words, *sets] for x in (["--set", word] if "=" in word else [files.get(word, word)])]
    return [*arguments, "--model", str(model)]


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "judge"])  # the judge has none of the user's
def test_every_command_refuses_a_system_message_that_the_template_does_not_take(
    name: str, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copied(tiny_model, tmp_path / "model")
    (folder / "chat_template.jinja").write_text(NO_SYSTEM)
    error = refused(capsys, command(name, folder, tmp_path, "prompt.system=Think."), tmp_path / "out")
    assert "System role not supported" in error
    assert "prompt.system" in error


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_refuses_what_is_longer_than_the_table_of_positions(
    name: str, learned_positions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    question = "What is 1 + 2? " * (12 if name in ("judge", "sft", "joint") else 1)
    error = refused(capsys, command(name, learned_positions, tmp_path, question=question), tmp_path / "out")
    assert "a table of 96 positions" in error
    mends = {"judge": "leave out", "sft": "take shorter targets", "rl": "set phase.max_new_tokens="}
    assert f" — {mends.get(name, '')}" in error


def test_what_fits_into_the_table_of_positions_is_asked(learned_positions: Path, tmp_path: Path) -> None:
    sets = ["evaluation.sampling.max_new_tokens=24", "evaluation.sampling.temperature=1", "evaluation.samples=3"]
    arguments = command("eval", learned_positions, tmp_path, *sets)
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    assert pl.read_parquet(tmp_path / "out" / "samples.parquet").height == 3


@pytest.mark.parametrize("name", ["profile", "sft", "rl"])
def test_thirty_options_are_more_than_there_are_letters(
    name: str, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [str(i) for i in range(30)]
    error = refused(capsys, command(name, tiny_model, tmp_path, options=options, answer="B"), tmp_path / "out")
    assert "30 options" in error


def test_sft_takes_questions_with_options(tiny_model: Path, tmp_path: Path) -> None:
    arguments = command("sft", tiny_model, tmp_path, "phase.batch=1", options=["4", "3"], answer="B")
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0


def test_template_arguments_that_are_not_the_templates_are_refused(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = command("eval", tiny_model, tmp_path, "prompt.chat_template_kwargs.tokenize=false")
    assert "chat_template_kwargs has tokenize" in refused(capsys, arguments, tmp_path / "out")


def test_a_token_without_an_embedding_is_refused_where_it_occurs_alone(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Published models come with tokens that no text has (Gemma 3's picture token) and no embedding for them."""
    from transformers import AutoTokenizer

    folder = copied(tiny_model, tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<picture>"])
    tokenizer.save_pretrained(folder)
    limits = ["evaluation.sampling.max_new_tokens=4"]
    plain = command("eval", folder, tmp_path, *limits)
    assert main([*plain, "--out", str(tmp_path / "plain")]) == 0
    capsys.readouterr()
    error = refused(capsys, command("eval", folder, tmp_path, *limits, question="<picture> What?"), tmp_path / "out")
    assert "writes '<picture>' as number 49152" in error


def test_an_adapter_beside_a_base_that_it_does_not_fit_is_refused(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copied(tiny_model, tmp_path / "adapter")
    (folder / "model.safetensors").unlink()
    about = {"base_model_name_or_path": str(tiny_model), "peft_type": "LORA", "r": 4, "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(about))
    (folder / "adapter_model.safetensors").write_text(POINTER)
    error = refused(capsys, command("eval", folder, tmp_path), tmp_path / "out")
    assert "adapter_model.safetensors is a git-lfs pointer" in error
