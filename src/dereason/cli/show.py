"""Results as text on a terminal."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table


def _console() -> Console:
    return Console(highlight=False)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for at, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=at == 0)
    return table


def show_plan(plan: dict[str, Any]) -> None:
    """The resolved plan of a dry run."""
    out = _console()
    out.print(f"[bold]Plan of {plan['name']}[/] in {escape(plan['run_dir'])} (model {escape(plan['model'])})")
    out.print(f"  pool:     {plan['pool']['words']} problems; {escape(plan['pool']['note'])}")
    out.print(f"  held out: {plan['test']['words']} problems; {escape(plan['test']['note'])}")
    if plan["context"]["tokens"] is not None:
        out.print(f"  context:  {plan['context']['tokens']:,} tokens, prompt and response together")
    for arm, sets in plan["sets"].items():
        sizes = ", ".join(f"{name}: {count['words']}" for name, count in sets.items())
        out.print(f"  arm {arm}: {sizes}")
    for row in plan["steps"]:  # no table: with long names, nothing would be left of 80 columns for the work
        out.print(f"[bold]{escape(row['name'])}[/]  {row['state']}  [dim]{row['key']}[/]")
        for part in row["work"].split("; ") if row["work"] else []:
            out.print(Padding(escape(part), (0, 0, 0, 4)))
        if row["memory"] is not None:
            out.print(Padding(escape(f"memory: {row['memory']['words']}"), (0, 0, 0, 4)))
            for what in row["memory"]["unknown"]:
                out.print(Padding(escape(f"not in it: {what}"), (0, 0, 0, 4)))
    if plan["tried"] == "never":
        out.print("note: this recipe was never run as it stands: look at its plan, and try it small first")
    for what in plan["unknown"]:
        out.print(f"note: {escape(what)}")
    for what in plan["left_out"]:
        out.print(f"not planned: {escape(what)}")
    for what in plan["warnings"]:
        out.print(f"[yellow]warning:[/] {escape(what)}")
    for what in plan["slow"]:
        out.print(f"slow: {escape(what)}")
    for what in plan["differs"]:
        out.print(f"note: {escape(what)}")
    out.print(f"{plan['cached']} of {len(plan['steps'])} steps are cached. Nothing was run.")


def show_result(summary: dict[str, Any], folder: Path) -> None:
    """What a run found, and where the report is."""
    out = _console()
    note = summary["model"]["note"] or summary["model"]["name"]
    out.print()
    out.print(f"[bold]Accuracy on {summary['problems']['test']['n']} held-out problems[/] ({escape(note)})")
    table = _table("arm", "seed", "stage", "accuracy", "interval", "strict", "interval", "of answered")
    bases = [row for row in summary["results"] if row["stage"] == "base"]  # one model, for every arm and seed
    rows = bases[:1] + [row for row in summary["results"] if row["stage"] != "base"]
    for row in rows:
        base = row["stage"] == "base"
        answered = row["answered_accuracy"]
        table.add_row(
            "" if base else row["arm"],
            "" if base else str(row["seed"]),
            row["stage"],
            *_accuracy(row),
            *_accuracy(row["strict"]),
            "–" if answered is None else f"{100 * answered:.1f} %",
        )
    out.print(table)
    out.print("Strict: the response marks its answer (a box, a tag, ####, “the answer is”, a concluding letter).")
    for row in rows:
        out.print(Padding(escape(_responses(row)), (0, 0, 0, 2)))
    out.print(f"Paired differences, {100 * summary['results'][0]['level']:.0f} % intervals:")
    for row in summary["comparisons"]:
        sure = "" if row["low"] > 0 or row["high"] < 0 else "  (not distinguishable from zero)"
        out.print(
            f"  {row['arm']}, seed {row['seed']}: {row['from']} → {row['to']}: {100 * row['difference']:+.1f} points "
            f"\\[{100 * row['low']:+.1f}, {100 * row['high']:+.1f}]{sure}"
        )
        if (strict := row["strict"]) is not None:
            out.print(
                f"    strict: {100 * strict['difference']:+.1f} points "
                f"\\[{100 * strict['low']:+.1f}, {100 * strict['high']:+.1f}]"
            )
    if summary["reasoning"] is not None:
        show_analysis(summary["reasoning"])
    for warning in [*(summary["profile"] or {}).get("warnings", []), *summary["warnings"]]:
        out.print(f"[yellow]warning:[/] {escape(warning)}")
    memory = summary["peak_memory_bytes"] / 2**30
    tokens = summary["tokens"]
    out.print(
        f"{summary['seconds']:.0f} s of steps, {tokens['generated']:,} tokens generated, {tokens['trained']:,} "
        f"trained, peak memory {memory:.1f} GiB"
    )
    out.print(
        f"[bold]Report:[/] {escape(str(folder / 'report.html'))}   plain files: {escape(str(folder))}",
        soft_wrap=True,
    )


def _accuracy(found: dict[str, Any]) -> tuple[str, str]:
    return f"{100 * found['accuracy']:.1f} %", f"\\[{100 * found['low']:.1f}, {100 * found['high']:.1f}]"


def _responses(row: dict[str, Any]) -> str:
    """What was said of a stage's responses, and by which rules their answers were found."""
    total = max(1, sum(row["verdicts"].values()))
    verdicts = ", ".join(f"{100 * n / total:.0f} % {verdict}" for verdict, n in row["verdicts"].items() if n)
    rules = ", ".join(f"{rule} {100 * share:.0f} %" for rule, share in row["found_by"].items() if share >= 0.005)
    who = "base" if row["stage"] == "base" else f"{row['arm']}, seed {row['seed']}, {row['stage']}"
    return f"{who}: {verdicts}; answers found by {rules or 'no rule: there are none'}"


def show_analysis(found: dict[str, Any]) -> None:
    """The models of an analysis in numbers, then its verdicts."""
    out = _console()
    several = len(found["models"]) > 1  # one alone has no base to be relative to
    quantities = list(dict.fromkeys(q for model in found["models"] for q in model["decay_ratio"] if several))
    ranks = ", decay of rank curves relative to the base" if quantities else ""
    out.print(
        f"[bold]Reasoning[/]: unique trajectories among {found['responses']} responses to each of {found['problems']} "
        f"problems{ranks} ({100 * found['level']:.0f} % intervals)"
    )
    shown = ["between" if q == "betweenness" else q for q in quantities]  # 80 columns hold no more
    table = _table("model", "correct", "unique correct", "unique incorrect", *shown)
    for model in found["models"]:
        judged = sum(count for verdict, count in model["verdicts"].items() if verdict != "error")
        table.add_row(
            escape(model["name"]),
            f"{100 * model['verdicts'].get('correct', 0) / max(1, judged):.1f} %",
            *(_interval(model["unique"].get(side)) for side in ("correct", "incorrect")),
            *("1" if model["base"] else _interval(model["decay_ratio"].get(q)) for q in quantities),
        )
    out.print(table)
    for row in found["verdicts"]:
        pair = escape(f"{row['before']} → {row['after']}" + (f" ({row['phase']})" if row["phase"] else ""))
        out.print(f"  {pair}: [bold]{row['verdict']}[/]")
        out.print(Padding(escape(row["because"]), (0, 0, 0, 4)))


def _interval(value: dict[str, Any] | None) -> str:
    return "–" if value is None else f"{value['estimate']:.2f} \\[{value['low']:.2f}, {value['high']:.2f}]"


def show_findings(found: list[dict[str, Any]]) -> None:
    """What doctor found."""
    out = _console()
    colour = {"ok": "green", "slow": "yellow", "broken": "red"}
    table = _table("check", "", "found", "mend")
    for row in found:
        state = f"[{colour[row['state']]}]{row['state']}[/]"
        table.add_row(row["check"], state, escape(row["found"]), escape(row["mend"]))
    out.print(table)


def show_recipes(rows: list[dict[str, Any]]) -> None:
    """Shipped recipes, and on what each was run."""
    for row in rows:
        tried = "never run as it stands; its plan is checked" if row["tried"] == "never" else f"run on {row['tried']}"
        sys.stdout.write(f"{row['name']}\n    {row['description']}\n    {tried}\n    {row['path']}\n")


def show_fields(rows: list[tuple[str, str, str, str]]) -> None:
    """Fields of a recipe."""
    out = _console()
    for path, kind, default, words in rows:
        out.print(f"[bold]{escape(path)}[/]  {escape(kind)}" + (f"  = {escape(default)}" if default else ""))
        out.print(f"    {escape(words)}")


def show_audit(found: dict[str, Any], shown: int) -> None:
    """What an audit found: a table by kind, then every finding, the first of each kind of finding."""
    out = _console()
    out.print(f"[bold]Tried, and held[/] (less what failed), on {found['references']:,} different references, by kind")
    table = _table("kind", "n", *found["groups"])
    for kind, n in found["kinds"].items():
        rows = [row for row in found["table"] if row["kind"] == kind]
        counts = [_tried([row for row in rows if row["group"] == group]) for group in found["groups"]]
        table.add_row(kind, f"{n:,}", *counts)
    out.print(table)
    for row in found["table"]:
        if row["failed"]:
            what = escape(f"{row['kind']}, {row['group']}: {row['rule']}")
            out.print(f"  {what}: {row['failed']:,} of {row['n']:,} failed")
    refused = [
        f"{row['place']}" + (f" ({row['id']})" if row["id"] else "") + f": {row['why']}" for row in found["refused"]
    ]
    _findings(out, "Rows that are no problems", refused, shown)
    unmet = [f"{row['id']}: {_brief(row['reference'])}: {row['why']}" for row in found["unmet"]]
    _findings(out, "References that nothing can meet", unmet, shown)
    for key, title in (("missed", "Not met by what says the same"), ("loose", "Met by something else")):
        lines = [
            f"{row['id']} ({row['kind']}; {row['rule']}): {_brief(row['reference'])} and {_brief(row['response'])}: "
            f"{row['verdict']}{_opinion(row['math_verify'])}"
            for row in found[key]
        ]
        _findings(out, title, lines, shown)
    opinions = found["opinions"]
    if opinions is not None and opinions["asked"]:
        lines = [
            f"{row['id']} ({row['kind']}; {row['rule']}): {_brief(row['reference'])} and {_brief(row['answer'])}: "
            f"we say {'equal' if row['ours'] else 'different'}"
            for row in opinions["differing"]
        ]
        title = (
            f"math-verify says otherwise ({opinions['asked']:,} pairs asked, {opinions['no_opinion']:,} not read by it)"
        )
        _findings(out, title, lines, shown)
    if found["evidence"] is not None:
        lines = [
            f"{row['id']}: {_brief(row['reference'])}"
            + (f", but {_brief(row['answer'])}" if row["answer"] else "")
            + f": {row['words']}"
            for row in found["evidence"]["doubted"]
        ]
        _findings(out, "References that samples speak against", lines, shown)
    limits = found["settings"]["audit"]["limits"]
    for name, share in found["shares"].items():
        if share is not None:
            bound = "any" if limits[name] is None else f"at most {100 * limits[name]:g} %"
            mark = "[red]above the limit[/]" if name in found["exceeded"] else "[green]ok[/]"
            out.print(f"{name}: {100 * share:.2f} % ({bound}) {mark}")


def _tried(rows: list[dict[str, Any]]) -> str:
    tried, failed = sum(row["n"] for row in rows), sum(row["failed"] for row in rows)
    return "–" if not rows else f"{tried:,}" + (f" less {failed:,}" if failed else "")


def _findings(out: Console, title: str, lines: list[str], shown: int) -> None:
    if lines:
        out.print(f"[bold]{escape(title)}[/]: {len(lines):,}")
        for line in lines[:shown]:
            out.print(Padding(escape(line), (0, 0, 0, 2)))
        if len(lines) > shown:
            out.print(f"  and {len(lines) - shown:,} more (--json has them all)")


def _brief(text: str) -> str:
    flat = " ".join(text.split())
    return repr(flat if len(flat) <= 70 else flat[:69] + "…")


def _opinion(opinion: bool | None) -> str:
    return "" if opinion is None else f"; math-verify: {'equal' if opinion else 'different'}"
