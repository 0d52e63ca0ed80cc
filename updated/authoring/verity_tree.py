"""Building dm-verity's hash tree, for the writer (format: `updated.bundle.verity`)."""

from __future__ import annotations

import hashlib

from updated.bundle.verity import BLOCK, hash_blocks


class TreeBuilder:
    """Is fed the data from its beginning, in pieces of any size; keeps 1/128 of it in memory."""

    def __init__(self, salt: bytes) -> None:
        self._salted = hashlib.sha256(salt)
        self._partial = b""
        self._digests = bytearray()

    def feed(self, data: bytes) -> None:
        data = self._partial + data if self._partial else data
        whole = len(data) - len(data) % BLOCK
        self._digests += hash_blocks(self._salted, memoryview(data)[:whole])
        self._partial = data[whole:]

    def finish(self) -> tuple[bytes, bytes]:
        """(root hash, tree as it follows the data).  The data must have been one or more whole blocks."""
        if self._partial or not self._digests:
            raise ValueError(f"not a multiple of {BLOCK} bytes")
        digests, levels = bytes(self._digests), []
        while len(digests) > hashlib.sha256().digest_size:
            level = digests + bytes(-len(digests) % BLOCK)
            levels.append(level)
            digests = hash_blocks(self._salted, level)
        return digests, b"".join(reversed(levels))
