"""Tokenizers and chat templates of the shapes that model families have, on a vocabulary of bytes; written here.

Of each family: what its tokenizer calls the end of a text, its special tokens, and the shape of its template. The
names of special tokens are the families' own, the templates are not.
"""

# ruff: noqa: RUF001
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

_CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@dataclass(frozen=True)
class Family:
    """What decides how a chat is written and where a reply ends.

    Attributes:
        eos: the tokenizer's end token.
        specials: the other special tokens.
        template: the chat template; None: it has none.
        end: the token that ends a reply by the template.
        configured: end tokens that the generation config names.
        plain: tokens of the vocabulary that are not marked as special.
    """

    eos: str
    specials: tuple[str, ...]
    template: str | None
    end: str | None
    configured: tuple[str, ...] = ()
    plain: tuple[str, ...] = ()


FAMILIES = {
    # a base model whose tokenizer has the chat model's template
    "qwen-base": Family("<|endoftext|>", ("<|im_start|>", "<|im_end|>"), _CHATML, "<|im_end|>", ("<|endoftext|>",)),
    "qwen-chat": Family(
        "<|im_end|>", ("<|im_start|>", "<|endoftext|>"), _CHATML, "<|im_end|>", ("<|im_end|>", "<|endoftext|>")
    ),
    "llama-3-base": Family(
        "<|end_of_text|>", ("<|begin_of_text|>", "<|eot_id|>"), None, "<|end_of_text|>", ("<|end_of_text|>",)
    ),
    "llama-3-instruct": Family(
        "<|end_of_text|>",
        ("<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"),
        "{{ '<|begin_of_text|>' }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n'"
        " + m['content'] | trim + '<|eot_id|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
        "<|eot_id|>",
        ("<|end_of_text|>",),
    ),
    "gemma": Family(
        "<eos>",
        ("<bos>", "<start_of_turn>", "<end_of_turn>"),
        "{{ '<bos>' }}{% for m in messages %}{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else 'user')"
        " + '\n' + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}",
        "<end_of_turn>",
        ("<eos>",),
        ("\n\n", "<table>"),
    ),
    "mistral": Family(
        "</s>",
        ("<s>", "[INST]", "[/INST]"),
        "{{ '<s>' }}{% for m in messages %}{% if m['role'] == 'assistant' %}{{ ' ' + m['content'] + '</s>' }}"
        "{% else %}{{ '[INST] ' + m['content'] + ' [/INST]' }}{% endif %}{% endfor %}",
        "</s>",
        ("</s>",),
    ),
    # the end of a turn, and the end of the text behind the last one
    "phi": Family(
        "<|endoftext|>",
        ("<|user|>", "<|assistant|>"),
        "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ '<|endoftext|>' }}{% endif %}",
        "<|end|>",
        ("<|endoftext|>",),
        ("<|end|>",),
    ),
    "deepseek": Family(
        "<｜end▁of▁sentence｜>",
        ("<｜begin▁of▁sentence｜>",),
        "{{ '<｜begin▁of▁sentence｜>' }}{% for m in messages %}{% if m['role'] == 'assistant' %}"
        "{{ '<｜Assistant｜>' + m['content'] + '<｜end▁of▁sentence｜>' }}{% else %}{{ '<｜User｜>' + m['content'] }}"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<｜Assistant｜>' }}{% endif %}",
        "<｜end▁of▁sentence｜>",
        ("<｜end▁of▁sentence｜>",),
        ("<｜User｜>", "<｜Assistant｜>"),
    ),
    # a turn ends with words, which no single token writes
    "words": Family(
        "</s>",
        (),
        "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}",
        None,
        ("</s>",),
        ("\n\n",),
    ),
    # the template of another model, whose end of a turn is not in the vocabulary
    "foreign": Family("</s>", (), _CHATML, None, ("</s>",)),
    # a prompt for RL alone: replies do not appear
    "prompt-only": Family("</s>", ("<s>",), "{{ '<s>' + messages[0]['content'] + '\nAnswer: ' }}", None, ("</s>",)),
}


def make_tokenizer(family: Family) -> Any:
    """Bytes, and the family's own tokens behind them."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bytes_ = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    bytes_.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_.decoder = decoders.ByteLevel()
    for token in (family.eos, *family.specials):
        bytes_.add_special_tokens([AddedToken(token, special=True, normalized=False)])
    for token in family.plain:
        bytes_.add_tokens([AddedToken(token, normalized=False)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bytes_, eos_token=family.eos, pad_token=family.eos)
    tokenizer.chat_template = family.template
    return tokenizer


def save_model(family: Family, folder: Path, seed: int = 0) -> Path:
    """A random one-layer model of the family in a folder."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = make_tokenizer(family)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=None,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids(list(family.configured))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
