"""The day that chat templates are told: chosen when a run, or a single step, is first started, and kept beside it.

A template that prints today's date would make other prompts of the same recipe on another day: keys would change, and
a run that crosses midnight could not go on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from datetime import date
from pathlib import Path

from dereason.errors import DereasonError
from dereason.lm.dates import given_date, today
from dereason.lm.local.model import ModelSettings, load_tokenizer
from dereason.lm.prompts import Prompt

FILE = "date"
"""In the folder of a run or of a single step: the day, as 2026-12-01. Only where a template prints one."""


def recorded_date(prompt: Prompt, folder: Path) -> Prompt:
    """The prompt with the day that the folder was first started on, where it holds one and the prompt names none."""
    if prompt.date is None:
        with contextlib.suppress(OSError, ValueError):
            return prompt.model_copy(update={"date": date.fromisoformat((folder / FILE).read_text().strip())})
    return prompt


def settled_date(prompt: Prompt, models: Iterable[ModelSettings], folder: Path) -> Prompt:
    """The prompt with its day: its own, that of the folder's first start, or today, which the folder then keeps.

    Args:
        prompt: of the recipe or the job.
        models: that are loaded here; endpoints are not asked.
        folder: of the run or of the step; made where it is missing and a day is to be kept.

    Returns:
        The prompt as it is where no template prints a date. A model that is not there is left to the step that loads
        it.
    """
    prompt = recorded_date(prompt, folder)
    if prompt.date is None:
        day = today()
        local = {(model.name, model.revision): model for model in models if model.backend != "api"}
        if any(_asks(model, day) for model in local.values()):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / FILE).write_text(f"{day}\n")
            return prompt.model_copy(update={"date": day})
    return prompt


def _asks(model: ModelSettings, day: date) -> bool:
    """Whether the model's template prints a date."""
    try:
        return given_date(load_tokenizer(model, day)) is not None
    except DereasonError:
        return False
