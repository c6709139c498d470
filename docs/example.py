"""Put the quickstart's own output and its report's picture into the README: ``make example``.

Reads a finished ``runs/quickstart``; runs nothing. The text is what ``dereason run quickstart`` prints at its
end, the picture the top of ``report.html`` in headless Chromium.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
RUN = Path("runs/quickstart")
BEGIN, END = "<!-- quickstart-output -->", "<!-- /quickstart-output -->"
PICTURE = Path("docs/_static/report.png")

sys.path.insert(0, str(ROOT / "tests"))


def printed() -> str:
    """The last lines of the run."""
    from dereason.cli.show import show_result

    os.environ["COLUMNS"] = "118"
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        show_result(json.loads((RUN / "summary.json").read_text()), RUN)
    return "\n".join(line.rstrip() for line in text.getvalue().strip().splitlines())


def main() -> None:
    """Rewrite the README's example and the picture."""
    import browser

    os.chdir(ROOT)
    readme = Path("README.md")
    head, rest = readme.read_text().split(BEGIN)
    _, tail = rest.split(END)
    environment = json.loads((RUN / "summary.json").read_text())["environment"]
    words = (
        f"What it printed at its end ({environment['cpu']}, {environment['cores']} cores; `make example` puts a "
        "finished run's output here):"
    )
    picture = "![The top of the quickstart's report](docs/_static/report.png)"
    readme.write_text(f"{head}{BEGIN}\n{words}\n\n```text\n{printed()}\n```\n\n{picture}\n{END}{tail}")
    with tempfile.TemporaryDirectory() as tmp:
        browser.screenshot(RUN / "report.html", Path(tmp), PICTURE.absolute(), width=1200, height=900)


if __name__ == "__main__":
    main()
