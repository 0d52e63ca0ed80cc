"""docs/doctor.md explains every check, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from updated.doctor.run import GROUPS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "doctor.md").read_text()
NAME = re.compile(rf"[\"`]((?:{'|'.join(GROUPS)})\.[a-z-]+)[\"`]")


def test_every_check_is_explained() -> None:
    code = "".join(path.read_text() for path in sorted(ROOT.glob("updated/doctor/*.py")))
    _, _, checks = PAGE.partition("## Checks")
    assert set(NAME.findall(code)) == {
        name for name in NAME.findall(checks) if not name.endswith(".unfinished")
    }
    assert len(set(NAME.findall(code))) > 30
