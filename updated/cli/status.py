"""`status` and the `mark-*` commands."""

from __future__ import annotations

import asyncio
from typing import cast

from updated.api.client import Client, SlotInfo
from updated.api.port import SlotReport, SystemInfo
from updated.cli import render, render_agent
from updated.cli.formats import chosen_format, colors_wanted, terminal_has_utf8
from updated.cli.main import complain
from updated.cli.parser import Arguments, UsageError
from updated.cli.render_status import FORMATS, Status, status
from updated.core.model import BootStatus, Slot, SlotState, SlotStatus
from updated.errors import UpdatedError

_STATES = {"mark-good": "good", "mark-bad": "bad", "mark-active": "active"}
_MAX_MARK_ARGUMENTS = 2  # mark-good, slot


def show(arguments: Arguments) -> int:
    """`status`, `status mark-good [slot]`."""
    if arguments.positional:
        return _mark(*_subcommand(arguments))
    output_format = chosen_format(arguments, FORMATS)
    try:
        found, update = asyncio.run(_ask(with_update=output_format == "readable"))
    except UpdatedError as error:
        return complain(error, prefix="Error retrieving slot status via D-Bus: ")
    text = status(found, output_format, detailed=arguments.flag("detailed"), utf8=terminal_has_utf8())
    if update:
        text += f"\n\n{update}"
    print(text if output_format != "readable" or colors_wanted() else render.plain(text))
    return 0


def mark(arguments: Arguments) -> int:
    """`mark-good [slot]` and its brothers."""
    assert arguments.command is not None
    if len(arguments.positional) > 1:
        raise UsageError("Too many arguments", command=arguments.command)
    return _mark(_STATES[arguments.command.name], *(arguments.positional or ("booted",)))


def report(info: SlotInfo) -> SlotReport:
    """What the bus said about a slot, in our words.  As in RAUC, a value of the wrong type is missing."""
    values = info.values

    def text(key: str) -> str | None:
        value = values.get(key)
        return value if isinstance(value, str) else None

    def number(key: str) -> int:
        value = values.get(key)
        return value if isinstance(value, int) else 0

    slot = Slot(
        name=info.name,
        slot_class=text("class") or "",
        index=0,  # part of the name, never shown alone
        device=text("device") or "",
        type=text("type") or "",
        description=text("description") or "",
        bootname=text("bootname"),
        parent=text("parent"),
    )
    status_ = SlotStatus(
        bundle_compatible=text("bundle.compatible"),
        bundle_version=text("bundle.version"),
        bundle_description=text("bundle.description"),
        bundle_build=text("bundle.build"),
        bundle_hash=text("bundle.hash"),
        status=text("status"),
        sha256=text("sha256"),
        size=number("size"),
        installed_transaction=text("installed.transaction"),
        installed_timestamp=text("installed.timestamp"),
        installed_count=number("installed.count"),
        activated_timestamp=text("activated.timestamp"),
        activated_count=number("activated.count"),
    )
    state = cast("SlotState", text("state") or "inactive")
    return SlotReport(
        slot, state, status_, cast("BootStatus | None", text("boot-status")), text("mountpoint")
    )


async def _ask(*, with_update: bool) -> tuple[Status, str]:
    async with Client() as client:
        slots = [report(info) for info in await client.slots()]
        system = await client.system()
        primary = await _primary(client)
        names = {each.slot.name for each in slots}
        info = SystemInfo(system.compatible, system.variant, system.system_version, system.boot_slot, "")
        found = Status(info, primary if primary in names else None, slots, ())
        return found, await _update(client) if with_update else ""


async def _primary(client: Client) -> str | None:
    """None, and a word on stderr, if the bootloader could not tell; the rest is still worth showing."""
    try:
        return await client.primary()
    except UpdatedError as error:
        complain(error)
        return None


async def _update(client: Client) -> str:
    """Nothing if the service is not ours."""
    try:
        return render_agent.update(await client.status())
    except UpdatedError:
        return ""


def _subcommand(arguments: Arguments) -> tuple[str, str]:
    name, *rest = arguments.positional
    if len(arguments.positional) > _MAX_MARK_ARGUMENTS:
        raise UsageError("Too many arguments", command=arguments.command)
    if name not in _STATES:
        raise UsageError(f"unknown subcommand {name}", command=arguments.command)
    return _STATES[name], rest[0] if rest else "booted"


def _mark(state: str, identifier: str) -> int:
    async def ask() -> str:
        async with Client() as client:
            return (await client.mark(state, identifier))[1]

    try:
        message = asyncio.run(ask())
    except UpdatedError as error:
        return complain(error, prefix="rauc mark: ")
    print(f"rauc status: {message}")
    return 0
