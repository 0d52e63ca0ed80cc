"""Bytes on the wire for an install, from nginx's log: in full, with power cuts, and adaptive.

`python -m tests.benchmarks.wire [--folder F] [--seed N]`; needs root for loop devices.  Two 512 MiB ext4
images of the same files, but for one package (of `dpkg`), in which each file has other bytes and another
length.  Their inodes have other times, too, as with any image that was built anew.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.benchmarks import measure, scene, services
from tests.benchmarks.stream import offer
from tests.network.nginx import Nginx, nginx

CUTS = 5
CUT_RATE = "30m"  # bytes per second while power is cut, or there would be little time for it
CHANGED_TARGET, SAME_TARGET = 0.10, 0.02  # of the bundle
LOST_TARGET = 8 << 20  # bytes for each power cut
COMPRESSOR = "zstd"


class Bench:
    """A device; each scenario finds the target as fresh as from the factory, unless it wants it not."""

    def __init__(self, folder: Path, device: Path, booted: Path) -> None:
        self.folder, self.device, self.booted = folder, device, booted
        self.rows: list[list[str]] = []

    @contextmanager
    def scenario(
        self, name: str, bundle: Path, directives: str = "", *, fresh: bool = True
    ) -> Iterator[tuple[Nginx, str]]:
        """A server that has `bundle`, and its URL; a line of the table at the end."""
        shutil.rmtree(self.folder / "wire", ignore_errors=True)
        if fresh:
            shutil.rmtree(self.folder / "updated", ignore_errors=True)
            scene.zero(self.device)
        start = time.monotonic()
        with nginx(self.folder / "wire", directives) as server:
            yield server, offer(server, bundle)
        wall = time.monotonic() - start  # the log is complete now
        size = bundle.stat().st_size
        wire = sum(request.wire for request in server.requests())
        count = len(server.requests())
        self.rows.append(
            [
                name,
                f"{size / 1e6:.1f} MB",
                f"{wire / 1e6:.1f} MB",
                f"{wire / size:.2%}",
                str(count),
                f"{wall:.1f} s",
            ]
        )
        self.wire, self.share = wire, wire / size

    def service(self) -> services.Running:
        return services.service("updated", self.folder, self.device, booted=self.booted)

    def install(self, name: str, bundle: Path, image: Path, *, fresh: bool = True) -> float:
        """One install; the bytes on the wire as a part of the bundle's."""
        with self.scenario(name, bundle, fresh=fresh) as (_, url), self.service() as updated:
            updated.install(url)
        scene.check_same(image, self.device)
        return self.share

    def cut(self, bundle: Path, image: Path, dice: random.Random) -> int:
        """An install with power cuts; the bytes on the wire that were fetched again for each."""
        seconds = [dice.uniform(0.3, 1.0) for _ in range(CUTS)]
        name = f"{CUTS} power cuts"
        with self.scenario(name, bundle, f"limit_rate {CUT_RATE};") as (_, url):
            for wait in seconds:
                with self.service() as updated:
                    client = updated.start_install(url)
                    time.sleep(wait)
                    os.kill(updated.pid, 9)
                    client.wait()
            with self.service() as updated:
                updated.install(url)
        scene.check_same(image, self.device)
        return (self.wire - bundle.stat().st_size) // CUTS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=scene.default_folder())
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    options = parser.parse_args()
    folder: Path = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    old, new, package = scene.two_images(folder)
    with scene.loop_device(folder, "wire", scene.IMAGE_SIZE) as device:
        bench = Bench(folder, device, old)
        plain = scene.bundle(folder, new, COMPRESSOR, "verity")
        bench.install("in full", plain, new)
        lost = bench.cut(plain, new, random.Random(options.seed))
        adaptive = scene.bundle(folder, new, COMPRESSOR, "verity", adaptive=True)
        changed = bench.install(f"adaptive, {package} changed", adaptive, new)
        same = bench.install("adaptive, the same again", adaptive, new, fresh=False)
        bench.booted = new
        index = bench.install("adaptive, nothing changed, index not known", adaptive, new)
    head = ("install of 512 MiB", "bundle", "on the wire", "share", "requests", "time")
    peer = ["peer: curl + rauc install", "", "", "100%", "1", ""]
    print(measure.table(head, [*bench.rows, peer]))
    print(f"power cuts: seed {options.seed}, {lost / 1e6:.1f} MB more for each: {met(lost, LOST_TARGET)}")
    print(f"adaptive, {package} changed: below {CHANGED_TARGET:.0%}: {met(changed, CHANGED_TARGET)}")
    print(f"adaptive, the same again: below {SAME_TARGET:.0%}: {met(same, SAME_TARGET)}")
    print(f"(an index has 32 bytes for 4096: {index:.2%} is what that is of a bundle that is compressed)")


def met(found: float, target: float) -> str:
    return "met" if found < target else "MISSED"


if __name__ == "__main__":
    main()
