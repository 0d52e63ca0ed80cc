"""Does memory depend on the size of the image?  Peak RSS of installs of 512 MiB and 4 GiB, ours and RAUC's.

`python -m tests.benchmarks.memory [--folder F]`; needs root and 4 GiB of room.  The images are mostly zeros.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tests.benchmarks import measure, scene, services

SIZES = (512 << 20, 4 << 30)  # bytes
LIMIT = 64 << 20  # bytes resident, ours
SPREAD = 5 << 20  # bytes between the sizes, ours
HEAD = ("install", "wall", "CPU", "peak RSS", "image")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=scene.default_folder())
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[list[str]] = []
    peaks: list[int] = []
    for size in SIZES:
        image = scene.sparse_image(folder, size)
        plain = scene.bundle(folder, image, "gzip")
        with scene.loop_device(folder, "memory", size) as device:
            for name, bundle in (("plain", plain), ("verity", scene.bundle(folder, image, "gzip", "verity"))):
                with services.service("updated", folder, device) as updated:
                    sample = updated.install(bundle)
                scene.check_same(image, device)
                peaks.append(sample.peak)
                rows.append(measure.row(f"{size >> 20} MiB, {name}: updated", sample, size))
            with services.service("rauc", folder, device) as rauc:
                rows.append(measure.row(f"{size >> 20} MiB, plain: rauc", rauc.install(plain), size))
    print(measure.table(HEAD, rows))
    verdict = "met" if max(peaks) < LIMIT and max(peaks) - min(peaks) < SPREAD else "MISSED"
    print(f"target: below {LIMIT >> 20} MiB, within {SPREAD >> 20} MiB of each other: {verdict}")


if __name__ == "__main__":
    main()
