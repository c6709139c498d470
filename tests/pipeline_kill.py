"""A run of the command line that is killed at a chosen moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def killed_when(recipe: Path, folder: Path, pattern: str) -> None:
    """Start the run and kill -9 it as soon as a file matches."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dereason", "run", str(recipe), "--run-dir", str(folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    try:
        deadline = time.monotonic() + 600  # a hang; a busy machine takes minutes
        while not list((folder / "steps").glob(pattern)):
            assert process.poll() is None, (process.stderr.read().decode() if process.stderr else "") or "ended early"
            assert time.monotonic() < deadline, f"nothing matched {pattern}"
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL
