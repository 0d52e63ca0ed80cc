"""`service`: run the update service in this process."""

from __future__ import annotations

from pathlib import Path

from updated.cli.parser import Arguments, UsageError
from updated.service.options import ServiceOptions


def options(arguments: Arguments) -> ServiceOptions:
    """What the command line says to the service."""

    def path(name: str) -> Path | None:
        text = arguments.text(name)
        return None if text is None else Path(text)

    defaults = ServiceOptions()
    return ServiceOptions(
        conf=path("conf"),
        overrides=arguments.texts("confopt"),
        agent_conf=path("agent-conf"),
        override_boot_slot=arguments.text("override-boot-slot"),
        runtime_directory=path("runtime-directory") or defaults.runtime_directory,
        cmdline=path("cmdline") or defaults.cmdline,
        boot_id=path("boot-id") or defaults.boot_id,
        keyring=path("keyring"),
        mount=path("mount"),
        handler_args=arguments.text("handler-args"),
        debug=arguments.flag("debug"),
    )


def run(arguments: Arguments) -> int:
    """Until the service is told to stop."""
    if arguments.positional:
        raise UsageError(f"Excess argument: {arguments.positional[0]}", command=arguments.command)
    from updated.service.main import run as run_service

    return run_service(options(arguments))
