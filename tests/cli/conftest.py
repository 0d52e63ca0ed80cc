"""A virtual A/B device, a private bus with the real `rauc service`, and both command lines to compare."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from updated.cli import main

Completed = subprocess.CompletedProcess[str]
Run = Callable[..., Completed]

SYSTEM_CONF = """\
[system]
compatible=Test Box
bootloader=grub
grubenv={0}/grubenv
statusfile={0}/status
mountprefix={0}/mnt

[keyring]
path={1}/ca.pem

[slot.rootfs.0]
device={0}/rootfs-0
bootname=A
description=First system

[slot.rootfs.1]
device={0}/rootfs-1
bootname=B

[slot.appfs.0]
device={0}/appfs-0
parent=rootfs.0

[slot.appfs.1]
device={0}/appfs-1
parent=rootfs.1
"""

MANIFEST = """\
[update]
compatible=Test Box
version=2026.1
description=it's a "test" – ünïcode $HOME
build=77

[bundle]
format={0}

[hooks]
filename=hook.sh
hooks={1}

[image.rootfs]
filename=rootfs.img

[image.appfs]
filename=appfs.img
hooks=post-install;pre-install
"""


def call(*argv: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Completed:
    return subprocess.run(
        [str(word) for word in argv],
        env={**os.environ, "LC_ALL": "C.UTF-8", **(env or {})},
        cwd=cwd,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )


def checked(*argv: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
    result = call(*argv, env=env, cwd=cwd)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`ca.pem`, and `dev.pem` with `dev.key` signed by it."""
    folder = tmp_path_factory.mktemp("pki")
    ec = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    req = ("openssl", "req", *ec)
    checked(
        *req, "-x509", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/O=Test Org/CN=Root CA", cwd=folder
    )
    checked(*req, "-keyout", "dev.key", "-out", "dev.csr", "-subj", "/O=Test Org/CN=Signer", cwd=folder)
    sign = (
        "openssl",
        "x509",
        "-req",
        "-in",
        "dev.csr",
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
    )
    checked(*sign, "-days", "30", "-out", "dev.pem", cwd=folder)
    return folder


@pytest.fixture(scope="session")
def content(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """Makes the folder that a bundle of a format is made from."""

    def make(bundle_format: str, hooks: str = "install-check") -> Path:
        folder = tmp_path_factory.mktemp(bundle_format)
        (folder / "rootfs.img").write_bytes(os.urandom(100_000))
        (folder / "appfs.img").write_bytes(os.urandom(1234))
        (folder / "hook.sh").write_text("#!/bin/sh\nexit 0\n")
        (folder / "hook.sh").chmod(0o755)
        (folder / "manifest.raucm").write_text(MANIFEST.format(bundle_format, hooks))
        return folder

    return make


@pytest.fixture(scope="session")
def bundles(
    pki: Path, content: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, Path]:
    """A bundle of each format, made by the real rauc."""
    folder = tmp_path_factory.mktemp("bundles")
    made = {}
    for bundle_format in ("plain", "verity"):
        made[bundle_format] = folder / f"{bundle_format}.raucb"
        signer = (f"--cert={pki}/dev.pem", f"--key={pki}/dev.key")
        checked("rauc", "bundle", *signer, content(bundle_format), made[bundle_format])
    return made


@pytest.fixture
def device(tmp_path: Path, pki: Path) -> Path:
    """A folder that is a device: `system.conf`, slots in files, a GRUB environment; A is primary."""
    folder = tmp_path / "device"
    (folder / "mnt").mkdir(parents=True)
    for name in ("rootfs-0", "rootfs-1", "appfs-0", "appfs-1"):
        with (folder / name).open("wb") as slot:
            slot.truncate(1024 * 1024)
    (folder / "system.conf").write_text(SYSTEM_CONF.format(folder, pki))
    checked("grub-editenv", folder / "grubenv", "create")
    state = ("ORDER=A B", "A_OK=1", "B_OK=1", "A_TRY=0", "B_TRY=0")
    checked("grub-editenv", folder / "grubenv", "set", *state)
    return folder


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[Mapping[str, str]]:
    """The environment that leads to a private bus."""
    argv = ("dbus-daemon", "--session", "--nofork", "--print-address", f"--address=unix:path={tmp_path}/bus")
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as daemon:
        assert daemon.stdout is not None
        address = daemon.stdout.readline().strip()
        yield {"DBUS_SESSION_BUS_ADDRESS": address, "DBUS_STARTER_BUS_TYPE": "session"}
        daemon.terminate()


@pytest.fixture
def rauc_service(bus: Mapping[str, str], device: Path) -> Iterator[Mapping[str, str]]:
    """The real `rauc service` for the device; yields the environment that leads to it."""
    argv = ("rauc", "-c", str(device / "system.conf"), "--override-boot-slot=A", "service")
    log = (device / "rauc.log").open("w")
    with log, subprocess.Popen(argv, env={**os.environ, **bus}, stdout=log, stderr=log) as service:
        _wait_for_name(bus, "de.pengutronix.rauc")
        yield bus
        service.terminate()


def _wait_for_name(env: Mapping[str, str], name: str) -> None:
    ask = ("dbus-send", "--session", "--print-reply", "--dest=org.freedesktop.DBus", "/org/freedesktop/DBus")
    deadline = time.monotonic() + 20
    while "true" not in call(*ask, "org.freedesktop.DBus.NameHasOwner", f"string:{name}", env=env).stdout:
        assert time.monotonic() < deadline, f"{name} did not appear on the bus"
        time.sleep(0.02)


@pytest.fixture
def rauc() -> Run:
    """Runs the real command line."""

    def run(*words: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Completed:
        return call("rauc", *words, env=env, cwd=cwd)

    return run


@pytest.fixture
def process() -> Run:
    """Runs ours as a process: where locale, streams or the exit of the interpreter count."""

    def run(*words: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Completed:
        return call(sys.executable, "-m", "updated", *words, env=env, cwd=cwd)

    return run


@pytest.fixture
def updated(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs ours in this process, which takes a tenth of the time."""

    def run(*words: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Completed:
        argv = ["/usr/bin/updated", *(str(word) for word in words)]
        out, err = io.StringIO(), io.StringIO()
        with monkeypatch.context() as changed, redirect_stdout(out), redirect_stderr(err):
            for name, value in (env or {}).items():
                changed.setenv(name, value)
            if cwd is not None:
                changed.chdir(cwd)
            code = main.run(argv)
        return Completed(argv, code, out.getvalue(), err.getvalue())

    return run
