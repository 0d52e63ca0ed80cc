"""`[[confirm.checks]]` of updated.toml: what must hold before a system is good.

`type` says which of the tables it is.  Times are seconds, sizes are bytes, as plain numbers.
"""

from __future__ import annotations

import ipaddress
import re
import typing
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from updated.bundle.keyfile import suggest
from updated.core.gate import words
from updated.core.health import GATE
from updated.core.link import is_url, origin, without_secrets
from updated.errors import ConfigError

LOCAL_HOSTS = frozenset({"localhost", "ip6-localhost"})
MAX_PATTERN = 1000  # characters

_APPLICATION = re.compile(r"[\w.@:/+-]{1,100}", re.ASCII)
_UNIT = re.compile(  # systemd.unit(5), but for templates, which are no units
    r"(?!.*@\.)[\w:.\\@-]{1,200}\."
    r"(service|socket|device|mount|automount|swap|target|path|timer|slice|scope)",
    re.ASCII,
)
_HOST = re.compile(r"\[[0-9A-Fa-f:.]+(%[\w.-]+)?\]|[^\s/\[\]:\0]{1,253}")


def is_local(host: str) -> bool:
    """Is it this device itself (RFC 6761, 6.3)?"""
    name = host.lower().rstrip(".")
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name in LOCAL_HOSTS or name.endswith(".localhost")


class Check(
    msgspec.Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True, tag_field="type"
):
    """What all of them have."""

    name: str | None = None  # in messages; unset: made of the type and of what is looked at
    required: bool | None = None
    """false: it is shown, and decides nothing.  unset: false where another machine or an application's
    goodwill has to answer (http, socket and heartbeat; clock), so that a server's outage rolls nothing back;
    true for all else, and for http and sockets of this device itself."""
    deadline: float | None = None  # seconds after the start of judging; unset: that of [confirm]
    period: float = 1.0  # seconds between two looks

    @property
    def subject(self) -> str:
        """What is looked at, for the name."""
        return ""

    @property
    def remote(self) -> bool:
        """Somebody else's machine has to answer, too."""
        return False

    @property
    def counts(self) -> bool:
        return self.required if self.required is not None else not self.remote


class UnitCheck(Check, frozen=True, kw_only=True, tag="unit"):
    """A systemd unit is active, has told that it is ready, and was not restarted meanwhile."""

    unit: str

    @property
    def subject(self) -> str:
        return self.unit


class TargetCheck(Check, frozen=True, kw_only=True, tag="target"):
    """A systemd target is reached."""

    target: str = "multi-user.target"

    @property
    def subject(self) -> str:
        return self.target


class NoFailedCheck(Check, frozen=True, kw_only=True, tag="no-failed-units"):
    """None of these units has failed."""

    units: tuple[str, ...] = ("*",)  # patterns of the shell; "*": no unit at all

    @property
    def subject(self) -> str:
        return " ".join(self.units) if self.units != ("*",) else ""


class HttpCheck(Check, frozen=True, kw_only=True, tag="http"):
    """A URL answers as it should."""

    url: str
    status: tuple[int, ...] = (200,)
    """Redirects are not followed: a login page somewhere else is no answer."""
    body: str | None = None  # regular expression that is found in the first 64 KiB of the answer
    timeout: float = 10.0
    period: float = 5.0

    @property
    def subject(self) -> str:
        return without_secrets(self.url)

    @property
    def remote(self) -> bool:
        return not is_local(origin(self.url)[1])


class CommandCheck(Check, frozen=True, kw_only=True, tag="command"):
    """A program ends with exit code 0."""

    command: tuple[str, ...]
    timeout: float = 30.0
    period: float = 5.0

    @property
    def subject(self) -> str:
        return words(" ".join(self.command), 60)


class SocketCheck(Check, frozen=True, kw_only=True, tag="socket"):
    """Somebody takes connections."""

    address: str  # "host:port", "[::1]:port", or the path of a unix socket
    timeout: float = 5.0

    @property
    def subject(self) -> str:
        return self.address

    @property
    def remote(self) -> bool:
        host = self.address.rpartition(":")[0].strip("[]")
        return not self.address.startswith("/") and not is_local(host)


class MountCheck(Check, frozen=True, kw_only=True, tag="mount"):
    """Something is mounted there."""

    path: str
    writable: bool = False  # and not read-only: ext4 turns so after errors

    @property
    def subject(self) -> str:
        return self.path


class SpaceCheck(Check, frozen=True, kw_only=True, tag="free-space"):
    """There is room in a file system."""

    path: str
    min_free: int

    @property
    def subject(self) -> str:
        return self.path


class ClockCheck(Check, frozen=True, kw_only=True, tag="clock"):
    """The system's clock is synchronised (NTP, PTP, GPS: whatever tells the kernel)."""

    @property
    def remote(self) -> bool:
        return True


class HeartbeatCheck(Check, frozen=True, kw_only=True, tag="heartbeat"):
    """An application says again and again that it is well: D-Bus `Heartbeat`, or `updated heartbeat`."""

    application: str
    within: float = 60.0  # seconds between two of them at most

    @property
    def subject(self) -> str:
        return self.application

    @property
    def remote(self) -> bool:
        return True  # FM10: many applications say it when their server has answered


AnyCheck = (
    UnitCheck
    | TargetCheck
    | NoFailedCheck
    | HttpCheck
    | CommandCheck
    | SocketCheck
    | MountCheck
    | SpaceCheck
    | ClockCheck
    | HeartbeatCheck
)


_KINDS: Mapping[str, type[Check]] = {
    str(kind.__struct_config__.tag): kind for kind in typing.get_args(AnyCheck)
}


def names_of(checks: Sequence[AnyCheck]) -> list[str]:
    """A name for each, none twice."""
    taken = {check.name for check in checks if check.name}
    names = []
    for check in checks:
        name = wanted = check.name or f"{type(check).__struct_config__.tag} {check.subject}".strip()
        number = 1
        while not check.name and name in taken:
            number += 1
            name = f"{wanted} ({number})"
        taken.add(name)
        names.append(name)
    return names


def check_keys(checks: object) -> None:
    """Before the tables are made.  Raises ConfigError naming the nearest known type or key."""
    for number, given in enumerate(checks if isinstance(checks, list) else ()):
        if not isinstance(given, dict):
            continue
        where, kind = f"confirm.checks[{number}]", given.get("type")
        if kind is None:
            raise ConfigError(f"{where} has no type, expected one of {', '.join(_KINDS)}")
        if not isinstance(kind, str) or kind not in _KINDS:
            hint = suggest(str(kind), _KINDS) or f"Known here: {', '.join(_KINDS)}."
            raise ConfigError(f"{where}: unknown type {kind!r}", hint=hint)
        known = ["type", *(field.encode_name for field in msgspec.structs.fields(_KINDS[kind]))]
        for key in given:
            if key not in known:
                hint = suggest(key, known) or f"Known here: {', '.join(known)}."
                raise ConfigError(f"{where}: unknown key '{key}' of a check of type {kind!r}", hint=hint)


def check_checks(checks: Sequence[AnyCheck], deadline: float, stable_for: float = 0.0) -> None:
    """`deadline` and `stable_for`: seconds, of [confirm].  Raises ConfigError naming the check."""
    named = [check.name for check in checks if check.name]
    if twice := next((name for name, count in Counter(named).items() if count > 1), None):
        raise ConfigError(f"confirm.checks: two checks are named {twice!r}, expected another name for each")
    for name, check in zip(names_of(checks), checks, strict=True):
        for fault in _faults(check, deadline, stable_for):
            raise ConfigError(f"confirm.checks, {name}: {fault}")


def _faults(check: AnyCheck, deadline: float, stable_for: float) -> Iterator[str]:
    if check.name is not None and (not check.name.isprintable() or not 1 <= len(check.name) <= 100):
        yield f"name is {check.name!r}, expected 1 to 100 printable characters"
    if check.name == GATE:
        yield f"name is {GATE!r}, which is that of the built-in check, expected another"
    if check.deadline is not None and not 1 <= check.deadline <= deadline:
        yield f"deadline is {check.deadline:g}, expected 1 to {deadline:g} s, that of [confirm]"
    if not 0.1 <= check.period <= 3600:
        yield f"period is {check.period:g}, expected 0.1 to 3600 s"
    elif stable_for + check.period > (check.deadline or deadline):
        yield (
            f"deadline is {check.deadline or deadline:g} s, "
            f"expected at least stable-for and a period ({stable_for + check.period:g} s)"
        )
    timeout = getattr(check, "timeout", 1.0)
    if not 0.1 <= timeout <= 3600:
        yield f"timeout is {timeout:g}, expected 0.1 to 3600 s"
    match check:
        case UnitCheck(unit=name) if not _UNIT.fullmatch(name):
            yield f"unit is {name!r}, expected a name with its type, as kiosk.service"
        case TargetCheck(target=name) if not _UNIT.fullmatch(name) or not name.endswith(".target"):
            yield f"target is {name!r}, expected a name as multi-user.target"
        case NoFailedCheck(units=units) if not units or not all(map(_is_pattern, units)):
            yield f'units is {list(units)}, expected names or patterns of units; "*" is any'
        case HttpCheck():
            yield from _http_faults(check)
        case CommandCheck(command=command) if not command or not command[0] or "\0" in "".join(command):
            yield f"command is {list(command)}, expected a program and its arguments"
        case SocketCheck(address=address) if not _is_address(address):
            yield f'address is {address!r}, expected "host:port" or the absolute path of a unix socket'
        case MountCheck(path=path) | SpaceCheck(path=path) if not path.startswith("/") or "\0" in path:
            yield f"path is {path!r}, expected an absolute path"
        case SpaceCheck(min_free=least) if not 1 <= least <= 2**50:
            yield f"min-free is {least}, expected 1 to {2**50} bytes"
        case HeartbeatCheck(application=name) if not _APPLICATION.fullmatch(name):
            yield f"application is {name!r}, expected letters, digits and . @ : / + - _"
        case HeartbeatCheck(within=within) if not 1 <= within <= 86400:
            yield f"within is {within:g}, expected 1 to 86400 s"


def _http_faults(check: HttpCheck) -> Iterator[str]:
    _, host, port = origin(check.url)
    if not (is_url(check.url) and host and port) or any(c.isspace() for c in check.url):
        yield f"url is {without_secrets(check.url)!r}, expected http(s)://HOST/PATH"
    if not check.status or any(not 100 <= code <= 599 for code in check.status):
        yield f"status is {list(check.status)}, expected one or more of 100 to 599"
    if check.body is None:
        return
    if not 1 <= len(check.body) <= MAX_PATTERN or "\0" in check.body:
        yield f"body has {len(check.body)} characters, expected 1 to {MAX_PATTERN}, and none of them NUL"
        return
    try:
        re.compile(check.body)
    except (re.error, OverflowError, RecursionError) as error:
        yield f"body is {check.body!r}, which is no regular expression: {error}"


def _is_pattern(name: str) -> bool:
    return bool(name) and name.isprintable() and len(name) <= 255


def _is_address(address: str) -> bool:
    if address.startswith("/"):
        return "\0" not in address and len(address.encode()) <= 107  # sun_path
    host, colon, port = address.rpartition(":")
    good_port = port.isascii() and port.isdecimal() and len(port) <= 5 and 1 <= int(port) <= 65535
    return bool(host and colon and good_port and _HOST.fullmatch(host))
