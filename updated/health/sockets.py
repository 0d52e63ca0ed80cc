"""A check that somebody takes connections."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
from typing import Final

from updated.core.health import Look, Rule
from updated.errors import DeviceError
from updated.health.aside import Aside
from updated.health.basis import BasicCheck, bad, good

MAX_ADDRESSES: Final = 8  # of one name that are tried


class SocketCheck(BasicCheck):
    """`host:port`, `[::1]:port`, or the absolute path of a unix socket.  Nothing is sent."""

    def __init__(self, rule: Rule, *, period: float, address: str, timeout: float) -> None:
        super().__init__(rule, period=period, limit=timeout + 1)
        self._address = address
        self._timeout = timeout
        self._aside = Aside()

    async def look(self) -> Look:
        try:
            async with asyncio.timeout(self._timeout):
                if self._address.startswith("/"):
                    await self._aside.run(self._timeout, _connect_unix, self._address)
                else:
                    await self._connect_tcp()
        except TimeoutError:
            return bad(f"{self._address} takes no connection within {self._timeout:g} s")
        except socket.gaierror as error:
            return bad(f"{self._address}: the name is not known ({error.strerror})")
        except OSError as error:
            return bad(f"{self._address} takes no connection: {os.strerror(error.errno or errno.EIO)}")
        except DeviceError as error:
            return bad(f"{self._address} takes no connection: {error}")
        return good(f"{self._address} takes connections")

    async def _connect_tcp(self) -> None:
        """Over the first of its addresses that answers.  Raises OSError."""
        host, _, port = self._address.rpartition(":")
        found = await self._aside.run(
            self._timeout, socket.getaddrinfo, host.strip("[]"), int(port), type=socket.SOCK_STREAM
        )
        trouble: OSError = socket.gaierror(socket.EAI_NONAME, "no address")
        for family, kind, protocol, _, address in found[:MAX_ADDRESSES]:
            try:
                with socket.socket(family, kind, protocol) as connection:
                    connection.setblocking(False)
                    await asyncio.get_running_loop().sock_connect(connection, address)
                    return
            except TimeoutError:
                raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from None  # the kernel's
            except OSError as error:
                trouble = error
        raise trouble


def _connect_unix(path: str) -> None:
    """Not by asyncio, which takes a full queue for a connection.  Raises OSError, DeviceError."""
    if not stat.S_ISSOCK(os.stat(path).st_mode):  # noqa: PTH116 - Path would not be shorter
        raise DeviceError("expected a socket, it is another kind of file")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.setblocking(False)
        try:
            connection.connect(path)
        except BlockingIOError as error:
            raise DeviceError("too many wait for it already") from error
