"""A whole object from its start to its end, for those who keep it on disk first."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

from updated.errors import SourceError
from updated.readers.http_errors import Interrupted
from updated.readers.http_object import HttpObject
from updated.readers.http_response import Response


@dataclass(frozen=True, slots=True)
class HttpBody:
    """The bytes of an object: iterate over it, once."""

    start: int  # offset of the first byte that comes: 0 if the server could not go on where it was asked to
    size: int  # bytes of the whole object; 0: not known
    etag: str
    url: str  # after redirects
    modified: int  # seconds since 1970; 0: not known
    chunks: AsyncIterator[bytes]

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self.chunks


async def whole(source: HttpObject, start: int, response: Response) -> AsyncGenerator[bytes, None]:
    """Bytes from `start` on, the first of them from `response`; a connection that breaks is made again."""
    if source.size:
        async with aclosing(source.stream(start, source.size, response)) as chunks:
            async for chunk in chunks:
                yield chunk
        return
    try:  # who does not say how much it is cannot be asked for the rest
        while chunk := await response.read():
            source.fetched += len(chunk)
            yield chunk
    except Interrupted as error:
        raise SourceError(str(error), hint=error.hint) from error
    finally:
        response.close()
