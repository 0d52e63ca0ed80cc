"""A reader around another one: what most of them only pass on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

from updated.core.model import Reader

R = TypeVar("R", bound=Reader)


class ReaderAround(Generic[R]):
    """A `Reader` that does what `inner` does; override what is different."""

    def __init__(self, inner: R) -> None:
        self.inner = inner

    @property
    def size(self) -> int:
        return self.inner.size

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def remote(self) -> bool:
        return self.inner.remote

    @property
    def fetched(self) -> int:
        return self.inner.fetched

    def expect(self, ranges: Iterable[tuple[int, int]]) -> None:
        self.inner.expect(ranges)

    async def read(self, offset: int, length: int) -> bytes:
        return await self.inner.read(offset, length)

    def forget(self, offset: int, length: int) -> None:
        self.inner.forget(offset, length)

    async def close(self) -> None:
        await self.inner.close()
