"""The command line: a thin shell over :mod:`dereason.pipeline`. Heavy imports happen inside the commands."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from dereason.cli import problems
from dereason.cli.shared import (
    From,
    Json,
    Model,
    Out,
    Overwrite,
    Pool,
    Restart,
    Routes,
    Sets,
    calling,
    done,
    job_of,
    print_json,
    screen_of,
)
from dereason.errors import DereasonError, disk_full, out_of_memory, refused_path

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Decide which training problem belongs to SFT and which to RL, and measure what the decision gained.",
)
recipe_app = typer.Typer(no_args_is_help=True, help="Look at recipes.")
train_app = typer.Typer(no_args_is_help=True, help="Train a model on files: one phase.")
app.add_typer(recipe_app, name="recipe")
app.add_typer(train_app, name="train")
app.add_typer(problems.app, name="problems")


@app.callback()
def _main(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks. Also: DEREASON_DEBUG=1.")] = False,
) -> None:
    if debug:
        os.environ["DEREASON_DEBUG"] = "1"


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped one.")],
    sets: Sets = None,
    run_dir: Annotated[Path | None, typer.Option(help="Run directory; default runs/NAME.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved plan and run nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Run a recipe: profile, route, supervise, train, evaluate, report. Run again to continue or to reuse."""
    from dereason.pipeline.recipe import find_recipe, load_recipe

    path = find_recipe(recipe)
    loaded = load_recipe(path, sets)
    folder = run_dir or Path("runs") / loaded.name
    if dry_run:
        from dereason.cli.show import show_plan
        from dereason.pipeline.plan import check_memory, make_plan
        from dereason.pipeline.recipe import resolved_yaml

        plan = make_plan(loaded, folder, path.parent)
        if as_json:
            print_json(plan | {"recipe": loaded.model_dump(mode="json")})
        else:
            sys.stdout.write(resolved_yaml(loaded) + "\n")
            show_plan(plan)
        check_memory(plan)
        return
    from dereason.cli.show import show_result
    from dereason.pipeline.run import run_recipe

    screen = screen_of(as_json)
    screen.say(f"dereason: recipe {loaded.name} ({path}) in {folder}")
    summary = run_recipe(loaded, folder, path.parent, screen)
    if as_json:
        print_json(summary | {"run_dir": str(folder)})
    else:
        show_result(summary, folder)


@app.command()
def profile(
    pool: Pool,
    out: Out,
    model: Model = None,
    recipe: From = None,
    sets: Sets = None,
    overwrite: Overwrite = False,
    restart: Restart = False,
    as_json: Json = False,
) -> None:
    """Measure each problem's difficulty: judge scores and the student's pass rate."""
    from dereason.pipeline import single

    job = job_of("profile", recipe, model, sets)
    done(single.profile(pool, job, out, **calling(as_json, overwrite, restart)), out, as_json)


@app.command()
def route(
    pool: Pool,
    out: Out,
    profiles: Annotated[Path | None, typer.Option(help="profiles.parquet from `dereason profile`.")] = None,
    policy: Annotated[
        str | None,
        typer.Option(help="threshold, quantile, random, reversed, domain_matched, pass_rate or all."),
    ] = None,
    sets: Sets = None,
    overwrite: Overwrite = False,
    restart: Restart = False,
    as_json: Json = False,
) -> None:
    """Assign each problem to a set, with the reason."""
    from dereason.pipeline import single

    given = [*([f"policy={policy}"] if policy else []), *(sets or [])]
    outside = ("problems.", "problems=")  # all other settings are the policy's
    job = job_of("route", None, None, [t if t.startswith(outside) else f"route.{t}" for t in given])
    done(single.route(pool, profiles, job, out, **calling(as_json, overwrite, restart)), out, as_json)


@app.command()
def supervise(
    pool: Pool,
    out: Out,
    routes: Routes = None,
    from_set: Annotated[str, typer.Option(help="Which routed set.")] = "sft",
    style: Annotated[
        str | None, typer.Option(help="solution, steps, answer, teacher, self, bridge or critique.")
    ] = None,
    model: Model = None,
    attempts: Annotated[
        Path | None, typer.Option(help="samples.parquet of a profile: what self and bridge read of the student.")
    ] = None,
    rollouts: Annotated[Path | None, typer.Option(help="samples.parquet of an RL phase, for critique.")] = None,
    sets: Sets = None,
    overwrite: Overwrite = False,
    restart: Restart = False,
    as_json: Json = False,
) -> None:
    """Build the targets that an SFT phase imitates."""
    from dereason.pipeline import single

    # the default style is named, or settings of it alone would name none
    job = job_of("supervise", None, model, [f"targets.style={style or 'solution'}", *(sets or [])])
    record = single.supervise(
        pool,
        routes,
        from_set,
        job,
        out,
        attempts=attempts,
        rollouts=rollouts,
        **calling(as_json, overwrite, restart),
    )
    done(record, out, as_json)


@train_app.command("sft")
def train_sft(
    pool: Pool,
    targets: Annotated[Path, typer.Option(help="targets.parquet from `dereason supervise`.")],
    out: Out,
    model: Model = None,
    sets: Sets = None,
    overwrite: Overwrite = False,
    restart: Restart = False,
    as_json: Json = False,
) -> None:
    """Supervised fine-tuning on targets."""
    from dereason.pipeline import single

    job = job_of("sft", None, model, sets)
    done(single.train_sft(pool, targets, job, out, **calling(as_json, overwrite, restart)), out, as_json)


@train_app.command("rl")
def train_rl(
    pool: Pool,
    out: Out,
    routes: Routes = None,
    from_set: Annotated[str, typer.Option(help="Which routed set.")] = "rl",
    model: Model = None,
    sets: Sets = None,
    overwrite: Overwrite = False,
    restart: Restart = False,
    as_json: Json = False,
) -> None:
    """Reinforcement learning (GRPO) on problems."""
    from dereason.pipeline import single

    job = job_of("rl", None, model, [f"set={from_set}", *(sets or [])])
    done(single.train_rl(pool, routes, job, out, **calling(as_json, overwrite, restart)), out, as_json)


@train_app.command("joint")
def train_joint(
    pool: Pool,
    targets: Annotated[Path, typer.Option(help="targets.parquet from `dereason supervise`: the demonstrations.")],
    out: Out,
    method: Annotated[str | None, typer.Option(help="See `dereason methods`.")] = None,
    routes: Routes = None,
    from_set: Annotated[str, typer.Option(help="Which routed set.")] = "rl",
    model: Model = None,
    sets: Sets = None,
    overwrite: Overwrite = False,
    restart: Restart = False,
    as_json: Json = False,
) -> None:
    """SFT on demonstrations and reinforcement learning mixed in every update."""
    from dereason.pipeline import single

    given = [f"set={from_set}", *([f"phase.method.name={method}"] if method else []), *(sets or [])]
    job = job_of("joint", None, model, given)
    record = single.train_rl(pool, routes, job, out, targets=targets, **calling(as_json, overwrite, restart))
    done(record, out, as_json)


@app.command()
def methods(as_json: Json = False) -> None:
    """List the ways to combine SFT and RL: paper, rule, what each needs, and how a recipe names it."""
    from dereason.training.joint.methods import listed

    rows = listed()
    if as_json:
        print_json(rows)
        return
    for row in rows:
        paper = f"  arXiv {row['paper']}" if row["paper"] else ""
        sys.stdout.write(
            f"{row['name']}{paper}\n    {row['rule']}\n    needs {row['needs']}; in a recipe: {row['recipe']}\n"
        )


@app.command("eval")
def evaluate(
    pool: Pool,
    out: Out,
    model: Model = None,
    recipe: From = None,
    sets: Sets = None,
    overwrite: Overwrite = False,
    restart: Restart = False,
    as_json: Json = False,
) -> None:
    """Score a model on problems, with intervals and verdict shares."""
    from dereason.pipeline import single

    job = job_of("eval", recipe, model, sets)
    done(single.evaluate(pool, job, out, **calling(as_json, overwrite, restart)), out, as_json)


@app.command()
def analyze(
    samples: Annotated[
        list[str],
        typer.Argument(
            help="Samples: tables of ours, or JSON Lines, CSV or Parquet of anywhere, as PATH or MODEL=PATH."
        ),
    ],
    out: Out,
    base: Annotated[
        str | None, typer.Option(help="The model that others are compared with; default the first.")
    ] = None,
    compare: Annotated[
        list[str] | None,
        typer.Option(metavar="A:B[:PHASE]", help="Compare B with A; PHASE is sft, rl or joint. Repeatable."),
    ] = None,
    problems: Annotated[
        Path | None, typer.Option(help="The problems: for verdicts that are missing, and for the page.")
    ] = None,
    pool: Annotated[bool, typer.Option("--pool", help="Take all samples for samples of one model.")] = False,
    sets: Sets = None,
    overwrite: Overwrite = False,
    restart: Restart = False,
    as_json: Json = False,
) -> None:
    """Say how training reshaped reasoning: unique trajectories, reasoning graphs, and what squeezed or expanded it."""
    from dereason.pipeline.analyze import analyze as run_analysis

    job = job_of("analyze", None, None, sets)
    given = {"base": base, "compare": compare, "pool": pool}
    job = job.model_copy(update={name: value for name, value in given.items() if value})
    record = run_analysis(samples, job, out, problems=problems, **calling(as_json, overwrite, restart))
    if as_json:
        print_json(record | {"out": str(out)})
    else:
        from dereason.cli.show import show_analysis

        show_analysis(record["info"])
        sys.stdout.write(f"page: {out / 'analysis.html'}   numbers: {out / 'findings.json'}\n")


@app.command()
def verify(
    file: Annotated[
        Path,
        typer.Argument(help="Rows with response and answer, maybe options and hit_limit: JSON Lines, CSV, Parquet."),
    ],
    out: Annotated[Path, typer.Option("--out", help="JSON Lines: the rows with their verdicts.")],
    sets: Sets = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the verdicts of an earlier call.")] = False,
    as_json: Json = False,
) -> None:
    """Judge responses against reference answers: correct, wrong, unparsable, truncated or error, and why."""
    from dereason.pipeline.reading import apply_override, parse
    from dereason.pipeline.verdicts import VerifyJob, verify_file
    from dereason.verify.confusion import lines

    data: dict[str, Any] = {}
    for text in sets or []:
        apply_override(data, text)
    job = parse(VerifyJob, data, "settings")
    try:
        found = verify_file(file, out, job, screen=screen_of(as_json), overwrite=overwrite)
    except KeyboardInterrupt:
        raise typer.Exit(_fail("interrupted; the same command goes on from the last batch", 130)) from None
    if as_json:
        print_json(found | {"out": str(out)})
    else:
        sys.stdout.write("\n".join([*lines(found["confusion"]), f"{out}: {found['rows']:,} rows"]) + "\n")


@app.command()
def report(
    run_dir: Annotated[Path, typer.Argument(help="A run directory, or the output folder of an analysis.")],
    as_json: Json = False,
) -> None:
    """Write report.html again from summary.json and the tables that it lists, or analysis.html from findings.json."""
    from dereason.report import write_analysis, write_report

    path = (write_analysis if (run_dir / "findings.json").is_file() else write_report)(run_dir)
    if as_json:
        print_json({"report": str(path)})
    else:
        sys.stdout.write(f"report: {path}\n")


@app.command()
def export(
    source: Annotated[Path, typer.Argument(help="A run directory, or a problems file.")],
    out: Annotated[Path, typer.Option("--out", help="Output folder; appears whole.")],
    to: Annotated[str, typer.Option("--to", help="The trainer: verl.")] = "verl",
    arm: Annotated[str | None, typer.Option(help="Of a run: the arm; needed where several have an RL phase.")] = None,
    phase: Annotated[int | None, typer.Option(help="Of a run: number of the RL phase; default the first.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of a run: training seed; default the recipe's first.")] = None,
    test: Annotated[Path | None, typer.Option(help="With a problems file: held-out problems.")] = None,
    routes: Routes = None,
    from_set: Annotated[str | None, typer.Option(help="With a problems file: which routed set.")] = None,
    model: Model = None,
    sets: Sets = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export.")] = False,
    as_json: Json = False,
) -> None:
    """Write an RL phase for another trainer: data, reward and launch script for verl, which runs RL on Ray."""
    from dereason.pipeline.export import from_files, from_run, to_verl

    if to != "verl":
        raise DereasonError(f"--to {to}: no such trainer", "give verl")
    if source.is_dir():
        if test or routes or from_set or model or sets:
            raise DereasonError(
                "--test, --routes, --from-set, --model and --set go with a problems file",
                "leave them out: a run's recipe says all that",
            )
        found = from_run(source, arm=arm, phase=phase, seed=seed)
    else:
        if arm or phase or seed is not None:
            raise DereasonError(
                "--arm, --phase and --seed go with a run directory", "use --set phase.… and --set seed=…"
            )
        if test is None:
            raise DereasonError("a problems file needs held-out problems beside it", "give --test FILE")
        job = job_of("export", None, model, [f"set={from_set or 'rl'}", *(sets or [])])
        found = from_files(source, test, job, held_out=job.held_out, routes=routes)
    info = to_verl(found, out, overwrite=overwrite)
    if as_json:
        print_json(info | {"out": str(out)})
        return
    for note in [*info["reading"], *info["warnings"]]:
        sys.stderr.write(f"note: {note}\n")
    rows = ", ".join(f"{count:,} {split}" for split, count in info["rows"].items())
    sys.stdout.write(f"{out}: {rows} problems; start it with GPUS=8 sh {out / 'run.sh'}\n")


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what is installed, which device is used, what would be slow or broken, and how to mend it."""
    from dereason.cli.show import show_findings
    from dereason.pipeline.doctor import examine

    found = examine()
    if as_json:
        print_json(found)
    else:
        show_findings(found)
    if any(f["state"] == "broken" for f in found):
        raise typer.Exit(1)


@app.command()
def recipes(as_json: Json = False) -> None:
    """List the shipped recipes."""
    from dereason.cli.show import show_recipes
    from dereason.pipeline.recipe import load_recipe, shipped

    rows = [
        {"name": name, "path": str(path), "description": found.description, "tried": found.tried}
        for name, path in shipped().items()
        for found in [load_recipe(path)]
    ]
    if as_json:
        print_json(rows)
    else:
        show_recipes(rows)


@recipe_app.command("explain")
def explain_recipe(
    section: Annotated[str, typer.Argument(help="Only fields whose path begins so, for example profile.")] = "",
    as_json: Json = False,
) -> None:
    """Describe every field of a recipe."""
    from dereason.cli.show import show_fields
    from dereason.pipeline.reading import explain
    from dereason.pipeline.recipe import Recipe

    rows = [r for r in explain(Recipe) if r[0].startswith(section)]
    if not rows:
        raise DereasonError(f"no field begins with {section!r}", "leave the argument out to see them all")
    if as_json:
        print_json([dict(zip(("field", "type", "default", "description"), r, strict=True)) for r in rows])
    else:
        show_fields(rows)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0: done. 1: `doctor` or `problems audit` found faults. 2: wrong usage, or an error with a known cause (one line on
    stderr). 3: an error that we did not foresee, a bug: one line, and the traceback with ``--debug``. 130: interrupted.
    """
    try:
        code = app(args=arguments, standalone_mode=False)
        return code if isinstance(code, int) else 0
    except KeyboardInterrupt:
        return _fail("interrupted; the same command continues where it stopped", 130)
    except typer.Abort:
        return _fail("interrupted; the same command continues where it stopped", 130)
    except DereasonError as exc:
        _traceback()
        return _fail(exc.line(), 2)
    except Exception as exc:  # the outermost frame: everything becomes one line here
        if hasattr(exc, "format_message"):  # click's usage errors
            return _fail(f"{exc.format_message()} (see --help)", 2)
        _traceback()
        if disk_full(exc):
            return _fail(
                f"the disk is full ({exc}) — free some space and run the same command again: finished steps and "
                "model calls are kept",
                2,
            )
        if out_of_memory(exc):
            return _fail(
                "out of memory — lower the batch_size of the step that was running, or its max_new_tokens; finished "
                "steps are kept, this one begins again",
                2,
            )
        if (words := refused_path(exc)) is not None:
            return _fail(f"{words} — check the path and its permissions", 2)
        return _fail(f"unexpected {type(exc).__name__}: {exc} — run again with --debug and report it", 3)


def _fail(message: str, code: int) -> int:
    sys.stderr.write("error: " + " ".join(message.split()) + "\n")
    return code


def _traceback() -> None:
    if os.environ.get("DEREASON_DEBUG") == "1":
        import traceback

        traceback.print_exc()


def run_cli() -> None:
    """Entry point of the ``dereason`` command."""
    sys.exit(main())
