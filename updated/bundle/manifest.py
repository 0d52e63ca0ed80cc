"""The manifest: what the maker of a bundle promises (RAUC reference, "Manifest")."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

BundleFormat = Literal["plain", "verity", "crypt"]


@dataclass(frozen=True, slots=True)
class Image:
    """One `[image.<class>[/<artifact>][.<variant>]]`."""

    slot_class: str
    artifact: str | None = None
    variant: str | None = None
    filename: str | None = None
    type: str | None = None  # raw, ext4, vfat, squashfs, tar, ...; from `type=` or the file name
    type_detected: bool = False  # True: from the file name
    sha256: str | None = None  # lower-case hex
    size: int = 0  # bytes
    hooks: tuple[str, ...] = ()
    adaptive: tuple[str, ...] = ()
    convert: tuple[str, ...] = ()
    converted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Manifest:
    """A parsed manifest.  Whether it is trusted depends on where its bytes came from."""

    compatible: str
    version: str | None = None
    description: str | None = None
    build: str | None = None
    min_rauc_version: str | None = None
    format: BundleFormat = "plain"
    verity_hash: bytes | None = None  # 32 bytes
    verity_salt: bytes | None = None  # 32 bytes
    verity_size: int = 0  # bytes of hash tree
    crypt_key: bytes | None = field(default=None, repr=False)  # 32 bytes
    handler_filename: str | None = None
    handler_args: str | None = None
    hook_filename: str | None = None
    hooks: tuple[str, ...] = ()
    images: tuple[Image, ...] = ()
    meta: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    hash: str = ""  # manifest hash: SHA-256 of the exact bytes, lower-case hex
