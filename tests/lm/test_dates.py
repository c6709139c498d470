"""Chat templates that print today's date: one day, and nothing else of the template changes."""

from __future__ import annotations

import shutil
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest

from dereason.lm.dates import give_date, given_date, own_template
from dereason.lm.load import load_model
from dereason.lm.local.model import ModelSettings, load_tokenizer
from dereason.lm.prompts import template_hash

DAY = date(2026, 3, 5)
CHAT = [{"role": "user", "content": "1 + 1?"}]
FORMATS = [
    *("%d %b %Y", "%B %d, %Y", "%Y-%m-%d", "%A %%d %-d/%-m %y"),
    "%a %j %U %W %w %u %G-W%V %p %I:%H:%M:%S.%f %c %x %X",
]
TEMPLATES = {
    "llama": "{%- if not date_string is defined %}\n    {%- if strftime_now is defined %}\n"
    "        {%- set date_string = strftime_now('FORMAT') %}\n    {%- else %}\n"
    "        {%- set date_string = '26 Jul 2024' %}\n    {%- endif %}\n{%- endif %}\nToday: {{ date_string }}.\n"
    "{% for m in messages %}{{ m['content'] }}{% endfor %}\n",
    "granite": "{%- if 1 %}\n  {%- set system = 'Today: ' + strftime_now('FORMAT') + '.\n' %}\n{%- endif %}\n"
    "{{ system }}{%- for m in messages %}\n{{ m['content'] }}\n  {%- endfor %}",
    "macro": "\n{% macro day(f) %}Today: {{ strftime_now(f) }}.{% endmacro %}{{ day('FORMAT') }}\n",
    "indented": "   {% if 1 %}\nToday: {{ strftime_now('FORMAT') }}.\n   {% endif %}\n{{ messages[0]['content'] }}",
    "text first": "\n\n Today: {{ strftime_now('FORMAT') }}.",
}


@pytest.fixture
def tokenizer(tiny_model: Path) -> Any:
    return load_tokenizer(ModelSettings(name=str(tiny_model)), DAY)


def render(tokenizer: Any, **kwargs: Any) -> str:
    return str(tokenizer.apply_chat_template(CHAT, tokenize=False, **kwargs))


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("how", FORMATS)
def test_a_template_renders_as_on_that_day(tokenizer: Any, template: str, how: str) -> None:
    text = TEMPLATES[template].replace("FORMAT", how)
    # what transformers itself makes of it on that day: the date stands there as text
    written = datetime(DAY.year, DAY.month, DAY.day).strftime(how)
    tokenizer.chat_template = TEMPLATES[template].replace("strftime_now('FORMAT')", repr(written))
    if template == "macro":
        tokenizer.chat_template = tokenizer.chat_template.replace("strftime_now(f)", repr(written))
    on_the_day = render(tokenizer)
    assert f"Today: {written}." in on_the_day
    tokenizer.chat_template = text
    give_date(tokenizer, DAY)
    assert render(tokenizer) == on_the_day
    assert given_date(tokenizer) == DAY
    with own_template(tokenizer):
        assert tokenizer.chat_template == text
    assert render(tokenizer) == on_the_day


def test_a_date_that_is_given_as_an_argument_comes_first(tokenizer: Any) -> None:
    tokenizer.chat_template = TEMPLATES["llama"].replace("FORMAT", "%d %b %Y")
    give_date(tokenizer, DAY)
    assert "Today: never." in render(tokenizer, date_string="never")


def test_several_templates_by_name_are_each_given_the_day(tokenizer: Any) -> None:
    asks = "{{ strftime_now('%d') }}"
    tokenizer.chat_template = {"default": asks, "tool_use": "plain"}
    give_date(tokenizer, DAY)
    assert (render(tokenizer), tokenizer.chat_template["tool_use"]) == ("05", "plain")
    assert given_date(tokenizer) == DAY
    with own_template(tokenizer):
        assert tokenizer.chat_template == {"default": asks, "tool_use": "plain"}


def test_a_template_that_asks_for_no_date_is_as_it_was(tiny_model: Path, tokenizer: Any) -> None:
    other = load_tokenizer(ModelSettings(name=str(tiny_model)), date(2027, 1, 1))
    assert other.chat_template == tokenizer.chat_template
    assert given_date(tokenizer) is None
    assert template_hash(other, {}) == template_hash(tokenizer, {})
    own = "{% macro strftime_now(f) %}then{% endmacro %}{{ strftime_now('%d') }}"
    tokenizer.chat_template = own
    give_date(tokenizer, DAY)
    assert tokenizer.chat_template == own


def test_a_model_is_loaded_with_its_day(tiny_model: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(ModelSettings(name=str(tiny_model)))
    tokenizer.chat_template = "{{ strftime_now('%d %B %Y') }}"
    shutil.copytree(tiny_model, tmp_path / "dated")
    tokenizer.save_pretrained(tmp_path / "dated")
    settings = ModelSettings(name=str(tmp_path / "dated"), device="cpu")
    one, same, other = (load_model(settings, day=day) for day in (DAY, DAY, date(2026, 3, 6)))
    assert one.tokenizer.decode(one.encode(CHAT)) == "05 March 2026"  # type: ignore[union-attr,arg-type]
    assert one.template_hash() == same.template_hash() != other.template_hash()
