"""`kill -9` of whole runs at every point between a step's last output and its clean-up, and at random points anywhere.

What is compared with an undisturbed run: every table and weight, bit for bit, and the number of model calls. This file
is also the program that is killed: one process imports torch and TRL and computes nothing, each attempt is a fork of
it. A point is a change of the run directory (a file opened for writing, a rename, a removal), as Python's audit events
tell.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

pytestmark = pytest.mark.slow

POINTS = ("before the record", "before the rename", "before the clean-up", "in the clean-up")
RANDOM = 20
# in the order in which a run gets to them
KINDS = ("problems", "judge", "pass-rate", "profile", "route", "eval", "probe", "targets", "train-sft", "choose-start")
KINDS += ("train-rl", "train-joint", "analyse")
PLANNED = [(kind, point) for kind in KINDS for point in POINTS]
PLANNED = [(k, p) for k, p in PLANNED if p != "in the clean-up" or k not in ("problems", "profile", "route")]
"""These three leave one thing to be removed: there is no moment inside."""


def recipe_file(folder: Path, model: Path) -> Path:
    """A run with every kind of step."""
    gym = {"source": "reasoning_gym", "families": [{"family": "chain_sum", "size": 12}]}
    sampling = {"temperature": 1.0, "max_new_tokens": 6, "batch_size": 8}
    optimiser = {"learning_rate": 1e-3, "micro_batch": 4, "checkpoint_every": 1}
    rl = {"steps": 2, "prompts_per_generation": 2, "group_size": 3, "max_new_tokens": 6, "optimiser": optimiser}
    given = {"style": "answer"}
    phases = [
        {
            "kind": "sft",
            "batch": 2,
            "keep_checkpoints": 2,
            "optimiser": optimiser,
            "targets": [{"style": "self", "n": 2, "sampling": sampling}, given],
        },
        {
            "kind": "rl",
            **rl,
            "start": {"k": 2, "samples": 2, "problems": 2},
            "early_warning": {"every": 1, "problems": 2, "samples": 2, "k": 2, "share": 1},
        },
        {"kind": "joint", **rl, "targets": given, "method": {"name": "luffy"}},
    ]
    recipe = {
        "name": "tiny",
        "model": {"name": str(model)},
        "problems": {"train": gym | {"seed": 1}, "test": gym | {"seed": 2}, "audit": 0},
        "profile": {"pass_rate": {"k": 2, "sampling": sampling}},
        "arms": [{"name": "split", "route": {"policy": "quantile"}, "phases": phases}],
        "evaluation": {"samples": 2, "sampling": sampling},
        "analysis": {"problems": 3, "samples": 4, "sampling": sampling, "steps": None, "workers": 1},
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def changes(folder: Path, act: Callable[[str, Path], None]) -> None:
    """Have this process call ``act`` before each change inside a folder, with what is done to which path."""
    inside = str(folder)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = args
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if writes and isinstance(path, str | Path) and str(path).startswith(inside):
                act("write", Path(path))
        elif event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"):
            if str(args[0]).startswith(inside):
                act(event, Path(str(args[0])))
            elif event in ("os.remove", "os.rmdir") and len(args) > 1 and isinstance(args[1], int) and args[1] >= 0:
                where = os.readlink(f"/proc/self/fd/{args[1]}")  # rmtree works with names relative to folders
                if where.startswith(inside):
                    act(event, Path(where) / str(args[0]))

    sys.addaudithook(hook)


def at_point(steps: Path, kind: str, point: str, stop: Callable[[], None]) -> Callable[[str, Path], None]:
    """What stops this process at one point of the first step of a kind that gets there."""
    removals = Counter[str]()

    def act(event: str, path: Path) -> None:
        if steps not in path.parents or not path.relative_to(steps).parts[0].startswith(f"{kind}-"):
            return
        name = path.relative_to(steps).parts[0]
        if name.rsplit("-", 1)[0] != kind:
            return
        if point == "before the record" and event == "write" and path.name == "step.json.part":
            stop()
        if point == "before the rename" and event == "os.rename" and path.parent == steps:
            stop()
        if not name.endswith(".partial") and event in ("os.remove", "os.rmdir"):
            removals[name] += 1
            if removals[name] == (1 if point == "before the clean-up" else 2) and point in POINTS[2:]:
                stop()

    return act


def counting(calls: Path) -> None:
    """Have this process write a line for each model call: a batch of responses or scores, an optimiser step."""
    import torch

    from dereason.lm.local.model import LocalModel
    from dereason.training.rewards.rules import CorrectnessReward

    # A random model never answers right: every third rollout is rewarded, so that there is a gradient.
    CorrectnessReward.score = lambda self, rollouts, log: [float(i % 3 == 0) for i in range(len(rollouts))]  # type: ignore[method-assign]

    def note(words: str) -> None:
        with calls.open("a") as handle:
            handle.write(words + "\n")

    generate, scores, step = LocalModel.generate, LocalModel.choice_probabilities, torch.optim.AdamW.step

    def counted_generate(self: Any, *args: Any, **kwargs: Any) -> Any:
        for batch in generate(self, *args, **kwargs):
            note("generate")
            yield batch

    def counted_scores(self: Any, *args: Any, **kwargs: Any) -> Any:
        note("scores")
        return scores(self, *args, **kwargs)

    def counted_step(self: Any, *args: Any, **kwargs: Any) -> Any:
        note("optimiser step")
        return step(self, *args, **kwargs)

    LocalModel.generate, LocalModel.choice_probabilities = counted_generate, counted_scores  # type: ignore[method-assign]
    torch.optim.AdamW.step = counted_step  # type: ignore[method-assign]


def attempt(recipe: Path, folder: Path, plant: Callable[[], None]) -> int:
    """Start the run in a fork of this process; 0: finished, minus a signal's number: killed, 3: the planted error."""
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            from dereason.pipeline.recipe import load_recipe
            from dereason.pipeline.run import run_recipe

            counting(folder.with_name(folder.name + ".calls"))
            plant()
            run_recipe(load_recipe(recipe), folder, recipe.parent)
            code = 0
        except Planted:
            code = 3
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Planted(BaseException):
    """Raised at a planted point."""


def fail() -> None:
    raise Planted


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main(recipe: Path, folder: Path) -> None:
    """The undisturbed run, then one that is stopped at every point of every kind, then one killed at random."""
    import datasets  # noqa: F401
    import trl  # noqa: F401
    from trl import GRPOTrainer, SFTTrainer  # noqa: F401

    from dereason.analysis import findings  # noqa: F401
    from dereason.pipeline import run  # noqa: F401
    from dereason.report import write_report  # noqa: F401
    from dereason.training import rl, sft  # noqa: F401

    ends: dict[str, list[Any]] = {"whole": [], "points": [], "random": []}
    trace = folder / "events"

    def record() -> None:
        handle = trace.open("w")
        changes(folder / "whole", lambda event, path: print(event, path, file=handle, flush=True))

    ends["whole"].append(attempt(recipe, folder / "whole", record))
    total = len(trace.read_text().splitlines())

    cut = folder / "points"
    for at, (kind, point) in enumerate(PLANNED):
        stop = (fail, die)[at % 2]  # errors and kills by turns
        end = attempt(recipe, cut, lambda k=kind, p=point, s=stop: changes(cut, at_point(cut / "steps", k, p, s)))  # type: ignore[misc]
        ends["points"].append(end)
    ends["points"].append(attempt(recipe, cut, lambda: None))

    cut = folder / "random"
    rng = random.Random(7)
    for _ in range(RANDOM):
        left = iter(range(rng.randint(1, total // 5)))

        def act(event: str, path: Path, left: Any = left) -> None:
            if next(left, None) is None:
                die()

        ends["random"].append(attempt(recipe, cut, lambda a=act: changes(cut, a)))  # type: ignore[misc]
    ends["random"].append(attempt(recipe, cut, lambda: None))
    sys.stdout.write(json.dumps(ends) + "\n")


@pytest.fixture(scope="module")
def runs(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[int]]]:
    """The folder of the three runs, and how each attempt at them ended."""
    folder = tmp_path_factory.mktemp("points")
    done = subprocess.run(
        [sys.executable, __file__, str(recipe_file(folder, tiny_model)), str(folder)],
        capture_output=True,
        text=True,
        timeout=900,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    ends = json.loads(done.stdout.splitlines()[-1])
    assert all(last == 0 for *_, last in ends.values()), done.stderr
    return folder, ends


def outputs(run: Path) -> dict[str, bytes]:
    """What a run leaves, by path: all but logs, times, pages and locks, which hold the time."""
    found = {}
    for path in sorted(run.rglob("*")):
        name = str(path.relative_to(run))
        if not path.is_file() or path.suffix == ".html" or path.name in LOGS:
            continue
        if path.name == "step.json":
            record = json.loads(path.read_text())
            times = ("seconds", "finished", "resumed")
            info = {k: v for k, v in record["info"].items() if k not in MEASURED}
            found[name] = json.dumps({k: v for k, v in record.items() if k not in times} | {"info": info}).encode()
        elif path.suffix == ".jsonl":
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            found[name] = json.dumps([{k: v for k, v in row.items() if k not in MEASURED} for row in rows]).encode()
        elif path.suffix == ".parquet":
            found[name] = pl.read_parquet(path).write_json().encode()
        elif path.name != "summary.json":
            found[name] = path.read_bytes()
    return found


# what is said once a process (library.log) is said again, or by another one
LOGS = (".lock", "log.jsonl", "library.log", "manifest.json")
MEASURED = ("seconds", "tokens_per_second", "memory_gib", "peak_memory_bytes", "early_warning_share", "probe/seconds")


@pytest.mark.parametrize("cut", ["points", "random"])
def test_a_run_stopped_at_any_point_ends_as_if_it_had_not_been(
    cut: str, runs: tuple[Path, dict[str, list[int]]]
) -> None:
    folder, _ = runs
    whole, mine = outputs(folder / "whole"), outputs(folder / cut)
    assert whole.keys() == mine.keys()
    assert [name for name in whole if whole[name] != mine[name]] == []
    results = [json.loads((folder / run / "summary.json").read_text()) for run in ("whole", cut)]
    for key in ("results", "comparisons", "arms", "problems", "tokens", "artifacts"):
        assert results[0][key] == results[1][key], key
    kinds = {name.rsplit("-", 1)[0] for name in os.listdir(folder / "whole" / "steps")}
    assert kinds == set(KINDS), "the run has every kind of step"


def test_between_the_last_output_and_the_clean_up_no_model_call_is_lost(
    runs: tuple[Path, dict[str, list[int]]],
) -> None:
    folder, ends = runs
    stops = [(3, -signal.SIGKILL)[at % 2] for at in range(len(PLANNED))]
    assert [pair for pair, wanted, end in zip(PLANNED, stops, ends["points"], strict=False) if end != wanted] == []
    whole, cut = (Counter((folder / f"{run}.calls").read_text().split("\n")) for run in ("whole", "points"))
    assert whole == cut
    assert {"generate", "scores", "optimiser step"} < set(whole)


def test_random_kills_were_kills(runs: tuple[Path, dict[str, list[int]]]) -> None:
    assert runs[1]["random"].count(-signal.SIGKILL) >= RANDOM - 2, "the run may be finished a little earlier"


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
