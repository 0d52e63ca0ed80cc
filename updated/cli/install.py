"""`install`: hand a bundle to the service and watch."""

from __future__ import annotations

import asyncio
import sys

from updated.api.client import Client
from updated.cli.bundle_path import access, bundle
from updated.cli.main import INTERRUPTED, complain
from updated.cli.parser import Arguments, UsageError
from updated.cli.progress import Display, display
from updated.core.model import Access, InstallArgs
from updated.errors import DeviceError, UpdatedError

FAILED = 1  # the service tried and failed
NO_SERVICE = 2  # the service is not there, did not want to, or ended
RAUC_INTERRUPTED = 3

_TRANSFER_PERIOD = 0.5  # seconds between two looks at bytes and times; a person reads no faster


def install(arguments: Arguments) -> int:
    """Exit codes are RAUC's, but for Ctrl-C: 3 as `rauc`, 130 (which shells understand) as `updated`."""
    if arguments.flag("keyring"):
        raise UsageError(
            "The '--keyring' argument is not supported when using the D-Bus service. "
            "Reconfigure the service instead.",
            command=arguments.command,
        )
    location = bundle(arguments)
    args = InstallArgs(
        ignore_compatible=arguments.flag("ignore-compatible"),
        ignore_version_limit=arguments.flag("ignore-version-limit"),
        transaction_id=arguments.text("transaction-id") or "",
        require_manifest_hash=arguments.text("require-manifest-hash") or "",
    )
    watcher = _Watcher(location, args, access(arguments))
    try:
        return asyncio.run(watcher.run())
    except KeyboardInterrupt:
        return watcher.interrupted(RAUC_INTERRUPTED if arguments.program == "rauc" else INTERRUPTED)


class _Watcher:
    """One install, seen from outside."""

    def __init__(self, bundle: str, args: InstallArgs, access: Access) -> None:
        self._bundle = bundle
        self._args = args
        self._access = access
        self._accepted = False  # progress was seen, so the service works on it

    async def run(self) -> int:
        with display() as shown:
            try:
                async with Client() as client:
                    await self._watch(client, shown)
            except DeviceError as error:
                return self._no_service(error)
            except UpdatedError as error:
                if not self._accepted:
                    return self._no_service(error)
                shown.failed(str(error))
                return self._failed()
        print(f"Installing `{self._bundle}` succeeded")
        return 0

    async def _watch(self, client: Client, shown: Display) -> None:
        transfers = asyncio.create_task(_transfers(client, shown))
        try:
            async for step in client.install(self._bundle, self._args, self._access):
                self._accepted = True
                shown.step(step.percentage, step.message)
        finally:
            transfers.cancel()
            await asyncio.gather(transfers, return_exceptions=True)

    def _failed(self) -> int:
        sys.stdout.flush()
        print(f"Installing `{self._bundle}` failed", file=sys.stderr)
        return FAILED

    def _no_service(self, error: UpdatedError) -> int:
        sys.stdout.flush()
        complain(error, prefix="" if self._accepted else "Failed to contact rauc service: ")
        print(f"D-Bus error while installing `{self._bundle}`", file=sys.stderr)
        return NO_SERVICE

    def interrupted(self, code: int) -> int:
        print("\nCtrl+C pressed. Exiting rauc installation client...")
        if self._accepted:
            print("Note that this will not abort the installation running in the rauc service!", flush=True)
            print("hint: `updated cancel` stops it, `updated status` shows how far it is.", file=sys.stderr)
        return code


async def _transfers(client: Client, shown: Display) -> None:
    """Show bytes and times while a service of ours tells them."""
    try:
        while True:
            await asyncio.sleep(_TRANSFER_PERIOD)
            shown.moving(await client.status())
    except UpdatedError:
        return  # RAUC's own service does not know our interface
