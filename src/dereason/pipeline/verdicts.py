"""``dereason verify``: verdicts for a file of responses, and nothing else.

One JSON object a line. Read: ``response`` and ``answer``; ``options`` and ``hit_limit`` where a row has them. Every
row is written again as it was, with the verifier's fields behind it. The whole file is checked before the first
response is judged, and the output appears when it is complete. Until then finished rows stand in a file beside it,
from which an interrupted call goes on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

from dereason.errors import DereasonError
from dereason.pipeline.progress import Screen
from dereason.pipeline.store import Info
from dereason.verify.confusion import tabulate
from dereason.verify.verdict import VERIFIER_VERSION, Judgement
from dereason.verify.verifier import Item, Verifier, VerifierSettings, item_of

FIELDS = ("verdict", "extracted", "extracted_at", "how", "kind", "reason")
"""What is added to each row."""
BATCH = 1000


def verify_file(
    path: Path,
    out: Path,
    settings: VerifierSettings,
    *,
    screen: Screen | None = None,
    overwrite: bool = False,
) -> Info:
    """Judge every row of a JSON Lines file and write the rows with their verdicts to another.

    Args:
        path: rows with ``response`` (text) and ``answer`` (text, number or boolean), maybe ``options`` (list of
            texts) and ``hit_limit`` (boolean; false where it is missing).
        out: written whole when all rows are judged; its folder is made where it is missing.
        settings: limits of the verifier.
        screen: where progress is shown; None shows none.
        overwrite: replace an ``out`` that holds verdicts of an earlier call; no other file is ever replaced.

    Returns:
        ``rows``, ``verifier`` (its version), ``settings`` and ``confusion``.

    Raises:
        DereasonError: ``out`` is there already, or a row cannot be used: file, row and field are named, and
            nothing has been written.

    A call that was interrupted leaves ``OUT.KEY.part`` (the key is of limits and verifier version). The same call
    goes on from there, with the rows that equal those of the input; its result is that of an uninterrupted one.
    """
    screen = screen or Screen(quiet=True)
    total = sum(1 for _ in _items(path))
    if total == 0:
        raise DereasonError(f"{path}: no rows in it", "give one JSON object a line, with response and answer")
    _check_out(path, out, overwrite)
    out.parent.mkdir(parents=True, exist_ok=True)
    key = sha256(json.dumps([VERIFIER_VERSION, settings.key()], sort_keys=True).encode()).hexdigest()[:8]
    part = out.with_name(f"{out.name}.{key}.part")
    seen, size = _finished(part, path)
    progress = screen.step("verify")
    try:
        with Verifier(settings) as verifier, part.open("ab") as handle:
            handle.truncate(size)
            progress(len(seen), total, f"{len(seen):,} from before" if seen else "")
            rows = islice(_items(path), len(seen), None)
            while batch := list(islice(rows, BATCH)):
                judged = verifier.judge_many([item for _, item in batch])
                for (row, _), judgement in zip(batch, judged, strict=True):
                    handle.write(_line(row | _fields(judgement)))
                handle.flush()
                seen += [_seen(_fields(j)) for j in judged]
                progress(len(seen), total, "")
        part.replace(out)
    finally:
        screen.stop()
    return {
        "rows": total,
        "verifier": VERIFIER_VERSION,
        "settings": settings.model_dump(mode="json"),
        "confusion": tabulate(seen),
    }


Seen = tuple[str, str | None, str | None, str | None]


def _seen(fields: dict[str, Any]) -> Seen:
    """What the summary needs of a judged row."""
    reason = fields["reason"] if fields["verdict"] == "error" else None
    return fields["verdict"], fields["kind"], fields["how"], reason


def _finished(part: Path, path: Path) -> tuple[list[Seen], int]:
    """What an interrupted call left: its rows that equal the input's, from the first on, and their bytes."""
    seen: list[Seen] = []
    size = 0
    if not part.is_file():
        return seen, size
    with part.open("rb") as handle:
        for line, (row, _) in zip(handle, _items(path), strict=False):
            try:
                written = json.loads(line)
            except ValueError:  # the line that a kill cut short
                break
            if not line.endswith(b"\n") or {k: v for k, v in written.items() if k not in FIELDS} != row:
                break
            seen.append(_seen(written))
            size += len(line)
    return seen, size


def _fields(judgement: Judgement) -> dict[str, Any]:
    place = None if judgement.start is None else [judgement.start, judgement.end]
    return {name: {**judgement.columns(), "extracted_at": place}[name] for name in FIELDS}


def _line(row: dict[str, Any]) -> bytes:
    try:
        return json.dumps(row, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:  # half a surrogate pair, which JSON can carry and UTF-8 cannot
        return json.dumps(row).encode() + b"\n"


def _items(path: Path) -> Iterator[tuple[dict[str, Any], Item]]:
    """Each row with what is judged of it, checked."""
    if not path.is_file():
        raise DereasonError(f"{path}: no such file", "check the path")
    with path.open("rb") as handle:
        for number, line in enumerate(handle, 1):
            if line.strip():
                where = f"{path}: row {number}"
                try:
                    row = json.loads(line.decode("utf-8"))
                except (ValueError, RecursionError) as exc:
                    raise DereasonError(f"{where} is not JSON ({exc})", "mend that line") from exc
                yield row, _item(row, where)


def _item(row: Any, where: str) -> Item:
    if not isinstance(row, dict):
        raise DereasonError(f"{where} is a {type(row).__name__}", "each row must be an object")
    clash = [name for name in FIELDS if name in row]
    if clash:
        raise DereasonError(
            f"{where} has a field {clash[0]!r} already, which the verdict would replace",
            f"rename it, or leave it out (added are {', '.join(FIELDS)})",
        )
    response, answer = row.get("response"), row.get("answer")
    options, hit_limit = row.get("options"), row.get("hit_limit")
    if not isinstance(response, str):
        raise _bad(row, where, "response", "a text (an empty one is allowed)")
    if isinstance(answer, bool | int | float):
        answer = json.dumps(answer)
    if not isinstance(answer, str) or not answer.strip():
        raise _bad(row, where, "answer", "a text that is not empty, a number or a boolean")
    if options is not None and not (isinstance(options, list) and all(isinstance(o, str) for o in options)):
        raise _bad(row, where, "options", "a list of texts, or null")
    if hit_limit is not None and not isinstance(hit_limit, bool):
        raise _bad(row, where, "hit_limit", "true, false or null")
    more = {name: row[name] for name in ("accepted", "tolerance") if row.get(name) is not None}
    problem = {"id": where, "answer": answer, "options": options, "source": row.get("source")}
    problem["metadata"] = json.dumps(more)
    return item_of(response, bool(hit_limit), problem)


def _bad(row: dict[str, Any], where: str, name: str, wanted: str) -> DereasonError:
    if name not in row:
        return DereasonError(f"{where} has no field {name!r} (it has {', '.join(row) or 'none'})", f"give {wanted}")
    shown = json.dumps(row[name])
    return DereasonError(f"{where}: {name} is {shown if len(shown) <= 60 else shown[:59] + '…'}", f"give {wanted}")


def _check_out(path: Path, out: Path, overwrite: bool) -> None:
    if not out.exists():
        return
    if not out.is_file() or out.samefile(path) or not _ours(out):
        raise DereasonError(f"{out} exists and holds no verdicts of dereason", "choose another --out")
    if not overwrite:
        raise DereasonError(f"{out} exists", "choose another --out, or give --overwrite")


def _ours(out: Path) -> bool:
    """Whether the first row of a file has the fields that we add."""
    with out.open("rb") as handle:
        try:
            row = json.loads(handle.readline())
        except (ValueError, RecursionError):
            return False
    return isinstance(row, dict) and set(FIELDS) <= set(row)
