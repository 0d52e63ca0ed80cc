"""Our install beside RAUC's of the same bundle, into the same loop device, one after the other.

`python -m tests.benchmarks.install [--folder F] [--rounds N] [--compressors gzip,zstd,xz]`; needs root for
loop devices and for RAUC's mount.  Ours is timed with the proof (sync, read back, compare), RAUC's with its
service running already.  RAUC needs dm-verity in the kernel for verity bundles, so these are ours alone.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from tests.benchmarks import measure, peer, scene

HEAD = ("install", "wall", "CPU", "peak RSS", "image")


def ours(bundle: Path, device: Path, certificate: Path) -> measure.Sample:
    """One install in a new process."""
    command = [sys.executable, "-m", "tests.benchmarks.drive", str(bundle), str(device), str(certificate)]
    return measure.Sample(**json.loads(subprocess.run(command, check=True, capture_output=True).stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=scene.default_folder())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compressors", default="gzip,zstd,xz")
    options = parser.parse_args()
    folder: Path = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    image = scene.image(folder)
    certificate, _ = scene.keys(folder)
    rows: list[list[str]] = []
    with (
        scene.loop_device(folder, "install", scene.IMAGE_SIZE) as device,
        peer.service(folder, device) as rauc,
    ):
        for compressor in options.compressors.split(","):
            plain = scene.bundle(folder, image, compressor)
            verity = scene.bundle(folder, image, compressor, "verity")
            samples: dict[str, list[measure.Sample]] = {"updated": [], "rauc": [], "updated, verity": []}
            for _ in range(options.rounds):  # in turns: a busy machine is busy for all of them
                samples["updated"].append(ours(plain, device, certificate))
                scene.check_same(image, device)
                samples["rauc"].append(rauc.install(plain))
                samples["updated, verity"].append(ours(verity, device, certificate))
            for name, some in samples.items():
                rows.append(measure.row(f"{compressor}: {name}", measure.median(some), scene.IMAGE_SIZE))
    print(measure.table(HEAD, rows))


if __name__ == "__main__":
    main()
