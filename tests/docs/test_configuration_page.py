"""docs/configuration.md names every key of updated.toml with its true default, and no other."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec

from updated.config.agent_tables import AgentConfig, Table

PAGE = Path(__file__).parents[2] / "docs/configuration.md"
ROW = re.compile(r"^\| `(?:\[(?P<table>[\w-]+)\] )?(?P<key>[\w-]+)` \| (?P<default>[^|]*) \|", re.MULTILINE)


def documented() -> dict[str, str]:
    _, _, section = PAGE.read_text().partition("## updated.toml")
    rows = ROW.finditer(section)
    return {
        f"{row['table']}.{row['key']}" if row["table"] else row["key"]: row["default"].strip() for row in rows
    }


def actual(table: Table, prefix: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for field in msgspec.structs.fields(table):
        value = getattr(table, field.name)
        name = f"{prefix}{field.encode_name}"
        found |= actual(value, f"{name}.") if isinstance(value, Table) else {name: value}
    return found


def test_every_key_is_documented_with_its_default() -> None:
    rows, keys = documented(), actual(AgentConfig())
    assert rows.keys() == keys.keys()
    for key, value in keys.items():
        if value is None:
            assert not rows[key].startswith("`"), key
        else:
            shown = rows[key].strip("`")
            assert json.loads(shown) == (list(value) if isinstance(value, tuple) else value), key
