"""The system that boots in the tests: a minimal Debian, made once, with the product installed into a copy.

The base is kept in $UPDATED_TEST_CACHE (default: ~/.cache/updated-tests); it comes from where the machine's
apt has its packages from.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from importlib.metadata import Distribution, distribution
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("systemd-sysv", "dbus", "python3", "e2fsprogs")
LEFT_OUT = ("doc", "man", "locale", "info")  # folders of /usr/share
# What a container has no use for and what only costs time.
MASKED = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "console-getty.service",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "systemd-update-utmp.service",
    "systemd-update-utmp-runlevel.service",
)


def make_tree(target: Path, debian: Sequence[str] = PACKAGES) -> None:
    """A bootable tree of Debian packages with `updated` installed as docs/install.md says."""
    subprocess.run(["cp", "-a", "--reflink=auto", str(_base(debian)), str(target)], check=True)
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    if not (target / "usr/bin" / python).exists():
        raise RuntimeError(f"no {python} in the system under test: make .venv with PYTHON=/usr/bin/python3")
    packages = target / "usr/lib/updated"
    for package in _needed():
        _copy(package, packages)
    subprocess.run(
        ["make", "--quiet", "install", f"DESTDIR={target}", "DEPS=0", "RAUC=1", f"PYTHON={sys.executable}"],
        cwd=ROOT,
        check=True,
    )


def cache() -> Path:
    """What is fetched once on a machine."""
    return Path(os.environ.get("UPDATED_TEST_CACHE") or Path.home() / ".cache/updated-tests")


def _base(debian: Sequence[str]) -> Path:
    suite = platform.freedesktop_os_release()["VERSION_CODENAME"]
    recipe = hashlib.sha256(repr((suite, tuple(debian), LEFT_OUT, MASKED)).encode()).hexdigest()[:12]
    folder = cache()
    base = folder / f"{suite}-{recipe}"
    if not base.exists():
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = folder / f".{base.name}-{os.getpid()}"
        try:
            _build(suite, debian, unfinished)
            unfinished.rename(base)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return base


def _build(suite: str, debian: Sequence[str], target: Path) -> None:
    command = ["mmdebstrap", "--quiet", "--variant=essential", f"--include={','.join(debian)}"]
    command += [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in LEFT_OUT]
    command += ['--aptopt=Acquire::Languages "none"', "--format=directory", suite, str(target)]
    subprocess.run(command, check=True)
    for unit in MASKED:
        (target / "etc/systemd/system" / unit).symlink_to("/dev/null")
    (target / "etc/machine-id").write_text("")
    (target / "etc/fstab").write_text("")


def _needed() -> list[Distribution]:
    """What the product needs to run, as pyproject.toml says now, without its extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found: dict[str, Distribution] = {}
    wanted: list[str] = list(project["dependencies"])
    while wanted:
        requirement, _, marker = wanted.pop().partition(";")
        match = re.match(r"[\w.-]+", requirement)
        assert match is not None
        if "extra ==" in marker or match[0] in found or (marker and not _installed(match[0])):
            continue
        found[match[0]] = distribution(match[0])
        wanted += found[match[0]].requires or ()
    return list(found.values())


def _installed(name: str) -> bool:
    """Markers for other platforms and Python versions name what is not there."""
    try:
        distribution(name)
    except ModuleNotFoundError:
        return False
    return True


def _copy(package: Distribution, target: Path) -> None:
    for file in package.files or ():
        if ".." in file.parts or file.suffix == ".pyc":
            continue
        (target / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(str(file.locate()), target / file)
