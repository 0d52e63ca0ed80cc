"""Runs as the first process of a small machine: lets the product change files on a real FAT.

The medium is a network block device whose server is here, too: it writes down each write and each flush that
the kernel sends, in order.  Arguments: the image, the log, the layout, the operation, the bootname.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import socket
import struct
import sys
import time
from pathlib import Path

from updated.boot.base import make_bootloader
from updated.boot.fat import Partition
from updated.boot.tryboot import Settings
from updated.boot.tryboot_firmware import Firmware

READ, WRITE, END, FLUSH = range(4)
SECTOR = 512
# linux/nbd.h
SET_SOCK, SET_BLKSIZE, DO_IT, SET_SIZE_BLOCKS, SET_FLAGS = 0xAB00, 0xAB01, 0xAB03, 0xAB07, 0xAB0A
FLAGS = 1 | 4 | 8  # flags are valid, flushes and FUA are sent


def serve(connection: socket.socket, image: Path, log: Path) -> None:
    data = bytearray(image.read_bytes())
    file = connection.makefile("rb")
    with log.open("w") as out:
        while request := file.read(28):
            _, flags, kind, handle, offset, length = struct.unpack(">IHHQQI", request)
            answer = b""
            if kind == READ:
                answer = bytes(data[offset : offset + length])
            elif kind == WRITE:
                data[offset : offset + length] = written = file.read(length)
                print(json.dumps([offset, written.hex()]), file=out, flush=True)
            if kind == FLUSH or flags & 1:
                print("null", file=out, flush=True)
            if kind == END:
                return
            connection.sendall(struct.pack(">IIQ", 0x67446698, 0, handle) + answer)


def attach(image: Path, log: Path) -> socket.socket:
    server, kernel = socket.socketpair()
    if os.fork() == 0:
        kernel.close()
        serve(server, image, log)
        os._exit(0)
    device = os.open("/dev/nbd0", os.O_RDWR)
    fcntl.ioctl(device, SET_BLKSIZE, SECTOR)
    fcntl.ioctl(device, SET_SIZE_BLOCKS, image.stat().st_size // SECTOR)
    fcntl.ioctl(device, SET_FLAGS, FLAGS)
    fcntl.ioctl(device, SET_SOCK, kernel.fileno())
    if os.fork() == 0:
        fcntl.ioctl(device, DO_IT)
        os._exit(0)
    while not int(Path("/sys/block/nbd0/size").read_text()) or not Path("/sys/block/nbd0/pid").exists():
        time.sleep(0.01)
    return kernel


def tell(chosen: Path, *, running: str) -> Firmware:
    """What a firmware says that has started `running` on trial."""
    node = chosen / "bootloader"
    node.mkdir(parents=True)
    (node / "tryboot").write_bytes(b"\0\0\0\1")
    (node / "partition").write_bytes(b"\0\0\0\3" if running == "B" else b"\0\0\0\2")
    (chosen / "os_prefix").write_text(f"slot-{running}/")
    return Firmware(chosen)


def main(image: str, log: str, layout: str, operation: str, name: str) -> None:
    connection = attach(Path(image), Path(log))
    partitions, roots = {"A": 2, "B": 3}, {"A": "PARTUUID=a", "B": "PARTUUID=b"}
    firmware = tell(Path("/run/chosen"), running=name if operation == "good" else "A")
    settings = Settings(
        Partition("/dev/nbd0", Path("/run")),
        firmware,
        partitions=partitions if layout == "partitions" else {},
        roots=roots if layout == "prefixes" else {},
    )
    tryboot = make_bootloader("tryboot", ["A", "B"], tryboot=settings)
    if operation == "primary":
        asyncio.run(tryboot.set_primary(name))
    else:
        asyncio.run(tryboot.set_state(name, operation == "good"))
    print("primary:", asyncio.run(tryboot.get_primary()), flush=True)
    connection.close()


main(*sys.argv[1:])
