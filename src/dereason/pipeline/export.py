"""Hand the problems and the RL phase of a run, or of plain files, to a trainer that is not ours.

So far there is one: verl, which runs RL on Ray, for models and clusters that TRL is too small for. The export is a
folder of plain files: ``train.parquet`` and ``test.parquet`` in verl's columns, ``reward.py`` and ``reward.json`` (our
verifier), ``manager.py``, and ``run.sh``, which starts verl with the phase's settings.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from dereason.errors import DereasonError
from dereason.evaluation.evaluate import Evaluation
from dereason.lm.dates import given_date
from dereason.lm.endings import stop_ids
from dereason.lm.local.adapter import adapter_base
from dereason.lm.local.model import ModelSettings, load_generation_config, load_tokenizer, model_path
from dereason.lm.prompts import PLAIN_TEMPLATE, Prompt
from dereason.lm.rendering import chat_ids
from dereason.pipeline import verl
from dereason.pipeline.actions import Context, select_set
from dereason.pipeline.build import build, starting_model
from dereason.pipeline.jobs import RLJob
from dereason.pipeline.output import output_locked
from dereason.pipeline.pool import read_pool
from dereason.pipeline.progress import Screen
from dereason.pipeline.recipe import Arm, Recipe, RLPhase, load_recipe, set_names
from dereason.pipeline.store import Info, Step, finished, put, read_json, settle, write_json
from dereason.problems.schema import read_table, write_table
from dereason.problems.sources import ProblemFile
from dereason.training.rewards.asked import unasked
from dereason.training.rewards.settings import with_opening
from dereason.training.rewards.verl import VerlReward
from dereason.training.rl import RL
from dereason.verify.checks.names import is_function
from dereason.verify.verifier import VerifierSettings

VERL_ROW: dict[str, Any] = {
    "data_source": pl.String,
    "prompt": pl.List(pl.Struct({"role": pl.String, "content": pl.String})),
    "ability": pl.String,
    "reward_model": pl.Struct({"style": pl.String, "ground_truth": pl.String}),
    "extra_info": pl.Struct(
        {
            "split": pl.String,
            "index": pl.Int64,
            "problem_id": pl.String,
            "question": pl.String,
            "options": pl.List(pl.String),
            "source": pl.String,
            "metadata": pl.String,
        }
    ),
}
"""verl's columns: see ``RLHFDataset`` and its reward managers."""


@dataclass(frozen=True)
class Exported:
    """What is exported.

    Attributes:
        train: PROBLEM table: the RL set.
        test: PROBLEM table: held-out problems, for verl's validation.
        phase: the RL phase.
        model: where it starts.
        prompt: how questions are put.
        evaluation: how validation samples.
        verifier: limits of the verifier.
        seed: of data order and sampling.
        name: of the experiment.
        origin: where this came from, for ``export.json``.
        notes: how problems were read, where they could be read in several ways.
    """

    train: pl.DataFrame
    test: pl.DataFrame
    phase: RL
    model: ModelSettings
    prompt: Prompt
    evaluation: Evaluation
    verifier: VerifierSettings
    seed: int
    name: str
    origin: Info = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def from_run(run_dir: Path, *, arm: str | None = None, phase: int | None = None, seed: int | None = None) -> Exported:
    """The RL phase of a run, with the set that was routed to it and the model that it starts from.

    Args:
        run_dir: a run directory, finished or not.
        arm: name of the arm; None where only one has an RL phase.
        phase: number of the phase, from 1; None takes the arm's first RL phase.
        seed: training seed of the phases before it; None takes the recipe's first.

    Raises:
        DereasonError: no run, no such phase, or a step that the phase needs is not finished.
    """
    if not (run_dir / "recipe.yaml").is_file():
        raise DereasonError(f"{run_dir} is no run directory: it has no recipe.yaml", "give one, or a problems file")
    recipe = load_recipe(run_dir / "recipe.yaml")
    chosen, number = _phase(recipe, arm, phase)
    seed = recipe.seeds[0] if seed is None else seed
    if seed not in recipe.seeds:
        raise DereasonError(f"the run has no seed {seed}", f"it has {', '.join(map(str, recipe.seeds))}")
    graph = build(recipe, run_dir, Context(recipe.prompt, Screen(quiet=True)))
    training = next(s.training for s in graph.stages if (s.arm, s.seed, s.phase) == (chosen.name, seed, number))
    assert training is not None  # only the base has none
    folders = {role: _folder(run_dir, step) for role, step in training.inputs.items()}
    model, _, _ = starting_model(recipe.model, folders.get("before"), folders.get("start"))
    rl = chosen.unrolled()[number - 1]
    assert isinstance(rl, RLPhase)  # _phase chose one
    return Exported(
        train=select_set(
            read_table("problem", folders["problems"] / "train.parquet"),
            read_table("route", folders["routes"] / "routes.parquet"),
            set_names(rl),
        ),
        test=read_table("problem", folders["problems"] / "test.parquet"),
        phase=rl,
        model=model,
        prompt=recipe.prompt,
        evaluation=recipe.evaluation,
        verifier=recipe.verifier,
        seed=seed,
        name=f"{recipe.name}-{chosen.name}-{number}-rl-seed{seed}",
        origin={"run": recipe.name, "arm": chosen.name, "phase": number, "set": rl.set, "seed": seed},
    )


def from_files(
    pool: Path,
    test: Path,
    job: RLJob,
    *,
    held_out: ProblemFile | None = None,
    routes: Path | None = None,
    evaluation: Evaluation | None = None,
) -> Exported:
    """A phase of its own, over plain files.

    Args:
        pool: problems, of any format that a file source reads, or a PROBLEM table.
        test: held-out problems, likewise.
        job: settings as of ``dereason train rl``.
        held_out: how ``test`` is read; None reads it as the problems.
        routes: a ROUTE table; None takes every problem.
        evaluation: how validation samples; None takes the defaults.

    Raises:
        DereasonError: a file that cannot be read, or an empty set.
    """
    problems, notes = read_pool(pool, job.problems)
    tested, more = read_pool(test, held_out or job.problems)
    return Exported(
        train=problems if routes is None else select_set(problems, read_table("route", routes), [job.set]),
        test=tested,
        phase=job.phase,
        model=job.model,
        prompt=job.prompt,
        evaluation=evaluation or Evaluation(),
        verifier=job.verifier,
        seed=job.seed,
        name=f"{pool.stem}-rl",
        origin={"problems": pool.name, "set": job.set if routes else None, "seed": job.seed},
        notes=notes + more,
    )


def to_verl(exported: Exported, out: Path, *, overwrite: bool = False) -> Info:
    """Write the folder for verl; it appears whole.

    Args:
        exported: what is exported.
        out: the folder.
        overwrite: replace an earlier export; anything else is never touched.

    Returns:
        The content of ``export.json``.

    Raises:
        DereasonError: verl has no option for something in the phase, the model has no chat template, or ``out`` exists.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with output_locked(out):
        settle(out)
        if out.exists() and not _is_export(out):  # whatever --overwrite says: it is not ours
            raise DereasonError(f"{out} exists and is no export of dereason", "choose another --out")
        if out.exists() and not overwrite:
            raise DereasonError(f"{out} exists", "choose another --out, or give --overwrite")
        return _to_verl(exported, out)


def _is_export(folder: Path) -> bool:
    """Whether a folder was written by :func:`to_verl`."""
    path = folder / "export.json"
    info = read_json(path) if path.is_file() else None
    return isinstance(info, dict) and {"to", "verl", "overrides"} <= set(info)


def refuse_functions(verifier: VerifierSettings) -> None:
    """Refuse a check that is a function: verl's machines would have to have it, and the very same.

    Raises:
        DereasonError: there is one.
    """
    functions = [name for name in verifier.check_names() if is_function(name)]
    if functions:
        raise DereasonError(
            f"answer_check {functions[0]!r} is a function, whose file an export does not hold",
            "train the phase here, or export without it and give verl a reward of your own",
        )


def _to_verl(exported: Exported, out: Path) -> Info:
    verl.check_phase(exported.phase)
    refuse_functions(exported.verifier)
    if adapter_base(exported.model) is not None:
        raise DereasonError(
            f"{exported.model.name} is an adapter, which verl does not start from",
            "set adapter.merge=true in the phase before",
        )
    tokenizer = load_tokenizer(exported.model, exported.prompt.date)
    if tokenizer.chat_template == PLAIN_TEMPLATE:
        raise DereasonError(
            f"{exported.model.name} comes without a chat template, and verl needs one",
            "export a phase after an SFT phase (its model has one), or add one to the tokenizer",
        )
    tables = {"train": exported.train, "test": exported.test}
    rows = {split: verl_rows(table, exported.prompt, split) for split, table in tables.items()}
    kwargs = dict(exported.prompt.chat_template_kwargs)
    longest = max(
        len(chat_ids(tokenizer, chat, kwargs, reply_follows=True))
        for table in rows.values()
        for chat in table["prompt"].to_list()
    )
    theirs = dict(kwargs)
    if (day := given_date(tokenizer)) is not None:  # verl loads the template that would print the day of its own run
        theirs["chat_template"] = tokenizer.chat_template
    settings = verl.overrides(
        exported.phase,
        exported.evaluation,
        model=_start(exported.model),
        name=exported.name,
        problems=exported.train.height,
        longest_prompt=longest,
        seed=exported.seed,
        chat_template_kwargs=theirs,
    )
    stops = stop_ids(generation := load_generation_config(exported.model), tokenizer, kwargs)
    known = generation.eos_token_id if isinstance(generation.eos_token_id, list) else [generation.eos_token_id]
    unknown = [
        f"verl does not stop at {tokenizer.convert_ids_to_tokens(i)!r}, which the chat template writes behind a reply: "
        f"add {i} to eos_token_id in the generation_config.json of {exported.model.name}"
        for i in sorted(set(stops) - {*known, tokenizer.eos_token_id})
    ]
    warnings = [*_warnings(exported), *unknown]
    info: Info = {
        "to": "verl",
        "verl": verl.VERL_VERSION,
        "origin": exported.origin,
        "model": settings["actor_rollout_ref.model.path"],
        "rows": {split: table.height for split, table in tables.items()},
        "longest_prompt": longest,
        "date": day,
        "reading": exported.notes,
        "warnings": warnings,
        "overrides": settings,
    }
    part = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        for split, table in rows.items():
            write_table(table, part / f"{split}.parquet")
        reward = VerlReward(
            rewards=with_opening(exported.phase.rewards, tokenizer, kwargs),
            max_new_tokens=exported.phase.max_new_tokens,
            stop_ids=list(stops),
            verifier=exported.verifier.model_copy(update={"workers": 1}),
        )
        (part / "reward.json").write_text(reward.model_dump_json(indent=2) + "\n", encoding="utf-8")
        (part / "reward.py").write_text(verl.REWARD_FILE, encoding="utf-8")
        (part / "manager.py").write_text(verl.MANAGER_FILE, encoding="utf-8")
        (part / "run.sh").write_text(verl.script(settings, _head(exported, warnings)), encoding="utf-8")
        (part / "run.sh").chmod(0o755)
        write_json(part / "export.json", info)
        part.chmod(0o777 & ~_umask())
        put(part, out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return info


def verl_rows(problems: pl.DataFrame, prompt: Prompt, split: str) -> pl.DataFrame:
    """A PROBLEM table in verl's columns (:data:`VERL_ROW`), in the same order.

    Args:
        problems: PROBLEM table.
        prompt: how questions are put; verl applies the model's chat template itself.
        split: ``train`` or ``test``.
    """
    rows = [
        {
            "data_source": f"dereason/{row['source']}",
            "prompt": [dict(message) for message in prompt.messages(row["question"], row["options"])],
            "ability": row["domain"],
            "reward_model": {"style": "rule", "ground_truth": row["answer"]},
            "extra_info": {
                "split": split,
                "index": index,
                "problem_id": row["id"],
                "question": row["question"],
                "options": row["options"],
                "source": row["source"],
                "metadata": row["metadata"],
            },
        }
        for index, row in enumerate(problems.iter_rows(named=True))
    ]
    return pl.DataFrame(rows, schema=VERL_ROW)


def _phase(recipe: Recipe, arm: str | None, phase: int | None) -> tuple[Arm, int]:
    """The arm and the number of its RL phase."""
    there = {a.name: [n for n, p in enumerate(a.unrolled(), 1) if isinstance(p, RLPhase)] for a in recipe.arms}
    with_rl = [name for name, numbers in there.items() if numbers]
    offered = "; ".join(f"{name}: {', '.join(map(str, numbers)) or 'none'}" for name, numbers in there.items())
    if arm is None:
        if len(with_rl) != 1:
            raise DereasonError(f"{len(with_rl)} arms have an RL phase ({offered})", "say which with --arm")
        arm = with_rl[0]
    if arm not in there:
        raise DereasonError(f"the run has no arm {arm!r}", f"RL phases by arm: {offered}")
    number = phase if phase is not None else next(iter(there[arm]), 0)
    if number not in there[arm]:
        what = f"phase {phase} of arm {arm!r} is no RL phase" if phase is not None else f"arm {arm!r} has no RL phase"
        raise DereasonError(what, f"RL phases by arm: {offered}")
    return next(a for a in recipe.arms if a.name == arm), number


def _folder(run_dir: Path, step: Step) -> Path:
    """The folder of a finished step.

    Raises:
        DereasonError: it is not finished.
    """
    folder = run_dir / "steps" / step.folder
    if finished(folder) is None:
        raise DereasonError(
            f"the step {step.label!r} is not finished in {run_dir} (or was run by another version of dereason)",
            "run the recipe up to there first",
        )
    return folder.resolve()


def _start(model: ModelSettings) -> str:
    path = model_path(model)
    return str(Path(path).resolve()) if Path(path).is_dir() else path


def _warnings(exported: Exported) -> list[str]:
    found = ["a rollout that the verifier cannot judge (error) scores 0 in verl; our trainers leave it out"]
    if exported.model.revision is not None and not Path(exported.model.name).is_dir():
        found.append(
            f"verl takes no revision: it loads the main branch of {exported.model.name}, not "
            f"{exported.model.revision}; give actor_rollout_ref.model.path=FOLDER to pin it"
        )
    if exported.phase.dynamic_sampling is not None:
        found.append(
            "verl stops with an error where dynamic sampling finds too few mixed groups; ours goes on with less"
        )
    return found + unasked(exported.phase.rewards, exported.prompt)


def _head(exported: Exported, warnings: list[str]) -> str:
    origin = ", ".join(f"{key} {value}" for key, value in exported.origin.items() if value is not None)
    return (
        f"RL with verl {verl.VERL_VERSION}: {exported.name} ({origin}).\n"
        "GPUS=8 NNODES=1 sh run.sh [override ...]; every name is an option of verl's ppo_trainer configuration.\n"
        + "".join(f"Note: {warning}.\n" for warning in warnings)
    )


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
