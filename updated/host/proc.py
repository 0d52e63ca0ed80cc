"""What the running kernel says of this boot: its command line and its boot id.

The booted slot is found as in RAUC's src/context.c.  Where a parameter is given more than once the last one
counts, as for the kernel itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from updated.errors import DeviceError

CMDLINE = Path("/proc/cmdline")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
EXTERNAL = "_external_"  # booted from somewhere else: all slots are inactive
BY_TAG = {
    "PARTUUID=": "by-partuuid",
    "PARTLABEL=": "by-partlabel",
    "UUID=": "by-uuid",
    "LABEL=": "by-label",
}

_PARAMETER = re.compile(r'(?:[^\s"]|"[^"]*"?)+')
_UDEV_PLAIN = re.compile(r"[A-Za-z0-9#+\-.:=@_]")


@dataclass(frozen=True, slots=True)
class BootSlotHint:
    """What the kernel command line says of the booted slot; the first that is set counts, in this order.

    Between `explicit` and `device` the bootloader is asked (`bootchooser` is barebox's answer).
    """

    explicit: str | None = None  # value of rauc.slot= (bootname or slot name), or "_external_"
    bootchooser: str | None = None  # bootchooser.active=: bootname
    device: str | None = None  # root=, else systemd.verity_root_data=, as a path under `dev`

    @property
    def external(self) -> bool:
        return self.explicit == EXTERNAL


def read_cmdline(path: Path = CMDLINE) -> str:
    """The kernel command line.  Raises DeviceError."""
    return _read(path)


def boot_id(path: Path = BOOT_ID) -> str:
    """The UUID that the kernel draws at each boot.  Raises DeviceError."""
    return _read(path)


def boot_slot_from_cmdline(cmdline: str, *, dev: str = "/dev") -> BootSlotHint:
    """Read the parameters that tell the booted slot; nothing is looked up."""
    parameters = _parameters(cmdline)
    root = parameters.get("root")
    if "rauc.external" in parameters or root == "/dev/nfs":
        return BootSlotHint(explicit=EXTERNAL)
    device = root or parameters.get("systemd.verity_root_data")
    return BootSlotHint(
        explicit=parameters.get("rauc.slot") or None,
        bootchooser=parameters.get("bootchooser.active") or parameters.get("bootstate.active") or None,
        device=device_path(device, dev=dev) if device else None,
    )


def device_path(root: str, *, dev: str = "/dev") -> str:
    """The path udev gives to a value of `root=`: a tag becomes a link in `dev`/disk, a path stays."""
    for tag, folder in BY_TAG.items():
        if root.startswith(tag):
            return f"{dev}/disk/{folder}/{udev_escape(root[len(tag) :].strip(chr(34)))}"
    return root


def udev_escape(label: str) -> str:
    """Escape a label as udev does in the names of its links (systemd, encode_devnode_name)."""
    return "".join(
        character if _UDEV_PLAIN.fullmatch(character) or ord(character) > 0x7F else f"\\x{ord(character):02x}"
        for character in label
    )


def resolve_device(path: str) -> str:
    """What `path` points to through all links; `path` itself where nothing is there (RAUC's r_realpath)."""
    try:
        return str(Path(path).resolve(strict=True))
    except (OSError, ValueError, RuntimeError):
        return path


def boot_slot(hint: BootSlotHint, current: str | None = None) -> str:
    """What identifies the booted slot: a bootname, a slot name or a device; "" if nothing is known.

    `current` is the bootname that the bootloader tells, where it can tell one.
    """
    if hint.explicit is not None:
        return hint.explicit
    if current is not None:
        return current
    return resolve_device(hint.device) if hint.device is not None else ""


def _parameters(cmdline: str) -> dict[str, str]:
    """Name -> value without its quotes; a parameter without value has "".  What follows ` -- ` is init's."""
    found: dict[str, str] = {}
    for match in _PARAMETER.finditer(cmdline):
        parameter = match[0]
        if parameter == "--":
            break
        if parameter.startswith('"'):
            parameter = parameter.strip('"')
        name, _, value = parameter.partition("=")
        if value.startswith('"'):
            value = value.strip('"')
        found[name] = value
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError as error:
        raise DeviceError(f"Failed to read {path}: {error.strerror}") from error
