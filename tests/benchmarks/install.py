"""An install by our service beside one by RAUC's, of the same bundle, into the same loop device, in turns.

`python -m tests.benchmarks.install [--folder F] [--rounds N] [--compressors gzip,zstd,xz]`; needs root for
loop devices and for RAUC's mount.  The client is `rauc install` for both.  Ours includes the proof (image
checksum, sync, read back).  RAUC needs dm-verity in the kernel for verity bundles, so these are ours alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tests.benchmarks import measure, scene, services

HEAD = ("install of 512 MiB", "wall", "CPU", "peak RSS", "image")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=scene.default_folder())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compressors", default="gzip,zstd,xz")
    options = parser.parse_args()
    folder: Path = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    image = scene.image(folder)
    rows: list[list[str]] = []
    with (
        scene.loop_device(folder, "install", scene.IMAGE_SIZE) as device,
        services.service("rauc", folder, device) as rauc,
        services.service("updated", folder, device) as updated,
    ):
        for compressor in options.compressors.split(","):
            plain = scene.bundle(folder, image, compressor)
            verity = scene.bundle(folder, image, compressor, "verity")
            samples: dict[str, list[measure.Sample]] = {"updated": [], "rauc": [], "updated, verity": []}
            for _ in range(options.rounds):  # in turns: a busy machine is busy for all of them
                samples["updated"].append(updated.install(plain))
                scene.check_same(image, device)
                samples["rauc"].append(rauc.install(plain))
                samples["updated, verity"].append(updated.install(verity))
            for name, some in samples.items():
                rows.append(measure.row(f"{compressor}: {name}", measure.median(some), scene.IMAGE_SIZE))
    print(measure.table(HEAD, rows))


if __name__ == "__main__":
    main()
