"""May something begin that nobody asked for by hand; if not, which rule says so, and until when?  Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Stage = Literal["install", "reboot"]


@dataclass(frozen=True, slots=True)
class Hold:
    """Why something waits."""

    rule: str  # window consent inhibit-file inhibitor logind metered battery disk-space ...
    text: str  # a sentence for a person
    delay: float | None = None  # seconds until it is worth another look; None: somebody has to act first
