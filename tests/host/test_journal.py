"""The native protocol, as a socket that reads it by its specification sees it."""

from __future__ import annotations

import array
import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from updated.core import events
from updated.host.journal import JournalHandler, PriorityFormatter, encode, stderr_is_journal, tell

Fields = dict[str, bytes]


def parsed(data: bytes) -> Fields:
    """systemd.io/JOURNAL_NATIVE_PROTOCOL, "Data Format"."""
    fields: Fields = {}
    while data:
        line, newline, rest = data.partition(b"\n")
        assert newline
        name, equals, value = line.partition(b"=")
        if not equals:
            size = int.from_bytes(rest[:8], "little")
            value, rest = rest[8 : 8 + size], rest[8 + size :]
            assert rest[:1] == b"\n"
            rest = rest[1:]
        assert name.decode("ascii") not in fields
        fields[name.decode("ascii")] = value
        data = rest
    return fields


class FakeJournald:
    """Its socket, and the stream that it gives services for stderr."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.bind(str(path))
        self.stream, self.stderr = socket.socketpair()
        self.stream.setblocking(False)
        self.sealed = 0  # entries that came in a file

    def entry(self) -> Fields:
        """The next one."""
        room = socket.CMSG_SPACE(array.array("i").itemsize)
        data, ancillary, flags, _ = self.socket.recvmsg(1 << 20, room, socket.MSG_CMSG_CLOEXEC)
        assert not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC)
        if not ancillary:
            return parsed(data)
        assert data == b""
        ((level, kind, rights),) = ancillary
        assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
        with os.fdopen(int.from_bytes(rights, "little"), "rb") as file:
            seals = fcntl.fcntl(file, fcntl.F_GET_SEALS)
            for seal in (fcntl.F_SEAL_SHRINK, fcntl.F_SEAL_GROW, fcntl.F_SEAL_WRITE, fcntl.F_SEAL_SEAL):
                assert seals & seal
            file.seek(0)
            self.sealed += 1
            return parsed(file.read())

    def entries(self) -> Iterator[Fields]:
        while True:
            try:
                yield self.entry()
            except BlockingIOError:
                return

    def on_stderr(self) -> str:
        try:
            return self.stream.recv(1 << 20).decode()
        except BlockingIOError:
            return ""


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[FakeJournald]:
    fake = FakeJournald(tmp_path / "socket")
    yield fake
    for each in (fake.socket, fake.stream, fake.stderr):
        each.close()


@pytest.fixture
def log(journald: FakeJournald) -> Iterator[logging.Logger]:
    """A logger that writes to it."""
    handler = JournalHandler(journald.path, stderr=journald.stderr.fileno())
    logger = logging.Logger("updated.test", logging.DEBUG)
    logger.addHandler(handler)
    yield logger
    handler.close()


def test_a_record_becomes_an_entry(journald: FakeJournald, log: logging.Logger) -> None:
    log.warning("half of %s", "it")
    entry = journald.entry()
    assert entry["MESSAGE"] == b"half of it"
    assert entry["PRIORITY"] == b"4"
    assert entry["SYSLOG_IDENTIFIER"] == b"updated"
    assert entry["LOGGER"] == b"updated.test"
    assert entry["CODE_FILE"].decode() == __file__
    assert entry["CODE_FUNC"] == b"test_a_record_becomes_an_entry"
    assert entry["CODE_LINE"].isdigit()
    assert "MESSAGE_ID" not in entry


@pytest.mark.parametrize(
    ("level", "priority"),
    [
        (logging.CRITICAL, b"3"),
        (logging.ERROR, b"3"),
        (logging.WARNING, b"4"),
        (logging.INFO, b"6"),
        (logging.DEBUG, b"7"),
        (logging.INFO + 5, b"6"),
    ],
)
def test_levels(journald: FakeJournald, log: logging.Logger, level: int, priority: bytes) -> None:
    log.log(level, "x")
    assert journald.entry()["PRIORITY"] == priority


def test_an_event_brings_its_fields_along(journald: FakeJournald, log: logging.Logger) -> None:
    event = events.marked_good("rootfs.1", "B", by="updated")
    log.info("marked %s", "rootfs.1", extra={"event": event})
    entry = journald.entry()
    assert entry["MESSAGE"] == b"marked rootfs.1"
    assert entry["MESSAGE_ID"].decode() == events.Id.MARKED_GOOD
    assert entry["SLOT_NAME"] == b"rootfs.1"
    assert entry["PRIORITY"] == b"5"


def test_an_event_is_told_from_where_it_is_told(journald: FakeJournald, log: logging.Logger) -> None:
    tell(log, events.degraded("100%s"))
    entry = journald.entry()
    assert entry["MESSAGE"] == b"Degraded: 100%s"
    assert entry["PRIORITY"] == b"3"
    assert entry["CODE_FUNC"] == b"test_an_event_is_told_from_where_it_is_told"


def test_what_is_called_event_but_is_none_is_no_event(journald: FakeJournald, log: logging.Logger) -> None:
    log.info("x", extra={"event": "an application's own"})
    assert "MESSAGE_ID" not in journald.entry()


def test_a_traceback_is_one_entry(journald: FakeJournald, log: logging.Logger) -> None:
    try:
        raise RuntimeError("why")
    except RuntimeError as error:
        log.error("a bug", exc_info=error)
    message = journald.entry()["MESSAGE"].decode()
    assert message.startswith("a bug\nTraceback")
    assert message.endswith("RuntimeError: why")
    assert list(journald.entries()) == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Grüße", "Grüße"),
        ("a\tb", "a\tb"),
        ("one\ntwo", "one\ntwo"),
        ("\x1b[2Jgone\x00\x7f\r", "\\x1b[2Jgone\\x00\\x7f\\x0d"),
        ("no\udcffutf\ud800", "no\\udcffutf\\ud800"),
        ("MESSAGE=x\nPRIORITY=0\n", "MESSAGE=x\nPRIORITY=0\n"),
        ("", ""),
    ],
)
def test_any_text_arrives(journald: FakeJournald, log: logging.Logger, text: str, shown: str) -> None:
    """journalctl would show "[blob data]" for control characters, and nobody can add a field."""
    log.info("%s", text)
    entry = journald.entry()
    assert entry["MESSAGE"].decode() == shown
    assert entry["PRIORITY"] == b"6"


def test_what_is_too_large_for_a_datagram_comes_in_a_sealed_file(
    journald: FakeJournald, log: logging.Logger
) -> None:
    text = "a line\n" * 1_000_000
    log.info("%s", text)
    assert journald.entry()["MESSAGE"].decode() == text
    assert journald.sealed == 1


def test_a_journal_that_is_away_for_a_while(journald: FakeJournald, log: logging.Logger) -> None:
    """Restarted, it has a new socket at the same path."""
    journald.path.unlink()
    log.error("into stderr")
    assert journald.on_stderr() == "<3>into stderr\n"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as new:
        new.bind(str(journald.path))
        log.info("and back")
        assert parsed(new.recv(1 << 16))["MESSAGE"] == b"and back"
    assert journald.on_stderr() == ""
    log.info("nobody listens there any more")
    assert journald.on_stderr() == "<6>nobody listens there any more\n"


def test_a_journal_that_does_not_read_blocks_nobody(journald: FakeJournald, log: logging.Logger) -> None:
    """First its queue is full, then the stream; what comes then is lost, and the service goes on."""
    journald.stderr.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    for number in range(2000):
        log.info("line %d", number)
    taken = [entry["MESSAGE"].decode() for entry in journald.entries()]
    overflow = journald.on_stderr().splitlines()
    assert taken == [f"line {number}" for number in range(len(taken))]
    assert overflow[0] == f"<6>line {len(taken)}"
    assert len(taken) + len(overflow) < 2000
    log.info("it reads again")
    assert journald.entry()["MESSAGE"] == b"it reads again"


def test_without_a_journal_and_a_stream_nothing_is_raised(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as no_socket:
        handler = JournalHandler(tmp_path / "none", stderr=no_socket.fileno())
        handler.handle(logging.makeLogRecord({"msg": "x"}))
        handler.close()
        handler.handle(logging.makeLogRecord({"msg": "after the end"}))
    assert (tmp_path / "file").read_bytes() == b""


def test_the_stream_is_the_journals_only_if_it_says_so(journald: FakeJournald) -> None:
    number = journald.stderr.fileno()
    status = os.fstat(number)
    told = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
    assert stderr_is_journal(told, number)
    assert not stderr_is_journal(told, journald.stream.fileno())  # redirected since
    assert not stderr_is_journal({}, number)
    assert not stderr_is_journal({"JOURNAL_STREAM": "rubbish"}, number)
    assert not stderr_is_journal(told, 10_000)


def test_lines_on_stderr_have_the_priority_of_the_event() -> None:
    record = logging.makeLogRecord({"msg": "two\nlines", "levelno": logging.INFO, "levelname": "INFO"})
    assert PriorityFormatter().format(record) == "<6>two\n<6>lines"
    record.event = events.service_stopping()
    assert PriorityFormatter().format(record) == "<5>two\n<5>lines"


def test_an_encoded_field_is_what_the_specification_shows() -> None:
    data = encode([("PRIORITY", "3"), ("BLOB", "xx\nx"), ("MESSAGE", "a=b")])
    assert data == b"PRIORITY=3\nBLOB\n\x04\0\0\0\0\0\0\0xx\nx\nMESSAGE=a=b\n"
