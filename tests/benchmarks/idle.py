"""What a service costs that has nothing to do: start, memory and wake-ups, ours and RAUC's.

`python -m tests.benchmarks.idle [--folder F] [--seconds N]`; needs root for the loop device.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

from tests.benchmarks import measure, scene, services

STARTS = 5
READY_TARGET = 0.5  # seconds from the start of the process to READY=1
IDLE_TARGET = 45 << 20  # bytes resident
SETTLE = 15.0  # seconds until the booted system has been judged


def sleeps(pid: int) -> dict[str, int]:
    """How often each thread of a process has gone to sleep on its own."""
    return {
        task.name: int(line.split()[1])
        for task in Path(f"/proc/{pid}/task").iterdir()
        for line in (task / "status").read_text().splitlines()
        if line.startswith("voluntary_ctxt_switches")
    }


def wake_ups(before: dict[str, int], after: dict[str, int]) -> int:
    """How often threads woke up between the two; a thread that went away is not counted."""
    return sum(count - before.get(thread, 0) for thread, count in after.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=scene.default_folder())
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    folder: Path = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    with scene.loop_device(folder, "idle", 16 << 20) as device:
        ready = statistics.median(services.time_to_ready(folder, device) for _ in range(STARTS))
        idle = 0
        for kind in ("updated", "rauc"):
            with services.service(kind, folder, device) as service:
                time.sleep(SETTLE)
                before, cpu = sleeps(service.pid), measure.cpu_seconds(service.pid)
                time.sleep(options.seconds)
                woken = wake_ups(before, sleeps(service.pid))
                used = measure.cpu_seconds(service.pid) - cpu
                resident = measure.resident(service.pid, "VmRSS")
                idle = idle or resident
                rows.append(
                    [
                        kind,
                        f"{service.ready:.2f} s",
                        f"{resident / 2**20:.0f} MiB",
                        f"{woken}",
                        f"{used:.2f} s",
                    ]
                )
    head = ("idle", "first answer", "RSS", f"wake-ups in {options.seconds:g} s", "CPU")
    print(measure.table(head, rows))
    print(f"updated, process start to READY=1: {ready:.2f} s (median of {STARTS})")
    met = ready < READY_TARGET and idle < IDLE_TARGET
    verdict = "met" if met else "MISSED"
    print(f"target: READY below {READY_TARGET} s, RSS below {IDLE_TARGET >> 20} MiB: {verdict}")


if __name__ == "__main__":
    main()
