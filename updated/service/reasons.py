"""What `updated why` is answered from."""

from __future__ import annotations

import time
from collections.abc import Sequence

from updated.api.port import Poller, Snapshot
from updated.core.link import without_secrets
from updated.core.polling import PollStatus
from updated.core.why import SourceNote, WhyFacts, why
from updated.service.offers import Offers
from updated.service.runner import Runner
from updated.store import Store


def reasons(runner: Runner, snapshot: Snapshot, store: Store, poller: Poller | None) -> Sequence[str]:
    """Why nothing happens now, and when it will; the most important first."""
    return why(
        WhyFacts(
            state=snapshot.state,
            detail=runner.shown.detail,
            paused=snapshot.paused,
            judged=runner.offers.judged,
            sick=bool(runner.judging.sick),
            given_up=runner.leaving,
            reboots=runner.departure.by_itself,
            holds=(snapshot.hold,) if snapshot.hold else (),
            sources=_notes(runner.offers, poller),
            quarantine=tuple((one.version, one.reason) for one in store.quarantine().values()),
        )
    )


def _notes(offers: Offers, poller: Poller | None) -> tuple[SourceNote, ...]:
    refused: dict[str, list[tuple[str, str]]] = {name: [] for name in offers.names}
    for put in offers.put_off:
        if put.reason and not put.held and put.source in refused:
            refused[put.source].append((without_secrets(put.item.location), put.reason))
    return tuple(
        SourceNote(
            name,
            configured=True,
            last=_last(poller.status()) if poller and name == "ota" else "",
            next_look=_next_look(poller) if poller and name == "ota" else None,
            refused=tuple(refused[name]),
        )
        for name in offers.names
    )


def _last(status: PollStatus) -> str:
    """What the last look at the server brought, in one go."""
    said = status.last_error or status.summary
    return "; ".join(part.rstrip(".") for part in (said, *status.reasons, *status.alarms) if part)


def _next_look(poller: Poller) -> float | None:
    due = poller.next_poll() / 1e6
    return max(0.0, due - time.clock_gettime(time.CLOCK_BOOTTIME)) if due else None
