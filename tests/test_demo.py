"""`make demo` tells its story to the end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

DEMO = Path(__file__).parent.parent / "examples" / "demo" / "demo.py"


def test_demo() -> None:
    done = subprocess.run(
        [sys.executable, DEMO],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    headings = [line for line in done.stdout.splitlines() if line.startswith("== ")]
    assert (
        headings[-1]
        == "== Version 4.0.0 runs, version 3.0.0 is quarantined, and nobody had to climb a ladder."
    )
    assert "firmware: tried A, A, A, B; running from group B" in done.stdout
    codes = [line.split()[1:3] for line in done.stdout.splitlines() if line.startswith("20")]
    assert codes == [
        ["confirmed", "4.0.0"],
        ["installed", "4.0.0"],
        ["fallback", "3.0.0"],
        ["installed", "3.0.0"],
        ["confirmed", "2.0.0"],
        ["installed", "2.0.0"],
    ]
    assert done.stderr == ""
