"""The page of examples/ota-static tells the truth: all its commands, with both servers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.service.clock import Clock

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.parametrize("server", ["nginx", "python"])
def test_the_page(server: str, tmp_path: Path) -> None:
    clock = Clock(tmp_path, boottime_factor=100)  # half a minute is much in a test
    done = subprocess.run(
        [sys.executable, EXAMPLES / "ota-static/try_it.py", server],
        env={**os.environ, "PYTHONPATH": str(EXAMPLES / "demo"), "NO_COLOR": "1", **clock.env},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith(f"== Group B runs; it came from {server}.\n")
    typed = [line[2:] for line in done.stdout.splitlines() if line.startswith("$ ")]
    page = (EXAMPLES / "ota-static/README.md").read_text()
    told = [
        line
        for block in re.findall(r"^```sh \S+\n(.*?)^```$", page, re.DOTALL | re.M)
        for line in block.splitlines()
    ]
    other = {"nginx": "python3 -m http.server", "python": "nginx "}[server]
    assert [re.sub(r"\d{4,5} &$|( &)$", "", line) for line in typed] == [
        line.removesuffix("8080") for line in told if not line.startswith(other)
    ]
    assert re.search(r"installed +2\.0\.0", done.stdout)
