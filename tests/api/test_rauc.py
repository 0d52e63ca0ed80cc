"""Methods and properties of RAUC's interface, with their types."""

from __future__ import annotations

import asyncio
import json
import subprocess
from typing import Any

import pytest
from dbus_fast import MessageType, Variant

from tests.api.peer import PROPERTIES, RAUC, Peer, serving
from tests.fakes.agent import FakeAgent
from updated.core.link import header
from updated.core.model import Access, InstallArgs, Offer

APPLICATION_ERROR = "org.gtk.GDBus.UnmappedGError.Quark._g_2dio_2derror_2dquark.Code30"


def test_properties_and_their_types(bus: str) -> None:
    async def scenario() -> None:
        async with serving(bus, FakeAgent()) as peer:
            answer = await peer.ask(*RAUC[:2], PROPERTIES, "GetAll", "s", RAUC[2])
        assert answer.body == [
            {
                "Operation": Variant("s", "idle"),
                "LastError": Variant("s", ""),
                "Progress": Variant("(isi)", (0, "", 0)),
                "Compatible": Variant("s", "Test Board"),
                "Variant": Variant("s", "red"),
                "SystemVersion": Variant("s", "1.0"),
                "BootSlot": Variant("s", "A"),
            }
        ]

    asyncio.run(scenario())


def test_slot_status_types_and_absent_keys(bus: str) -> None:
    async def scenario() -> None:
        async with serving(bus, FakeAgent()) as peer:
            answer = await peer.rauc("GetSlotStatus")
        assert answer.signature == "a(sa{sv})"
        slots = dict(answer.body[0])
        assert list(slots) == ["rootfs.0", "appfs.0", "rootfs.1"]
        assert slots["rootfs.0"] == {
            "class": Variant("s", "rootfs"),
            "device": Variant("s", "/dev/null"),
            "type": Variant("s", "raw"),
            "state": Variant("s", "booted"),
            "bootname": Variant("s", "A"),
            "boot-status": Variant("s", "good"),
            "mountpoint": Variant("s", "/"),
            "bundle.compatible": Variant("s", "Test Board"),
            "bundle.version": Variant("s", "1.0"),
            "bundle.hash": Variant("s", "ab" * 32),
            "status": Variant("s", "ok"),
            "sha256": Variant("s", "cd" * 32),
            "size": Variant("t", 5 * 2**32),
            "installed.transaction": Variant("s", "tx-1"),
            "installed.timestamp": Variant("s", "2026-01-02T03:04:05Z"),
            "installed.count": Variant("u", 3),
            "activated.timestamp": Variant("s", "2026-01-02T03:04:06Z"),
            "activated.count": Variant("u", 2),
        }
        assert slots["appfs.0"] == {
            "class": Variant("s", "appfs"),
            "device": Variant("s", "/dev/zero"),
            "type": Variant("s", "ext4"),
            "state": Variant("s", "active"),
            "description": Variant("s", "Apps"),
            "parent": Variant("s", "rootfs.0"),
        }
        assert "status" not in slots["rootfs.1"]

    asyncio.run(scenario())


def test_inspect_bundle_wraps_containers_twice(bus: str) -> None:
    def twice(signature: str, value: object) -> Variant:
        return Variant("v", Variant(signature, value))

    async def scenario() -> None:
        async with serving(bus, FakeAgent()) as peer:
            answer = await peer.rauc(
                "InspectBundle", "sa{sv}", "/x.raucb", {"tls-no-verify": Variant("b", True)}
            )
        assert answer.signature == "a{sv}"
        (info,) = answer.body
        assert info["manifest-hash"] == Variant("s", "01" * 32)
        assert info["update"] == twice(
            "a{sv}",
            {
                "compatible": Variant("s", "Test Board"),
                "version": Variant("s", "2.0"),
                "description": Variant("s", "the next one"),
            },
        )
        assert info["bundle"] == twice(
            "a{sv}",
            {
                "format": Variant("s", "verity"),
                "verity-hash": Variant("s", bytes(range(32)).hex()),
                "verity-salt": Variant("s", "00" * 32),
                "verity-size": Variant("t", 4096),
            },
        )
        hooks = {"filename": Variant("s", "hook.sh"), "hooks": twice("as", ["install-check"])}
        assert info["hooks"] == twice("a{sv}", hooks)
        handler = {"filename": Variant("s", "handler.sh"), "args": Variant("s", "-x")}
        assert info["handler"] == twice("a{sv}", handler)
        assert info["meta"] == twice("a{sa{ss}}", {"label": {"key": "value"}})
        first, second = info["images"].value.value
        assert info["images"].value.signature == "aa{sv}"
        assert first == {
            "slot-class": Variant("s", "rootfs"),
            "filename": Variant("s", "rootfs.img"),
            "type": Variant("s", "raw"),
            "checksum": Variant("s", "ef" * 32),
            "size": Variant("t", 2**40),
            "hooks": Variant("as", ["pre-install"]),
        }
        assert second["hooks"] == Variant("as", [])
        assert second["adaptive"] == Variant("as", ["block-hash-index"])
        assert second["variant"] == Variant("s", "red")
        assert "size" not in second

    asyncio.run(scenario())


def test_short_answers(bus: str) -> None:
    async def scenario() -> None:
        agent = FakeAgent()
        async with serving(bus, agent) as peer:
            assert (await peer.rauc("Info", "s", "/x.raucb")).body == ["Test Board", "2.0"]
            assert (await peer.rauc("GetPrimary")).body == ["rootfs.0"]
            artifacts = await peer.rauc("GetArtifactStatus")
            assert (artifacts.signature, artifacts.body) == ("aa{sv}", [[]])
            mark = await peer.rauc("Mark", "ss", "good", "booted")
            assert mark.body == ["rootfs.0", "marked slot(s) rootfs.0 as good"]
        assert agent.marks == [("good", "booted")]

    asyncio.run(scenario())


def test_errors_carry_the_text_and_raucs_name(bus: str) -> None:
    async def scenario() -> None:
        agent = FakeAgent()
        agent.primary_error = "Unable to obtain primary element"
        async with serving(bus, agent) as peer:
            calls: list[tuple[tuple[Any, ...], str]] = [
                (("Info", "s", "/missing.raucb"), "Failed to open bundle for reading: /missing.raucb"),
                (("GetPrimary",), "Failed getting primary slot: Unable to obtain primary element\n"),
                (("Mark", "ss", "good", "x"), "Invalid slot name format: 'x'"),
                (
                    ("InspectBundle", "sa{sv}", "/x", {"ignore-compatible": Variant("b", True)}),
                    "Unsupported key: ignore-compatible",
                ),
            ]
            for call, text in calls:
                answer = await peer.rauc(*call)
                assert (answer.error_name, answer.body) == (APPLICATION_ERROR, [text])
            for unchanged in ("LastError", "Operation"):
                assert (await peer.get(RAUC, unchanged)).value in ("", "idle")

    asyncio.run(scenario())


def test_install_arguments_reach_the_service(bus: str) -> None:
    async def scenario() -> None:
        agent = FakeAgent()
        args = {
            "ignore-compatible": Variant("b", True),
            "ignore-version-limit": Variant("b", True),
            "transaction-id": Variant("s", "tx-9"),
            "require-manifest-hash": Variant("s", "ab"),
            "tls-cert": Variant("s", "c"),
            "tls-key": Variant("s", "k"),
            "tls-ca": Variant("s", "r"),
            "tls-no-verify": Variant("b", True),
            "http-headers": Variant("as", ["a: b", "c:d"]),
        }
        async with serving(bus, agent) as peer:
            answer = await peer.rauc("InstallBundle", "sa{sv}", "https://example.com/x.raucb", args)
            assert answer.message_type is MessageType.METHOD_RETURN
        wanted = InstallArgs(True, True, "tx-9", "ab")
        access = Access("c", "k", "r", tls_no_verify=True, headers=("a: b", "c:d"))
        assert agent.offers == [Offer("request", "https://example.com/x.raucb", wanted, access)]

    asyncio.run(scenario())


def test_inspect_bundle_reaches_a_server_as_it_is_told(bus: str) -> None:
    async def scenario() -> None:
        agent = FakeAgent()
        args = {"tls-ca": Variant("s", "/ca.pem"), "http-headers": Variant("as", ["X: y"])}
        async with serving(bus, agent) as peer:
            assert (await peer.rauc("InspectBundle", "sa{sv}", "https://h/x", args)).error_name is None
            assert (await peer.rauc("Info", "s", "https://h/y")).error_name is None
        asked = Access(tls_ca="/ca.pem", headers=("X: y",))
        assert agent.inspected == [("https://h/x", asked), ("https://h/y", Access())]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "headers",
    [["no colon"], [": x"], [""], ["a b: c"], ["X: a\r\nInjected: b"], ["X: \x7f"], ["ok: 1", "ä: 2"]],
)
def test_what_is_no_header_is_refused_before_anything_starts(bus: str, headers: list[str]) -> None:
    async def scenario() -> None:
        agent = FakeAgent()
        async with serving(bus, agent) as peer:
            for member in ("InstallBundle", "InspectBundle"):
                args = {"http-headers": Variant("as", headers)}
                answer = await peer.rauc(member, "sa{sv}", "https://h/x", args)
                assert answer.error_name == APPLICATION_ERROR
                assert answer.body[0].startswith("Invalid HTTP header ")
                assert "\n" not in answer.body[0]
        assert (agent.offers, agent.inspected) == ([], [])

    asyncio.run(scenario())


def test_headers_as_pairs() -> None:
    assert header("Authorization: Bearer a:b=") == ("Authorization", "Bearer a:b=")
    assert header("X-Empty:") == ("X-Empty", "")
    assert header("X:\t a\tb \t") == ("X", "a\tb")


def test_a_rejected_argument_starts_nothing(bus: str) -> None:
    async def scenario() -> None:
        agent = FakeAgent()
        async with serving(bus, agent) as peer:
            answer = await peer.rauc("InstallBundle", "sa{sv}", "/x", {"transaction-id": Variant("b", True)})
            assert answer.body == ["Unsupported key: transaction-id"]
            assert (await peer.get(RAUC, "Operation")).value == "idle"
        assert agent.offers == []
        assert peer.heard[-1] == ("reply", "idle")

    asyncio.run(scenario())


def test_a_bug_in_a_handler_is_an_error_reply(bus: str, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with serving(bus, FakeAgent()) as peer:
            answer = await peer.rauc("Info", "s", "/bug.raucb")
            assert answer.error_name == "org.freedesktop.DBus.Error.Failed"
            assert answer.body == ["internal error: KeyError"]
            assert (await peer.rauc("GetPrimary")).body == ["rootfs.0"]

    asyncio.run(scenario())
    assert "de.pengutronix.rauc.Installer.Info failed" in caplog.text


def test_unprintable_texts_do_not_break_the_wire(bus: str) -> None:
    async def scenario() -> None:
        agent = FakeAgent()
        async with serving(bus, agent) as peer:
            agent.last_error("file \udcff\0 is bad")
            await peer.until("changed", "Installer", {"LastError": "file ?� is bad"})

    asyncio.run(scenario())


def test_values_that_do_not_change_make_no_signal(bus: str) -> None:
    async def scenario() -> None:
        agent = FakeAgent()
        async with serving(bus, agent) as peer:
            for _ in range(2):
                agent.step(5, "Installing", 1)
                agent.last_error("")
            agent.completed(0)
            heard = await peer.until("Completed", 0)
        rauc = [event for event in heard if event[1] != "Agent1"]
        assert rauc == [("changed", "Installer", {"Progress": [5, "Installing", 1]}), ("Completed", 0)]

    asyncio.run(scenario())


def test_concurrent_clients_hear_the_same(bus: str) -> None:
    async def scenario() -> None:
        idle = ("changed", "Installer", {"Operation": "idle"})
        async with serving(bus, FakeAgent()) as first, Peer(bus) as second:
            await first.rauc("InstallBundle", "sa{sv}", "/x", {})
            one, other = await first.until(*idle), await second.until(*idle)
        assert [e for e in one if e[0] != "reply"] == other

    asyncio.run(scenario())


async def run(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


def test_gdbus_and_busctl_see_the_same_types(bus: str) -> None:
    async def scenario() -> None:
        async with serving(bus, FakeAgent()):
            gdbus = ["gdbus", "call", f"--address={bus}", "-d", RAUC[0], "-o", RAUC[1], "-m"]
            assert await run(*gdbus, f"{RAUC[2]}.GetPrimary") == "('rootfs.0',)\n"
            progress = await run(*gdbus, f"{PROPERTIES}.Get", RAUC[2], "Progress")
            assert progress == "(<(0, '', 0)>,)\n"
            slots = await run(*gdbus, f"{RAUC[2]}.GetSlotStatus")
            assert "'size': <uint64 21474836480>" in slots
            assert "'installed.count': <uint32 3>" in slots
            info = await run(*gdbus, f"{RAUC[2]}.InspectBundle", "/x.raucb", "{}")
            assert "'update': <<{" in info
            busctl = ["busctl", f"--address={bus}", "-j", "call", *RAUC, "GetSlotStatus"]
            assert json.loads(await run(*busctl))["type"] == "a(sa{sv})"
            tree = await run("busctl", f"--address={bus}", "tree", "--list", RAUC[0])
            assert tree.split() == ["/", "/org", "/org/updated", "/org/updated/Agent1"]

    asyncio.run(scenario())
