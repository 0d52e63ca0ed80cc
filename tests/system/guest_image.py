"""What a virtual machine boots in the tests: a kernel, an initramfs, and the tree of tree.py as a disk.

The kernel is Debian's, fetched with apt and kept beside the base tree.
"""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.system.tree import PACKAGES, cache, make_tree

GUEST_PACKAGES = (*PACKAGES, "udev", "kmod", "qemu-guest-agent", "iproute2")
DISK = 768 << 20  # bytes; a file with holes
# What the root file system needs, then what is there from the first moment on.
EARLY = ("virtio_pci", "virtio_blk", "ext4", "crc32c_generic", "i6300esb", "virtio_net")
# Folders and files of /lib/modules/*/kernel: sticks and their file systems, disks, network, the guest agent,
# lights, a sound card that is none, a watchdog.
MODULES = """\
crypto lib arch/x86/crypto fs/ext4 fs/jbd2 fs/mbcache.ko fs/fat fs/nls fs/exfat fs/ntfs3 fs/autofs
drivers/block drivers/virtio drivers/usb/core drivers/usb/common drivers/usb/host drivers/usb/storage
drivers/scsi/scsi_mod.ko drivers/scsi/scsi_common.ko drivers/scsi/sd_mod.ko block/t10-pi.ko
drivers/net/virtio_net.ko drivers/net/net_failover.ko net/core/failover.ko drivers/char/virtio_console.ko
drivers/char/hw_random drivers/leds/trigger/ledtrig-timer.ko sound/soundcore.ko sound/core
sound/drivers/snd-dummy.ko drivers/watchdog/watchdog.ko drivers/watchdog/i6300esb.ko
fs/efivarfs"""
# The hardware watchdog is started if there is one, and goes on until systemd takes it over: an init that
# hangs is caught, too.
INIT = """\
#!/bin/busybox sh
busybox mount -t proc proc /proc
busybox mount -t sysfs sys /sys
busybox mount -t devtmpfs dev /dev
while read -r ko; do
    case $ko in i6300esb.ko) options=heartbeat=40 ;; *) options= ;; esac
    busybox insmod "/modules/$ko" $options
done </modules/order
[ ! -c /dev/watchdog ] || busybox printf . >/dev/watchdog
root= mode=rw
read -r cmdline </proc/cmdline
for word in $cmdline; do
    case $word in root=*) root=${word#root=} ;; ro) mode=ro ;; esac
done
tries=0
while [ ! -b "$root" ] && [ $tries -lt 50 ]; do busybox sleep 0.1; tries=$((tries + 1)); done
busybox mount -t ext4 -o $mode "$root" /root || { echo "cannot mount $root"; exit 1; }
busybox mount -o move /dev /root/dev
busybox umount /proc /sys
exec busybox switch_root /root /sbin/init
"""


class GuestImage(NamedTuple):
    """What QEMU takes."""

    kernel: Path
    initramfs: Path
    disk: Path  # raw, an ext4 file system as a whole; never written to
    append: str  # to the kernel's command line

    def line(self) -> Sequence[str]:
        """QEMU's options to start it."""
        append = f"console=ttyS0 quiet panic=1 root=/dev/vda {self.append}"
        kernel = ["-kernel", str(self.kernel), "-initrd", str(self.initramfs), "-append", append]
        return ["-machine", "q35", *kernel]


def make_guest_image(folder: Path, append: str) -> GuestImage:
    """Build it in `folder`; takes some ten seconds, at the first time on a machine a minute more."""
    tree = folder / "tree"
    make_tree(tree, GUEST_PACKAGES)
    kernel, initramfs = add_kernel(tree, folder)
    disk = folder / "disk.raw"
    with disk.open("wb") as file:
        file.truncate(DISK)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-d", str(tree), str(disk)], check=True)
    shutil.rmtree(tree)
    return GuestImage(kernel, initramfs, disk, append)


def add_kernel(tree: Path, folder: Path) -> tuple[Path, Path]:
    """Give a tree the kernel's modules; returns the kernel and, in `folder`, an initramfs."""
    packages = _kernel_packages()
    version = next((packages / "lib/modules").iterdir()).name
    _copy_modules(packages, tree, version)
    initramfs = _make_initramfs(folder, packages, tree, version)
    return packages / "boot" / f"vmlinuz-{version}", initramfs


def _kernel_packages() -> Path:
    """The unpacked packages of the kernel (the full one: the one for clouds has no USB) and of busybox."""
    listed = subprocess.run(
        ["apt-cache", "depends", "linux-image-amd64"], check=True, capture_output=True, text=True
    ).stdout
    name = next(line.split()[1] for line in listed.splitlines() if "Depends" in line)
    folder = cache() / name
    if not folder.exists():
        unfinished = cache() / f".{name}-{os.getpid()}"
        try:
            unfinished.mkdir(parents=True)
            download = ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", name, "busybox-static"]
            subprocess.run(download, cwd=unfinished, check=True)
            for package in unfinished.glob("*.deb"):
                subprocess.run(["dpkg-deb", "-x", str(package), str(unfinished)], check=True)
                package.unlink()
            unfinished.rename(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def _copy_modules(packages: Path, tree: Path, version: str) -> None:
    source, target = packages / "lib/modules" / version, tree / "lib/modules" / version
    for name in MODULES.split():
        found = source / "kernel" / name
        if not found.exists():  # built in
            continue
        (target / "kernel" / name).parent.mkdir(parents=True, exist_ok=True)
        if found.is_dir():
            shutil.copytree(found, target / "kernel" / name)
        else:
            shutil.copy2(found, target / "kernel" / name)
    for path in source.glob("modules.[ob]*"):
        shutil.copy2(path, target)
    subprocess.run(["chroot", str(tree), "depmod", version], check=True)


def _make_initramfs(folder: Path, packages: Path, tree: Path, version: str) -> Path:
    root = folder / "initramfs"
    for name in ("bin", "dev", "proc", "sys", "root", "modules"):
        (root / name).mkdir(parents=True)
    shutil.copy2(packages / "bin/busybox", root / "bin/busybox")
    order: list[str] = []
    for name in EARLY:
        command = ["chroot", str(tree), "modprobe", "-S", version, "--show-depends", name]
        lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
        wanted = [line.split()[1] for line in lines if line.startswith("insmod")]
        # What the processor of the guest cannot do is wanted, too.
        order += [one for one in wanted if one not in order and "crc32c-intel" not in one]
    for module in order:
        shutil.copy2(tree / module.lstrip("/"), root / "modules")
    (root / "modules/order").write_text("".join(f"{Path(module).name}\n" for module in order))
    (root / "init").write_text(INIT)
    (root / "init").chmod(0o755)
    listed = subprocess.run(["find", "."], cwd=root, check=True, capture_output=True).stdout
    archive = subprocess.run(
        ["cpio", "--quiet", "-o", "-H", "newc"], cwd=root, input=listed, check=True, capture_output=True
    ).stdout
    path = folder / "initramfs.gz"
    path.write_bytes(gzip.compress(archive, 1))
    shutil.rmtree(root)
    return path
