"""`[tryboot]` of updated.toml."""

from __future__ import annotations

from datetime import date

import pytest

from updated.config.agent_toml import parse_agent_config
from updated.errors import ConfigError


def test_partitions_and_roots() -> None:
    config = parse_agent_config(
        b'[tryboot]\ndevice = "/dev/boot"\npartitions = { A = 2, B = 3 }\nmin-firmware = 2025-03-10\n'
    )
    assert config.tryboot.partitions == {"A": 2, "B": 3}
    assert config.tryboot.min_firmware == date(2025, 3, 10)
    config = parse_agent_config(
        b'[tryboot]\nfolder = "/mnt/boot"\nroots = { A = "PARTUUID=a", B = "/dev/sda2" }\n'
    )
    assert config.tryboot.roots == {"A": "PARTUUID=a", "B": "/dev/sda2"}


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ("partitions = { A = 2, B = 3 }", "tryboot.device and tryboot.folder: expected one of them"),
        ('device = "/a"\nfolder = "/b"\npartitions = { A = 2 }', "expected one of them"),
        ('device = "/a"', "tryboot.partitions and tryboot.roots: expected one of them"),
        ('device = "a"\npartitions = { A = 2, B = 3 }', "tryboot.device is 'a', expected an absolute path"),
        ('device = "/a"\npartitions = { A = 2, B = 2 }', "expected numbers from 1 to 31, each once"),
        ('device = "/a"\npartitions = { A = 0, B = 2 }', "expected numbers from 1 to 31"),
        ('device = "/a"\npartitions = { A = "2" }', "Expected `int`"),
        ('device = "/a"\nroots = { A = "x y" }', "tryboot.roots.A is 'x y', expected a value of root="),
        ('device = "/a"\nroots = { "../A" = "x" }', "'../A' is no part of a folder's name"),
        ('device = "/a"\npartitions = { A = 2 }\nmin-firmware = 1', "tryboot.min-firmware: Expected `date"),
        ("devise = 1", "unknown key 'tryboot.devise'"),
    ],
)
def test_refusals(table: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_agent_config(f"[tryboot]\n{table}\n".encode())
    assert reason in str(caught.value)
