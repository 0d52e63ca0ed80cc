"""A long, bad line: two ends, packets that are late, and packets that never come.  Needs root.

    with line(delay=0.03, loss=0.03) as bad:        # ip netns exec `bad.namespace` is the far end
        ... a server there listens at bad.far ...
        bad.cut()                                   # from now on every packet is lost, and nobody is told
        bad.mend()
        bad.down()                                  # the cable is pulled: this end is told
        bad.up()

Both ends are TUN devices, so what meets the line is the kernel's own TCP, with its retransmissions and
timeouts.  (netem would do the same; not every kernel has it.)  This file, run as a program, is the line.
"""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import itertools
import json
import os
import random
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

NEAR, FAR = "198.51.100.1", "198.51.100.2"  # RFC 5737: nobody has them
TUNSETIFF = 0x400454CA  # linux/if_tun.h
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
QUEUE = 512  # packets under way in each direction; a router drops what does not fit
MTU = 1500


class Line:
    """A running line: a device here, another in a network namespace."""

    near = NEAR
    far = FAR

    def __init__(
        self, namespace: str, device: str, far_device: str, process: subprocess.Popen[bytes]
    ) -> None:
        self.namespace = namespace
        self.device = device
        self.far_device = far_device
        self._process = process

    @property
    def prefix(self) -> Sequence[str]:
        """What comes before a command that runs at the far end."""
        return ("ip", "netns", "exec", self.namespace)

    def cut(self) -> None:
        self._process.send_signal(signal.SIGUSR1)

    def mend(self) -> None:
        self._process.send_signal(signal.SIGUSR2)

    def down(self) -> None:
        ip("link", "set", self.device, "down")

    def up(self) -> None:
        ip("link", "set", self.device, "up")


@contextlib.contextmanager
def line(*, delay: float = 0.0, loss: float = 0.0, seed: int = 1) -> Iterator[Line]:
    """`delay` in seconds, one way; `loss` from 0 to 1, each way."""
    number = os.getpid()
    namespace, near, far = f"updated-{number}", f"near{number}", f"far{number}"
    with contextlib.ExitStack() as stack:
        ip("netns", "add", namespace)
        stack.callback(ip, "netns", "del", namespace)
        # Or what is for the far end would leave by this machine's own way out while the line is down.
        ip("route", "add", "unreachable", FAR, "metric", "4096")
        stack.callback(ip, "route", "del", "unreachable", FAR, "metric", "4096")
        ends = [_tun(near), _tun(far)]
        try:
            ip("link", "set", far, "netns", namespace)
            ip("addr", "add", NEAR, "peer", FAR, "dev", near)
            ip("-n", namespace, "addr", "add", FAR, "peer", NEAR, "dev", far)
            ip("link", "set", near, "mtu", str(MTU), "up")
            ip("-n", namespace, "link", "set", far, "mtu", str(MTU), "up")
            command = [sys.executable, __file__, *map(str, (*ends, delay, loss, seed))]
            process = stack.enter_context(subprocess.Popen(command, pass_fds=ends))
        finally:
            for end in ends:
                os.close(end)
        stack.callback(process.kill)
        yield Line(namespace, near, far, process)


@dataclass(frozen=True, slots=True)
class Wire:
    """A good line with a rate; the far end is in a network namespace."""

    namespace: str
    far_device: str
    far: str = FAR

    @property
    def prefix(self) -> Sequence[str]:
        """What comes before a command that runs at the far end."""
        return ("ip", "netns", "exec", self.namespace)

    @property
    def sent(self) -> int:
        """Bytes that the far end has sent, with the headers of each packet."""
        show = ("tc", "-s", "-j", "qdisc", "show", "dev", self.far_device)
        return int(json.loads(ip("netns", "exec", self.namespace, *show))[0]["bytes"])


@contextlib.contextmanager
def wire(rate: int) -> Iterator[Wire]:
    """A veth pair; the far end sends `rate` bits per second at most (tc-tbf(8))."""
    number = os.getpid()
    namespace, near, far = f"updated-{number}", f"near{number}", f"far{number}"
    with contextlib.ExitStack() as stack:
        ip("netns", "add", namespace)
        stack.callback(ip, "netns", "del", namespace)
        ip("link", "add", near, "type", "veth", "peer", far, "netns", namespace)
        ip("addr", "add", NEAR, "peer", FAR, "dev", near)
        ip("-n", namespace, "addr", "add", FAR, "peer", NEAR, "dev", far)
        ip("link", "set", near, "up")
        ip("-n", namespace, "link", "set", far, "up")
        limit = ("tbf", "rate", f"{rate}bit", "burst", "128kb", "latency", "100ms")
        ip("netns", "exec", namespace, "tc", "qdisc", "add", "dev", far, "root", *limit)
        yield Wire(namespace, far)


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


def _tun(name: str) -> int:
    """A new device that is gone when all its descriptors are closed."""
    end = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    fcntl.ioctl(end, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return end


class Relay:
    """What goes in at one end comes out of the other, late or never."""

    def __init__(self, ends: tuple[int, int], delay: float, loss: float, seed: int) -> None:
        self._other = dict(zip(ends, reversed(ends), strict=True))
        self._delay = delay
        self._loss = loss
        self._dice = random.Random(seed)
        self._count = itertools.count()
        self._under_way: dict[int, list[tuple[float, int, bytes]]] = {end: [] for end in ends}
        self.cut = False

    def run(self) -> None:
        while True:
            due = min((queue[0][0] for queue in self._under_way.values() if queue), default=None)
            wait = None if due is None else max(0.0, due - time.monotonic())
            for end in select.select([*self._other], [], [], wait)[0]:
                self._take(end)
            self._deliver()

    def _take(self, end: int) -> None:
        queue = self._under_way[self._other[end]]
        due = time.monotonic() + self._delay
        with contextlib.suppress(BlockingIOError, OSError):  # nothing more, or the end is down
            for _ in range(64):
                packet = os.read(end, 2 * MTU)
                if not self.cut and len(queue) < QUEUE and self._dice.random() >= self._loss:
                    heapq.heappush(queue, (due, next(self._count), packet))

    def _deliver(self) -> None:
        now = time.monotonic()
        for end, queue in self._under_way.items():
            while queue and queue[0][0] <= now:
                packet = heapq.heappop(queue)[2]
                with contextlib.suppress(OSError):  # the end is down
                    if not self.cut:
                        os.write(end, packet)


def main() -> None:
    first, second, delay, loss, seed = sys.argv[1:]
    relay = Relay((int(first), int(second)), float(delay), float(loss), int(seed))

    def set_cut(cut: bool) -> None:
        relay.cut = cut

    signal.signal(signal.SIGUSR1, lambda *_: set_cut(True))
    signal.signal(signal.SIGUSR2, lambda *_: set_cut(False))
    relay.run()


if __name__ == "__main__":
    main()
