"""Inputs that nobody wrote: values of JSON, rows with them, and files with bytes changed."""

from __future__ import annotations

import csv
import gzip
import io
import json
from typing import Any

import polars as pl
from hypothesis import strategies as st

from dereason.errors import DereasonError

texts = st.one_of(
    st.text(max_size=20),
    st.text(st.characters(min_codepoint=0xD7F0, max_codepoint=0xE00F), max_size=5),  # half surrogate pairs
    st.sampled_from(
        ["", " ", "A", "b", "(C)", "1", "0", "3.0", "-1", "²", "٣", "nan", "-inf", "true", "False", "null"]
    ),
    st.sampled_from(["\0", "\ufeff", "5 #### 42", "####", "\\boxed{1}", "\\boxed{", "\\boxed", '["a", "b"]', "["]),
    st.sampled_from(["{}", "null", "correct", "a,b", '"', "\r\n"]),
)
numbers = st.one_of(
    st.integers(-3, 12), st.integers(), st.floats(), st.sampled_from([2**31, 2**63, 10**400, 1e300, 7.0, -0.0])
)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=8,
)


def mostly(usual: st.SearchStrategy[Any], odd: st.SearchStrategy[Any] = values) -> st.SearchStrategy[Any]:
    """What a file usually holds, and at times anything: a file that is odd everywhere is refused at its first row."""
    return st.integers(0, 11).flatmap(lambda n: odd if n == 0 else usual)


options = mostly(
    st.one_of(
        st.none(),
        st.lists(st.sampled_from(["red", "green", "1", "2", "A", "B"]), min_size=2, max_size=4, unique=True),
        st.integers(2, 30).map(lambda n: [str(at) for at in range(n)]),
        st.sampled_from([{"A": "x", "B": "y"}, '["a", "b"]']),
    ),
    st.one_of(st.lists(texts, max_size=5), st.sampled_from([{"A": "x", "C": "y"}, "['a']"]), values),
)
answers = mostly(
    st.one_of(st.sampled_from(["A", "B", "red", "5 #### 42", "\\boxed{1}"]), st.integers(0, 4)), texts | values
)
identities = st.integers().map(lambda n: f"p{n}") | st.integers()
_PROBLEM = {
    "question": mostly(st.text(min_size=1, max_size=10).map(lambda text: f"q {text}")),
    "answer": answers,
    "options": options,
    "id": mostly(identities),
    "domain": mostly(texts),
    "solution": mostly(texts),
    "x": values,
}
_SAMPLE = {
    "problem_id": mostly(st.sampled_from(["p", "q", 7, 7.0])),
    "model": mostly(st.sampled_from(["m", "n"])),
    "response": mostly(texts),
    "correct": mostly(st.sampled_from([True, False, 0, 1.0, "true"])),
    "verdict": mostly(st.none(), st.sampled_from(["correct", "wrong"]) | values),
    "index": mostly(st.none(), st.integers(0, 3) | values),
    "hit_limit": mostly(st.sampled_from([True, 0, 1.0, None])),
    "tokens": mostly(st.integers(0, 9)),
    "purpose": mostly(st.none(), st.just("early_warning") | values),
    "step": mostly(st.none()),
}
_RESPONSE = {
    "response": mostly(texts),
    "answer": answers,
    "options": options,
    "hit_limit": mostly(st.sampled_from([True, 0, 1.0, None])),
    "x": values,
}


def _rows(fields: dict[str, st.SearchStrategy[Any]], needed: int) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Rows with the first fields nearly always there and the others at times."""
    names = list(fields)
    row = st.fixed_dictionaries(
        {name: fields[name] for name in names[:needed]}, optional={name: fields[name] for name in names[needed:]}
    )
    return st.lists(mostly(row, st.dictionaries(texts, values, max_size=3)), min_size=1, max_size=4)


problem_rows = _rows(_PROBLEM, 2)
sample_rows = _rows(_SAMPLE, 4)
response_rows = _rows(_RESPONSE, 2)

ENDINGS = [".jsonl", ".json", ".csv", ".tsv", ".parquet"]


def written(rows: list[dict[str, Any]], ending: str) -> bytes:
    """Rows as a file of that kind, however little sense they make as one."""
    if ending == ".json":
        return json.dumps(rows).encode()
    if ending == ".parquet":
        handle = io.BytesIO()
        names = {_utf8(name): name for row in rows for name in row}
        cells = {here: [_utf8(_cell(row.get(name))) for row in rows] for here, name in names.items()}
        pl.DataFrame(cells, schema=dict.fromkeys(names, pl.String)).write_parquet(handle)
        return handle.getvalue()
    if ending in (".csv", ".tsv"):
        text = io.StringIO(newline="")
        names = list(dict.fromkeys(name for row in rows for name in row)) or ["a"]
        writer = csv.writer(text, delimiter="\t" if ending == ".tsv" else ",")
        writer.writerow(names)
        for row in rows:
            writer.writerow([_cell(row.get(name)) for name in names])
        return text.getvalue().encode("utf-8", "replace")
    return "\n".join(json.dumps(row) for row in rows).encode()


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else json.dumps(value)


def _utf8(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


_BYTES = [b"\0", b"\xff\xfe", b'"', b"[", b"{", b"\r", b"\xef\xbb\xbf"]


@st.composite
def changed(draw: st.DrawFn, data: bytes) -> bytes:
    """A file with a few of its bytes lost, changed, or put in."""
    out = bytearray(data)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(out)))
        how = draw(st.sampled_from(["cut", "flip", "insert", "drop", "double"]))
        if how == "cut":
            del out[at:]
        elif how == "flip" and at < len(out):
            out[at] ^= draw(st.integers(1, 255))
        elif how == "insert":
            out[at:at] = draw(st.one_of(st.binary(max_size=4), st.sampled_from(_BYTES)))
        elif how == "drop":
            del out[at : at + draw(st.integers(1, 20))]
        else:
            out[at:at] = out[at : at + draw(st.integers(1, 50))]
    return bytes(out)


def check_helpful(error: DereasonError, path: object = "") -> None:
    """An error has a mend, and where a file is at fault names it."""
    assert error.mend
    assert " ".join(str(path).split()) in error.cause


@st.composite
def files(draw: st.DrawFn, rows: st.SearchStrategy[list[dict[str, Any]]]) -> tuple[str, bytes]:
    """The ending and the bytes of a file."""
    ending = draw(st.sampled_from(ENDINGS))
    data = draw(mostly(rows.map(lambda found: written(found, ending)), st.binary(max_size=60)))
    if draw(st.integers(0, 3)) == 0:
        data = draw(changed(data))
    if draw(st.integers(0, 4)) == 0:
        data = gzip.compress(data, mtime=0)
        ending += ".gz"
        if draw(st.integers(0, 3)) == 0:
            data = draw(changed(data))
    return ending, data
