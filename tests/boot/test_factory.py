"""Which bootloader `bootloader=` chooses, and the kinds that have none."""

from __future__ import annotations

import asyncio

import pytest

from updated.boot import order
from updated.boot.base import make_bootloader
from updated.errors import ConfigError, DeviceError


def test_noop_takes_everything_and_knows_nothing() -> None:
    noop = make_bootloader("noop", ["A", "B"])
    asyncio.run(noop.set_primary("B"))
    asyncio.run(noop.set_state("A", good=False))
    assert asyncio.run(noop.get_current()) is None
    with pytest.raises(DeviceError, match="Obtaining primary entry from bootloader 'noop' not supported yet"):
        asyncio.run(noop.get_primary())
    with pytest.raises(DeviceError, match="Obtaining state from bootloader 'noop' not supported yet"):
        asyncio.run(noop.get_state("A"))


def test_a_wrong_configuration_is_refused() -> None:
    with pytest.raises(ConfigError, match="Unsupported bootloader 'lilo'"):
        make_bootloader("lilo", ["A"])
    with pytest.raises(ConfigError, match="No custom bootloader backend defined"):
        make_bootloader("custom", ["A"])
    for kind in ("barebox", "grub", "uboot"):
        for name in ("A B", "A=1", "A\nB", ""):
            with pytest.raises(ConfigError, match="Invalid bootname"):
                make_bootloader(kind, ["A", name])


def test_boot_orders() -> None:
    assert order.parse(" A  B ") == ["A", "B"]
    assert order.with_first("B", ["A", "B", "C"]) == ["B", "A", "C"]
    assert order.with_all(["C", "A"], ["A", "B"]) == ["C", "A", "B"]
    assert order.render(order.without("A", ["A", "B", "C"])) == "B C"
