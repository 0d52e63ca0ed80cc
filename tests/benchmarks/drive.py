"""One install by our engine in a process of its own: open a bundle, stream its image into a device, prove it.

`python -m tests.benchmarks.drive BUNDLE DEVICE CERTIFICATE` prints its figures as JSON.  What the service
adds (D-Bus, bootloader, slot status) is not in it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from tests.benchmarks import measure
from updated.bundle.trust import Keyring, KeyringPolicy
from updated.core.model import Slot
from updated.install.opened import open_bundle
from updated.readers.file import open_file
from updated.slots.raw import open_slot


async def install(bundle: str, device: str, keyring: Keyring) -> None:
    """Everything between an offer and the commit."""
    reader = await open_file(bundle)
    try:
        opened = await open_bundle(
            reader, keyring=keyring, formats={"plain", "verity"}, now=datetime.now(UTC)
        )
        (image,) = opened.manifest.images
        slot = open_slot(Slot("rootfs.1", "rootfs", 1, device), image_size=image.size)
        try:
            await opened.write_image(image, slot)
        finally:
            slot.close()
    finally:
        await reader.close()


def main() -> None:
    start = time.monotonic()
    bundle, device, certificate = sys.argv[1:]
    keyring = Keyring.load([Path(certificate).read_bytes()], KeyringPolicy())
    asyncio.run(install(bundle, device, keyring))
    sample = measure.Sample(time.monotonic() - start, time.process_time(), measure.resident("self"))
    print(json.dumps(dataclasses.asdict(sample)))


if __name__ == "__main__":
    main()
