"""What several versions of efibootmgr printed on real machines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from updated.boot import efitable
from updated.boot.efitable import BootTable, Entry

# Version 15, Ubuntu 19.10 on a laptop.
V15 = """BootCurrent: 0001
Timeout: 2 seconds
BootOrder: 0000,0001,2001,2002,2003
Boot0000* Windows Boot Manager
Boot0001* Ubuntu
Boot2001* EFI USB Device
Boot2002* EFI DVD/CDROM
Boot2003* EFI Network
"""

# Version 17 with -v, in a Hyper-V guest.
V17 = """BootCurrent: 0004
Timeout: 0 seconds
BootOrder: 0004,0003,0001,0000
Boot0002* FrontPage\tMemoryMapped(11,0x100000,0x5dffff)/FvFile(4042708a-0f2d-4823-ac60-0d77b3111889)
Boot0003* EFI SCSI Device\tAcpiEx(VMBus,,)/SCSI(0,1)
Boot0004* nixos-grub\tHD(1,GPT,8318b10a-489c-4df1-accf-68ce81ecf54a,0x800,0x100000)/File(\\EFI\\grub.efi)
"""

# Version 18, Lenovo: device paths without -v, raw bytes with it, inactive applications, capital hexadecimal.
V18 = """BootNext: 001D
BootCurrent: 0000
Timeout: 0 seconds
BootOrder: 0000,001D,001E
Boot0000* Ubuntu\tHD(2,GPT,5988d5f5-3444-4c0b-ae6a-f1d54adab504,0x8263800,0x3ba000)/File(\\EFI\\shim.efi)
      dp: 04 01 2a 00 02 00 00 00 00 38 26 08 / 04 04 34 00 5c 00 45 00 / 7f ff 04 00
Boot0010  Setup\tFvFile(721c8b66-426c-4e86-8e99-3457c46ab0b9)
Boot001D* USB CD\tVenMsg(bc7838d2-0f82-4d60-8316-c068ee79d25b,86701296aa5a7848b66cd49dd3ba6a55)
    data: 57 49 4e 44 4f 57 53 00
MirroredPercentageAbove4G: 0.00
MirrorMemoryBelow4GB: false
"""

# Version 14, firmware with nothing set.
NOTHING = "Timeout: 0 seconds\nNo BootOrder is set; firmware will attempt recovery\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            V15,
            BootTable(
                (
                    Entry("0000", "Windows Boot Manager", True),
                    Entry("0001", "Ubuntu", True),
                    Entry("2001", "EFI USB Device", True),
                    Entry("2002", "EFI DVD/CDROM", True),
                    Entry("2003", "EFI Network", True),
                ),
                ("0000", "0001", "2001", "2002", "2003"),
                current="0001",
            ),
        ),
        (
            V17,
            BootTable(
                (
                    Entry("0002", "FrontPage", True),
                    Entry("0003", "EFI SCSI Device", True),
                    Entry("0004", "nixos-grub", True),
                ),
                ("0004", "0003", "0001", "0000"),
                current="0004",
            ),
        ),
        (
            V18,
            BootTable(
                (
                    Entry("0000", "Ubuntu", True),
                    Entry("0010", "Setup", False),
                    Entry("001D", "USB CD", True),
                ),
                ("0000", "001D", "001E"),
                next="001D",
                current="0000",
            ),
        ),
        (NOTHING, BootTable((), ())),
        ("", BootTable((), ())),
        ("BootOrder: ,,\nBootNext: 1\nBoot00g0* x\n", BootTable((), ())),
        ("BootNext: 00a1\nBoot00a1  A\n", BootTable((Entry("00A1", "A", False),), (), next="00A1")),
    ],
)
def test_listings(text: str, expected: BootTable) -> None:
    assert efitable.parse(text) == expected


def test_what_is_gone_starts_nothing() -> None:
    table = efitable.parse(V17)
    assert [entry.number for entry in table.startable()] == ["0004", "0003"]
    assert table.entry("0001") is None
    assert table.entry(table.next) is None


@given(st.text(max_size=200))
def test_any_text_is_read(text: str) -> None:
    table = efitable.parse(f"BootOrder: 0001\n{text}")
    assert table.order == ("0001",)
    assert table.order_without("no label") == table.order
