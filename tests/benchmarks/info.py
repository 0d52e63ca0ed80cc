"""`updated info` beside `rauc info`: the whole process, on a 500 MB verity bundle.

`python -m tests.benchmarks.info [--folder F] [--rounds N]`
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks import measure, scene

SIZE = 500 * 10**6  # bytes of image that does not compress
TARGET = 0.4  # seconds


def timed(command: Sequence[str]) -> measure.Sample:
    """One run of a program to its end."""
    start = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.monotonic() - start
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return measure.Sample(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=scene.default_folder())
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    folder: Path = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    image = scene.random_image(folder, SIZE)
    bundle = scene.bundle(folder, image, "lz4", "verity")
    certificate, _ = scene.keys(folder)
    arguments = ("info", f"--keyring={certificate}", str(bundle))
    programs = {
        "updated info": (sys.executable, "-m", "updated", *arguments),
        "rauc info": ("rauc", *arguments),
    }
    samples: dict[str, list[measure.Sample]] = {name: [] for name in programs}
    for _ in range(options.rounds):
        for name, command in programs.items():
            samples[name].append(timed(command))
    rows = []
    for name, some in samples.items():
        middle = measure.median(some)
        rows.append([name, f"{middle.wall:.3f} s", f"{middle.cpu:.3f} s", f"{middle.peak / 2**20:.0f} MiB"])
    print(measure.table(("info", "wall", "CPU", "peak RSS"), rows))
    met = measure.median(samples["updated info"]).wall < TARGET
    print(f"target: below {TARGET} s: {'met' if met else 'MISSED'}")


if __name__ == "__main__":
    main()
