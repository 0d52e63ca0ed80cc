"""May something begin now that nobody asked for by hand?  If not, which rule says so, until when?  Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Stage = Literal["install", "reboot"]

MAX_WORDS = 100  # characters of a stranger's text in a sentence


@dataclass(frozen=True, slots=True)
class Hold:
    """Why something waits."""

    rule: str  # hold inhibit-file consent clock window disk-space battery metered logind
    text: str  # a sentence for a person
    delay: float | None = None  # seconds until it is worth another look; None: somebody has to act first


@dataclass(frozen=True, slots=True)
class Subject:
    """What wants to begin."""

    source: str  # as in `Offer.source`; "request" is a person
    version: str  # "" if not known
    manifest_hash: str
    remote: bool = False  # its bytes come over a network
    needs_space: int = 0  # bytes that it takes in the data directory


@dataclass(frozen=True, slots=True)
class Power:
    """Where the device's power comes from."""

    mains: bool  # or from whatever else does not run out
    percent: int | None = None  # charge of the batteries; None: there are none, or it is not known


@dataclass(frozen=True, slots=True)
class Inhibitor:
    """Somebody who blocks the shutdown (systemd-inhibit(1))."""

    who: str
    why: str


class Conditions(Protocol):
    """What the device is like now.  Nothing of it raises, or takes longer than a few seconds."""

    async def power(self) -> Power: ...

    async def metered(self) -> bool | None:
        """The way to the network costs by volume; None: nobody knows."""
        ...

    async def inhibitors(self) -> Sequence[Inhibitor]:
        """Who blocks the shutdown."""
        ...

    async def free_space(self) -> int | None:
        """Bytes left for the agent in the data directory; None: nobody knows."""
        ...

    async def present(self, files: Sequence[str]) -> str:
        """The first of `files` that is there; "": none."""
        ...


def name_of(stage: Stage, version: str, source: str) -> str:
    """How a sentence about what waits begins."""
    if stage == "reboot":
        return f"The reboot into version {words(version)}" if version else "The reboot"
    what = f"Version {words(version)}" if version else "A bundle"
    return what if source == "request" else f"{what} from {source}"


def words(text: str, most: int = MAX_WORDS) -> str:
    """A stranger's text as a part of a sentence: one line, at most `most` characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 2 * most]).split())
    return line if len(line) <= most else f"{line[: most - 1]}…"
