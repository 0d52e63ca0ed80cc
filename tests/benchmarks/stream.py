"""The same install from a file, over loopback HTTP, and over a line of 100 Mbit/s.

`python -m tests.benchmarks.stream [--folder F] [--rounds N] [--compressors gzip,zstd]`; needs root for loop
devices and the network namespace.  The server is nginx.  RAUC needs NBD and dm-verity in the kernel to
stream, so beside ours is what one does without: curl, then RAUC's install of the (plain) bundle on disk.
"""

from __future__ import annotations

import argparse
import subprocess
import time
from pathlib import Path

from tests.benchmarks import measure, scene, services
from tests.network import line
from tests.network.nginx import Nginx, nginx

RATE = 100_000_000  # bits per second
RATIO_TARGET = 0.8  # of the speed from a file
LINE_TARGET = 0.97  # of the line
HEAD = ("install of 512 MiB", "wall", "CPU", "peak RSS", "image")


def offer(server: Nginx, bundle: Path) -> str:
    """Its URL on `server`."""
    served = server.files / bundle.name
    served.unlink(missing_ok=True)
    served.hardlink_to(bundle)
    return server.url(bundle.name)


def curl(url: str, target: Path | str) -> float:
    """Seconds to download it."""
    start = time.monotonic()
    subprocess.run(["curl", "--silent", "--fail", "--output", str(target), url], check=True)
    return time.monotonic() - start


def loopback(folder: Path, device: Path, compressors: list[str], rounds: int) -> str:
    """From a file and from nginx on this machine, in turns, and curl with RAUC's install."""
    image = scene.image(folder)
    rows: list[list[str]] = []
    verdicts: list[str] = []
    with (
        nginx(folder / "nginx", listen="") as server,
        services.service("updated", folder, device) as updated,
        services.service("rauc", folder, device) as rauc,
    ):
        for compressor in compressors:
            bundle = scene.bundle(folder, image, compressor, "verity")
            plain = scene.bundle(folder, image, compressor)
            url, download = offer(server, bundle), folder / "download.raucb"
            plain_url = offer(server, plain)
            samples: dict[str, list[measure.Sample]] = {"file": [], "HTTP": [], "curl, rauc": []}
            for _ in range(rounds):  # in turns: a busy machine is busy for all of them
                samples["file"].append(updated.install(bundle))
                samples["HTTP"].append(updated.install(url))
                scene.check_same(image, device)
                waited = curl(plain_url, download)
                sample = rauc.install(download)
                samples["curl, rauc"].append(measure.Sample(sample.wall + waited, sample.cpu, sample.peak))
            download.unlink()
            for name, some in samples.items():
                rows.append(measure.row(f"{compressor}: {name}", measure.median(some), scene.IMAGE_SIZE))
            ratio = measure.median(samples["file"]).wall / measure.median(samples["HTTP"]).wall
            verdicts.append(
                f"{compressor}: HTTP at {ratio:.2f} of the speed from a file: {met(ratio, RATIO_TARGET)}"
            )
    target = f"target: at least {RATIO_TARGET} (the CPU of curl is not counted)"
    return "\n".join([measure.table(HEAD, rows), *verdicts, target])


def limited(folder: Path, device: Path, compressors: list[str]) -> str:
    """Over a line of RATE; how much of it is used while an install runs.

    The first one also pays 0.3 s for what a service loads when it first uses the network.
    """
    image = scene.image(folder)
    rows: list[list[str]] = []
    least = 1.0
    with line.wire(RATE) as wire:
        far = nginx(folder / "far", listen="", address=wire.far, port=80, prefix=wire.prefix)
        with far as server, services.service("updated", folder, device) as updated:
            for number, compressor in enumerate([compressors[0], *compressors]):
                url = offer(server, scene.bundle(folder, image, compressor, "verity"))
                before = wire.sent
                sample = updated.install(url)
                used = (wire.sent - before) * 8 / RATE / sample.wall
                scene.check_same(image, device)
                alone = curl(url, "/dev/null")
                least = min(least, used) if number else least
                rows.append(
                    [
                        compressor if number else f"{compressor}, first",
                        f"{sample.wall:.2f} s",
                        f"{alone:.2f} s",
                        f"{used:.1%}",
                        f"{sample.cpu:.2f} s",
                        f"{sample.peak / 2**20:.0f} MiB",
                    ]
                )
    head = (f"over {RATE // 10**6} Mbit/s (tc tbf)", "install", "curl alone", "line used", "CPU", "peak RSS")
    verdict = f"target: at least {LINE_TARGET:.0%} of the line: {met(least, LINE_TARGET)}"
    return f"{measure.table(head, rows)}\n{verdict}"


def met(found: float, target: float) -> str:
    return "met" if found >= target else "MISSED"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=scene.default_folder())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compressors", default="gzip,zstd")
    options = parser.parse_args()
    folder: Path = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    compressors = options.compressors.split(",")
    with scene.loop_device(folder, "stream", scene.IMAGE_SIZE) as device:
        print(loopback(folder, device, compressors, options.rounds), flush=True)
        print(limited(folder, device, compressors))


if __name__ == "__main__":
    main()
