"""Spreading many devices without a server that counts them: each knows its own place.  Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Final

_DIGITS: Final = 8  # bytes of the hash that count: more than a float can hold


@dataclass(frozen=True, slots=True)
class Rollout:
    """A part of all devices, from some time on."""

    percent: float = 100.0  # of all devices
    start: datetime | None = None  # with a time zone; nobody before it


def place(*words: str) -> float:
    """A number from 0 up to, not including, 1: the same for the same words, spread evenly over all others.

    SHA-256 of the words with their lengths, so that no two lists of words are the same text.
    """
    text = b"".join(len(word).to_bytes(8, "big") + word for word in map(_encoded, words))
    digits = int.from_bytes(hashlib.sha256(text).digest()[:_DIGITS], "big")
    return (digits >> 11) / (1 << 53)  # exactly what a float can hold: never rounded up to 1


def why_not(rollout: Rollout, machine_id: str, version: str, now: datetime) -> str:
    """Why this device does not get `version` yet, "" if it does.

    A device's place is another for each version, so that it is not always the same ones that go first; a
    higher percentage only adds devices.
    """
    if rollout.start is not None and now < rollout.start:
        return f"its rollout starts at {rollout.start.isoformat()}"
    if place(machine_id, version) * 100 >= rollout.percent:
        return f"its rollout has reached {rollout.percent:g} % of the devices, not this one"
    return ""


def _encoded(word: str) -> bytes:
    return word.encode(errors="surrogatepass")
