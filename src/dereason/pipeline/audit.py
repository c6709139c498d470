"""``dereason problems audit``: a pool's references put to the test, and the same on a sample before every run.

Everything else refuses a file with a row that is no problem. Here such a row is a finding, named like the others.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from dereason.errors import DereasonError
from dereason.lm.base import Progress
from dereason.lm.prompts import Prompt
from dereason.pipeline.actions import Context
from dereason.pipeline.pool import load_problems
from dereason.pipeline.progress import Screen
from dereason.pipeline.recipe import Problems
from dereason.pipeline.responses import given, read_samples
from dereason.pipeline.store import Info, read_json, write_json
from dereason.problems.fields import Fields, Loaded, Refused, problems_of, sound_rows
from dereason.problems.files import read_rows
from dereason.problems.hygiene import check_unique_ids
from dereason.problems.schema import read_table
from dereason.problems.sources import GymSource, HubSource, ProblemFile, Source, read_file
from dereason.verify.audit.audit import GROUPS, audit
from dereason.verify.audit.evidence import evidence
from dereason.verify.audit.settings import AuditSettings, Limits
from dereason.verify.verdict import VERIFIER_VERSION
from dereason.verify.verifier import Item, Verifier, VerifierSettings, item_of

if TYPE_CHECKING:
    from dereason.pipeline.jobs import AuditJob

SCHEMA_VERSION = 1
FILE = "audit.json"
_ROOMS = ("problems", "verify", "pipeline/audit.py", "pipeline/responses.py", "report")
NAMED = 3
"""Problems of each finding that a warning of a run names."""


def audit_file(
    pool: Path,
    job: AuditJob,
    out: Path | None = None,
    *,
    samples: Sequence[str] = (),
    screen: Screen | None = None,
    overwrite: bool = False,
    restart: bool = False,
) -> Info:
    """Audit the references of a file.

    Args:
        pool: problems, in any file that a file source reads.
        job: settings.
        out: folder for ``audit.json`` and ``audit.html``; None writes nothing.
        samples: files of samples, as ``PATH`` or ``MODEL=PATH``, that are looked at for evidence.
        screen: where progress is shown; None shows none.
        overwrite: replace an output that came from other settings or files.
        restart: discard what an unfinished call left.

    Returns:
        The content of ``audit.json``; ``exceeded`` names the limits that it is above.

    Raises:
        DereasonError: the file is missing or malformed as a whole, ids stand twice, or a sample cannot be used.
    """
    screen = screen or Screen(quiet=True)
    files = [given(text) for text in samples]
    if out is None:
        with Verifier(job.verifier) as verifier:
            ctx = Context(prompt=Prompt(), screen=screen, verifier=verifier, label="audit")
            try:
                return _audited(pool, job, files, ctx)
            finally:
                screen.stop()
    from dereason.pipeline.single import run_single  # which builds the steps of runs, and a run has this one

    found: Info = {}

    def action(work: Path, ctx: Context) -> Info:
        from dereason.report import write_audit

        found.update(_audited(pool, job, files, ctx))
        write_json(work / FILE, found)
        write_audit(work)
        return {"words": words_of(found), "exceeded": found["exceeded"]}

    paths = {"problems": pool} | {
        f"samples {at}" + (f", {f.name}" if f.name else ""): f.path for at, f in enumerate(files)
    }
    run_single("audit", job, paths, out, action, screen=screen, overwrite=overwrite, restart=restart, rooms=_ROOMS)
    if not found:  # it stood there finished
        found.update(read_json(out / FILE))
    return found


def _audited(pool: Path, job: AuditJob, files: Sequence[Any], ctx: Context) -> Info:
    began = time.monotonic()
    settings = job.audit
    loaded, items, refused = read_references(pool, job.problems)
    for note in loaded.notes:
        ctx.screen.say(f"  {note}")
    drawn = sample(items, settings.size, settings.seed)
    ctx.label = "references"
    found = audit(drawn, ctx.verifier, settings, ctx.progress())
    ctx.screen.end(ctx.label, f"{len(drawn):,} problems, {found['references']:,} references")
    judged: Info | None = None
    if files:
        ctx.label = "samples"
        known = {*loaded.table["id"], *(row.id for row in refused if row.id)}
        tables = read_samples(files, problems=known, fields=job.samples)
        rows = [
            row
            for table in tables.values()
            for row in table.select("model", "problem_id", "response", pl.col("hit_limit").fill_null(False)).iter_rows()
        ]
        judged = evidence(rows, dict(items), ctx.verifier, settings.evidence, ctx.progress())
        ctx.screen.end(ctx.label, f"{len(rows):,} samples of {len(tables)} models")
    rows_in_all = len(items) + len(refused)
    # rows that are no problems were looked at all; the rest may be a sample
    shares = {
        "unmet": (found["problems"]["unmet"] + len(refused)) / max(1, len(drawn) + len(refused)),
        "missed": found["problems"]["missed"] / max(1, len(drawn)),
        "loose": found["problems"]["loose"] / max(1, len(drawn)),
        "doubted": None if judged is None else len(judged["doubted"]) / max(1, judged["problems"]),
    }
    return {
        "schema_version": SCHEMA_VERSION,
        "pool": pool.name,
        "rows": rows_in_all,
        "audited": len(drawn),
        "verifier": VERIFIER_VERSION,
        "settings": job.model_dump(mode="json", include={"audit", "verifier", "problems"}),
        "groups": GROUPS,
        "reading": list(loaded.notes),
        "refused": [{"place": str(row.place), "id": row.id, "why": row.cause} for row in refused],
        **found,
        "evidence": judged,
        "shares": shares,
        "exceeded": exceeded(shares, settings.limits),
        "seconds": round(time.monotonic() - began, 1),
    }


def exceeded(shares: Info, limits: Limits) -> list[str]:
    """The limits that the shares are above, by name."""
    bounds = limits.model_dump()
    return [n for n, share in shares.items() if share is not None and bounds[n] is not None and share > bounds[n]]


def words_of(found: Info) -> str:
    """The findings on one line."""
    problems = found["problems"]
    parts = [
        f"{found['audited']:,} of {found['rows']:,} problems",
        f"{problems['unmet'] + len(found['refused']):,} references that nothing can meet",
        f"{problems['missed']:,} with a rewriting that fails",
        f"{problems['loose']:,} that something else meets",
    ]
    if found["evidence"] is not None:
        parts.append(f"{len(found['evidence']['doubted']):,} that samples speak against")
    return ", ".join(parts)


def read_references(path: Path, how: ProblemFile) -> tuple[Loaded, list[tuple[str, Item]], list[Refused]]:
    """The problems of a file with what is judged of them, and the rows that are none.

    Raises:
        DereasonError: the file is missing, malformed as a whole, or no row of it is a problem; ids stand twice.
    """
    loaded, refused = _loaded(path, how)
    check_unique_ids(loaded.table, loaded.where, loaded.places)
    items: list[tuple[str, Item]] = []
    for place, row in zip(loaded.places, loaded.table.iter_rows(named=True), strict=True):
        if row["answer"] is None or not row["answer"].strip():
            refused.append(Refused(place, row["id"], "it has no answer"))
            continue
        try:
            items.append((row["id"], item_of("", False, row)))
        except DereasonError as exc:
            refused.append(Refused(place, row["id"], exc.cause))
    return loaded, items, sorted(refused, key=lambda one: one.place.number)


def _loaded(path: Path, how: ProblemFile) -> tuple[Loaded, list[Refused]]:
    try:
        return read_file(path, how.fields, how.limit), []
    except DereasonError:
        if path.suffix.lower() == ".parquet" and how.fields == Fields():
            raise
        rows = list(read_rows(path))
        name = path.with_suffix("").stem if path.suffix.lower() == ".gz" else path.stem
        sound, refused, fields = sound_rows(rows[: how.limit], how.fields, str(path), name)
        if not sound:
            raise
        return problems_of(sound, fields, str(path), name), refused


def sample(items: Sequence[tuple[str, Item]], size: int, seed: int) -> list[tuple[str, Item]]:
    """At most ``size`` of them at random (0: all), in their order."""
    if not size or size >= len(items):
        return list(items)
    drawn = np.random.default_rng(seed).permutation(len(items))[:size]
    return [items[at] for at in sorted(drawn.tolist())]


def do_audit(problems: Path, size: int, ctx: Context) -> Info:
    """What a run says of the references of its pool and its test set, by an audit of a sample of each."""
    warnings: list[str] = []
    audited, progress = 0, ctx.progress()
    for name in ("train", "test"):
        table = read_table("problem", problems / f"{name}.parquet")
        warnings += reference_warnings(table, f"problems.{name}", size, ctx.verifier, progress)
        audited += min(size, table.height)
    found = f"{len(warnings)} warnings" if warnings else "nothing found"
    return {"warnings": warnings, "audited": audited, "words": f"{audited:,} looked at, {found}"}


def planned_warnings(problems: Problems, base: Path, made: Path | None, verifier: VerifierSettings) -> list[str]:
    """The same before a run, of what can be read without the network.

    Of a generator only as many problems are made as are looked at, the first ones of each family.

    Args:
        problems: of the recipe.
        base: folder that relative paths start from.
        made: folder of the finished problems step, where there is one.
        verifier: limits of the verifier.
    """
    warnings: list[str] = []
    with Verifier(verifier) as own:
        for name in ("train", "test"):
            source: Source = getattr(problems, name)
            if made is not None:
                table = read_table("problem", made / f"{name}.parquet")
            elif isinstance(source, HubSource):
                continue
            else:
                if isinstance(source, GymSource):
                    most = -(-problems.audit // len(source.families))
                    few = [family.model_copy(update={"size": min(family.size, most)}) for family in source.families]
                    source = source.model_copy(update={"families": few})
                table, _, _ = load_problems(source, base, f"problems.{name}", problems.drop_unanswered)
            warnings += reference_warnings(table, f"problems.{name}", problems.audit, own)
    return warnings


def reference_warnings(
    table: pl.DataFrame,
    where: str,
    size: int,
    verifier: Verifier,
    progress: Progress = lambda done, total, words: None,
) -> list[str]:
    """What an audit of a sample finds, in words; the first few problems of each finding are named.

    Args:
        table: PROBLEM table.
        where: its name in the recipe.
        size: problems of the sample.
        verifier: what is audited.
        progress: told of finished references.
    """
    drawn = sample([(row["id"], item_of("", False, row)) for row in table.iter_rows(named=True)], size, 0)
    found = audit(drawn, verifier, AuditSettings(opinions=0, others=1), progress)
    all_of = f" ({table.height:,} in all)" if len(drawn) < table.height else ""
    of = f"of {len(drawn):,} references looked at{all_of}"
    warnings = []
    if unmet := found["unmet"]:
        named = "; ".join(f"{one['id']}: {one['why']}" for one in unmet[:NAMED])
        warnings.append(f"{where}: {len(unmet):,} {of} can be met by no response: {named}{_more(len(unmet))}")
    for key, what in (("missed", "not met by an answer that says the same"), ("loose", "met by something else")):
        if found[key]:
            named = "; ".join(f"{one['id']} ({one['rule']}: {_short(one['response'])})" for one in found[key][:NAMED])
            count = found["problems"][key]
            warnings.append(f"{where}: {count:,} {of} are {what}: {named}{_more(len(found[key]))}")
    return warnings


def _more(count: int) -> str:
    return f"; and {count - NAMED:,} more (`dereason problems audit` lists them)" if count > NAMED else ""


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return repr(flat if len(flat) <= 60 else flat[:59] + "…")
