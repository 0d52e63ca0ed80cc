"""Who may import whom (docs/architecture.md): each row only rows below it, the third never sideways."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "updated"

# The longest matching name decides.
ROWS: dict[str, float] = {
    "updated.cli": 6,
    "updated.__main__": 6,
    "updated.api": 5,
    "updated.service": 5,
    "updated.authoring": 5,
    "updated.doctor": 5,
    "updated.install": 4,
    **dict.fromkeys(
        (
            "updated.sources",
            "updated.readers",
            "updated.slots",
            "updated.boot",
            "updated.health",
            "updated.host",
            "updated.event_log",
            "updated.store",
            "updated.config",
        ),
        3,
    ),
    "updated.durable": 2.5,
    "updated.document": 2.5,
    "updated.command": 2.5,
    "updated.devices": 2.5,
    "updated.finish": 2.5,
    "updated.syscalls": 2.5,
    "updated.bundle": 2,
    "updated.core": 2,
    "updated.core.model": 1,
    "updated.core.progress": 1,
    "updated.core.version": 1,
    "updated.errors": 1,
    "updated": 0,
}
PURE_ROWS = (1, 2)
IMPURE = {"asyncio", "os", "time", "random", "logging", "pathlib", "socket", "subprocess", "threading"}
ONE_DOOR = {
    "aiohttp": ("updated.readers", "updated.sources"),
    "pyudev": ("updated.sources",),
    "dbus_fast": ("updated.api", "updated.host", "updated.cli"),
    "sdnotify": ("updated.host",),
    "cryptography": ("updated.bundle", "updated.authoring"),
    "OpenSSL": ("updated.bundle",),
    "asyncinotify": ("updated.sources",),
    "rich": ("updated.cli",),
    "msgspec": ("updated.config", "updated.document", "updated.sources"),
}

MODULES = sorted(ROOT.rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def row_key(module: str) -> str:
    while module not in ROWS:
        module = module.rpartition(".")[0]
    return module


def imports(path: Path) -> Iterator[str]:
    known = {name_of(p) for p in MODULES}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            for alias in node.names:
                full = f"{module}.{alias.name}"
                yield full if full in known else module


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_only_rows_below(path: Path) -> None:
    here = name_of(path)
    mine = row_key(here)
    for imported in imports(path):
        if not imported.startswith("updated"):
            continue
        theirs = row_key(imported)
        if ROWS[mine] == 3 and theirs != mine:
            assert ROWS[theirs] < 3, f"{here} imports its neighbour {imported}"
        assert ROWS[theirs] <= ROWS[mine], (
            f"{here} (row {ROWS[mine]}) imports {imported} (row {ROWS[theirs]})"
        )


@pytest.mark.parametrize("path", [p for p in MODULES if ROWS[row_key(name_of(p))] in PURE_ROWS], ids=name_of)
def test_pure_modules_do_no_io(path: Path) -> None:
    assert not {name.partition(".")[0] for name in imports(path)} & IMPURE


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_each_library_has_one_door(path: Path) -> None:
    here = name_of(path)
    for imported in imports(path):
        doors = ONE_DOOR.get(imported.partition(".")[0])
        assert doors is None or here.startswith(doors), f"{here} imports {imported}"
