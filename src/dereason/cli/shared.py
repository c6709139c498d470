"""What commands share: their options, the settings that these make, and how a result is printed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting by its dotted path; repeatable."),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout, and nothing else there.")]
Out = Annotated[Path, typer.Option("--out", help="Output folder; appears whole when the step is finished.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace an output made with other settings, once the new one is finished.")
]
Restart = Annotated[
    bool, typer.Option("--restart", help="Discard what an unfinished call left at OUT.partial, and begin again.")
]
Model = Annotated[
    str | None,
    typer.Option("--model", help="Hub id, local folder, or `embedded`; short for --set model.name=..."),
]
From = Annotated[
    str | None, typer.Option("--recipe", help="Take model, prompt and the step's settings from this recipe.")
]
Pool = Annotated[
    Path, typer.Argument(help="Problems: .jsonl, .json, .csv, .tsv or .parquet; --set problems.fields.… names fields.")
]
Routes = Annotated[Path | None, typer.Option(help="routes.parquet; without it, every problem is in the set.")]


def job_of(kind: Any, recipe: str | None, model: str | None, sets: list[str] | None) -> Any:
    """Settings of a single command: a recipe's sections, then --model, then --set."""
    from dereason.pipeline.jobs import JOBS
    from dereason.pipeline.reading import apply_override, parse
    from dereason.pipeline.recipe import find_recipe, load_recipe

    cls = JOBS[kind]
    data: dict[str, Any] = {}
    if recipe:
        whole = load_recipe(find_recipe(recipe)).model_dump(mode="json")
        # how the recipe's own files are read says nothing of the file that is given
        data = {k: v for k, v in whole.items() if k in cls.model_fields and k != "problems"}
    for text in [*([f"model.name={model}"] if model else []), *(sets or [])]:
        apply_override(data, text)
    return parse(cls, data, "settings")


def screen_of(quiet: bool) -> Any:
    """Where progress is shown."""
    from dereason.pipeline.progress import Screen

    return Screen(quiet=quiet)


def calling(as_json: bool, overwrite: bool, restart: bool) -> dict[str, Any]:
    """What all single steps are called with besides their settings and files."""
    return {"screen": screen_of(as_json), "overwrite": overwrite, "restart": restart}


def done(record: dict[str, Any], out: Path, as_json: bool) -> None:
    """Say what a finished single step left in its folder."""
    if as_json:
        print_json(record | {"out": str(out)})
    else:
        files = sorted(p.name + ("/" if p.is_dir() else "") for p in out.iterdir())
        sys.stdout.write(f"{out}: {', '.join(files)}\n")


def print_json(value: Any) -> None:
    """The result for machines."""
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    # a path need not be UTF-8; JSON's own escape is what an error handler of this name writes
    sys.stdout.write(text.encode("utf-8", "backslashreplace").decode("utf-8") + "\n")
