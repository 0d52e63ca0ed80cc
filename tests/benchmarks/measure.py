"""Time, processor and memory of a process, as Linux counts them."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Sample:
    """One run."""

    wall: float  # seconds
    cpu: float  # seconds, user and system
    peak: int  # bytes resident


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def reset_peak(pid: int) -> None:
    """Forget the highest resident size so far."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def resident(pid: int | str, key: str = "VmHWM") -> int:
    """Bytes: VmHWM is the peak, VmRSS what is resident now."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    raise ValueError(f"{key} is not in /proc/{pid}/status")


def median(samples: Sequence[Sample]) -> Sample:
    """The median of each figure for itself, the largest peak."""
    return Sample(
        statistics.median(s.wall for s in samples),
        statistics.median(s.cpu for s in samples),
        max(s.peak for s in samples),
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they need to be."""
    lines = [head, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) for line in lines)


def row(name: str, sample: Sample, image_size: int) -> list[str]:
    """A line of the table of installs."""
    return [
        name,
        f"{sample.wall:.2f} s",
        f"{sample.cpu:.2f} s",
        f"{sample.peak / 2**20:.0f} MiB",
        f"{image_size / sample.wall / 1e6:.0f} MB/s",
    ]
