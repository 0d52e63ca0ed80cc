"""docs/going-back.md: its numbers are those of the code, and its hook does what it says."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from updated.config.agent_tables import AgentConfig
from updated.host import reboot, starts
from updated.store import MAX_HISTORY, MAX_JUDGEMENTS

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "going-back.md").read_text()
(HOOK,) = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    "said",
    [
        f"five failures within {starts.WINDOW / 60:g} minutes",
        f"`escalate-after` ({AgentConfig().reboot.escalate_after:g} s)",
        f"the history ({MAX_HISTORY} lines), the health of the last {MAX_JUDGEMENTS} boots",
        *(f"`{step}`" for step in reboot.STEPS[1:]),
    ],
)
def test_numbers_and_commands(said: str) -> None:
    assert said in PAGE


def test_numbers_in_words() -> None:
    assert (starts.LIMIT, starts.MAX_BOOTS) == (5, 10)
    assert "after ten boots in a row" in PAGE


def test_the_variables_of_hooks_are_those_of_the_other_page() -> None:
    names = set(re.findall(r"`(UPDATED_\w+)`", PAGE.partition("| variable |")[2]))
    section = (DOCS / "configuration.md").read_text().partition("### Hooks")[2].partition("\n### ")[0]
    assert names == set(re.findall(r"`(UPDATED_\w+)`", section))


def run_hook(name: str, data: Path) -> None:
    env = {**os.environ, "DATA": str(data), "UPDATED_HOOK": name}
    subprocess.run(["sh", "-c", HOOK], env=env, check=True, timeout=10)


def test_the_hook_brings_the_data_back(tmp_path: Path) -> None:
    database = tmp_path / "app.db"
    database.write_text("old")
    for _ in range(2):  # a power cut may make it run twice
        run_hook("on-installed", tmp_path)
    database.write_text("migrated")
    for _ in range(2):
        run_hook("on-fallback", tmp_path)
    assert database.read_text() == "old"


def test_the_hook_leaves_nothing_behind_once_it_is_confirmed(tmp_path: Path) -> None:
    database = tmp_path / "app.db"
    database.write_text("old")
    run_hook("on-installed", tmp_path)
    for _ in range(2):
        run_hook("on-confirmed", tmp_path)
    run_hook("on-fallback", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["app.db"]
