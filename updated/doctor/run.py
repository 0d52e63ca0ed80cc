"""All checks at once, each with its own deadline; whatever happens to one of them, the others speak."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from updated.config.agent_toml import AgentConfig, load_agent_config
from updated.config.system_conf import SystemConfig, load_system_config
from updated.doctor import boot, clock, configuration, keyring, private_keys, service, slots, storage, tools
from updated.doctor.finding import Finding, error, unknown
from updated.doctor.subject import AS_ROOT, NOWHERE, Places, Subject, data_of, with_device, with_memory
from updated.doctor.threads import DaemonThreads
from updated.errors import UpdatedError
from updated.host.clock import now
from updated.host.trusted_time import TrustedTime

LIMIT: Final = 4.0  # seconds for each step: the configuration, what runs, and all checks together
HANGS: Final = "A medium or a program does not answer; see the kernel log."

Check = Callable[[Subject], Iterable[Finding]]  # blocks
Asking = Callable[[Subject], AsyncIterator[Finding]]

BLOCKING: Final[Mapping[str, Check]] = {
    "config": configuration.check,
    "keyring": keyring.check,
    "keys": private_keys.check,
    "clock": clock.check,
    "slots": slots.check,
    "storage": storage.check,
    "tools": tools.check,
}
WAITING: Final[Mapping[str, Asking]] = {"boot": boot.check, "service": service.check}
GROUPS: Final = ("config", "keyring", "keys", "clock", "boot", "slots", "storage", "tools", "service")


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked, from the command line."""

    conf: Path | None = None  # system.conf; None: RAUC's search path
    overrides: tuple[str, ...] = ()
    agent_conf: Path | None = None  # updated.toml
    override_boot_slot: str | None = None
    places: Places = field(default_factory=Places)
    limit: float = LIMIT


def examine(request: Request) -> list[Finding]:
    """All findings, grouped.  A sick device is no error, and it takes no longer than some seconds."""

    async def together() -> list[Finding]:
        asyncio.get_running_loop().set_default_executor(DaemonThreads())
        return await _examine(request)

    return sorted(asyncio.run(together()), key=lambda finding: GROUPS.index(finding.group))


async def _examine(request: Request) -> list[Finding]:
    findings: list[Finding] = []
    subject = await _configured(request, findings)
    async with _copies(subject, findings) as copies:
        if copies is not None:
            subject = await _remembering(subject, copies, findings, request.limit)
        subject = await _opened(subject, copies or NOWHERE, findings, request.limit)
        return await checked(subject, findings, limit=request.limit)


def _ignore(_: str) -> None:
    """There is nothing to warn of in a folder that is not there."""


@contextlib.asynccontextmanager
async def _copies(subject: Subject, findings: list[Finding]) -> AsyncIterator[Path | None]:
    """A temporary folder; None: there is no room for one."""
    try:
        folder = await asyncio.to_thread(
            tempfile.TemporaryDirectory, prefix="updated-doctor-", ignore_cleanup_errors=True
        )
    except OSError as problem:
        text = f"no temporary folder to read copies in: {problem.strerror}"
        findings.append(unknown("storage.documents", str(subject.data), text))
        yield None
        return
    try:
        yield Path(folder.name)
    finally:
        await asyncio.to_thread(folder.cleanup)


async def _configured(request: Request, findings: list[Finding]) -> Subject:
    """What cannot be read is a finding, and the rest goes on without it."""
    system, agent, limit = None, AgentConfig(), request.limit
    for what, load in (
        ("system.conf", lambda: load_system_config(request.conf, request.overrides)),
        ("updated.toml", lambda: load_agent_config(request.agent_conf)),
    ):
        try:
            async with asyncio.timeout(limit / 2):
                loaded: SystemConfig | AgentConfig = await asyncio.to_thread(load)
        except TimeoutError:
            findings.append(error("config.file", what, "cannot be read in time", hint=HANGS))
        except (UpdatedError, OSError) as problem:
            denied = isinstance(problem.__cause__ or problem, PermissionError)
            make, hint = (unknown, AS_ROOT) if denied else (error, getattr(problem, "hint", ""))
            findings.append(make("config.file", what, str(problem), hint=hint))
        else:
            if isinstance(loaded, SystemConfig):
                system = loaded
            else:
                agent = loaded
    data = data_of(agent, system)
    return Subject(
        places=request.places,
        now=now(),
        root=os.geteuid() == 0,
        agent=agent,
        data=data,
        time=await asyncio.to_thread(TrustedTime, NOWHERE, _ignore, root=request.places.root),
        system=system,
        boot_slot=request.override_boot_slot,
    )


async def _remembering(subject: Subject, copies: Path, findings: list[Finding], limit: float) -> Subject:
    """With what the agent remembers."""
    try:
        async with asyncio.timeout(limit / 2):
            return await asyncio.to_thread(with_memory, subject, copies)
    except TimeoutError:
        findings.append(error("storage.documents", str(subject.data), "cannot be read in time", hint=HANGS))
    except OSError as problem:
        findings.append(subject.failed("storage.documents", str(subject.data), problem))
    return subject


async def _opened(subject: Subject, copies: Path, findings: list[Finding], limit: float) -> Subject:
    """With what runs."""
    if subject.system is None:
        return subject
    try:
        async with asyncio.timeout(limit / 2):
            return await with_device(subject, copies)
    except TimeoutError:
        findings.append(error("boot.booted", "", "what runs cannot be found out in time", hint=HANGS))
    except UpdatedError as problem:
        findings.append(subject.failed("boot.booted", "", problem))
    return subject


async def checked(
    subject: Subject,
    findings: list[Finding],
    *,
    blocking: Mapping[str, Check] = BLOCKING,
    waiting: Mapping[str, Asking] = WAITING,
    limit: float = LIMIT,
) -> list[Finding]:
    """`findings`, and what the checks say within `limit` seconds; of one that fails, what it said before."""

    def listed(check: Check) -> None:
        for finding in check(subject):
            findings.append(finding)

    async def asked(check: Asking) -> None:
        async for finding in check(subject):
            findings.append(finding)

    async with asyncio.TaskGroup() as group:
        for name, check in blocking.items():
            group.create_task(_guarded(name, asyncio.to_thread(listed, check), findings, limit))
        for name, asking in waiting.items():
            group.create_task(_guarded(name, asked(asking), findings, limit))
    return findings


async def _guarded(name: str, work: Coroutine[Any, Any, None], findings: list[Finding], limit: float) -> None:
    try:
        async with asyncio.timeout(limit):
            await work
    except TimeoutError:
        findings.append(unknown(f"{name}.unfinished", "", f"not done after {limit:g} s", hint=HANGS))
    except Exception as problem:  # noqa: BLE001 - one sick thing must not silence the other checks
        text = f"this check failed: {type(problem).__name__}: {problem}"
        findings.append(unknown(f"{name}.unfinished", "", text))
