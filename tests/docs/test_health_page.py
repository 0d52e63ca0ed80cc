"""docs/health.md shows each kind of check, and says the true defaults; its Python works on a real bus."""

from __future__ import annotations

import ast
import asyncio
import json
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from dbus_fast.aio import MessageBus

from tests.api.conftest import CONFIG, Daemon
from tests.api.peer import serving
from tests.fakes.agent import FakeAgent
from updated.config.agent_toml import parse_agent_config
from updated.config.check_tables import AnyCheck

PAGE = (Path(__file__).parents[2] / "docs/health.md").read_text()
KINDS = {str(kind.__struct_config__.tag): kind for kind in typing.get_args(AnyCheck)}
BLOCKS = [
    "".join(f"{line[4:]}\n" for line in found.splitlines())
    for found in re.findall(
        r"(?:^    \S.*\n)+", PAGE.partition("## The kinds")[2].partition("\n## ")[0], re.MULTILINE
    )
]


def test_each_kind_has_its_example() -> None:
    shown = [parse_agent_config(block.encode()).confirm.checks for block in BLOCKS]
    assert [type(check) for checks in shown for check in checks] == [*KINDS.values()]


def test_each_key_of_each_kind_is_named() -> None:
    for kind in KINDS.values():
        for field in msgspec.structs.fields(kind):
            assert re.search(rf"`{field.encode_name}`|^    {field.encode_name} = ", PAGE, re.MULTILINE), field


@pytest.mark.parametrize(
    ("kind", "key", "said"),
    [
        ("http", "status", r"statuses \(`(\[200\])`\)"),
        ("http", "timeout", r"answers\*\* with .* within `timeout` seconds \((\d+)\)"),
        ("command", "timeout", r"exit code 0 within `timeout` seconds \((\d+)\)"),
        ("heartbeat", "within", r"every `within` seconds \((\d+)\)"),
        ("unit", "period", r"\| `period` \| `(\d)`; `http` and `command` `5` \|"),
        ("http", "period", r"\| `period` \| `1`; `http` and `command` `(\d)` \|"),
        ("command", "period", r"\| `period` \| `1`; `http` and `command` `(\d)` \|"),
    ],
)
def test_defaults_are_true(kind: str, key: str, said: str) -> None:
    defaults = {field.encode_name: field.default for field in msgspec.structs.fields(KINDS[kind])}
    found = re.search(said, PAGE)
    assert found, said
    assert json.loads(found[1]) == (list(defaults[key]) if key == "status" else defaults[key])


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "bus.conf").write_text(CONFIG.format(socket=tmp_path / "bus"))
    running = Daemon(tmp_path / "bus.conf", tmp_path / "bus")
    yield running.address
    running.kill()


def test_the_python_is_heard(bus: str) -> None:
    """What the application calls, without the loop around it."""
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    tree = ast.parse(code)
    tree.body = [part for part in tree.body if not isinstance(part, ast.Expr)]
    names: dict[str, Any] = {}
    exec(compile(tree, "docs/health.md", "exec"), names)

    async def scene() -> list[str]:
        agent = FakeAgent()
        async with serving(bus, agent):
            mine = await MessageBus(bus_address=bus).connect()
            await names["beat"](mine)
            mine.disconnect()
            await mine.wait_for_disconnect()  # type: ignore[no-untyped-call]
        return agent.beats

    assert asyncio.run(scene()) == ["kiosk"]
