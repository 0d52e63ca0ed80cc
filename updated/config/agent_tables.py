"""The tables of updated.toml with their defaults, each with its reason.

Times are seconds, sizes are bytes, as plain numbers.
"""

from __future__ import annotations

from datetime import date
from typing import Literal

import msgspec

from updated.config.check_tables import AnyCheck

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
FileSystem = Literal["vfat", "exfat", "ext4", "ntfs3"]


class Table(msgspec.Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True):
    """A table of the file: keys with dashes, immutable, strict."""


class Folder(Table, frozen=True):
    """`[folder]`: bundles that are put into a folder are installed."""

    path: str | None = None  # unset: off; nothing should be installed that nobody asked for
    after: Literal["keep", "delete", "move"] = "keep"
    """What becomes of a file after its attempt has ended.  keep: the folder may be read-only or shared."""
    move_to: str | None = None  # folder, for after = "move"; same file system, so that the move is a rename


class Usb(Table, frozen=True):
    """`[usb]`: bundles on sticks that are plugged in are installed."""

    enable: bool = False  # nothing should be installed that nobody asked for
    folder: str | None = None  # folder on the stick that is looked at beside its root
    file_systems: tuple[FileSystem, ...] = ("vfat", "exfat", "ext4", "ntfs3")
    """What is mounted.  Each is code of the kernel that meets a stranger's bytes: fewer are safer."""
    result_file: str | None = None
    """Name of a file in the stick's root that tells how it ended.  unset: the stick is never written to."""
    led: str | None = None  # name under /sys/class/leds that shows start, success and failure
    on_start: tuple[str, ...] = ()  # program and arguments
    on_success: tuple[str, ...] = ()
    on_failure: tuple[str, ...] = ()
    hook_timeout: float = 10.0  # seconds until such a program is killed: it plays a sound, it does no work


class Http(Table, frozen=True):
    """`[http]`: how servers are reached, by polling and by `install` of a URL."""

    proxy: str | None = None  # URL; unset: http_proxy, https_proxy and no_proxy; "": none
    ca: str | None = None  # PEM file of trusted roots; unset: [streaming] of system.conf, else the system's
    cert: str | None = None  # PEM file of the client's certificate; unset: [streaming] of system.conf
    key: str | None = None  # PEM file
    headers: dict[str, str] = {}  # sent to the server of the URL, never to where it redirects
    bearer_token_file: str | None = None
    user: str | None = None  # for basic authentication
    password_file: str | None = None
    netrc: str | None = None  # file with more of them; unset: none, a service has no home
    rate_limit: int = 0  # bytes per second; 0: none
    stall_timeout: float = 60.0
    """Seconds without one byte until a connection is given up: longer than a cell handover or a router's
    start.  There is no limit on the whole time: a slow link is no fault."""
    connect_timeout: float = 30.0  # seconds; as curl's in RAUC's streaming


class Ota(Table, frozen=True):
    """`[ota]`: a channel index on a server is looked at again and again."""

    index: str | None = None  # URL; unset: off
    channel: str = "stable"
    signature: Literal["required", "optional"] = "optional"
    """optional: a signature that is there must be good, and once there was one there must always be one."""
    interval: float = 21600.0  # seconds; four times a day
    max_interval: float = 86400.0  # seconds between two attempts at most, however often they failed


class Window(Table, frozen=True):
    """One of `install-windows` and `reboot-windows`."""

    start: str  # "HH:MM", local time
    length: float  # seconds; may reach into the next day
    days: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")  # on which it starts


class Policy(Table, frozen=True):
    """`[policy]`: what may be installed, and when.  The times hold for what nobody asked for by hand."""

    version_floor: Literal["none", "confirmed"] = "none"
    """none: RAUC's behaviour.  confirmed: nothing older than the highest confirmed version."""
    install_windows: tuple[Window, ...] = ()  # none: at any time
    reboot_windows: tuple[Window, ...] = ()  # none: at any time
    time_zone: str | None = None  # as "Europe/Berlin"; unset: the system's
    inhibit_files: tuple[str, ...] = ()  # while one of them is there, nothing begins and nothing reboots
    inhibit_logind: bool = True  # so does a block inhibitor for shutdown, for reboots only
    max_hold: float = 86400.0  # seconds that an application may hold things at most: it may crash and forget
    metered: Literal["allow", "refuse"] = "allow"  # refuse: nothing comes over a metered link by itself
    link: Literal["auto", "metered", "unmetered"] = "auto"  # auto: what NetworkManager says, if it is there
    min_battery: int = 0  # percent, unless on mains; 0: no matter
    min_free: int = 0  # bytes free in the data directory; 0: no matter


class Consent(Table, frozen=True):
    """`[consent]`: somebody at the device has to agree, over D-Bus or `updated consent`."""

    install: bool = False
    reboot: bool = False
    expires: float = 86400.0  # seconds until the question has waited long enough, and an answer is stale
    default: Literal["wait", "allow"] = "wait"  # what then happens: ask again, or take it for agreed


class Confirm(Table, frozen=True):
    """`[confirm]`: when a system is good, and what becomes of one that is not."""

    stable_for: float = 10.0
    """Seconds without a failing check before the system is good: a service that crashes at start does it
    within seconds, and systemd's default restart burst is over after 10 s."""
    deadline: float = 300.0
    """Seconds after the agent's first start in a boot until a new system is given up: longer than the slowest
    start seen in the field (under 3 minutes until marked good), short enough for a person to wait."""
    checks: tuple[AnyCheck, ...] = ()  # all that are required must hold, beside the agent's own pings
    fallback: Literal["reboot", "manual"] = "reboot"
    """What follows when a new system is given up: a device that nobody can reach has to go back by itself.
    manual: it is marked bad, and whatever reboots next leads back."""


class Reboot(Table, frozen=True):
    """`[reboot]`: how the new system gets started."""

    when: Literal["manual", "immediately"] = "manual"  # manual: RAUC's behaviour
    command: tuple[str, ...] = ()  # unset: logind is asked, and without it `systemctl reboot`
    delay: float = 0.0  # seconds between the announcement and the reboot
    message: str = "The system restarts into its update."  # what people at terminals are told; "": nothing
    escalate_after: float = 300.0
    """Seconds until a reboot that did not come is asked for harder: longer than systemd lets services stop
    (90 s, one after the other); three steps, the last without stopping anything."""


class Hooks(Table, frozen=True):
    """`[hooks]`: programs of the device's own, with arguments.  A power cut may make them run twice."""

    on_installed: tuple[str, ...] = ()  # in the old system, before the reboot, which waits for it
    on_confirmed: tuple[str, ...] = ()  # in the new system, once it is good
    on_fallback: tuple[str, ...] = ()  # in the old system, once it runs again
    timeout: float = 300.0  # seconds until one of them is killed with all that it started


class Tryboot(Table, frozen=True):
    """`[tryboot]`: where a Raspberry Pi's firmware looks, for `bootloader=tryboot` in system.conf."""

    device: str | None = None
    """The FAT partition with autoboot.txt, or with config.txt.  Mounted only while it is looked at: what is
    mounted when the power goes is what gets damaged."""
    folder: str | None = None  # or where it is mounted
    partitions: dict[str, int] = {}  # bootname -> number of its boot partition, for autoboot.txt
    roots: dict[str, str] = {}
    """Bootname -> its `root=`; for two systems in one boot partition, in the folders slot-<bootname>."""
    min_firmware: date | None = None
    """Build day of the EEPROM; unset: it has to know tryboot.  What else config.txt needs nobody can see."""


class EfiEntry(Table, frozen=True):
    """What a boot entry of UEFI starts."""

    partition: str  # device path of the partition that holds the loader
    loader: str  # path there, with backslashes
    arguments: str = ""


class Efi(Table, frozen=True):
    """`[efi]`: how boot entries are made again that the firmware has dropped."""

    entries: dict[str, EfiEntry] = {}
    """Bootname -> its entry.  Goes before `efi-loader` of system.conf, which can only name a loader that is
    on the slot itself."""


class Install(Table, frozen=True):
    """`[install]`: limits of one install."""

    stall_timeout: float = 120.0
    """Seconds without one byte moved until the install is given up: an SD card may pause for tens of seconds
    while it erases, and the kernel's own disk timeouts are 30 s and are repeated."""
    workers: int = 0
    """Threads that decompress; 0: one for each core, at most 4, because more do not outrun a flash device."""
    resume: bool = True  # what an interrupted install has written is checked and kept
    adaptive: bool = True  # `block-hash-index`: what the device has already is not fetched
    min_saved: float = 0.0
    """Part of an adaptive image (0 to 1) that must be here already; below it `poorly-saved` decides."""
    poorly_saved: Literal["fetch", "stop-if-metered"] = "fetch"
    plain_over_http: Literal["spool", "direct", "refuse"] = "spool"
    """Plain bundles can only be checked as a whole.  spool: on disk first.  direct: into the slot, which is
    made primary only if the signature turns out to be good."""
    spool_reserve: int = 64 * 1024 * 1024  # bytes that stay free where bundles are spooled


class AgentConfig(Table, frozen=True):
    """The whole file."""

    data_directory: str | None = None  # unset: system.conf's data-directory, else /var/lib/updated
    folder: Folder = Folder()
    usb: Usb = Usb()
    ota: Ota = Ota()
    http: Http = Http()
    policy: Policy = Policy()
    consent: Consent = Consent()
    confirm: Confirm = Confirm()
    reboot: Reboot = Reboot()
    hooks: Hooks = Hooks()
    tryboot: Tryboot = Tryboot()
    efi: Efi = Efi()
    install: Install = Install()
