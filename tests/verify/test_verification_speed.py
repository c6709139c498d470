"""The benchmark of throughput runs, on a few references."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "verification_speed.py"


def test_benchmark_prints_its_table(tmp_path: Path) -> None:
    references = [
        "5",
        r"\frac{3}{4}",
        "x^2 + 3x",
        r"(2,\infty)",
        r"15\mbox{ cm}^2",
        r"2\sqrt{5}",
        r"\text{east}",
        "1,-2",
        "17",
    ]
    data = tmp_path / "references.jsonl"
    data.write_text("\n".join(json.dumps({"answer": reference}) for reference in references))
    done = subprocess.run([sys.executable, SCRIPT, "--data", data], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    rows = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]
    assert [row[0].strip("| ") for row in rows[2:]] == ["identical", "reformatted", "near miss", "all"]
    assert rows[-1][1] == "9"
    assert "ours a miss" not in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["references.jsonl"]
