"""A model's context and sizes by its configuration alone: no weights, no network."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dereason.lm.local.context import context_of, longest_target, trained_positions
from dereason.lm.local.lengths import longest_prompt
from dereason.lm.local.model import ModelSettings, load_tokenizer, load_weights
from dereason.lm.local.shape import kept_of, shape_of

QWEN3_4B = {
    **{"model_type": "qwen3", "hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36},
    **{"num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936},
    **{"tie_word_embeddings": True, "max_position_embeddings": 32768},
}
QWEN2_7B = {
    **{"model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28},
    **{"num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064},
    **{"tie_word_embeddings": False, "max_position_embeddings": 4096},
}


def settings(config: dict[str, Any], **more: Any) -> ModelSettings:
    """A hub model that this machine does not have."""
    return ModelSettings(name="somebody/nothing-here", config=config, **more)


@pytest.mark.parametrize(
    ("kind", "values", "tokens"),
    [
        ("llama", {"max_position_embeddings": 4096}, 4096),
        ("llama", {"rope_scaling": {"rope_type": "linear", "factor": 4.0}, "max_position_embeddings": 4096}, 16384),
        ("llama", {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}, "max_position_embeddings": 4096}, 8192),
        (
            "qwen3",
            {
                "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
                "max_position_embeddings": 40960,
            },
            131072,
        ),
        (  # as DeepSeek-V3 has it: the scaled length stands in both
            "llama",
            {
                "rope_scaling": {"rope_type": "yarn", "factor": 40, "original_max_position_embeddings": 4096},
                "max_position_embeddings": 163840,
            },
            163840,
        ),
        (
            "llama",
            {
                "rope_scaling": {
                    **{"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192},
                    **{"low_freq_factor": 1.0, "high_freq_factor": 4.0},
                },
                "max_position_embeddings": 131072,
            },
            131072,
        ),
        (
            "phi3",
            {
                "rope_scaling": {"rope_type": "longrope", "short_factor": [1.0] * 48, "long_factor": [2.0] * 48},
                "original_max_position_embeddings": 4096,
                "max_position_embeddings": 131072,
            },
            131072,
        ),
        ("gemma3_text", {"max_position_embeddings": 131072}, 131072),
        ("gpt2", {"n_positions": 1024}, 1024),
        ("opt", {"max_position_embeddings": 2048}, 2048),
        ("bloom", {}, None),
        ("falcon", {"alibi": True, "max_position_embeddings": 2048}, None),
        ("mamba", {}, None),
    ],
)
def test_positions_follow_each_kind_of_scaling(kind: str, values: dict[str, Any], tokens: int | None) -> None:
    from transformers import AutoConfig

    assert trained_positions(AutoConfig.for_model(kind, **values)) == tokens


@pytest.mark.parametrize(
    ("given", "trained", "table", "tokens", "words"),
    [
        ({}, None, None, None, ""),
        ({}, 4096, None, 4096, "by its configuration"),
        ({"max_positions": 9000}, 4096, None, 9000, "by model.max_positions"),
        ({"max_positions": 9000}, None, None, 9000, "by model.max_positions"),
        ({"max_positions": 9000}, 96, 96, 96, "a table of 96 positions"),
        ({"max_positions": 50}, 96, 96, 50, "by model.max_positions"),
        ({"backend": "vllm", "vllm": {"max_length": 2000}}, 4096, None, 2000, "by vllm.max_length"),
        ({"backend": "vllm", "vllm": {"max_length": 9000}}, 4096, None, 4096, "by its configuration"),
        ({"vllm": {"max_length": 2000}}, 4096, None, 4096, "by its configuration"),
    ],
)
def test_settings_move_the_end_and_a_table_does_not(
    given: dict[str, Any], trained: int | None, table: int | None, tokens: int | None, words: str
) -> None:
    room = context_of(ModelSettings(**given), trained, table)
    assert (None if room is None else room.tokens) == tokens
    assert room is None or words in room.words
    assert longest_target(None, room) == min(4096, tokens or 4096)


def test_sizes_of_large_models_are_known_without_them() -> None:
    small, large = shape_of(settings(QWEN3_4B)), shape_of(settings(QWEN2_7B))
    assert small is not None
    assert large is not None
    attention, mlp, norms = 2560 * 128 * (32 + 2 * 8 + 32), 3 * 2560 * 9728, 2 * 2560 + 2 * 128
    assert small.parameters == 151936 * 2560 + 36 * (attention + mlp + norms) + 2560
    assert (small.head, small.linear) == (0, 36 * (attention + mlp))
    attention, biases = 3584 * 128 * (28 + 2 * 4 + 28), 128 * (28 + 2 * 4)
    assert large.parameters == 2 * 152064 * 3584 + 28 * (attention + biases + 3 * 3584 * 18944 + 2 * 3584) + 3584
    assert (large.head, large.positions, large.table) == (152064 * 3584, 4096, None)
    assert (small.cache, large.cache) == (36 * 2 * 8 * 128, 28 * 2 * 4 * 128)
    assert shape_of(settings({"model_type": "gpt2", "n_positions": 96})).table == 96  # type: ignore[union-attr]
    assert shape_of(ModelSettings(name="somebody/nothing-here")) is None
    assert shape_of(settings({"model_type": "t5"})) is None


def test_what_a_pass_keeps_is_what_a_real_one_keeps(tiny_model: Path) -> None:
    import torch

    found = kept_of(ModelSettings(name=str(tiny_model)), frozen="float32", mixed=False)
    assert found is not None
    model = load_weights(ModelSettings(name=str(tiny_model), device="cpu")).train()
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    sizes = {}

    def keep(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        kept = model.get_decoder()(input_ids=torch.arange(100)[None], use_cache=False)
    assert kept is not None  # its graph holds what was kept
    assert found.fixed + 100 * found.token == pytest.approx(sum(sizes.values()), rel=0.02)


def test_half_precision_and_adapters_keep_less_and_other_things() -> None:
    model = settings(QWEN3_4B | {"num_hidden_layers": 2})
    whole = kept_of(model, frozen="float32", mixed=True)
    adapter = kept_of(model, frozen="bfloat16", mixed=True, rank=8)
    shape = shape_of(model)
    assert whole is not None
    assert adapter is not None
    assert shape is not None
    assert whole.fixed == pytest.approx(2 * shape.linear), "autocast keeps each weight in bfloat16 once"
    assert adapter.fixed < 0.05 * whole.fixed
    assert adapter.token < whole.token


def test_the_longest_prompt_is_found_without_encoding_the_short_ones(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dereason.lm.local import lengths

    model = ModelSettings(name=str(tiny_model))
    questions = ["short", "x y z " * 40, "What is 1 + 2?", "0123456789" * 20, *["tiny"] * 50]
    chats = [[{"role": "user", "content": q}] for q in questions]
    tokenizer = load_tokenizer(model)
    longest = max(len(tokenizer.apply_chat_template(c, add_generation_prompt=True)["input_ids"]) for c in chats)
    asked: list[str] = []
    encode = lengths.chat_ids
    monkeypatch.setattr(lengths, "chat_ids", lambda t, c, k, **m: asked.append(c[0]["content"]) or encode(t, c, k, **m))
    monkeypatch.setattr(lengths, "remembered", lambda key, look: look())
    assert longest_prompt(model, "these", lambda: chats, {}) == longest  # type: ignore[arg-type, return-value]
    assert len(asked) < 6
    assert longest_prompt(ModelSettings(name="somebody/nothing-here"), "these", lambda: [], {}) is None


def test_a_second_look_imports_neither_torch_nor_transformers() -> None:
    model = settings(QWEN2_7B)
    assert shape_of(model) is not None
    code = (
        "import sys; from dereason.lm.local.model import ModelSettings; from dereason.lm.local.shape import shape_of\n"
        f"assert shape_of(ModelSettings.model_validate({model.model_dump()!r})).layers == 28\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
