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
    assert headings[-1] == (
        "== Version 5.0.0 runs, 3.0.0 and 4.0.0 are quarantined, and nobody had to climb a ladder."
    )
    assert "firmware: tried A, A, A, B; running from group B" in done.stdout
    codes = [line.split()[1:3] for line in last_answer(done.stdout, "history")]
    assert codes == [
        ["confirmed", "5.0.0"],
        ["installed", "5.0.0"],
        ["fallback", "4.0.0"],
        ["installed", "4.0.0"],
        ["fallback", "3.0.0"],
        ["installed", "3.0.0"],
        ["confirmed", "2.0.0"],
        ["installed", "2.0.0"],
    ]
    seen = "exit code 1, expected exit code 0: the card reader does not answer"
    reason = f"application: not healthy for 1 s within 4 s: {seen}"
    assert f"The bootloader fell back to rootfs.1. Cause: {reason}." in done.stdout
    quarantined = [line.split(maxsplit=1)[1] for line in last_answer(done.stdout, "quarantine")]
    assert quarantined[0] == "version 4.0.0"
    assert quarantined[1] == reason
    assert quarantined[2:] == ["version 3.0.0", "the bootloader fell back"]
    assert done.stderr == ""


def last_answer(output: str, command: str) -> list[str]:
    """The lines that this command of ours has printed when it was shown last."""
    return output.rpartition(f"$ updated {command}\n")[2].partition("\n\n")[0].splitlines()
