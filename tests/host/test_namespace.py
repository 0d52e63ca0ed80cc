"""Mounts of our own: real namespaces, each tried in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from updated.syscalls import MountFlag, mount, unmount

pytestmark = pytest.mark.root

SCRIPT = """
import sys
from pathlib import Path
from updated.errors import DeviceError
from updated.host.namespace import own_mount_namespace
from updated.syscalls import MountFlag, mount

def inode():
    return Path("/proc/self/ns/mnt").stat().st_ino

before = inode()
try:
    own_mount_namespace()
    after = inode()
    own_mount_namespace()
    own_mount_namespace()
    assert inode() == after, "not idempotent"
    mount("none", Path(sys.argv[1]), "tmpfs", MountFlag(0))
    (Path(sys.argv[1]) / "inside").touch()
    print("kept" if before == after else "made")
except DeviceError as error:
    print(error.with_hint())
"""


def tried(place: Path, *wrapper: str) -> str:
    argv = [*wrapper, sys.executable, "-c", SCRIPT, str(place)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert not done.returncode, done.stderr
    return done.stdout.strip()


def test_by_hand(tmp_path: Path) -> None:
    assert tried(tmp_path) == "made"
    assert not list(tmp_path.iterdir())


# A pid 1 of its own, in a mount namespace of its own.
SYSTEM = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "sh", "-c"]


@pytest.mark.parametrize("propagation", ["private", "slave", "shared"])
def test_as_with_private_mounts(tmp_path: Path, propagation: str) -> None:
    """Somebody has given us one: pid 1 has another."""
    script = f'mount --make-rshared /; unshare --mount --propagation {propagation} "$@"; true'
    assert tried(tmp_path, *SYSTEM, script, "sh") == "kept"
    assert not list(tmp_path.iterdir())


def test_where_all_mounts_are_shared(tmp_path: Path) -> None:
    """As under systemd: what we mount must not come out."""
    script = (
        "mount --make-rshared /; before=$(wc -l < /proc/self/mountinfo);"
        ' "$@"; [ $before = $(wc -l < /proc/self/mountinfo) ] && echo clean'
    )
    assert tried(tmp_path, *SYSTEM, script, "sh").splitlines() == ["made", "clean"]


def test_not_permitted(tmp_path: Path) -> None:
    text = tried(tmp_path, "setpriv", "--bounding-set=-sys_admin", "--inh-caps=-all")
    assert text.startswith("Cannot make a mount namespace: Operation not permitted (")
    assert "PrivateMounts=yes" in text


def test_a_unit_that_must_not_look_at_init(tmp_path: Path) -> None:
    """As updated.service: no CAP_SYS_PTRACE, but mounts that are a slave of the host's."""
    script = (
        "mount --make-rshared /; unshare --mount --propagation slave sh -c 'mount --make-rshared /;"
        """ exec setpriv --bounding-set=-sys_ptrace --inh-caps=-all "$@"' sh "$@"; true"""
    )
    assert tried(tmp_path, *SYSTEM, script, "sh") == "kept"


def test_mount_and_unmount(tmp_path: Path) -> None:
    mount("none", tmp_path, "tmpfs", MountFlag.RDONLY | MountFlag.NOSUID, "size=64k")
    try:
        with pytest.raises(OSError, match="Read-only"):
            (tmp_path / "x").touch()
    finally:
        unmount(tmp_path)
    with pytest.raises(OSError, match="Invalid argument") as caught:
        unmount(tmp_path, lazily=True)
    assert caught.value.filename == str(tmp_path)
    with pytest.raises(OSError, match="No such device"):
        mount("none", tmp_path, "no-such-file-system", MountFlag(0))
