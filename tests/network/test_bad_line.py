"""Installs over a line that loses packets, falls silent or is pulled; nginx's log counts the bytes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.network.conftest import MIB, Bundles, Target
from tests.network.line import Line, ip, line
from tests.network.nginx import Nginx, nginx
from updated.errors import SourceError

pytestmark = pytest.mark.root
SPARE = 128 * 1024  # bytes that may come twice
LOST = MIB  # bytes that were under way when a connection broke: nginx counts what its kernel took


@contextmanager
def far_nginx(bad: Line, folder: Path, bundles: Bundles, directives: str = "") -> Iterator[Nginx]:
    far = nginx(folder / "far", directives, address=bad.far, port=8080, prefix=bad.prefix)
    with far as server:
        (server.files / "verity.raucb").hardlink_to(bundles.verity)
        yield server


class Trouble:
    """Breaks the line when so much of the image is written, and mends it some seconds later."""

    def __init__(self, at: int, seconds: float, begin: Callable[[], None], end: Callable[[], None]) -> None:
        self._at = at
        self._begin = begin
        self._timer = threading.Timer(seconds, end)
        self.began = False

    def __call__(self, written: int) -> None:
        if written >= self._at and not self.began:
            self.began = True
            self._begin()
            self._timer.start()

    def cancel(self) -> None:
        self._timer.cancel()

    def over(self) -> bool:
        """Did it happen, and end?  Waits for that."""
        if self.began:
            self._timer.join()
        return self.began


def check_log(server: Nginx, bundles: Bundles, broken: int) -> None:
    """All came in parts, each byte once but for what was under way when `broken` connections broke."""
    server.stop()
    assert {request.status for request in server.requests()} == {206}
    assert server.sent() <= bundles.size + SPARE + broken * LOST


@pytest.mark.parametrize(("delay", "loss"), [(0.005, 0.01), pytest.param(0.03, 0.03, marks=pytest.mark.slow)])
def test_late_and_lost_packets(
    target: Target, bundles: Bundles, tmp_path: Path, delay: float, loss: float
) -> None:
    with line(delay=delay, loss=loss) as bad, far_nginx(bad, tmp_path, bundles) as server:
        located = target.install(server.url("verity.raucb"))
        assert target.holds_the_image
        check_log(server, bundles, broken=0)
        assert located.fetched == server.sent()


def test_silence_that_a_connection_survives(target: Target, bundles: Bundles, tmp_path: Path) -> None:
    with line(delay=0.01) as bad, far_nginx(bad, tmp_path, bundles, "limit_rate 8m;") as server:
        trouble = Trouble(2 * MIB, 0.5, bad.cut, bad.mend)
        target.install(server.url("verity.raucb"), on_bytes=trouble)
        assert trouble.over()
        assert target.holds_the_image
        check_log(server, bundles, broken=0)
        assert len({request.connection for request in server.requests()}) == 1


@pytest.mark.slow
@pytest.mark.parametrize("how", ["silence", "cable", "address"])
def test_the_line_breaks(target: Target, bundles: Bundles, tmp_path: Path, how: str) -> None:
    """For seconds nothing comes; then another connection goes on with the next byte."""
    target.link = replace(target.link, stall_timeout=1.0, connect_timeout=1.0)
    with line(delay=0.01) as bad, far_nginx(bad, tmp_path, bundles, "limit_rate 8m;") as server:
        begin, end = {
            "silence": (bad.cut, bad.mend),
            "cable": (bad.down, bad.up),
            "address": (lambda: moved(bad, bad.near, "198.51.100.9"), lambda: None),
        }[how]
        trouble = Trouble(2 * MIB, 2.5, begin, end)
        located = target.install(server.url("verity.raucb"), on_bytes=trouble)
        assert trouble.over()
        assert target.holds_the_image
        assert located.fetched <= bundles.size + SPARE  # what had come is kept
        check_log(server, bundles, broken=1)
        assert len({request.connection for request in server.requests()}) > 1


def moved(bad: Line, old: str, new: str) -> None:
    """The device gets another address, as after a modem has dialled in anew."""
    device = bad.device
    ip("addr", "del", old, "peer", bad.far, "dev", device)
    ip("addr", "add", new, "peer", bad.far, "dev", device)
    ip("-n", bad.namespace, "route", "add", new, "dev", bad.far_device)


@pytest.mark.slow
def test_many_breaks_on_a_bad_line(target: Target, bundles: Bundles, tmp_path: Path) -> None:
    """A cell modem on a train: the line is gone for a second, again and again."""
    target.link = replace(target.link, stall_timeout=0.7, connect_timeout=0.7)
    gone: list[float] = []
    with line(delay=0.02, loss=0.01) as bad, far_nginx(bad, tmp_path, bundles, "limit_rate 6m;") as server:

        def on_bytes(written: int) -> None:
            if written >= (len(gone) + 1) * MIB and len(gone) < 3:
                gone.append(time.monotonic())
                bad.cut()
                threading.Timer(1.0, bad.mend).start()

        located = target.install(server.url("verity.raucb"), on_bytes=on_bytes)
        assert len(gone) == 3
        assert target.holds_the_image
        assert located.fetched <= bundles.size + SPARE
        check_log(server, bundles, broken=3)


@pytest.mark.slow
def test_a_line_that_stays_broken(target: Target, bundles: Bundles, tmp_path: Path) -> None:
    target.link = replace(target.link, stall_timeout=0.5, connect_timeout=0.5)
    with line() as bad, far_nginx(bad, tmp_path, bundles, "limit_rate 8m;") as server:
        trouble = Trouble(2 * MIB, 60.0, bad.cut, bad.mend)
        with pytest.raises(SourceError, match=r"from byte \d+ on: .*; 5 tries brought nothing") as caught:
            target.install(server.url("verity.raucb"), on_bytes=trouble)
        assert caught.value.hint == "Check the network."
        trouble.cancel()
        bad.mend()
        target.install(server.url("verity.raucb"))
        assert target.holds_the_image
