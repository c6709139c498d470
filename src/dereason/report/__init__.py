"""The report: one self-contained HTML page about a run or an analysis, made from their plain files only."""

from __future__ import annotations

from pathlib import Path


def write_report(run_dir: Path) -> Path:
    """Write ``run_dir/report.html`` from ``summary.json``, ``recipe.yaml`` and the artifacts they list.

    The page needs no network and no other file. It appears by atomic rename.

    Args:
        run_dir: a run directory with a ``summary.json`` of schema version 3.

    Returns:
        The path of the page.

    Raises:
        DereasonError: the summary is missing, unreadable, incomplete or of an unknown version, or a table
            that it lists is missing or unreadable.
    """
    from dereason.report.page import write

    return write(Path(run_dir))


def write_analysis(folder: Path) -> Path:
    """Write ``folder/analysis.html`` from ``folder/findings.json``, the result of ``dereason analyze``.

    The page needs no network and no other file. It appears by atomic rename.

    Args:
        folder: a folder with a ``findings.json`` of schema version 1.

    Returns:
        The path of the page.

    Raises:
        DereasonError: the findings are missing, unreadable, incomplete or of an unknown version.
    """
    from dereason.report.page import write_analysis

    return write_analysis(Path(folder))


def write_audit(folder: Path) -> Path:
    """Write ``folder/audit.html`` from ``folder/audit.json``, the result of ``dereason problems audit``.

    The page has no script, needs no network and no other file. It appears by atomic rename.

    Args:
        folder: a folder with an ``audit.json`` of schema version 1.

    Returns:
        The path of the page.

    Raises:
        DereasonError: the audit is missing, unreadable, incomplete or of an unknown version.
    """
    from dereason.report.audit import write

    return write(Path(folder))
