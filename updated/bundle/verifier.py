"""What the streaming engine asks of something that can tell good payload bytes from bad ones."""

from __future__ import annotations

from typing import Protocol

from updated.bundle.plan import Range


class Verifier(Protocol):
    """Checks payload bytes granule by granule, independently of each other, from any thread.

    `verity.VerityTree` (granule 4096, digests read along from the hash tree) and `chunks.ChunkDigests`
    (plain bundles: digests kept in memory from the pass that checked the signature) are the two kinds.
    """

    @property
    def granule(self) -> int:
        """Bytes that are checked as one; a power of two, at least 4096."""
        ...

    @property
    def data_size(self) -> int:
        """Bytes that can be checked: the payload without a hash tree."""
        ...

    def digests(self, offset: int, length: int) -> Range | None:
        """Which bytes of the bundle `check` needs beside the data; None: nothing.

        `offset` is a multiple of `granule`, and so is `length` unless the range ends at `data_size`.
        """
        ...

    def check(self, offset: int, data: bytes | memoryview, digests: bytes) -> None:
        """Accept `data` (granules from `offset`) with the bytes of `digests(offset, len(data))`.

        Raises BundleError("bundle payload is corrupted") otherwise.
        """
        ...
