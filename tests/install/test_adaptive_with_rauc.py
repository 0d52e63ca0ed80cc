"""The real `rauc` service and we share a data directory: each uses the hash indexes of the other one."""

from __future__ import annotations

import asyncio
import hashlib
import random
import subprocess
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest

from updated.bundle.block_index import CHUNK, digests_of
from updated.bundle.trust import Keyring, KeyringPolicy
from updated.core.model import Slot, SlotStatus
from updated.install.adaptive import Adaptive, open_adaptive
from updated.install.opened import open_bundle
from updated.readers.file import open_file
from updated.slots.raw import open_slot
from updated.slots.status_store import CentralStore

MIB = 1 << 20
FIRST = random.Random(5).randbytes(4 * MIB)
SECOND = FIRST[:MIB] + random.Random(6).randbytes(CHUNK) + FIRST[MIB:-CHUNK]
THIRD = random.Random(7).randbytes(CHUNK) + SECOND[CHUNK:]

# Waits until the service answers, installs $1, and ends the service; its log is what it prints.
INSTALL = """
export DBUS_STARTER_BUS_TYPE=session G_MESSAGES_DEBUG=rauc
rauc --conf=system.conf --override-boot-slot=A service >service.log 2>&1 &
tries=0
until rauc --conf=system.conf status >/dev/null 2>&1; do
    tries=$((tries + 1)); [ $tries -lt 100 ] || { cat service.log; exit 99; }
    sleep 0.02
done
rauc --conf=system.conf install "$1" >install.log 2>&1 || { cat install.log service.log; exit 98; }
kill $!
cat service.log
"""


@dataclass
class Board:
    """A device with two slots: 0 runs, 1 is the target."""

    folder: Path
    signer: tuple[Path, Path]

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def slot(self, number: int) -> Slot:
        return Slot(f"rootfs.{number}", "rootfs", number, str(self.folder / f"{number}.img"))

    def content(self) -> bytes:
        return Path(self.slot(1).device).read_bytes()

    def bundle(self, image: bytes) -> Path:
        """A plain one: without dm-verity in the kernel rauc installs no other."""
        content, bundle = self.folder / "content", self.folder / "bundle.raucb"
        content.mkdir(exist_ok=True)
        bundle.unlink(missing_ok=True)
        (content / "rootfs.img").write_bytes(image)
        (content / "manifest.raucm").write_text(
            "[update]\ncompatible=Test\nversion=1\n"
            "[image.rootfs]\nfilename=rootfs.img\nadaptive=block-hash-index\n"
        )
        cert, key = self.signer
        command = ["rauc", "bundle", f"--cert={cert}", f"--key={key}", str(content), str(bundle)]
        subprocess.run(command, check=True, capture_output=True)
        return bundle

    def install_with_rauc(self, image: bytes) -> str:
        command = ["dbus-run-session", "--", "sh", "-c", INSTALL, "sh", str(self.bundle(image))]
        done = subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def install_with_us(self, image: bytes, *, stop_at: int | None = None) -> Adaptive:
        return asyncio.run(self._install(self.bundle(image), stop_at))

    async def _install(self, bundle: Path, stop_at: int | None) -> Adaptive:
        store = CentralStore(self.data / "central.raucs")
        keyring = Keyring.load([self.signer[0].read_bytes()], KeyringPolicy())
        reader = await open_file(str(bundle))
        opened = await open_bundle(
            reader, keyring=keyring, formats=("plain",), now=datetime.now().astimezone()
        )
        image = opened.manifest.images[0]
        status = await store.load()
        adaptive = await open_adaptive(
            image=image, opened=opened, slot=self.slot(1), active=self.slot(0), status=status, data=self.data
        )
        assert adaptive is not None
        await store.save("rootfs.1", SlotStatus(status="pending"))
        writer = open_slot(self.slot(1), image_size=image.size)
        position = 0
        async with aclosing(adaptive.parts_from(await opened.image_layout(image), 0)) as parts:
            async for part in parts:
                writer.write(position, part)
                position += len(part)
                if position == stop_at:
                    break
        writer.close()
        await reader.close()
        if stop_at is not None:
            await adaptive.drop()
            return adaptive
        await adaptive.keep()
        await store.save("rootfs.1", SlotStatus(status="ok", sha256=image.sha256, size=image.size))
        return adaptive

    def cache(self) -> dict[str, tuple[int, bytes]]:
        """Mode and content of what lies in the target's folder."""
        folder = self.data / "slot.rootfs.1"
        return {
            str(path.relative_to(folder)): (
                path.stat().st_mode & 0o777,
                path.read_bytes() if path.is_file() else b"",
            )
            for path in [folder, *folder.rglob("*")]
        }


@pytest.fixture
def board(tmp_path: Path, signer: tuple[Path, Path]) -> Board:
    found = Board(tmp_path, signer)
    found.data.mkdir(mode=0o700)
    grubenv = tmp_path / "grubenv"
    subprocess.run(["grub-editenv", grubenv, "create"], check=True)
    subprocess.run(["grub-editenv", grubenv, "set", "ORDER=A B", "A_OK=1", "A_TRY=0"], check=True)
    sections = "".join(
        f"[slot.rootfs.{n}]\ndevice={found.slot(n).device}\ntype=raw\nbootname={'AB'[n]}\n" for n in (0, 1)
    )
    (tmp_path / "system.conf").write_text(
        f"[system]\ncompatible=Test\nbootloader=grub\ngrubenv={grubenv}\nmountprefix={tmp_path}/mnt\n"
        f"data-directory={found.data}\n[keyring]\npath={signer[0]}\n{sections}"
    )
    for n in (0, 1):
        with Path(found.slot(n).device).open("wb") as file:
            file.truncate(8 * MIB)
    return found


def folder_of(image: bytes) -> str:
    return f"hash-{hashlib.sha256(image).hexdigest()}"


def cache_of(image: bytes) -> dict[str, tuple[int, bytes]]:
    folder = folder_of(image)
    return {
        ".": (0o700, b""),
        folder: (0o700, b""),
        f"{folder}/block-hash-index": (0o644, digests_of(image)),
    }


@pytest.mark.root
def test_the_cache_goes_both_ways(board: Board) -> None:
    board.install_with_rauc(FIRST)
    assert board.cache() == cache_of(FIRST)
    adaptive = board.install_with_us(SECOND)
    assert board.content()[: len(SECOND)] == SECOND
    assert adaptive.stats.fetched < MIB and adaptive.stats.late == 0
    assert board.cache() == cache_of(SECOND)
    log = board.install_with_rauc(THIRD)
    index = board.data / "slot.rootfs.1" / folder_of(SECOND) / "block-hash-index"
    assert f"using existing hash index for target_slot from {index}" in log
    assert "target_slot: count=1024 sum=1023" in log  # all but the changed chunk
    assert board.content()[: len(THIRD)] == THIRD
    assert board.cache() == cache_of(THIRD)


@pytest.mark.root
def test_what_we_leave_in_the_middle_is_good_for_rauc(board: Board) -> None:
    """rauc 1.8 does without the index of the old content while a slot is pending, and hashes the slot."""
    board.install_with_rauc(FIRST)
    board.install_with_us(SECOND, stop_at=2 * MIB)
    assert board.cache() == {
        ".": (0o700, b""),
        "hash-unknown": (0o700, b""),
        "hash-unknown/block-hash-index": (0o644, digests_of(FIRST)),
        folder_of(SECOND): (0o700, b""),
        f"{folder_of(SECOND)}/block-hash-index.new": (0o644, digests_of(SECOND)),
    }
    board.install_with_rauc(THIRD)
    assert board.content()[: len(THIRD)] == THIRD
    assert board.cache() == cache_of(THIRD)
