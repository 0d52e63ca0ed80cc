"""A/B machines that UEFI itself starts: OVMF, its variables in flash, no other loader.

    disk = factory.disk("uefi", "name", bundle)
    with UefiMachine(disk, folder) as machine: ...

Each boot entry starts a kernel (an EFI program) from the one ESP, with the slot's command line.  The factory
has made none: the first start goes by the path for removable media, where a unified kernel image (systemd's
stub; the command line is inside) starts A.  Source: the kernel's Documentation/admin-guide/efi-stub.rst;
systemd-stub(7).
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.system.ab_image import ARGUMENTS, HERE, MIB, Disk, Files, System
from tests.system.ab_machine import IDLE, WAIT, Boot, Machine

PARTITIONS = {"A": "/dev/vda3", "B": "/dev/vda4"}
CODE, VARS = (Path("/usr/share/OVMF") / name for name in ("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"))
STUB = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub"
# Prints the label of the first entry in BootOrder.
FIRST = (
    """efibootmgr | awk '/^BootOrder:/ { first = "Boot" substr($2, 1, 4) "*" } $1 == first { print $2 }'"""
)


def arguments(slot: str) -> str:
    """The kernel's command line."""
    return f"root={PARTITIONS[slot]} ro rauc.slot={slot} {ARGUMENTS}"


def _entry(slot: str) -> str:
    path = f"\\EFI\\{slot}"
    line = f"initrd={path}\\initrd.img {arguments(slot)}"
    return f"""
[efi.entries.{slot}]
partition = "/dev/disk/by-partlabel/esp"
loader = '{path}\\linux.efi'
arguments = '{line}'
"""


AGENT_CONF = (HERE / "rootfs/etc/updated/updated.toml").read_text() + _entry("A") + _entry("B")
FILES: Files = {
    "/etc/updated/updated.toml": AGENT_CONF,
    # docs/install.md, "What the sandbox allows"
    "/etc/systemd/system/updated.service.d/efi.conf": (
        "[Service]\nReadWritePaths=/sys/firmware/efi/efivars\n"
    ),
}


def add_loaders(disk: Disk, system: System, folder: Path) -> None:
    """Fill the disk's ESP with the kernel and the initramfs of the system."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        efi = Path(name) / "EFI"
        for slot in PARTITIONS:
            (efi / slot).mkdir(parents=True)
            for source, target in (("vmlinuz", "linux.efi"), ("initrd.img", "initrd.img")):
                dump = f"dump /boot/{source} {efi / slot / target}"
                subprocess.run(["debugfs", "-R", dump, str(system.rootfs)], check=True, capture_output=True)
        (efi / "BOOT").mkdir()
        _unify(efi / "A", arguments("A"), efi / "BOOT/BOOTX64.EFI")
        subprocess.run(["mcopy", "-s", "-i", f"{disk.disk}@@{2 * MIB}", str(efi), "::/"], check=True)


def _unify(source: Path, line: str, target: Path) -> None:
    """A unified kernel image, by the offsets of systemd-stub(7)."""
    (source.parent / "cmdline").write_text(line)
    sections = {
        ".cmdline": (source.parent / "cmdline", 0x30000),
        ".linux": (source / "linux.efi", 0x2000000),
        ".initrd": (source / "initrd.img", 0x3000000),
    }
    options = []
    for section, (path, offset) in sections.items():
        options += ["--add-section", f"{section}={path}", "--change-section-vma", f"{section}={offset:#x}"]
    subprocess.run(["objcopy", *options, STUB, str(target)], check=True)
    (source.parent / "cmdline").unlink()


def started(boot: Boot) -> str:
    """The label of the boot entry that the firmware has started last; "" if it has not come so far."""
    found = re.findall(r'BdsDxe: starting Boot[0-9A-F]{4} "([^"]*)"', boot.console)
    return found[-1] if found else ""


class UefiMachine(Machine):
    """Its variables outlast power cuts and resets."""

    def power_on(self, *, wait: bool = True) -> None:
        if not self._variables.exists():
            self.forget()
        super().power_on(wait=wait)

    def forget(self) -> None:
        """The firmware loses all its variables.  Only while it is switched off."""
        shutil.copyfile(VARS, self._variables)

    def wait_for_idle(self, slot: str = "", timeout: float = WAIT) -> None:
        """Wait until it has booted from `slot` ("": any), has marked that good and waits for an update."""
        status = f"systemctl show -P StatusText updated | grep {shlex.quote(IDLE)}"
        running = "$(grep -o 'rauc.slot=.' /proc/cmdline | cut -c 11)"
        self.wait_for(
            f'grep rauc.slot={slot} /proc/cmdline && test "$({FIRST})" = "{running}" && {status}', timeout
        )

    def environment(self) -> dict[str, str]:
        """What efibootmgr says: BootCurrent, BootNext, BootOrder, and `Boot####` -> label."""
        found = {}
        for line in self.run("efibootmgr").splitlines():
            if entry := re.match(r"Boot([0-9A-F]{4})[* ] ([^\t]*)", line):
                found[f"Boot{entry[1]}"] = entry[2]
            elif ": " in line:
                name, value = line.split(": ", 1)
                found[name] = value
        return found

    def order(self) -> list[str]:
        """The labels in BootOrder."""
        found = self.environment()
        return [found.get(f"Boot{number}", "") for number in found["BootOrder"].split(",")]

    def current(self) -> str:
        """The label of the entry that was started."""
        return self._label("BootCurrent")

    def next(self) -> str:
        """The label of the entry that is started once; "" if there is no BootNext."""
        return self._label("BootNext")

    def number(self, label: str) -> str:
        """Of the entry with that label; "" if there is none."""
        entries = {name: found for name, found in self.environment().items() if len(name) == len("Boot0000")}
        return next((name.removeprefix("Boot") for name, found in entries.items() if found == label), "")

    def is_good(self, slot: str) -> bool:
        return self.order()[0] == slot

    def _label(self, variable: str) -> str:
        found = self.environment()
        return found.get(f"Boot{found.get(variable)}", "")

    @property
    def _variables(self) -> Path:
        return self.folder / "variables.fd"

    def _command_line(self) -> list[str]:
        flash = "if=pflash,format=raw,unit"
        return [
            *super()._command_line(),
            *("-drive", f"{flash}=0,readonly=on,file={CODE}"),
            *("-drive", f"{flash}=1,file={self._variables}"),
        ]
