"""The reboot, asked of systemd in four ways, each harder than the one before (`STEPS`).

Sources: org.freedesktop.login1(5), systemctl(1), systemd-reboot.service(8), and for what the manuals leave
out systemd's systemctl-start-special.c, systemctl-logind.c and reboot-util.c:

- The argument that the firmware gets lies in /run/systemd/reboot-param until then.  logind's
  SetRebootParameter writes it, and refuses to in a container.  `systemctl reboot` leaves it as it is, and so
  does logind; only the old command `reboot` without an argument takes it away.
- logind waits for `delay` inhibitors by itself (InhibitDelayMaxSec=).  Since systemd 257 `block` inhibitors
  stop root, too; `--force` goes past them.
- Reboot() always ends in the bootloader.  A newer `systemctl reboot` starts a kernel loaded by kexec,
  or a root in /run/nextroot, instead, and no bootloader would count: SYSTEMCTL_SKIP_* keep it from that.
- A shutdown stops units in the reverse of their order, so ours may be gone while it hangs in another's stop;
  reboot.target itself waits for half an hour then (JobTimeoutSec=).  See `outlast`.
- ScheduleShutdown() takes a time of day: a clock that is set meanwhile moves the reboot.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from updated import command
from updated.core.gate import words
from updated.durable import write_durably
from updated.errors import DeviceError
from updated.host.logind import PATH, SERVICE

if TYPE_CHECKING:
    from dbus_fast.aio import MessageBus

log = logging.getLogger(__name__)

PARAMETER: Final = Path("/run/systemd/reboot-param")
MAX_ARGUMENT: Final = 255  # characters; systemd's limit (NAME_MAX)
MAX_MESSAGE: Final = 400  # characters; five lines of a terminal, logind takes ten times as many
TIMEOUT: Final = 10.0  # seconds; logind answers in milliseconds, or is started and answers within one

STEPS: Final = (
    "logind",
    "systemctl reboot",  # by logind as well, and without one by systemd itself
    "systemctl --force reboot",  # services are killed, not stopped
    "systemctl --force --force reboot",  # by reboot(2); systemd is not asked
)
OUTLASTS: Final = "updated-reboot.service"
_ENVIRONMENT: Final = {"SYSTEMCTL_SKIP_AUTO_KEXEC": "1", "SYSTEMCTL_SKIP_AUTO_SOFT_REBOOT": "1"}


class _Call(Protocol):
    """A method of logind's Manager.  Raises DeviceError, of the bus what it raises."""

    def __call__(self, member: str, signature: str = "", *body: object) -> Awaitable[list[Any]]: ...


async def reboot(
    *,
    argument: str = "",
    message: str = "",
    delay: float = 0.0,
    address: str | None = None,
    parameter: Path = PARAMETER,
) -> None:
    """Ask logind; where there is none, or it refuses, `systemctl reboot`.

    `argument` is for the firmware (reboot(2), LINUX_REBOOT_CMD_RESTART2); without one, what
    `prepare_argument` left holds.  `message` is told to whoever is logged in.  `delay`: seconds; without
    logind they pass here.  `address`: of the bus, instead of the system's.

    Raises DeviceError with what refused.  That nothing did is no promise that the reboot comes: see `step`.
    """
    try:
        await step(0, argument=argument, message=message, delay=delay, address=address, parameter=parameter)
        return
    except DeviceError as error:
        log.warning("%s; trying `%s`", error, STEPS[1])
        refused = error
    await asyncio.sleep(delay)
    try:
        await step(1, argument=argument, message=message)
    except DeviceError as error:
        raise DeviceError(f"{refused}; {error}", hint=error.hint or refused.hint) from error


async def step(
    number: int,
    *,
    argument: str = "",
    message: str = "",
    delay: float = 0.0,
    address: str | None = None,
    parameter: Path = PARAMETER,
) -> None:
    """One way alone, `STEPS[number]`; all but the first come at once, whatever `delay` is.

    For whoever waited for the one before in vain.  Raises DeviceError with what refused.
    """
    _check(argument)
    if number == 0:
        if argument:  # a reboot without it would start the wrong system
            await prepare_argument(argument, address=address, parameter=parameter)
        await _by_logind(message, delay, address)
        return
    argv = STEPS[number].split()
    if number == 1:
        argv.append(f"--message={_told(message)}" if message else "--no-wall")
    if argument:
        argv.append(f"--reboot-argument={argument}")
    await command.check(argv, env=_ENVIRONMENT)


def steps(
    *, argument: str = "", message: str = "", delay: float = 0.0
) -> tuple[Callable[[], Awaitable[None]], ...]:
    """All of `STEPS`, the first of them with its replacement where logind refuses."""
    first = partial(reboot, argument=argument, message=message, delay=delay)
    return (first, *(partial(step, number, argument=argument) for number in range(2, len(STEPS))))


async def outlast(after: float) -> bool:
    """Leave `STEPS[2:]`, each `after` seconds later, to a unit that no shutdown stops.

    For whoever is stopped by the shutdown himself, while something else keeps it from its end.  False: no
    reboot is under way.  Raises DeviceError.
    """
    job = await command.check(["systemctl", "show", "--property=Job", "--value", "reboot.target"])
    if job.strip() in ("", "0"):
        return False
    harder = "; ".join(f"sleep {after:.0f}; {each}" for each in STEPS[2:])
    unit = (f"--unit={OUTLASTS}", "--collect", "--property=DefaultDependencies=no")
    await command.check(["systemd-run", "--quiet", *unit, "/bin/sh", "-c", harder])
    return True


async def cancel_scheduled(*, address: str | None = None) -> bool:
    """Call off the reboot that waits for its `delay`.  False: there was none, or nobody to keep one.

    Raises DeviceError if logind refuses.
    """
    try:
        async with _logind(address) as call:
            return await call("CancelScheduledShutdown") == [True]
    except _NobodyThere:
        return False


async def prepare_argument(argument: str, *, address: str | None = None, parameter: Path = PARAMETER) -> None:
    """Whoever reboots next, by logind or `systemctl reboot`, does it with `argument`; "": without any.

    Raises DeviceError.
    """
    _check(argument)
    try:
        async with _logind(address) as call:
            await call("SetRebootParameter", "s", argument)
    except DeviceError as error:
        log.debug("%s; writing %s", error, parameter)
        await asyncio.to_thread(_write_argument, parameter, argument)


async def _by_logind(message: str, delay: float, address: str | None) -> None:
    async with _logind(address) as call:
        try:
            await call("SetWallMessage", "sb", _told(message), bool(message))
        except _NobodyThere:
            raise
        except DeviceError as error:
            log.info("nobody is told of the reboot: %s", error)
        if delay > 0:
            await call("ScheduleShutdown", "st", "reboot", round((time.time() + delay) * 1e6))
        else:
            await call("Reboot", "b", False)  # False: nobody is there to be asked for a password


class _NobodyThere(DeviceError):
    """There is no bus, or no logind on it."""


@contextlib.asynccontextmanager
async def _logind(address: str | None) -> AsyncIterator[_Call]:
    """Raises DeviceError, which is _NobodyThere before the first answer."""
    from updated.host.bus import BUS_ERRORS, connect, disconnect

    bus: MessageBus | None = None
    try:
        async with asyncio.timeout(TIMEOUT):
            try:
                bus = await connect(address)
            except DeviceError as error:
                raise _NobodyThere(f"logind cannot be asked: {error}", hint=error.hint) from error
            yield partial(_call, bus)
    except BUS_ERRORS as error:  # TimeoutError is an OSError
        what = f"nothing within {TIMEOUT:g} s" if isinstance(error, TimeoutError) else "the end of the bus"
        raise DeviceError(f"logind answers with {what}") from error
    finally:
        if bus is not None:
            await disconnect(bus)


async def _call(bus: MessageBus, member: str, signature: str = "", *body: object) -> list[Any]:
    from dbus_fast import ErrorType, Message, MessageType

    call = Message(SERVICE, PATH, f"{SERVICE}.Manager", member, signature=signature, body=list(body))
    reply = await bus.call(call)
    if reply is None:
        raise DeviceError(f"logind does not answer {member}")
    if reply.message_type is not MessageType.ERROR:
        return reply.body
    text = words(str(reply.body[0]) if reply.body else reply.error_name or "", 200)
    if reply.error_name in (ErrorType.SERVICE_UNKNOWN.value, ErrorType.NAME_HAS_NO_OWNER.value):
        raise _NobodyThere(f"there is no logind: {text}")
    blocked = (reply.error_name or "").endswith(".BlockedByInhibitorLock")
    hint = "`systemd-inhibit --list` shows who blocks it." if blocked else ""
    raise DeviceError(f"logind refuses {member}: {text}", hint=hint)


def _write_argument(parameter: Path, argument: str) -> None:
    try:
        if argument:
            write_durably(parameter, f"{argument}\n".encode())
        else:
            parameter.unlink(missing_ok=True)
    except OSError as error:
        raise DeviceError(
            f"Cannot leave the reboot argument in {parameter}: {error.strerror}",
            hint="Reboot arguments need systemd.",
        ) from error


def _check(argument: str) -> None:
    """As systemd does (reboot_parameter_is_valid), and what a line of text can hold.  Raises DeviceError."""
    if len(argument) > MAX_ARGUMENT or not (argument.isascii() and argument.isprintable()):
        raise DeviceError(
            f"The reboot argument {words(repr(argument))} is none",
            hint=f"Expected at most {MAX_ARGUMENT} printable ASCII characters.",
        )


def _told(message: str) -> str:
    return words(message, MAX_MESSAGE)
