"""How often the default wordings of Bridge and critique lead a model to something that passes their checks.

    python benchmarks/supervision_wording.py [--only bridge] [--instructions FILE] [--problems 24] [--n 4]
        [--model embedded]

Sums and differences of two to four numbers of one digit (reasoning-gym's chain_sum). One model is student and teacher.
Bridge rewrites the steps that derive from the expression, after failed responses of the model itself. The attempts
that are criticised are such steps with one number of one line changed, so that the first wrong line is known; new
traces are asked for without help and with the answer shown.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections import Counter
from pathlib import Path

import polars as pl
import reasoning_gym

from dereason.lm.base import LanguageModel, Sampling
from dereason.lm.library_log import quiet_libraries
from dereason.lm.load import load_model
from dereason.lm.local.model import ModelSettings
from dereason.lm.prompts import Prompt
from dereason.problems.schema import frame
from dereason.supervision.bridge import bridge_candidates, bridge_facts
from dereason.supervision.candidates import says
from dereason.supervision.critique import critique_candidates, read_diagnosis
from dereason.supervision.desk import Desk
from dereason.supervision.settings import BridgeTargets, CriticSampling, CritiqueTargets, TeacherSampling
from dereason.supervision.wording import BRIDGE
from dereason.verify.samples import draw_samples
from dereason.verify.verifier import default_verifier


def make_pool(n: int) -> pl.DataFrame:
    """n problems, no question twice."""
    data = reasoning_gym.create_dataset(
        "chain_sum", size=20 * n, seed=11, min_terms=2, max_terms=4, min_digits=1, max_digits=1
    )
    found = {item["question"]: item for item in data}
    base = {"domain": "chain_sum", "source": "reasoning_gym"}
    return frame(
        "problem",
        [
            base | {"id": f"c{i}", "question": q, "answer": item["answer"], "metadata": json.dumps(item["metadata"])}
            for i, (q, item) in enumerate(list(found.items())[:n])
        ],
    )


def spoil(problems: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, int]]:
    """A SAMPLE table with one worked attempt a problem, wrong from one line on, and the number of that line."""
    draw, rows, wrong = random.Random(3), [], {}
    for id, metadata in problems.select("id", "metadata").iter_rows():
        value, *rest = json.loads(metadata)["expression"].split()
        steps = list(zip(rest[::2], rest[1::2], strict=True))
        total, lines, bad = int(value), [], draw.randrange(len(steps))
        for k, (sign, term) in enumerate(steps):
            after = total + int(term) * (1 if sign == "+" else -1)
            after += draw.choice([-3, -2, -1, 1, 2, 3]) if k == bad else 0
            lines.append(f"{total} {sign} {term} = {after}")
            total = after
        wrong[id] = bad + 1
        text = "\n".join([*lines, f"\\boxed{{{total}}}"])
        base = {"model": "spoilt", "purpose": "rollout", "index": 0, "step": 1, "hit_limit": False, "verdict": "wrong"}
        rows.append(base | {"problem_id": id, "response": text, "tokens": len(text.split())})
    return frame("sample", rows), wrong


def show(table: pl.DataFrame, what: str, seconds: float) -> None:
    """Counts of one kind of candidates."""
    accepted = table.filter("accepted")
    correct, problems = (table["verdict"] == "correct").sum(), accepted["problem_id"].n_unique()
    print(f"{what}: {table.height} drawn, {correct} correct, {accepted.height} accepted ({problems} problems)")
    print(f"  in {seconds:.0f} s")
    for reason, count in table.select(says(pl.col("reason"))).to_series().value_counts(sort=True).iter_rows():
        print(f"  {count:4} {reason}")


def bridge(lm: LanguageModel, settings: ModelSettings, problems: pl.DataFrame, n: int, words: str, store: Path) -> None:
    """Rewrite steps after failed responses of the model itself."""
    own = draw_samples(
        lm,
        problems,
        Prompt(),
        n=n,
        sampling=Sampling(max_new_tokens=128),
        seed=0,
        purpose="profile",
        store=store / "profile",
    )
    print("own responses:", dict(Counter(own["verdict"])))
    sampling = TeacherSampling(max_new_tokens=192)
    entry = BridgeTargets(style="bridge", teacher=settings, traces="steps", n=n, sampling=sampling, instructions=words)
    begun = time.perf_counter()
    table = bridge_candidates(make_desk(lm, settings, store / "bridge"), problems, entry, own)
    show(table.filter(~pl.col("raw")), "bridge", time.perf_counter() - begun)
    print(json.dumps(bridge_facts(table), indent=1))
    for row in table.filter("chosen").head(5).iter_rows(named=True):
        print("  |", row["response"].replace("\n", "\n  |   "))


def critique(lm: LanguageModel, settings: ModelSettings, problems: pl.DataFrame, n: int, store: Path) -> None:
    """Criticise spoilt attempts, and ask for new traces without and with the answer."""
    attempts, wrong = spoil(problems)
    entry = CritiqueTargets(style="critique", critic=settings, n=n, sampling=CriticSampling(max_new_tokens=128))
    with_answer = entry.model_copy(update={"shown": "answer", "kinds": ["new_trace"]})
    for asked in (entry, with_answer):
        begun = time.perf_counter()
        desk = make_desk(lm, settings, store / f"critique-{asked.shown}")
        table = critique_candidates(desk, problems, asked, attempts)
        seconds = time.perf_counter() - begun
        for kind, part in table.group_by("origin", maintain_order=True):
            show(part, f"{kind[0]}, shown: {asked.shown}", seconds)
        read = [
            (said.line, wrong[row["problem_id"]])
            for row in table.filter(pl.col("origin") == "diagnosis").iter_rows(named=True)
            if not isinstance(said := read_diagnosis(row["response"]), str)
        ]
        print(f"  diagnoses that can be read: {len(read)}, with the right line: {sum(a == b for a, b in read)}")


def make_desk(lm: LanguageModel, settings: ModelSettings, store: Path) -> Desk:
    """A desk at which one model is student, teacher and critic."""
    return Desk(
        prompt=Prompt(),
        verifier=default_verifier(),
        store=store,
        load=lambda model, identity: lm,
        student=(settings, None),
        progress=lambda name: lambda done, total, words: None,
        say=print,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="embedded", help="hub id, folder or `embedded`")
    parser.add_argument("--problems", type=int, default=24)
    parser.add_argument("--n", type=int, default=4)
    parser.add_argument("--instructions", type=Path, help="a file with another wording for Bridge")
    parser.add_argument("--only", choices=["bridge", "critique"])
    options = parser.parse_args()
    quiet_libraries()
    settings, problems = ModelSettings(name=options.model), make_pool(options.problems)
    lm = load_model(settings)
    words = options.instructions.read_text(encoding="utf-8") if options.instructions else BRIDGE
    with tempfile.TemporaryDirectory() as folder:
        if options.only != "critique":
            bridge(lm, settings, problems, options.n, words, Path(folder))
        if options.only != "bridge":
            critique(lm, settings, problems, options.n, Path(folder))


if __name__ == "__main__":
    main()
