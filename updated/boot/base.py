"""The bootloader of this device: chosen by name, one caller at a time, every write read back."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from updated.boot.barebox import Barebox
from updated.boot.custom import Custom
from updated.boot.efi import Efi, EfiLoader
from updated.boot.grub import DEFAULT_GRUBENV, Grub
from updated.boot.noop import Noop
from updated.boot.tryboot import Settings as TrybootSettings
from updated.boot.tryboot import make_tryboot
from updated.boot.uboot import DEFAULT_ATTEMPTS, UBoot
from updated.core.model import Bootloader
from updated.errors import ConfigError, DeviceError
from updated.finish import stop_if_cancelled, to_its_end

KINDS = ("barebox", "grub", "uboot", "efi", "custom", "noop", "tryboot")  # values of `bootloader=`

_BOOTNAME = re.compile(r"[A-Za-z0-9_.+:@-]+")


def make_bootloader(
    kind: str,
    bootnames: Sequence[str],
    *,
    grubenv: Path = DEFAULT_GRUBENV,
    attempts: int = DEFAULT_ATTEMPTS,
    attempts_primary: int = DEFAULT_ATTEMPTS,
    custom_backend: str | None = None,
    fw_env_config: str | None = None,
    statename: str | None = None,
    dtbpath: str | None = None,
    lock_counter: bool = False,
    use_bootnext: bool = True,
    efi_loaders: Mapping[str, EfiLoader] | None = None,
    tryboot: TrybootSettings | None = None,
) -> Bootloader:
    """The bootloader for `bootloader=<kind>` of system.conf, with all configured `bootnames`.

    `attempts`, `attempts_primary`: boot-attempts and boot-attempts-primary (U-Boot and barebox);
    `custom_backend`: path of the script; `statename`, `dtbpath`: barebox-statename and barebox-dtbpath;
    `lock_counter`: prevent-late-fallback=lock-counter; `use_bootnext`: efi-use-bootnext; `efi_loaders`:
    bootname -> how its boot entry is made again; `tryboot`: where the files of a Raspberry Pi are.
    Raises ConfigError for a bootname that would break a boot order, an unknown kind, a missing script or
    table, or locking with a bootloader that cannot.
    """
    _check_bootnames(kind, bootnames)
    if lock_counter and kind != "barebox":
        raise ConfigError(
            "prevent-late-fallback is set to 'lock-counter', but not supported by selected bootloader:"
            f" {kind}",
            hint="Only barebox can lock its counters; true marks the other slots bad.",
        )
    inner: Bootloader
    match kind:
        case "noop":
            return Noop()
        case "barebox":
            inner = Barebox(
                bootnames,
                attempts=attempts,
                attempts_primary=attempts_primary,
                statename=statename,
                dtbpath=dtbpath,
                lock_counter=lock_counter,
            )
        case "grub":
            inner = Grub(grubenv, bootnames)
        case "uboot":
            inner = UBoot(
                bootnames, attempts=attempts, attempts_primary=attempts_primary, config=fw_env_config
            )
        case "efi":
            inner = Efi(bootnames, use_bootnext=use_bootnext, loaders=efi_loaders)
        case "tryboot":
            inner = make_tryboot(bootnames, tryboot)
        case "custom":
            if not custom_backend:
                raise ConfigError("No custom bootloader backend defined")
            inner = Custom(custom_backend, bootnames)
        case _:
            raise ConfigError(
                f"Unsupported bootloader '{kind}' selected in system config",
                hint=f"Known: {', '.join(KINDS)}.",
            )
    return VerifiedBootloader(kind, inner)


def _check_bootnames(kind: str, bootnames: Sequence[str]) -> None:
    for name in bootnames:
        if kind in ("barebox", "grub", "uboot") and not _BOOTNAME.fullmatch(name):
            raise ConfigError(
                f"Invalid bootname {name!r}: it becomes part of a variable's name",
                hint="Use letters, digits and underscores.",
            )


class VerifiedBootloader:
    """A `Bootloader` around another: calls never interleave, and a write that does not hold is an error.

    A write that has begun is brought to its end even if its caller is cancelled: half a boot environment is
    worse than a late answer.  Errors are named after the kind, as RAUC does.
    """

    def __init__(self, kind: str, inner: Bootloader) -> None:
        self._kind = kind
        self._inner = inner
        self._lock = asyncio.Lock()

    async def get_primary(self) -> str | None:
        async with self._lock:
            with self._named():
                return await self._inner.get_primary()

    async def set_primary(self, bootname: str) -> None:
        async with self._lock:
            with self._named():
                await to_its_end(self._set_primary(bootname))
        stop_if_cancelled()

    async def get_state(self, bootname: str) -> bool:
        async with self._lock:
            with self._named():
                return await self._inner.get_state(bootname)

    async def set_state(self, bootname: str, good: bool) -> None:
        async with self._lock:
            with self._named():
                await to_its_end(self._set_state(bootname, good))
        stop_if_cancelled()

    async def get_current(self) -> str | None:
        async with self._lock:
            with self._named():
                return await self._inner.get_current()

    async def _set_primary(self, bootname: str) -> None:
        await self._inner.set_primary(bootname)
        found = await self._inner.get_primary()
        if found != bootname:
            raise DeviceError(
                f"Bootloader did not keep its primary: expected {bootname}, got {found or 'none'}"
            )

    async def _set_state(self, bootname: str, good: bool) -> None:
        await self._inner.set_state(bootname, good)
        if await self._inner.get_state(bootname) != good:
            expected, got = ("good", "bad") if good else ("bad", "good")
            raise DeviceError(
                f"Bootloader did not keep the state of {bootname}: expected {expected}, got {got}"
            )

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except DeviceError as error:
            raise DeviceError(f"{self._kind} backend: {error}", hint=error.hint) from error
