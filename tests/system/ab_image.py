"""Disks that really boot: A/B slots behind GRUB (BIOS) or U-Boot, with the product installed as its unit.

    base = make_base(folder)                             # once in a run: some 15 s
    system = make_system(base, folder, "grub", keyring)  # what is in a slot: a second
    bundle = make_bundle(system, ...)                    # ab_bundle.py
    disk = make_disk(system, folder, [bundle.path])      # a second

The root file systems are read-only and hold kernel and initramfs, which the loader takes from the slot.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from tests.system.guest_image import GUEST_PACKAGES, add_kernel
from tests.system.tree import make_tree

Loader = Literal["grub", "uboot", "uefi"]
Files = Mapping[str, str | bytes | None]
"""Path in the system -> content; what begins with `#!` may be executed; None: nothing is there."""

HERE = Path(__file__).parent / "ab"
MIB = 1 << 20
AB_PACKAGES = (*GUEST_PACKAGES, "libubootenv-tool", "efibootmgr")
ARGUMENTS = "console=ttyS0,115200 panic=1 quiet net.ifnames=0 mitigations=off"
UBOOT_ROM = "/usr/lib/u-boot/qemu-x86/u-boot.rom"
GRUB_MODULES = "biosdisk part_gpt fat ext2 normal linux echo test configfile serial terminal loadenv reboot"
BOOTLOADER = {
    "grub": "bootloader=grub\ngrubenv=/efi/grub/grubenv",
    "uboot": "bootloader=uboot",
    "uefi": "bootloader=efi",
}
GRUBENV = "# GRUB Environment Block\nORDER=A B\nA_OK=1\nA_TRY=0\nB_OK=1\nB_TRY=0\n".ljust(1024, "#")
UBOOT_ENV = "BOOT_ORDER=A B\nBOOT_A_LEFT=3\nBOOT_B_LEFT=3\n"
ROOTFS, SLOT, DATA = 192 * MIB, 224 * MIB, 512 * MIB  # bytes; files with holes
ESP = 34 * MIB  # bytes: the smallest FAT32 with clusters of 512 bytes

# Of no use in these machines: what is not there need not be copied, installed, and read again.
LEFT_OUT = """\
usr/lib/x86_64-linux-gnu/perl usr/lib/x86_64-linux-gnu/perl-base usr/share/perl usr/share/perl5
usr/bin/perl usr/bin/perl5.36.0 usr/lib/x86_64-linux-gnu/libperl.so.5.36.0
usr/lib/systemd/systemd-networkd usr/lib/x86_64-linux-gnu/gconv usr/lib/udev/hwdb.d usr/lib/udev/hwdb.bin
usr/share/bash-completion usr/share/zsh usr/share/zoneinfo usr/share/keyrings
usr/lib/python3.11/test usr/lib/python3.11/pydoc_data usr/lib/python3.11/lib2to3 usr/lib/python3.11/ensurepip
usr/lib/python3.11/idlelib usr/lib/python3.11/tkinter usr/lib/python3.11/distutils
var/lib/dpkg var/lib/apt var/cache"""
# Programs that systemd and udev start at each boot: all but these are left out.
RULES = """\
50-udev-default.rules 60-block.rules 60-persistent-storage.rules 60-qemu-guest-agent.rules 80-drivers.rules
99-systemd.rules"""
GENERATORS = "systemd-fstab-generator"
MASKED = """\
systemd-modules-load.service kmod-static-nodes.service systemd-initctl.socket
systemd-random-seed.service systemd-pstore.service systemd-binfmt.service systemd-timesyncd.service
systemd-networkd.service systemd-sysusers.service systemd-hwdb-update.service systemd-firstboot.service
systemd-machine-id-commit.service systemd-boot-system-token.service systemd-remount-fs.service
systemd-quotacheck.service systemd-update-done.service ldconfig.service systemd-ask-password-wall.path
systemd-ask-password-console.path systemd-tmpfiles-clean.timer proc-sys-fs-binfmt_misc.automount
dev-hugepages.mount dev-mqueue.mount sys-kernel-debug.mount sys-kernel-tracing.mount
sys-fs-fuse-connections.mount sys-kernel-config.mount modprobe@configfs.service modprobe@drm.service
modprobe@fuse.service
modprobe@efi_pstore.service modprobe@dm_mod.service modprobe@loop.service systemd-vconsole-setup.service
getty.target getty@tty1.service serial-getty@ttyS0.service systemd-user-sessions.service
apt-daily.timer e2scrub_reap.service"""


class System(NamedTuple):
    """What a slot of such a machine holds."""

    loader: Loader
    rootfs: Path  # ext4 image of ROOTFS bytes; never written to


class Disk(NamedTuple):
    """A whole disk, as from the factory: both slots hold the system, A is started."""

    disk: Path  # raw; never written to
    loader: Loader

    def line(self) -> Sequence[str]:
        """QEMU's options to start it.  U-Boot finds its virtio disk on the old machine only."""
        return ["-machine", "pc", *(["-bios", UBOOT_ROM] if self.loader == "uboot" else [])]


def make_base(folder: Path) -> Path:
    """An ext4 image for all systems of a run, made in `folder`."""
    tree, image = folder / "ab-tree", folder / "ab-base.ext4"
    make_tree(tree, AB_PACKAGES)
    kernel, initramfs = add_kernel(tree, folder)
    shutil.copyfile(kernel, tree / "boot/vmlinuz")
    shutil.copyfile(initramfs, tree / "boot/initrd.img")
    _leave_out(tree)
    subprocess.run(["strip", "--strip-debug", *tree.glob("usr/lib/updated/**/*.so")], check=True)
    shutil.copytree(HERE / "rootfs", tree, symlinks=True, dirs_exist_ok=True)
    conf = Path(__file__).parents[2] / "units/hardware-watchdog.conf"
    (tree / "etc/systemd/system.conf.d").mkdir(exist_ok=True)
    shutil.copy(conf, tree / "etc/systemd/system.conf.d")
    (tree / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    for name in ("efi", "data"):
        (tree / name).mkdir(exist_ok=True)
    for unit in MASKED.split():
        link = tree / "etc/systemd/system" / unit
        link.unlink(missing_ok=True)
        link.symlink_to("/dev/null")
    (tree / "etc/systemd/system/default.target").symlink_to("/lib/systemd/system/multi-user.target")
    units = ("updated.service", "network-up.service", "app.service", "health.socket")
    subprocess.run(
        ["systemctl", "--quiet", f"--root={tree}", "enable", *units], check=True, capture_output=True
    )
    subprocess.run(["systemd-sysusers", f"--root={tree}"], check=True, capture_output=True)
    shutil.rmtree(tree / "var")  # is on the data partition
    (tree / "var").mkdir()
    _ext4(image, ROOTFS, tree)
    shutil.rmtree(tree)
    return image


def make_system(
    base: Path, folder: Path, loader: Loader, keyring: bytes, files: Files | None = None
) -> System:
    """A system of version 1 for a loader, made in `folder`; `files` are changed in it."""
    conf = (HERE / "rootfs/etc/rauc/system.conf").read_text()
    own: dict[str, str | bytes | None] = {
        "/etc/rauc/system.conf": conf.replace("@BOOTLOADER@", BOOTLOADER[loader]),
        "/etc/rauc/keyring.pem": keyring,
        "/etc/version": "1\n",
    }
    return System(loader, change(base, folder / f"{loader}.ext4", {**own, **(files or {})}))


def make_disk(system: System, folder: Path, bundles: Sequence[Path] = ()) -> Disk:
    """A disk, made in `folder`; the bundles lie in /data/bundles, a `mv` away from /data/drop."""
    disk = folder / f"{system.loader}.raw"
    with tempfile.TemporaryDirectory(dir=folder) as name:
        work = Path(name)
        data = work / "data"
        for part in ("bundles", "drop", "updated", "var/log/journal", "var/lib"):
            (data / part).mkdir(parents=True)
        (data / "var/lib/updated").mkdir(mode=0o700)
        for bundle in bundles:
            shutil.copy(bundle, data / "bundles")
        parts = {
            2 * MIB: _esp(work, system.loader),
            2 * MIB + ESP: system.rootfs,
            2 * MIB + ESP + SLOT: system.rootfs,
            2 * MIB + ESP + 2 * SLOT: _ext4(work / "data.ext4", DATA, data),
        }
        disk.unlink(missing_ok=True)
        with disk.open("wb") as file:
            file.truncate(3 * MIB + ESP + 2 * SLOT + DATA)
        subprocess.run(["sfdisk", "-q", str(disk)], input=_table(), text=True, check=True)
        for start, part_image in parts.items():
            command = ["dd", f"if={part_image}", f"of={disk}", "bs=1M", f"seek={start // MIB}"]
            subprocess.run([*command, "conv=notrunc,sparse", "status=none"], check=True)
        if system.loader == "grub":
            _install_grub(disk, work)
    return Disk(disk, system.loader)


def change(source: Path, target: Path, files: Files) -> Path:
    """A copy of a root file system with other files."""
    subprocess.run(["cp", "--sparse=always", str(source), str(target)], check=True)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        subprocess.run(["mount", "-o", "loop", str(target), str(root)], check=True)
        try:
            for path, content in files.items():
                _write(root / path.lstrip("/"), content)
        finally:
            subprocess.run(["umount", str(root)], check=True)
    return target


def _leave_out(tree: Path) -> None:
    surplus = [tree / name for name in LEFT_OUT.split()]
    surplus += tree.glob("usr/lib/modules/*/kernel/lib/test_*")
    for folder, kept in (("udev/rules.d", RULES), ("systemd/system-generators", GENERATORS)):
        surplus += [path for path in (tree / "usr/lib" / folder).iterdir() if path.name not in kept.split()]
    for path in surplus:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _write(path: Path, content: str | bytes | None) -> None:
    path.unlink(missing_ok=True)  # also a link: what it leads to stays as it is
    if content is None:
        return
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(0o755 if data.startswith(b"#!") else 0o644)


def _ext4(path: Path, size: int, tree: Path) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", "-d", str(tree), str(path)], check=True)
    return path


def _table() -> str:
    return f"""\
label: gpt
start=1MiB, size=1MiB, name=bios, type=21686148-6449-6E6F-744E-656564454649
size={ESP // MIB}MiB, name=esp, type=U, attrs="LegacyBIOSBootable"
size={SLOT // MIB}MiB, name=rootfs-a, type=L
size={SLOT // MIB}MiB, name=rootfs-b, type=L
size={DATA // MIB}MiB, name=data, type=L
"""


def _esp(work: Path, loader: Loader) -> Path:
    """The FAT with what the loader reads and writes."""
    image, files = work / "esp.vfat", work / "esp"
    files.mkdir()
    if loader == "grub":
        (files / "grub").mkdir()
        (files / "grub/grub.cfg").write_text(
            (HERE / "grub.cfg").read_text().replace("@ARGUMENTS@", ARGUMENTS)
        )
        (files / "grub/grubenv").write_text(GRUBENV)
    elif loader == "uboot":
        script = work / "boot.cmd"
        script.write_text((HERE / "boot.cmd").read_text().replace("@ARGUMENTS@", ARGUMENTS))
        command = ["mkimage", "-A", "x86", "-T", "script", "-C", "none", "-d", str(script)]
        subprocess.run([*command, str(files / "boot.scr")], check=True, capture_output=True)
        command = ["mkenvimage", "-s", "0x4000", "-o", str(files / "uboot.env"), "-"]
        subprocess.run(command, input=UBOOT_ENV, text=True, check=True)
    with image.open("wb") as file:
        file.truncate(ESP)
    subprocess.run(
        ["mkfs.vfat", "-F", "32", "-s", "1", "-n", "ESP", str(image)], check=True, capture_output=True
    )
    if loader != "uefi":  # whose loaders come later, from ab_uefi.py
        subprocess.run(["mcopy", "-s", "-i", str(image), *map(str, files.iterdir()), "::/"], check=True)
    return image


def _install_grub(disk: Path, work: Path) -> None:
    """As grub-bios-setup does, but without a device: boot.img to the first sector, core.img to partition 1.

    Source: GRUB's boot.S (the sector of core.img at 0x5c, 0x66: the code's own jump) and diskboot.S (the
    block list's first entry in core.img at 0x1f4).
    """
    core_path, sector = work / "core.img", MIB // 512
    command = ["grub-mkimage", "-O", "i386-pc", "-p", "(hd0,gpt2)/grub", "-o", str(core_path)]
    subprocess.run([*command, *GRUB_MODULES.split()], check=True)
    core = bytearray(core_path.read_bytes())
    struct.pack_into("<Q", core, 0x1F4, sector + 1)
    boot = Path("/usr/lib/grub/i386-pc/boot.img").read_bytes()
    with disk.open("r+b") as file:
        file.write(boot[:0x5C] + struct.pack("<Q", sector) + b"\xff" + boot[0x65:0x66] + boot[0x66:440])
        file.seek(MIB)
        file.write(core)
