"""``dereason problems ...``: what a pool is like before anything is done with it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from dereason.cli.shared import Json, Overwrite, Pool, Restart, Sets, calling, job_of, print_json

app = typer.Typer(no_args_is_help=True, help="Look at problems before they are trained on.")


@app.callback()
def _group() -> None:
    """A group, of however many commands."""


@app.command()
def audit(
    pool: Pool,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for audit.json and the page audit.html.")] = None,
    samples: Annotated[
        list[str] | None,
        typer.Option(help="Samples of models, as PATH or MODEL=PATH, as evidence against references. Repeatable."),
    ] = None,
    sets: Sets = None,
    overwrite: Overwrite = False,
    restart: Restart = False,
    as_json: Json = False,
) -> None:
    """Test a pool's references: what meets them, what must not, what nothing can. Exit code 1 above a limit."""
    from dereason.cli.show import show_audit
    from dereason.pipeline.audit import audit_file

    job = job_of("audit", None, None, sets)
    try:
        found = audit_file(pool, job, out, samples=samples or [], **calling(as_json, overwrite, restart))
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted; an audit begins anew\n")
        raise typer.Exit(130) from None
    if as_json:
        print_json(found | {"out": None if out is None else str(out)})
    else:
        show_audit(found, job.audit.shown)
        if out is not None:
            sys.stdout.write(f"page: {out / 'audit.html'}   numbers: {out / 'audit.json'}\n")
    if found["exceeded"]:
        raise typer.Exit(1)
