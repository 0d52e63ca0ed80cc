"""system.conf: what RAUC reads is read, what RAUC refuses is refused with its words."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from updated.bundle.keyfile import KeyFileError
from updated.config.log_sections import EventLog
from updated.config.system_conf import load_system_config, parse_system_config
from updated.core.model import Slot
from updated.errors import ConfigError

CONF = Path("/etc/rauc/system.conf")

AB = """\
[system]
compatible=Board
bootloader=uboot

[slot.rootfs.0]
device=/dev/mmcblk0p2
bootname=A

[slot.rootfs.1]
device=/dev/mmcblk0p3
bootname=B
"""

# Five kinds of device, as they are configured in the field.
HOME_AUTOMATION = """\
[system]
compatible=home-rpi5-64
mountprefix=/run/rauc
statusfile=/mnt/boot/rauc.db
bootloader=custom

[keyring]
path=/etc/rauc/keyring.pem

[handlers]
bootloader-custom-backend=/usr/lib/rauc/rpi-tryboot.sh

[slot.boot.0]
device=/dev/disk/by-partlabel/home-boot
type=vfat
allow-mounted=true

[slot.spl.0]
device=/dev/disk/by-partlabel/home-boot
type=raw

# slot A
[slot.kernel.0]
device=/dev/disk/by-partlabel/home-kernel0
type=raw
bootname=A

[slot.rootfs.0]
device=/dev/disk/by-partlabel/home-system0
type=raw
parent=kernel.0
install-same=false

[slot.kernel.1]
device=/dev/disk/by-partlabel/home-kernel1
type=raw
bootname=B

[slot.rootfs.1]
device=/dev/disk/by-partlabel/home-system1
type=raw
parent=kernel.1
install-same=false
"""

CLASSIC = """\
[system]
compatible=FooCorp Super BarBazzer
bootloader=barebox
barebox-statename=mystate

[keyring]
path=keyring.pem

[handlers]
system-info=/usr/lib/rauc/info-provider.sh
post-install=postinst.sh

[autoinstall]
path=/media/usb/update.raucb

[slot.rescue.0]
description=Factory rescue system
device=/dev/mtd4
type=raw
readonly=true

[slot.rootfs.0]
device=/dev/ubi0_0
type=ubifs
bootname=system0

[slot.appfs.0]
device=/dev/ubi0_2
type=ubivol
parent=rootfs.0

[slot.rootfs.1]
device=/dev/ubi0_1
type=ubifs
bootname=system1

[slot.appfs.1]
device=/dev/ubi0_3
type=nand
parent=rootfs.1
"""

RK3588 = """\
[system]
compatible=kiosk-rk3588
bootloader=u-boot
data-directory=/data/rauc
bundle-formats=-plain
boot-attempts=5

[keyring]
path=/etc/rauc/keyring.pem

[slot.rootfs.0]
device=/dev/vg0/rootfs-a
type=ext4
resize=true
bootname=A

[slot.rootfs.1]
device=/dev/vg0/rootfs-b
type=ext4
resize=true
bootname=B

[slot.appfs.0]
device=/dev/vg0/appfs-a
type=ext4
parent=rootfs.0

[slot.config.0]
device=/dev/vg0/config-a
type=ext4
parent=appfs.0
"""

RASPBERRY = """\
[system]
compatible=frame-rpi5-aarch64
bootloader=custom
bundle-formats=verity
statusfile=/data/rauc.status

[keyring]
path=/etc/rauc/keyring.pem
check-purpose=codesign

[handlers]
bootloader-custom-backend=/usr/lib/rauc/tryboot.sh

[slot.boot.0]
device=/dev/disk/by-label/BF_BOOT_A
type=vfat
bootname=A

[slot.root.0]
device=/dev/disk/by-label/BF_ROOT_A
type=ext4
parent=boot.0

[slot.boot.1]
device=/dev/disk/by-label/BF_BOOT_B
type=vfat
bootname=B

[slot.root.1]
device=/dev/disk/by-label/BF_ROOT_B
type=ext4
parent=boot.1
"""

JETSON = """\
[system]
compatible=jetson-nano-home
bootloader=uboot
bundle-formats=plain

[keyring]
path=/etc/rauc/ca.cert.pem
use-bundle-signing-time=true

[slot.rootfs.0]
device=/dev/mmcblk0p2
type=ext4
bootname=A

[slot.rootfs.1]
device=/dev/mmcblk0p3
type=ext4
bootname=B

[slot.data.0]
device=/dev/mmcblk0p4
type=ext4
readonly=false
"""


def slots_of(text: str) -> dict[str, Slot]:
    return {slot.name: slot for slot in parse_system_config(text.encode(), CONF).slots}


def test_defaults_are_those_of_rauc() -> None:
    config = parse_system_config(AB.encode(), CONF)
    system = config.system
    assert system.compatible == "Board"
    assert system.bundle_formats == {"plain", "verity", "crypt"}
    assert str(system.mountprefix) == "/mnt/rauc"
    assert (system.data_directory, system.statusfile) == (None, None)
    assert system.activate_installed
    assert (system.boot_attempts, system.boot_attempts_primary) == (3, 3)
    assert system.max_bundle_download_size == 8388608
    assert system.max_bundle_signature_size == 65536
    assert system.prevent_late_fallback == "no"
    assert config.streaming.sandbox_user == "nobody"
    assert (config.polling.interval, config.polling.max_interval) == (86400, 4 * 86400)
    assert config.keyring.path is None
    assert config.slots[0] == Slot(
        name="rootfs.0", slot_class="rootfs", index=0, device="/dev/mmcblk0p2", bootname="A"
    )
    assert config.slots[0].type == "raw"
    assert config.slots[0].install_same


def test_home_automation_device() -> None:
    config = parse_system_config(HOME_AUTOMATION.encode(), CONF)
    assert config.handlers.bootloader_custom_backend == Path("/usr/lib/rauc/rpi-tryboot.sh")
    assert config.system.statusfile == Path("/mnt/boot/rauc.db")
    slots = slots_of(HOME_AUTOMATION)
    assert slots["boot.0"].device == slots["spl.0"].device
    assert slots["boot.0"].allow_mounted
    assert slots["rootfs.1"].parent == "kernel.1"
    assert not slots["rootfs.1"].install_same


def test_classic_device() -> None:
    config = parse_system_config(CLASSIC.encode(), CONF)
    assert config.keyring.path == Path("/etc/rauc/keyring.pem")
    assert config.handlers.post_install == Path("/etc/rauc/postinst.sh")
    assert config.autoinstall.path == Path("/media/usb/update.raucb")
    assert config.system.barebox_statename == "mystate"
    slots = slots_of(CLASSIC)
    assert slots["rescue.0"].readonly
    assert slots["rescue.0"].description == "Factory rescue system"
    assert slots["appfs.1"].type == "nand"


def test_rk3588_device() -> None:
    config = parse_system_config(RK3588.encode(), CONF)
    assert config.system.bootloader == "uboot"
    assert config.system.bundle_formats == {"verity", "crypt"}
    assert config.system.statusfile == Path("/data/rauc/central.raucs")
    assert config.system.boot_attempts == 5
    slots = slots_of(RK3588)
    assert slots["rootfs.0"].resize
    assert slots["config.0"].parent == "rootfs.0", "a parent's parent is the parent, as in RAUC"


def test_raspberry_device() -> None:
    config = parse_system_config(RASPBERRY.encode(), CONF)
    assert config.system.bundle_formats == {"verity"}
    assert config.keyring.check_purpose == "codesign-rauc"
    assert slots_of(RASPBERRY)["root.0"].parent == "boot.0"


def test_jetson_device() -> None:
    config = parse_system_config(JETSON.encode(), CONF)
    assert config.system.bundle_formats == {"plain"}
    assert config.keyring.use_bundle_signing_time
    data = slots_of(JETSON)["data.0"]
    assert not data.readonly
    assert data.parent is None
    assert data.bootname is None


def test_every_other_key() -> None:
    text = """\
[system]
compatible=Board
bootloader=barebox
barebox-dtbpath=/boot/state.dtb
min-bundle-version=1.2-rc1
data-directory=state
statusfile=slots.raucs
activate-installed=false
prevent-late-fallback=lock-counter
perform-pre-check=1
variant-file=/etc/variant
boot-attempts=2
boot-attempts-primary=4
max-bundle-download-size=1000
max-bundle-signature-size=131072

[keyring]
directory=certs
check-crl=true
allow-partial-chain=true
allow-single-signature=true
check-purpose=smimesign
allowed-signer-cns=Name 1;Other Name

[casync]
storepath=http://store/default.castr
tmppath=/tmp/casync
install-args=--seed=/x
use-desync=true

[streaming]
sandbox-user=stream
tls-cert=/c
tls-key=pkcs11:token=x
tls-ca=/ca
send-headers=boot-id;serial

[polling]
url=https://example.com/b.raucb
interval-sec=60
inhibit-files=/run/busy;/run/call
candidate-criteria=different-version
install-criteria=always
reboot-criteria=updated-slots
reboot-cmd=/sbin/reboot -f

[encryption]
key=pkcs11:token=rauc;object=key
cert=enc.pem

[handlers]
system-info=info
pre-install=pre

[log.short]
filename=short.log
format=short
events=boot;install
max-size=64K
max-files=3

[log.all]
filename=/var/log/rauc.json
format=json

[artifacts.add-ons]
path=/srv/add-ons
type=trees
description=Things

[slot.boot.0]
device=/dev/mmcblk1
type=boot-emmc
size-limit=4M
bootname=e

[slot.spl.0]
device=/dev/mmcblk0
type=boot-mbr-switch
region-start=1M
region-size=2g
extra-mount-opts=ro,noatime
extra-mkfs-opts=-L "my root" -i 8192
force-install-same=false
efi-loader=\\EFI\\a.efi
efi-cmdline=quiet
"""
    config = parse_system_config(text.encode(), CONF)
    assert config.system.min_bundle_version == "1.2-rc1"
    assert config.system.data_directory == Path("/etc/rauc/state")
    assert config.system.statusfile == Path("/etc/rauc/slots.raucs")
    assert not config.system.activate_installed
    assert config.system.prevent_late_fallback == "lock-counter"
    assert config.system.perform_pre_check
    assert config.system.variant_file == "/etc/variant"
    assert (config.system.boot_attempts, config.system.boot_attempts_primary) == (2, 4)
    assert config.system.max_bundle_signature_size == 131072
    assert config.keyring.directory == Path("/etc/rauc/certs")
    assert config.keyring.check_crl
    assert config.keyring.allow_partial_chain
    assert config.keyring.allow_single_signature
    assert config.keyring.allowed_signer_cns == ("Name 1", "Other Name")
    assert config.casync.use_desync
    assert config.casync.storepath == "http://store/default.castr"
    assert config.streaming.send_headers == ("boot-id", "serial")
    assert config.streaming.tls_key == "pkcs11:token=x"
    assert (config.polling.interval, config.polling.max_interval) == (60, 240)
    assert config.polling.inhibit_files == ("/run/busy", "/run/call")
    assert config.polling.candidate_criteria == ("different-version",)
    assert config.polling.reboot_cmd == "/sbin/reboot -f"
    assert config.encryption.key == "pkcs11:token=rauc;object=key"
    assert config.encryption.cert == "/etc/rauc/enc.pem"
    assert config.handlers.pre_install == Path("/etc/rauc/pre")
    assert config.logs[0] == EventLog(
        "short", Path("/etc/rauc/state/short.log"), "short", ("boot", "install"), 65536, 3
    )
    assert config.logs[1] == EventLog("all", Path("/var/log/rauc.json"), "json")
    assert config.artifacts[0].path == Path("/srv/add-ons")
    boot, spl = config.slots
    assert boot.size_limit == 4 << 20
    assert (spl.region_start, spl.region_size) == (1 << 20, 2 << 30)
    assert spl.extra_mkfs_opts == ("-L", "my root", "-i", "8192")
    assert spl.extra_mount_opts == "ro,noatime"
    assert not spl.install_same
    assert (spl.efi_loader, spl.efi_cmdline) == ("\\EFI\\a.efi", "quiet")


@pytest.mark.parametrize(
    ("extra", "loader", "field", "value"),
    [
        ("", "grub", "grubenv", Path("/boot/grub/grubenv")),
        ("grubenv=/boot/efi/grubenv", "grub", "grubenv", Path("/boot/efi/grubenv")),
        ("grubenv=env", "grub", "grubenv", Path("/etc/rauc/env")),
        ("efi-use-bootnext=false", "efi", "efi_use_bootnext", False),
        ("prevent-late-fallback=true", "uboot", "prevent_late_fallback", "mark-bad"),
        ("prevent-late-fallback=false", "uboot", "prevent_late_fallback", "no"),
        ("variant-dtb=true", "noop", "variant_dtb", True),
        ("variant-name=blue", "noop", "variant_name", "blue"),
        ("mountprefix=", "noop", "mountprefix", Path("/mnt/rauc")),
        ("data-directory=/d", "noop", "statusfile", Path("/d/central.raucs")),
        ("statusfile=per-slot", "noop", "statusfile", None),
        ("bundle-formats=verity crypt", "noop", "bundle_formats", {"verity", "crypt"}),
        ("bundle-formats=-crypt +plain", "noop", "bundle_formats", {"plain", "verity"}),
        ("bundle-formats= plain  verity ", "noop", "bundle_formats", {"plain", "verity"}),
    ],
)
def test_system_values(extra: str, loader: str, field: str, value: object) -> None:
    text = f"[system]\ncompatible=x\nbootloader={loader}\n{extra}\n"
    assert getattr(parse_system_config(text.encode(), CONF).system, field) == value


def system(extra: str = "", loader: str = "uboot") -> str:
    return f"[system]\ncompatible=x\nbootloader={loader}\n{extra}\n"


def slot(extra: str, name: str = "rootfs.0") -> str:
    return f"{system()}[slot.{name}]\ndevice=/dev/x\n{extra}\n"


REFUSALS = [
    ("", "Input file is empty"),
    ("[system]\nbootloader=uboot\n", "System compatible string is not set"),
    ("[system]\ncompatible=\nbootloader=uboot\n", "Missing value for key 'compatible'"),
    ("[system]\ncompatible=x\n", "No bootloader selected in system config"),
    (system(loader="grup"), "Unsupported bootloader 'grup' selected in system config"),
    (system(loader="custom"), "No custom bootloader backend defined"),
    (system("bundle-formats=verty"), "Invalid bundle format 'verty'"),
    (
        system("bundle-formats=verity -plain"),
        "Invalid bundle format configuration 'verity -plain', "
        "cannot combine fixed value with modification (+/-)",
    ),
    (
        system("bundle-formats=-plain -verity -crypt"),
        "Invalid bundle format configuration '-plain -verity -crypt', no remaining formats",
    ),
    (
        system("data-directory=/d\nstatusfile=per-slot"),
        "Using data-directory= with statusfile=per-slot is not supported.",
    ),
    (
        system("variant-name=a\nvariant-file=/b"),
        "Only one of the keys 'variant-file', variant-dtb','variant-name' is allowed",
    ),
    (
        system("min-bundle-version=one"),
        "Min version format invalid, expected: Major[.Minor[.Patch]][-pre_release], got: one",
    ),
    (
        system("min-bundle-version=0.0.0-alpha"),
        "Min version format invalid, expected: Major[.Minor[.Patch]][-pre_release], got: 0.0.0-alpha",
    ),
    (system("boot-attempts=-1"), 'Value for "boot-attempts" must not be negative'),
    (
        system("boot-attempts=2", "grub"),
        "Configuring boot attempts is valid for uboot or barebox only (not for grub)",
    ),
    (
        system("max-bundle-signature-size=0"),
        'Invalid value (0) for key "max-bundle-signature-size" in system config',
    ),
    (system("grubenv=/x"), "Invalid key 'grubenv' in group '[system]'"),
    (system("bootlader=x"), "Invalid key 'bootlader' in group '[system]'"),
    (system("bundle-formats=plain\nbundle-formats=verity"), "Invalid key 'bundle-formats'"),
    (system("activate-installed=maybe"), "has a value that cannot be interpreted"),
    (system() + "[keyrng]\npath=x\n", "Invalid group '[keyrng]'"),
    (system() + "[keyring]\npaht=x\n", "Invalid key 'paht' in group '[keyring]'"),
    (
        system() + "[handlers]\nbootloader-custom-backend=/x\n",
        "Invalid key 'bootloader-custom-backend' in group '[handlers]'",
    ),
    (system() + "[streaming]\nsend-headers=colour\n", "Automatic HTTP header 'colour' not supported"),
    (system() + "[slot.rootfs]\ndevice=/x\n", "Invalid slot name format: slot.rootfs"),
    (system() + "[slot]\ndevice=/x\n", "Invalid slot name format: slot"),
    (slot("", "rootfs.a"), "Invalid slot name format: slot.rootfs.a"),
    (
        system() + "[slot.rootfs.0]\n",
        "Key file does not have key “device” in group “slot.rootfs.0”",
    ),
    (slot("type=ext3"), "Unsupported slot type 'ext3' for slot rootfs.0 selected in system config"),
    (slot("colour=red"), "Invalid key 'colour' in group '[slot.rootfs.0]'"),
    (
        slot("bootname=A B"),
        "Invalid bootname for slot rootfs.0: The value 'A B' can not contain tab or whitespace characters",
    ),
    (slot("type=jffs2").replace("/dev/x", "x"), "device must be located in /dev/ for jffs2"),
    (
        slot("type=boot-emmc").replace("/dev/x", "/dev/mmcblk0boot0"),
        "slot.rootfs.0: 'device' must refer to the eMMC base device, not the boot partition",
    ),
    (slot("type=boot-gpt-switch"), "mandatory for boot-gpt-switch: Key file does not have key"),
    (slot("region-start=1M"), "Invalid key 'region-start' in group '[slot.rootfs.0]'"),
    (slot("type=boot-emmc\nsize-limit=4 apples"), "Invalid size '4 apples' for key 'size-limit'"),
    (slot("type=boot-emmc\nsize-limit=99999999999T"), "Invalid size '99999999999T'"),
    (slot("extra-mkfs-opts='open"), "Failed to parse extra-mkfs-opts: "),
    (slot("parent=boot.0"), "Parent slot 'boot.0' not found!"),
    (slot("parent=rootfs.0"), "Slot 'rootfs.0' has a parent loop!"),
    (
        slot("parent=a.0") + "[slot.a.0]\ndevice=/a\nparent=b.0\n[slot.b.0]\ndevice=/b\nparent=a.0\n",
        "has a parent loop!",
    ),
    (AB.replace("bootname=B", "bootname=A"), "Bootname 'A' is set on more than one slot"),
    (AB + "parent=rootfs.0\n", "Child slot 'rootfs.1' has bootname set"),
    (system() + "[artifacts.a.b]\npath=/a\ntype=files\n", "Invalid artifacts repo format: artifacts.a.b"),
    (
        system() + "[artifacts.a]\npath=/a\ntype=file\n",
        "Unsupported artifacts repo type 'file' for repo a selected in system config",
    ),
    (
        system() + "[artifacts.a]\npath=/a\ntype=files\nparent-class=rootfs\n",
        "Parent slot classes are not yet supported for artifact repos",
    ),
    (
        AB + "[artifacts.rootfs]\npath=/a\ntype=files\n",
        "Existing slot class 'rootfs' cannot be used as artifact repo name!",
    ),
    (system() + "[log.a]\nfilename=a\n", "Relative filename requires data-directory to be set"),
    (system() + "[log.a]\nfilename=/a\nformat=xml\n", "Unknown log format 'xml'"),
    (system() + "[log.a]\nfilename=/a\nevents=all;boot\n", "Event type 'all' cannot be combined"),
    (system() + "[log.a]\nfilename=/a\nevents=bot\n", "Unsupported event log type 'bot'"),
    (system() + "[log.a]\nfilename=/a\nmax-files=0\n", "Value for 'max-files' must be >= 1"),
    (system() + "[log.a]\nfilename=/a\nmax-files=1001\n", "'max-files' looks implausible"),
    (system() + "[log]\nfilename=/a\n", "Invalid group '[log]'"),
    ("x=1\n", "Key file does not start with a group"),
]

OTHERWISE_IN_RAUC_1_8 = (  # the Debian package that the texts are compared with does not know these yet
    *("Input file is empty", "System compatible", "Min version", "Value for", "Configuring boot attempts"),
    *("Invalid value", "Automatic HTTP header", "slot.rootfs.a", "Invalid bootname", "jffs2"),
    *("eMMC base device", "Invalid size", "Failed to parse extra", "artifact", "Relative filename"),
    *("Unknown log", "Event type", "Unsupported event", "'max-files'", "[log]"),
)


@pytest.mark.parametrize(("text", "message"), REFUSALS)
def test_refusals(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "system.conf"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_system_config(file)
    assert str(caught.value).startswith(f"Failed to load system config ({file}): ")
    assert message in str(caught.value)


def real_rauc(file: Path) -> str:
    """Why RAUC does not load this file; "" if it does."""
    argv = ["rauc", "--conf", str(file), "info", "/nowhere.raucb"]
    lines = subprocess.run(argv, capture_output=True, text=True, check=False).stderr.splitlines()
    assert lines
    reasons = [line for line in lines if "Failed to load system config" in line]
    return reasons[0].removeprefix("Failed to initialize context: ") if reasons else ""


@pytest.mark.parametrize(
    "text", [text for text, message in REFUSALS if not any(part in message for part in OTHERWISE_IN_RAUC_1_8)]
)
def test_refusals_have_the_words_of_the_real_rauc(tmp_path: Path, text: str) -> None:
    file = tmp_path / "system.conf"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_system_config(file)
    ours, theirs = str(caught.value), real_rauc(file)
    if "parent loop" in ours:  # RAUC names any slot of the loop
        ours, theirs = ours.replace("'a.0'", "'b.0'"), theirs.replace("'a.0'", "'b.0'")
        ours, theirs = ours.replace("'rootfs.0'", "'b.0'"), theirs.replace("'rootfs.0'", "'b.0'")
    assert ours == theirs


@pytest.mark.parametrize("text", [AB, HOME_AUTOMATION, CLASSIC, RK3588, RASPBERRY, JETSON])
def test_real_rauc_loads_the_devices_as_well(tmp_path: Path, text: str) -> None:
    file = tmp_path / "system.conf"
    file.write_text(text.replace("u-boot", "uboot"))
    assert not real_rauc(file)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        (system("bundel-formats=plain"), "Did you mean 'bundle-formats'?"),
        (system() + "[keyrng]\n", "Did you mean 'keyring'?"),
        (system("grubenv=/x"), "'grubenv' is for bootloader=grub only."),
        (system(loader="grup"), "Did you mean 'grub'?"),
        (slot("type=ext3"), "Did you mean 'ext4'?"),
        (AB + "parent=rotfs.0\n", "Did you mean 'rootfs.0'?"),
    ],
)
def test_hints(text: str, hint: str) -> None:
    with pytest.raises((ConfigError, KeyFileError)) as caught:
        parse_system_config(text.encode(), CONF)
    assert caught.value.hint == hint


def test_first_file_of_the_search_order_counts(tmp_path: Path) -> None:
    search = [tmp_path / name for name in ("etc", "run", "lib")]
    search[1].write_text(AB)
    search[2].write_text("[nonsense]")
    assert load_system_config(None, search=search).path == search[1]


def test_no_file_at_all(tmp_path: Path) -> None:
    search = [tmp_path / "etc", tmp_path / "lib"]
    with pytest.raises(ConfigError) as caught:
        load_system_config(None, search=search)
    assert "No such file or directory" in str(caught.value)
    assert str(search[0]) in caught.value.hint
    with pytest.raises(ConfigError, match="Failed to open file"):
        load_system_config(tmp_path)  # a folder


def test_huge_file(tmp_path: Path) -> None:
    file = tmp_path / "system.conf"
    file.write_text("#" * 2_000_000)
    with pytest.raises(ConfigError, match="more than 1048576 bytes"):
        load_system_config(file)


def test_relative_config_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "system.conf").write_text(AB + "[keyring]\npath=ca.pem\n")
    monkeypatch.chdir(tmp_path)
    assert load_system_config(Path("system.conf")).keyring.path == tmp_path / "ca.pem"


def test_overrides() -> None:
    config = parse_system_config(
        AB.encode(),
        CONF,
        ["system:compatible=Other=1", "keyring:path=/k", "slot.rootfs.1:type=ext4", "slot.data.0:device=/d"],
    )
    assert config.system.compatible == "Other=1"
    assert config.keyring.path == Path("/k")
    assert [one.type for one in config.slots] == ["raw", "ext4", "raw"]


@pytest.mark.parametrize("override", ["", "system", "system:compatible", ":a=b", "system:=b", "compatible=x"])
def test_bad_override(override: str) -> None:
    with pytest.raises(ConfigError, match="Invalid override"):
        parse_system_config(AB.encode(), CONF, [override])


def test_unknown_override() -> None:
    with pytest.raises(KeyFileError, match="Invalid key 'colour'"):
        parse_system_config(AB.encode(), CONF, ["system:colour=red"])


LINES = st.sampled_from([*AB.splitlines(), *CLASSIC.splitlines(), *RK3588.splitlines(), *JETSON.splitlines()])
VALUES = st.sampled_from(
    ["", "1", "-1", "true", "rootfs.0", "rootfs.1", "1M", "a b", "\\x", "a;b", "ext4", "\0", "'", "per-slot"]
)
MANGLED = st.builds(lambda line, value: line.partition("=")[0] + "=" + value, LINES, VALUES)


@given(st.one_of(st.lists(st.one_of(LINES, MANGLED)).map("\n".join).map(str.encode), st.binary()))
def test_anything_is_a_config_or_our_error(data: bytes) -> None:
    """Invariant: a SystemConfig, or ConfigError / KeyFileError, whatever the bytes are."""
    try:
        config = parse_system_config(AB.encode() + data, CONF)
    except (ConfigError, KeyFileError):
        return
    roots = {one.name for one in config.slots if one.parent is None}
    assert all(one.parent is None or one.parent in roots for one in config.slots)


@given(st.binary(max_size=200))
def test_only_config_errors_leave_the_loader(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "fuzzed.conf"
    file.write_bytes(AB.encode() + b"[keyring]\npath=" + data)
    try:
        load_system_config(file)
    except ConfigError as error:
        assert str(file) in str(error)
