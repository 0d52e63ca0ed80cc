"""U-Boot with RAUC's variables: BOOT_ORDER and BOOT_<bootname>_LEFT, through fw_printenv and fw_setenv.

Both tools exist twice (U-Boot's own and libubootenv's) and differ: a variable that is not set is an error
with exit code 1 or an empty value; an environment with a wrong checksum is answered from built-in defaults
with a warning only, and the next fw_setenv writes those defaults.  Here such a warning is an error.

Counters are hexadecimal.
Source of the rules: RAUC's integration guide, "U-Boot", and src/bootloaders/uboot.c.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping, Sequence

from updated import command
from updated.boot import order
from updated.errors import DeviceError

DEFAULT_ATTEMPTS = 3  # RAUC's default for boot-attempts and boot-attempts-primary

_NUMBER = re.compile(r"\s*\+?(?:0[xX])?([0-9a-fA-F]{1,16})")
_NOT_DEFINED = re.compile(r'"(.*)" not defined')
_DEFAULTS_USED = "using default"  # both tools' warning, with different words before


class UBoot:
    """A `Bootloader`.  A slot is good when BOOT_ORDER lists it and it has attempts left."""

    def __init__(
        self,
        bootnames: Sequence[str],
        *,
        attempts: int = DEFAULT_ATTEMPTS,
        attempts_primary: int = DEFAULT_ATTEMPTS,
        config: str | None = None,
    ) -> None:
        """`attempts`: starts left after "good"; `config`: the tools' file, if not /etc/fw_env.config."""
        self._bootnames = tuple(bootnames)
        self._attempts = attempts
        self._attempts_primary = attempts_primary
        self._options = ("-c", config) if config else ()

    async def get_primary(self) -> str | None:
        """First of BOOT_ORDER with attempts left, None if there is none.  Raises DeviceError."""
        env = await self._get("BOOT_ORDER", *map(_left, self._bootnames))
        for name in order.parse(env["BOOT_ORDER"]):
            if name in self._bootnames and _number(env[_left(name)]) > 0:
                return name
        return None

    async def set_primary(self, bootname: str) -> None:
        names = await self._order()
        wanted = order.with_first(bootname, names or self._bootnames)
        await self._set({_left(bootname): f"{self._attempts_primary:x}", **_changed(names, wanted)})

    async def get_state(self, bootname: str) -> bool:
        """Good: listed in BOOT_ORDER with attempts left.  Raises DeviceError."""
        env = await self._get("BOOT_ORDER", _left(bootname))
        return bootname in order.parse(env["BOOT_ORDER"]) and _number(env[_left(bootname)]) > 0

    async def set_state(self, bootname: str, good: bool) -> None:
        """Good: fresh attempts; bad: none, and out of BOOT_ORDER.

        What is marked good and stands nowhere in BOOT_ORDER gets the last place.  RAUC leaves it out, so that
        its `mark-good` succeeds and the slot stays bad.
        """
        names = await self._order()
        if not good:
            await self._set({**_changed(names, order.without(bootname, names)), _left(bootname): "0"})
            return
        wanted = order.with_all(names, [bootname]) if names else order.with_first(bootname, self._bootnames)
        await self._set({_left(bootname): f"{self._attempts:x}", **_changed(names, wanted)})

    async def get_current(self) -> str | None:
        """U-Boot does not tell; the kernel command line does."""
        return None

    async def _order(self) -> list[str]:
        return order.parse((await self._get("BOOT_ORDER"))["BOOT_ORDER"])

    async def _get(self, *names: str) -> dict[str, str]:
        """Values by name, empty if not set.  Raises DeviceError, also if the environment is not valid."""
        result = await command.run(["fw_printenv", *self._options, *names])
        _refuse_defaults(result.stderr)
        undefined = set(_NOT_DEFINED.findall(result.stderr))
        if result.code and not undefined:
            raise DeviceError(f"fw_printenv failed with exit code: {result.code}{_reason(result.stderr)}")
        values = dict.fromkeys(names, "")
        for line in result.stdout.splitlines():
            name, _, value = line.partition("=")
            if name in values:
                values[name] = value.strip()
        return values

    async def _set(self, wanted: Mapping[str, str]) -> None:
        """Write what differs: all of it in one go where the tool can, and look whether it is there."""
        changes = self._differences(wanted, await self._get(*wanted))
        if not changes:
            return
        result = await self._run_script("".join(f"{name}={value}\n" for name, value in changes.items()))
        _refuse_defaults(result.stderr)
        left = self._differences(wanted, await self._get(*wanted))
        for name, value in left.items():  # a tool without -s
            result = await command.run(["fw_setenv", *self._options, name, value])
        if not left:
            return
        found = await self._get(*wanted)
        for name, value in self._differences(wanted, found).items():
            raise DeviceError(
                f"U-Boot environment did not keep {name}: expected '{value}', got '{found[name]}'"
                f"{_reason(result.stderr)}",
                hint="Is the environment writable, and does fw_env.config name its place?",
            )

    async def _run_script(self, text: str) -> command.Result:
        """One fw_setenv for all lines of `text`, from a file in memory: there may be no writable folder."""
        handle = await asyncio.to_thread(_memory_file, text)
        try:
            path = f"/proc/{os.getpid()}/fd/{handle}"
            return await command.run(["fw_setenv", *self._options, "-s", path])
        finally:
            os.close(handle)

    @staticmethod
    def _differences(wanted: Mapping[str, str], found: Mapping[str, str]) -> dict[str, str]:
        return {name: value for name, value in wanted.items() if found[name] != value}


def _memory_file(text: str) -> int:
    handle = os.memfd_create("fw_setenv")
    os.write(handle, text.encode())
    return handle


def _left(bootname: str) -> str:
    return f"BOOT_{bootname}_LEFT"


def _changed(found: list[str], wanted: list[str]) -> dict[str, str]:
    """The change of BOOT_ORDER, if it is one: other blanks are none."""
    return {} if found == wanted else {"BOOT_ORDER": order.render(wanted)}


def _number(text: str) -> int:
    """As strtoull with base 16: leading digits, else 0."""
    found = _NUMBER.match(text)
    return int(found[1], 16) if found else 0


def _refuse_defaults(stderr: str) -> None:
    for line in stderr.splitlines():
        if _DEFAULTS_USED in line:
            raise DeviceError(
                f"U-Boot environment is not valid: {line.strip()}",
                hint="Nothing was written. Restore it with `saveenv` in U-Boot, or check fw_env.config.",
            )


def _reason(stderr: str) -> str:
    lines = stderr.strip().splitlines()
    return f" ({lines[-1]})" if lines else ""
