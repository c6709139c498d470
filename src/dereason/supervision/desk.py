"""Where models are asked for supervision: one way to say what it will cost, to ask, to store, and to count.

Every builder of candidates asks through a :class:`Desk`. What was asked is in the desk's folder by name, so a build
that was interrupted asks only for what is missing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from dereason.lm.base import LanguageModel, Message, Progress, Sampling, Usage
from dereason.lm.cost import estimate, usage
from dereason.lm.local.model import LocalModel, ModelSettings
from dereason.lm.prompts import Prompt
from dereason.verify.samples import draw_samples
from dereason.verify.verdict import Judgement
from dereason.verify.verifier import Item, Verifier


class _Spent:
    """What a call of :meth:`Desk.ask` took, over all the processes that worked on it."""

    def __init__(self, path: Path, lm: LanguageModel) -> None:
        self._path, self._lm, self._start = path, lm, usage(lm)
        self._before = Usage(**json.loads(path.read_text())) if path.is_file() else Usage()

    def so_far(self) -> Usage:
        """The totals, of earlier processes too."""
        now, before = usage(self._lm).since(self._start), self._before
        known = None if now.price is None else now.price + (before.price or 0.0)
        return Usage(
            now.calls + before.calls,
            now.retries + before.retries,
            now.stored,
            now.prompt_tokens + before.prompt_tokens,
            now.tokens + before.tokens,
            known,
            now.replaced + before.replaced,
        )

    def watch(self, progress: Progress) -> Progress:
        """The progress display; each time it is told something, the totals are written down."""

        def told(done: int, total: int, words: str) -> None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            part = self._path.with_name(self._path.name + ".part")
            part.write_text(json.dumps(asdict(self.so_far())))
            part.replace(self._path)
            progress(done, total, words)

        return told


@dataclass
class Desk:
    """What building targets may use.

    Attributes:
        prompt: how questions are put, in every phase.
        verifier: judges.
        store: folder of this build; what was asked is kept there.
        load: gives a model to ask. The model that it gave before may be gone after a call.
        student: the student that the phase will train: settings and, for provenance, its name.
        progress: gives a progress display for a few words.
        say: prints a line.
        asked: what was asked so far: one entry a call of :meth:`ask`, for the facts of the step.
        drawn: the SAMPLE tables of all calls.
    """

    prompt: Prompt
    verifier: Verifier
    store: Path
    load: Callable[[ModelSettings, str | None], LanguageModel]
    student: tuple[ModelSettings, str | None]
    progress: Callable[[str], Progress]
    say: Callable[[str], None]
    asked: list[dict[str, Any]] = field(default_factory=list)
    drawn: list[pl.DataFrame] = field(default_factory=list)

    def ask(
        self,
        model: ModelSettings | None,
        problems: pl.DataFrame,
        *,
        name: str,
        n: int,
        sampling: Sampling,
        seed: int,
        purpose: str,
        chats: Sequence[Sequence[Message]] | None = None,
        prefixes: Sequence[str] | None = None,
        judge: Callable[[Sequence[Item]], list[Judgement]] | None = None,
    ) -> pl.DataFrame:
        """Draw and judge n responses to every problem; see :func:`~dereason.verify.samples.draw_samples`.

        Args:
            model: who is asked; None asks the student.
            problems: PROBLEM table, no problem twice.
            name: of the folder in the desk's store, and of the line on the screen; one a call.
            n, sampling, seed, purpose, chats, prefixes, judge: as there.

        Returns:
            SAMPLE table, n rows a problem, in the problems' order.
        """
        settings, identity = self.student if model is None else (model, None)
        lm = self.load(settings, identity)
        asking = chats or [self.prompt.messages(q, o) for q, o in problems.select("question", "options").iter_rows()]
        cost = estimate(lm, asking, n, sampling, seed)
        self.say(f"  {name}: {lm.identity}, {problems.height:,} problems: {cost.words()}")
        spent = _Spent(self.store / f"{name}.json", lm)
        samples = draw_samples(
            lm,
            problems,
            self.prompt,
            n=n,
            sampling=sampling,
            seed=seed,
            purpose=purpose,
            store=self.store / name,
            verifier=self.verifier,
            progress=spent.watch(self.progress(name)),
            chats=chats,
            prefixes=prefixes,
            judge=judge,
        )
        took = spent.so_far()
        self.asked.append(
            {
                "name": name,
                "model": lm.identity,
                "problems": problems.height,
                "responses": samples.height,
                # a prompt's responses share its run; an endpoint says itself what it read
                "prompt_tokens": took.prompt_tokens or int(samples.filter(pl.col("index") == 0)["prompt_tokens"].sum()),
                "tokens": int(samples["tokens"].sum()),
                "stored": cost.stored,
                "price": took.price,
            }
        )
        self.drawn.append(samples)
        return samples

    def scorer(self) -> LocalModel:
        """The student with its weights at hand, whichever backend generates for it."""
        settings, identity = self.student
        lm = self.load(settings.model_copy(update={"backend": "local"}), identity)
        assert isinstance(lm, LocalModel)  # that backend
        return lm
