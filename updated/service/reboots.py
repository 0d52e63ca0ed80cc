"""Asks for a reboot, and harder and harder until it comes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from updated.config.agent_toml import AgentConfig
from updated.core import events
from updated.errors import UpdatedError
from updated.host.journal import tell

log = logging.getLogger(__name__)

Step = Callable[[], Awaitable[None]]
"""One way to ask for it.  Raises UpdatedError if it was refused at once."""


class Reboots:
    """Belongs to the event loop."""

    def __init__(
        self,
        config: Callable[[], AgentConfig],
        tell: Callable[[str], None],
    ) -> None:
        """`tell`: a sentence for whoever waits."""
        self._config = config
        self._tell = tell
        self._task: asyncio.Task[None] | None = None

    @property
    def begun(self) -> bool:
        """A reboot was asked for, and is to come."""
        return self._task is not None and not self._task.done()

    def begin(self, steps: Sequence[Step], before: Callable[[], Awaitable[None]] | None) -> None:
        """Ask by the first of `steps`; by the next one where that fails or nothing comes of it.

        `before`: what must still be done.
        """
        if not self.begun:
            self._task = asyncio.create_task(self._run(steps, before))

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self, steps: Sequence[Step], before: Callable[[], Awaitable[None]] | None) -> None:
        if before is not None:
            await self._try(before)
        announced = self._config().reboot.delay  # the first step waits so long by itself
        for number, step in enumerate(steps, 1):
            await self._try(step)
            if number == len(steps):
                break
            await asyncio.sleep(self._config().reboot.escalate_after + announced)
            announced = 0.0
            waited = self._config().reboot.escalate_after
            tell(log, events.reboot_escalated(f"step {number + 1} of {len(steps)}", waited))
            self._tell(f"The reboot did not come within {waited:g} s; it is asked for harder.")

    async def _try(self, step: Step) -> None:
        """Whatever becomes of it, the next one may lead there."""
        try:
            await step()
        except UpdatedError as error:
            log.error("The reboot was refused: %s", error.with_hint())
            self._tell(f"The reboot was refused: {error}.")
        except Exception:
            log.exception("a bug in `updated`")
