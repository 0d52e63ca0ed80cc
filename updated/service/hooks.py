"""The device's own programs: run once for each moment, in order, and again if a power cut ended them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from updated import command
from updated.config.agent_toml import AgentConfig
from updated.core import events, states
from updated.errors import UpdatedError
from updated.host.journal import tell
from updated.service.details import outcome_of
from updated.service.memory import Memory
from updated.store import PendingHook, Store

log = logging.getLogger(__name__)

MAX_BEGUN: Final = 3  # times; one that reboots the device is not run for ever
MAX_LINES: Final = 5  # of its output, in the history


class Hooks:
    """`[hooks]` of updated.toml.  Belongs to the event loop."""

    def __init__(
        self,
        config: Callable[[], AgentConfig],
        store: Store,
        memory: Memory,
        *,
        booted: Callable[[], str],
        over: Callable[[], None],
    ) -> None:
        """`over`: called when none runs any more."""
        self._config = config
        self._store = store
        self._memory = memory
        self._booted = booted
        self._over = over
        self._waiting: list[PendingHook] = list(store.pending_hooks())
        self._task: asyncio.Task[None] | None = None

    @property
    def running(self) -> str:
        """Which one, as `on-installed`; "": none."""
        return f"on-{self._waiting[0].kind}" if self._waiting else ""

    def resume(self, state: states.State) -> None:
        """Begin what was interrupted.  What was to come before a reboot is too late after it."""
        pending = isinstance(state, states.RebootPending)
        self._waiting = [hook for hook in self._waiting if hook.kind != "installed" or pending]
        self._start()

    async def add(self, kind: states.HookKind, update: states.Update) -> None:
        """Run it when those before it are over; from now on a power cut does not lose it."""
        known = (kind, update.transaction) in [(hook.kind, hook.update.transaction) for hook in self._waiting]
        if known or not _program(self._config(), kind):
            return
        self._waiting.append(PendingHook(kind, update))
        await self._memory.keep(self._store.save_hooks, tuple(self._waiting))
        self._start()

    async def close(self) -> None:
        """End the one that runs; the next start of the service runs it again."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _start(self) -> None:
        if self._waiting and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while self._waiting:
            hook = replace(self._waiting[0], attempts=self._waiting[0].attempts + 1)
            self._waiting[0] = hook
            await self._memory.keep(self._store.save_hooks, tuple(self._waiting))
            text = await self._result(hook)
            await self._memory.note(outcome_of(hook.update, "hook", f"on-{hook.kind}: {text}"))
            del self._waiting[0]
            await self._memory.keep(self._store.save_hooks, tuple(self._waiting))
        self._over()

    async def _result(self, hook: PendingHook) -> str:
        """Run it; how it ended, as a sentence.  Never raises."""
        config = self._config()
        program = _program(config, hook.kind)
        if not program:
            return "Not run: it is not configured any more."
        if hook.attempts > MAX_BEGUN:
            return f"Not run again: it was interrupted {MAX_BEGUN} times."
        began = time.monotonic()
        log.info("hook on-%s begins: %s", hook.kind, " ".join(program))
        try:
            result = await command.run(program, timeout=config.hooks.timeout, env=self._environment(hook))
        except UpdatedError as error:
            self._failed(hook, error.with_hint())
            return f"Failed: {error}."
        took = f"after {time.monotonic() - began:.0f} s"
        said = " / ".join([*result.stdout.splitlines(), *result.stderr.splitlines()][-MAX_LINES:])
        told = f": {said}" if said else "."
        if result.code:
            self._failed(hook, f"exit code {result.code} {took}{told}")
            return f"Failed with exit code {result.code} {took}{told}"
        return f"Done {took}{told}"

    def _failed(self, hook: PendingHook, reason: str) -> None:
        tell(log, events.hook_failed(f"on-{hook.kind}", reason, transaction=hook.update.transaction))

    def _environment(self, hook: PendingHook) -> Mapping[str, str]:
        update = hook.update
        rejected = self._store.quarantine().get(update.manifest_hash)
        values = {
            "HOOK": f"on-{hook.kind}",
            "TRANSACTION": update.transaction,
            "SOURCE": update.source,
            "VERSION": update.version,
            "MANIFEST_HASH": update.manifest_hash,
            "TARGET": update.target,
            "BOOTED": self._booted(),
            "REASON": rejected.reason if rejected and hook.kind == "fallback" else "",
        }
        return {f"UPDATED_{name}": value.replace("\0", "") for name, value in values.items()}


def _program(config: AgentConfig, kind: states.HookKind) -> Sequence[str]:
    match kind:
        case "installed":
            return config.hooks.on_installed
        case "confirmed":
            return config.hooks.on_confirmed
        case "fallback":
            return config.hooks.on_fallback
