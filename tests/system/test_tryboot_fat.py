"""Tryboot's files on a real FAT, and power cuts at each sector that the kernel writes.

User-mode Linux has the driver of FAT, and starts in two seconds.  What its kernel sends to the medium is
written down; then each state is looked at that a power cut may leave: between two flushes a medium may have
written any of the sectors that it was given.
"""

from __future__ import annotations

import json
import random
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.fakes.pi import Pi
from updated.boot import tryboot_text

pytestmark = [pytest.mark.root, pytest.mark.slow]

SECTOR = 512
SUBSETS = 8  # of the sectors between two flushes
SEED = 4
ROOT = Path(__file__).parents[2]
MODULES = ("fat", "vfat", "nls_cp437", "nls_iso8859-1", "nls_ascii", "nls_utf8", "nbd")
INIT = """\
#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin PYTHONPATH={root} PYTHONDONTWRITEBYTECODE=1
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t tmpfs run /run
mountpoint -q /dev || mount -t devtmpfs dev /dev
for module in {modules}; do insmod $(find /usr/lib/uml/modules -name "$module.ko"); done
{python} {script} {arguments} 2>&1
echo o >/proc/sysrq-trigger
sleep 60
"""

AUTOBOOT = "[all]\ntryboot_a_b=1\nboot_partition=2\n[tryboot]\nboot_partition=2\n"
ON_TRIAL = AUTOBOOT[:-2] + "3\n# updated: on trial\n"
CONFIG = "# a comment, and others like it\n" * 50 + "os_prefix=slot-A/\ncmdline=/cmdline.txt\n[all]\n"
CMDLINE = "rootwait root=PARTUUID=a rauc.slot=A\n"
PREFIXES = {
    "config.txt": CONFIG,
    "cmdline.txt": CMDLINE,
    "tryboot.txt": CONFIG.replace("slot-A", "slot-B").replace("/cmdline.txt", "/cmdline-tryboot.txt"),
    "cmdline-tryboot.txt": CMDLINE.replace("=a", "=b").replace("=A", "=B"),
}


def make_image(folder: Path, files: dict[str, str]) -> Path:
    image, source = folder / "fat.img", folder / "files"
    source.mkdir()
    for name, text in files.items():
        (source / name).write_text(text)
    with image.open("wb") as file:
        file.truncate(8 << 20)
    subprocess.run(["mkfs.vfat", "-F", "16", "-s", "1", str(image)], check=True, capture_output=True)
    subprocess.run(["mcopy", "-i", str(image), *source.iterdir(), "::"], check=True)
    subprocess.run(["mmd", "-i", str(image), "::slot-A", "::slot-B"], check=True)
    return image


def change(folder: Path, image: Path, *arguments: str) -> list[list[tuple[int, bytes]]]:
    """Let the product do it on the image; the sectors that were written between two flushes, in order."""
    log, init = folder / "log", folder / "init"
    words = shlex.join([str(image), str(log), *arguments])
    script = Path(__file__).with_name("fat_change.py")
    text = INIT.format(
        root=ROOT, modules=" ".join(MODULES), python=sys.executable, script=script, arguments=words
    )
    init.write_text(text)
    init.chmod(0o755)
    kernel = ["linux.uml", "mem=256M", "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "rw", "quiet"]
    console = ["con=null", "con0=null,fd:1"]
    command = [*kernel, *console, f"init={init}"]
    done = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=120)
    output = done.stdout.decode(errors="replace")
    assert "primary: B" in output, output
    epochs: list[list[tuple[int, bytes]]] = [[]]
    for line in log.read_text().splitlines():
        if (entry := json.loads(line)) is None:
            epochs.append([])
            continue
        data = bytes.fromhex(entry[1])
        epochs[-1] += [(entry[0] + i, data[i : i + SECTOR]) for i in range(0, len(data), SECTOR)]
    return [epoch for epoch in epochs if epoch]


def after_cuts(image: Path, epochs: Sequence[Sequence[tuple[int, bytes]]]) -> Iterator[None]:
    """Make the image what a power cut may leave, again and again."""
    chance = random.Random(SEED)
    settled = bytearray(image.read_bytes())
    for epoch in epochs:
        in_order = [epoch[:count] for count in range(len(epoch) + 1)]
        any_of_them = [[one for one in epoch if chance.random() < 0.5] for _ in range(SUBSETS)]
        for written in (*in_order, *any_of_them):
            data = bytearray(settled)
            for offset, sector in written:
                data[offset : offset + SECTOR] = sector
            image.write_bytes(data)
            yield
        for offset, sector in epoch:
            settled[offset : offset + SECTOR] = sector


def read_files(image: Path, folder: Path) -> Pi:
    """What a firmware finds; a file whose clusters are not its own any more is none."""
    boot = folder / "boot"
    shutil.rmtree(boot, ignore_errors=True)
    boot.mkdir()
    listed = ["mdir", "-b", "-i", str(image), "::"]
    names = subprocess.run(listed, check=True, capture_output=True, text=True).stdout.split()
    for name in [name for name in names if name.endswith(".txt")]:
        copy = ["mcopy", "-n", "-i", str(image), name, str(boot)]
        if subprocess.run(copy, check=False, capture_output=True).returncode:
            (boot / name.removeprefix("::/")).unlink(missing_ok=True)
    return Pi(boot, folder / "chosen")


@pytest.mark.parametrize(
    ("text", "operation", "before", "after"),
    [
        (AUTOBOOT, "primary", (2, 2), (2, 3)),  # gets longer
        (AUTOBOOT.ljust(480, "\n"), "primary", (2, 2), (2, 3)),
        (ON_TRIAL, "good", (2, 3), (3, 2)),
    ],
)
def test_autoboot_is_the_old_one_or_the_new_one(
    text: str, operation: str, before: tuple[int, int], after: tuple[int, int], tmp_path: Path
) -> None:
    image = make_image(tmp_path, {"autoboot.txt": text})
    epochs = change(tmp_path, image, "partitions", operation, "B")
    seen = []
    for _ in after_cuts(image, epochs):
        pi = read_files(image, tmp_path)
        seen.append((pi.partition(), pi.partition(tryboot=True)))
        file = tryboot_text.parse((pi.boot / "autoboot.txt").read_bytes())  # and we can go on from there
        assert (file.normal, file.trial) == seen[-1]
    assert set(seen) == {before, after}


def test_each_step_of_a_commit_by_prefix(tmp_path: Path) -> None:
    image = make_image(tmp_path, PREFIXES)
    epochs = change(tmp_path, image, "prefixes", "good", "B")
    seen = []
    for _ in after_cuts(image, epochs):
        pi = read_files(image, tmp_path)
        seen.append(pi.prefix())  # which looks at the command line, too
        if seen[-1] == "slot-A/":
            assert pi.prefix(tryboot=True) == "slot-B/"
    assert set(seen) == {"slot-A/", "slot-B/"}
    print(f"\n{len(epochs)} times flushed, {len(seen)} states")
