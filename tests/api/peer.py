"""A bare client that keeps everything it hears in order, and the real `rauc service` as a peer."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from dbus_fast import Message, MessageFlag, MessageType

from tests.fakes.agent import FakeAgent
from updated.api.bus import connect, disconnect, post
from updated.api.server import serve
from updated.api.watch import plain

RAUC = ("de.pengutronix.rauc", "/", "de.pengutronix.rauc.Installer")
AGENT1 = ("org.updated.Agent1", "/org/updated/Agent1", "org.updated.Agent1")
PROPERTIES = "org.freedesktop.DBus.Properties"
DEADLINE = 10.0  # seconds; far beyond what anything here takes


class Peer:
    """Calls, and what came back: (`error` or `reply`, ...) and signals in `heard`, in wire order."""

    def __init__(self, address: str) -> None:
        self._address = address
        self.heard: list[tuple[Any, ...]] = []
        self._news = asyncio.Event()

    async def __aenter__(self) -> Peer:
        self.bus = await connect(self._address)
        self.bus.add_message_handler(self._hear)
        for name in (RAUC[0], AGENT1[0]):
            await self.ask(
                "org.freedesktop.DBus",
                "/org/freedesktop/DBus",
                "org.freedesktop.DBus",
                "AddMatch",
                "s",
                f"type='signal',sender='{name}'",
            )
        self.heard.clear()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bus.connected:
            await asyncio.wait_for(disconnect(self.bus), DEADLINE)

    async def ask(
        self, name: str, path: str, interface: str | None, member: str, signature: str = "", *body: Any
    ) -> Message:
        call = Message(name, path, interface, member, signature=signature, body=[*body])
        return await asyncio.wait_for(self.bus.call(call), DEADLINE)

    async def rauc(self, member: str, signature: str = "", *body: Any) -> Message:
        return await self.ask(*RAUC, member, signature, *body)

    async def agent1(self, member: str, signature: str = "", *body: Any) -> Message:
        return await self.ask(*AGENT1, member, signature, *body)

    async def get(self, service: tuple[str, str, str], name: str) -> Any:
        reply = await self.ask(*service[:2], PROPERTIES, "Get", "ss", service[2], name)
        assert reply.signature == "v", reply.body
        return reply.body[0]

    def send(self, service: tuple[str, str, str], member: str, signature: str = "", *body: Any) -> None:
        """A call whose answer nobody waits for."""
        flags = MessageFlag.NO_REPLY_EXPECTED
        post(self.bus, Message(*service, member, signature=signature, body=[*body], flags=flags))

    async def until(self, *last: Any) -> list[tuple[Any, ...]]:
        """Everything heard up to `last`."""
        async with asyncio.timeout(DEADLINE):
            while last not in self.heard:
                self._news.clear()
                await self._news.wait()
        return self.heard[: self.heard.index(last) + 1]

    def _hear(self, message: Message) -> bool:
        self._news.set()
        if message.message_type is MessageType.ERROR:
            self.heard.append(("error", message.error_name, message.body[0]))
        elif message.message_type is MessageType.METHOD_RETURN:
            self.heard.append(("reply", *plain(message.body)))
        elif message.member == "PropertiesChanged":
            interface, changed, invalidated = message.body
            assert invalidated == []
            self.heard.append(("changed", interface.rpartition(".")[2], plain(changed)))
        elif message.message_type is MessageType.SIGNAL and message.interface in (RAUC[2], AGENT1[2]):
            self.heard.append((message.member, *plain(message.body)))
        return False


@asynccontextmanager
async def serving(address: str, agent: FakeAgent) -> AsyncIterator[Peer]:
    """Our service over `agent` on the bus, and a peer that listens to it."""
    server = await serve(agent, address=address)
    try:
        async with Peer(address) as peer:
            yield peer
    finally:
        await server.close()


class RealRauc:
    """Keys, two slots in files, a GRUB environment and bundles for the real `rauc` in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.good = folder / "good.raucb"
        self.foreign = folder / "foreign.raucb"
        self._run(
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-keyout", "key.pem", "-out", "cert.pem", "-subj", "/CN=test", "-days", "3650"),
        )
        self._bundle("Real", self.good)
        self._bundle("Foreign", self.foreign)
        self.fresh()

    def fresh(self) -> None:
        """Slots and bootloader as after production."""
        for name in ("a.img", "b.img"):
            (self.folder / name).write_bytes(bytes(65536))
            (self.folder / f"{name}.raucs").unlink(missing_ok=True)
        (self.folder / "mnt").mkdir(exist_ok=True)
        self._run("grub-editenv", "env", "create")
        self._run("grub-editenv", "env", "set", "A_OK=1", "A_TRY=0", "B_OK=1", "B_TRY=0", "ORDER=A B")
        (self.folder / "system.conf").write_text(
            f"[system]\ncompatible=Real\nbootloader=grub\ngrubenv={self.folder}/env\n"
            f"mountprefix={self.folder}/mnt\nstatusfile={self.folder}/central.raucs\n"
            f"[keyring]\npath={self.folder}/cert.pem\n"
            f"[slot.rootfs.0]\ndevice={self.folder}/a.img\nbootname=A\n"
            f"[slot.rootfs.1]\ndevice={self.folder}/b.img\nbootname=B\n"
        )

    @contextmanager
    def service(self, address: str) -> Iterator[subprocess.Popen[bytes]]:
        """`rauc service` on the bus at `address`."""
        command = ["rauc", "-c", f"{self.folder}/system.conf", "--override-boot-slot=A", "service"]
        environment = os.environ | {
            "DBUS_STARTER_BUS_TYPE": "session",
            "DBUS_SESSION_BUS_ADDRESS": address,
        }
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            asyncio.run(_wait_for_rauc(address))
            yield process
        finally:
            process.terminate()
            process.wait(10)

    def _bundle(self, compatible: str, path: Path) -> None:
        content = self.folder / compatible
        content.mkdir()
        (content / "rootfs.img").write_bytes(bytes(range(256)) * 128)
        (content / "manifest.raucm").write_text(
            f"[update]\ncompatible={compatible}\nversion=2\n[image.rootfs]\nfilename=rootfs.img\n"
        )
        self._run("rauc", "--cert", "cert.pem", "--key", "key.pem", "bundle", str(content), str(path))

    def _run(self, *command: str) -> None:
        subprocess.run(command, cwd=self.folder, check=True, capture_output=True)


async def _wait_for_rauc(address: str) -> None:
    async with Peer(address) as peer:
        for _ in range(1000):
            if (await peer.rauc("GetPrimary")).message_type is not MessageType.ERROR:
                return
            await asyncio.sleep(0.01)
    raise RuntimeError("rauc service does not answer")
