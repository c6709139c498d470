"""The documentation builds without a warning, links lead somewhere, and tables say what the schemas say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from dereason.problems.schema import SCHEMAS, Origin, Verdict

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def build(source: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """Build the pages in ``source``, warnings as errors."""
    options = ["-W", "--keep-going", "-n", "-E", "-q", "-b", "html", "-d", str(out / "doctrees")]
    return subprocess.run(
        [sys.executable, "-m", "sphinx", *options, str(source), str(out / "html")],
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_docs_build_without_warnings(tmp_path: Path) -> None:
    result = build(DOCS, tmp_path)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "html" / "index.html").is_file()


@pytest.mark.parametrize("link", ["[x](missing.md)", "[x](#no-such-heading)", "[x](other.md#no-such-heading)"])
def test_a_dead_link_fails_the_build(tmp_path: Path, link: str) -> None:
    source = tmp_path / "docs"
    source.mkdir()
    # The real settings, less the theme, which takes most of a build's time.
    conf = (DOCS / "conf.py").read_text(encoding="utf-8")
    conf = conf.replace('"furo"', '"basic"').replace("__file__", repr(str(DOCS / "conf.py")))
    (source / "conf.py").write_text(conf.replace('["_static"]', "[]"))
    (source / "index.md").write_text(f"# Index\n\n{link}\n\n```{{toctree}}\nother\n```\n")
    (source / "other.md").write_text("# Other\n")
    result = build(source, tmp_path / "out")
    assert result.returncode != 0
    assert "xref_missing" in result.stderr


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_relative_links_lead_to_files(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    headings = {
        re.sub(r"[^\w\- ]", "", line.lstrip("#").strip().lower()).replace(" ", "-")
        for line in text.splitlines()
        if line.startswith("#")
    }
    dead = []
    for link in links:
        path, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        if (path and not (ROOT / path).exists()) or (not path and anchor not in headings):
            dead.append(link)
    assert not dead


def documented(section: str) -> dict[str, tuple[str, bool]]:
    """column -> (type, required) of one section of the tables page."""
    text = (DOCS / "reference" / "tables.md").read_text(encoding="utf-8")
    body = text.split(f"\n## {section}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (\w+(?:\(\w+\))?) \| (.*) \|$", body, re.MULTILINE)
    return {column: (dtype, "*required*" in text) for column, dtype, text in rows}


@pytest.mark.parametrize("kind", SCHEMAS)
def test_tables_page_lists_every_column(kind: str) -> None:
    found = documented(kind)
    assert list(found) == list(SCHEMAS[kind])
    for column, dtype in SCHEMAS[kind].items():
        shown = f"List({dtype.inner})" if isinstance(dtype, pl.List) else str(dtype)
        assert found[column][0] == shown, column


@pytest.mark.parametrize("kind", SCHEMAS)
def test_tables_page_marks_the_required_columns(kind: str) -> None:
    from dereason.errors import DereasonError
    from dereason.problems.schema import validate

    required = set()
    empty = pl.DataFrame(schema=SCHEMAS[kind])
    for column in SCHEMAS[kind]:
        try:
            validate(kind, empty.drop(column), "test")
        except DereasonError:
            required.add(column)
    assert {column for column, (_, marked) in documented(kind).items() if marked} == required


@pytest.mark.parametrize("words", [Verdict, Origin])
def test_tables_page_explains_every_word(words: type[Verdict] | type[Origin]) -> None:
    text = (DOCS / "reference" / "tables.md").read_text(encoding="utf-8")
    missing = [str(word) for word in words if f"| `{word}` |" not in text]
    assert not missing
