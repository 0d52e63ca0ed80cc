"""Joins a connection of the guest's, on standard input and output, to a port of this machine's loopback.

QEMU starts it for each connection (guestfwd).  It hands over a socket; with Nagle's algorithm on either hop
each small request would wait 40 ms for a delayed acknowledgement.
"""

from __future__ import annotations

import os
import socket
import sys
import threading


def main(port: int) -> None:
    guest = socket.socket(fileno=os.dup(1))
    guest.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with socket.create_connection(("127.0.0.1", port)) as server:
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)  # what is on its way may be counted

        def up() -> None:
            while data := guest.recv(1 << 16):
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)

        threading.Thread(target=up, daemon=True).start()
        while data := server.recv(1 << 17):
            guest.sendall(data)


if __name__ == "__main__":
    main(int(sys.argv[1]))
