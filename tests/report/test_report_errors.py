"""What a user can mend is a DereasonError that names the file."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import polars as pl
import pytest

from dereason.errors import DereasonError
from dereason.report import write_report


def test_no_summary(tmp_path: Any) -> None:
    with pytest.raises(DereasonError, match=r"summary\.json: no such file — finish the run"):
        write_report(tmp_path)


def test_summary_is_no_json(tmp_path: Any) -> None:
    (tmp_path / "summary.json").write_text('{"schema_version": 4,', encoding="utf-8")
    with pytest.raises(DereasonError, match=r"summary\.json: not readable as JSON"):
        write_report(tmp_path)


@pytest.mark.parametrize("version", [3, 5, "4", None])
def test_unknown_version(fresh: Any, version: object) -> None:
    fresh.summary["schema_version"] = version
    with pytest.raises(DereasonError, match=r"schema_version is .* reads 4 — write the report with the version"):
        fresh.write()


def test_summary_that_is_a_list(tmp_path: Any) -> None:
    (tmp_path / "summary.json").write_text("[]", encoding="utf-8")
    with pytest.raises(DereasonError, match="schema_version is None"):
        write_report(tmp_path)


@pytest.mark.parametrize(
    ("remove", "named"),
    [(("results",), "it has no results"), (("model", "note"), "model has no note"),
     (("results", 1, "low"), r"results\[1\] has no low"),
     (("comparisons", 0, "level"), r"comparisons\[0\] has no level")],
)  # fmt: skip
def test_missing_keys_are_named(fresh: Any, remove: tuple[Any, ...], named: str) -> None:
    inner = fresh.summary
    for key in remove[:-1]:
        inner = inner[key]
    del inner[remove[-1]]
    with pytest.raises(DereasonError, match=named):
        fresh.write()


def test_a_missing_key_of_an_arm_comparison_is_named(pair: Any) -> None:
    del pair.summary["arm_comparisons"][0]["stage_to"]
    with pytest.raises(DereasonError, match=r"arm_comparisons\[0\] has no stage_to"):
        pair.write()


@pytest.mark.parametrize("kind", ["train_problems", "test_problems", "profiles", "routes", "targets", "samples"])
def test_a_missing_table_is_named(fresh: Any, kind: str) -> None:
    listed = fresh.summary["artifacts"][kind]
    if isinstance(listed, list):
        listed = listed[-1]["path"]
    path = listed["only"] if kind == "routes" else listed
    (fresh.folder / path).unlink()
    with pytest.raises(DereasonError, match=path):
        fresh.write()


def test_a_broken_table_is_named(fresh: Any) -> None:
    path = fresh.summary["artifacts"]["routes"]["only"]
    (fresh.folder / path).write_bytes(b"PAR1 not really")
    with pytest.raises(DereasonError, match=f"{path}: not a readable table"):
        fresh.write()


def test_a_table_without_a_column_is_named(fresh: Any) -> None:
    path = fresh.summary["artifacts"]["routes"]["only"]
    pl.DataFrame({"problem_id": ["a"]}).write_parquet(fresh.folder / path)
    with pytest.raises(DereasonError, match=path):
        fresh.write()


@pytest.mark.parametrize("path", ["/etc/hostname", "../other/train.parquet", None])
def test_paths_outside_the_run_are_refused(fresh: Any, path: object) -> None:
    fresh.summary["artifacts"]["train_problems"] = path
    with pytest.raises(DereasonError, match="not inside the run directory"):
        fresh.write()


def test_an_error_leaves_the_old_page(fresh: Any) -> None:
    old = fresh.write()
    del fresh.summary["arms"]
    with pytest.raises(DereasonError):
        fresh.write()
    assert (fresh.folder / "report.html").read_text(encoding="utf-8") == old


def test_importing_the_room_loads_nothing_heavy() -> None:
    code = "import sys, dereason.report; print([m for m in ('polars', 'plotly', 'jinja2') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
