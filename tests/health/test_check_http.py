"""A URL as a check, against a real server that lies as it is told."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.web import Fault, Proxy, Server
from updated.core.health import Look, Rule
from updated.core.link import LinkSettings
from updated.health.http import HttpCheck
from updated.readers.probe import MAX_BODY, Probe

Used = Callable[[], tuple[int, int]]
HEALTHY = b"<p>all systems well: 17 of 17</p>"


def nowhere(_: str) -> bool:
    return False


def everywhere(_: str) -> bool:
    return True


async def look(
    url: str, *, link: LinkSettings | None = None, local: Callable[[str], bool] = nowhere, **asked: Any
) -> Look:
    probe = Probe(link or LinkSettings(proxy=""), is_local=local)
    rule, period = Rule("http"), 5.0
    check = HttpCheck(rule, period=period, fetch=probe.fetch, close=probe.close, url=url, **asked)
    try:
        async with asyncio.timeout(check.limit):
            return await check.look()
    finally:
        await check.close()


def seen(used: Used, scene: Coroutine[Any, Any, Look]) -> Look:
    """What was seen; nothing is left of it."""

    async def main() -> Look:
        before = used()
        found = await scene
        for _ in range(50):  # a thread that looked a name up, the server's side of the connection
            if used() == before:
                break
            await asyncio.sleep(0.01)
        assert used() == before
        return found

    return asyncio.run(main())


async def served(fault: Fault | None = None, content: bytes = HEALTHY, **asked: Any) -> Look:
    async with Server({"/health": content}, {"/health": [fault] if fault else []}) as server:
        return await look(server.url("/health"), **asked)


def test_well(used: Used) -> None:
    assert seen(used, served()) == Look(True, "status 200")


def test_500_and_what_it_says(used: Used) -> None:
    found = seen(used, served(Fault(status=500, body=b"database\n is\x1b[31m gone")))
    assert found == Look(False, "status 500, expected 200: database is [31m gone")


def test_another_status_may_be_the_right_one(used: Used) -> None:
    assert seen(used, served(Fault(status=204), status=(200, 204))).ok
    found = seen(used, served(status=(204, 404)))
    assert found == Look(False, "status 200, expected 204 or 404: <p>all systems well: 17 of 17</p>")


@pytest.mark.parametrize(
    ("pattern", "ok"),
    [
        ("all systems well", True),  # without special characters: looked for at once
        ("all systems sick", False),
        (r"well: (\d+) of \1<", True),
        (r"well: (\d+) of (?!\1)", False),
        ("(?i)ALL SYSTEMS", True),
    ],
)
def test_what_the_answer_has_to_say(used: Used, pattern: str, ok: bool) -> None:
    found = seen(used, served(body=pattern))
    assert found.ok is ok
    if not ok:
        assert found.text.startswith(f"{pattern!r} is not in the answer, which is '<p>all systems well")


def test_text_in_any_language(used: Used) -> None:
    assert seen(used, served(content="état: prêt ✓".encode(), body="état: .*✓$")).ok
    assert seen(used, served(content=b"\xff\xfe well", body="w.ll")).ok


def test_a_pattern_that_tries_all_ways_does_not_stop_the_service(used: Used) -> None:
    """The event loop goes on meanwhile, and the process is gone in the end."""
    rounds = 0

    async def scene() -> Look:
        nonlocal rounds
        task = asyncio.create_task(served(content=b"a" * 64 + b"!", body=r"(a+)+$", timeout=0.5))
        while not task.done():
            await asyncio.sleep(0.01)
            rounds += 1
        return task.result()

    found = seen(used, scene())
    assert not found.ok
    assert found.text.endswith("did not finish within 1 s")
    assert rounds > 10


def test_the_beginning_of_a_huge_answer_is_enough(used: Used) -> None:
    async def scene() -> Look:
        faults = {"/health": [Fault(endless=True)]}
        async with Server({"/health": b"x" * (MAX_BODY - 4) + b"well" + b"sick"}, faults) as server:
            url = server.url("/health")
            assert not (await look(url, body="sick")).ok
            good = await look(url, body="well")
            assert server.sent["/health"] < 64 << 20
            return good

    assert seen(used, scene()).ok


def test_a_redirect_is_no_answer(used: Used) -> None:
    """A captive network's login page answers 200."""
    found = seen(used, served(Fault(redirect="/login")))
    assert found == Look(False, "status 302 (redirects are not followed), expected 200")
    assert seen(used, served(Fault(redirect="/login"), status=(302,))).ok


def test_a_server_that_never_answers(used: Used) -> None:
    found = seen(used, served(Fault(latency=60), timeout=0.2))
    assert found == Look(False, "no answer within 0.2 s")


def test_a_server_that_never_ends_its_answer(used: Used) -> None:
    """As streams of events do."""
    found = seen(used, served(Fault(cut=8, how="stall"), timeout=0.3))
    assert found == Look(True, "status 200")
    assert seen(used, served(Fault(cut=8, how="stall"), timeout=0.3, body="<p>all")).ok
    assert not seen(used, served(Fault(cut=8, how="stall"), timeout=0.3, body="well")).ok


def test_a_connection_that_breaks(used: Used) -> None:
    found = seen(used, served(Fault(cut=8, how="reset")))
    assert not found.ok
    assert "Failed to read http://127.0.0.1:" in found.text


def test_no_server(used: Used) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        found = seen(used, look(f"http://127.0.0.1:{port}/health?token=secret"))
    url = f"http://127.0.0.1:{port}/health?token=…"
    assert found == Look(False, f"Failed to read {url}: Connection refused")


def test_no_such_name(used: Used) -> None:
    found = seen(used, look("http://no-such-host.invalid/", timeout=20.0))
    assert not found.ok
    assert "the name of the server is not known" in found.text


def test_what_is_no_http(used: Used) -> None:
    async def scene() -> Look:
        async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
            await writer.drain()
            writer.close()
            await writer.wait_closed()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            return await look(f"http://127.0.0.1:{port}/")
        finally:
            server.close()
            await server.wait_closed()

    found = seen(used, scene())
    assert not found.ok
    assert "Failed to read" in found.text


def tls(certificates: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    return context


@pytest.mark.parametrize(("ca", "ok"), [("server.pem", True), ("stranger.pem", False), ("none.pem", False)])
def test_only_who_is_trusted(used: Used, certificates: Path, ca: str, ok: bool) -> None:
    async def scene() -> Look:
        async with Server({"/": HEALTHY}, tls=tls(certificates)) as server:
            link = LinkSettings(proxy="", tls_ca=str(certificates / ca))
            return await look(server.url("/"), link=link)

    found = seen(used, scene())
    assert found.ok is ok
    if ca == "stranger.pem":
        assert "the server's certificate is not good: " in found.text
    if ca == "none.pem":
        assert f"{certificates}/none.pem" in found.text


def test_this_device_is_not_reached_by_a_proxy(used: Used) -> None:
    async def scene() -> Look:
        async with Server({"/": HEALTHY}) as server, Proxy() as proxy:
            link = LinkSettings(proxy=proxy.url())
            assert (await look(server.url("/"), link=link)).ok
            assert len(proxy.requests) == 1
            found = await look(server.url("/"), link=link, local=everywhere)
            assert len(proxy.requests) == 1
            return found

    assert seen(used, scene()).ok


def test_the_secrets_of_the_updates_server_are_for_nobody_else(used: Used, tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    (tmp_path / "netrc").chmod(0o600)
    (tmp_path / "token").write_text("secret")
    link = LinkSettings(
        proxy="",
        headers=(("Device", "secret"),),
        bearer_file=str(tmp_path / "token"),
        netrc=str(tmp_path / "netrc"),
    )

    async def scene() -> Look:
        async with Server({"/": HEALTHY}) as server:
            found = await look(server.url("/"), link=link)
            assert "secret" not in str(server.requests)
            await look(server.url("/", user="a:b"), link=link)
            assert server.requests[-1].headers["authorization"].startswith("Basic ")
            return found

    assert seen(used, scene()).ok


def test_each_look_makes_a_connection_of_its_own(used: Used) -> None:
    async def scene() -> Look:
        async with Server({"/": HEALTHY}) as server:
            probe = Probe(LinkSettings(proxy=""), is_local=nowhere)
            check = HttpCheck(Rule("a"), period=5, fetch=probe.fetch, close=probe.close, url=server.url("/"))
            for _ in range(3):
                assert (await check.look()).ok
            assert server.connections == 3
            await check.close()
            found = await check.look()
            await check.close()
            return found

    assert seen(used, scene()).ok


def test_who_waits_for_an_answer_is_not_disturbed(used: Used) -> None:
    """One of two gates that share it has come to its end."""

    async def scene() -> Look:
        async with Server({"/": HEALTHY}, latency=0.2) as server:
            probe = Probe(LinkSettings(proxy=""), is_local=nowhere)
            asking = asyncio.create_task(probe.fetch(server.url("/"), 5))
            await asyncio.sleep(0.1)
            await probe.close()
            status, _ = await asking
            await probe.close()
            return Look(status == 200, "")

    assert seen(used, scene()).ok


def test_cancelled_it_leaves_nothing(used: Used) -> None:
    async def scene() -> Look:
        async with Server({"/": HEALTHY}, latency=60) as server:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await look(server.url("/"))
        return Look(True, "")

    seen(used, scene())
