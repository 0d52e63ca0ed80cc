"""The help texts, laid out as GLib's GOption lays out RAUC's."""

from __future__ import annotations

from collections.abc import Sequence

from updated.cli.commands import COMMANDS, GENERAL
from updated.cli.parser import Arguments, Command, Option

_ENVIRONMENT = (
    ("RAUC_KEY_PASSPHRASE", "Passphrase to use for accessing key files (signing only)"),
    ("DBUS_STARTER_BUS_TYPE", "`session` to talk to a service on the session bus"),
    ("NO_COLOR", "Set to leave out colors"),
)


def show(arguments: Arguments) -> int:
    """`help`: print the general help."""
    print(text(arguments.program, None), end="")
    return 0


def text(program: str, command: Command | None) -> str:
    """The help of a command, or the general one."""
    if command is None or command.name == "help":
        return _general(program)
    blocks = [f"Usage:\n  {program} [OPTION…] {command.name} {command.usage}".rstrip()]
    blocks.append(command.about or command.summary)
    if not command.handler:
        blocks.append("Not supported yet.")
    own = {option.name for option in command.options}
    shown = [option for option in command.options if program != "rauc" or not option.ours]
    general = [option for option in GENERAL if option.name not in own]
    width = _width((*shown, *general))
    if shown:
        blocks.append(_options(f"{command.name.capitalize()} options:", shown, width))
    blocks.append(_options("Application Options:", general, width))
    return "\n\n".join(blocks) + "\n"


def _general(program: str) -> str:
    def listed(title: str, rows: Sequence[tuple[str, str]]) -> str:
        return "\n".join([title, *(f"  {name:<24}{about}" for name, about in rows)])

    known = [command for command in COMMANDS if command.handler and command.name != "help"]
    commands = [listed("List of commands:", [(c.name, c.summary) for c in known if not c.ours])]
    if program != "rauc":
        ours = [(c.name, c.summary) for c in known if c.ours]
        commands.append(listed("List of commands that RAUC does not have:", ours))
    return "\n\n".join(
        (
            f"Usage:\n  {program} [OPTION…] <COMMAND>",
            _options("Options:", GENERAL, _width(GENERAL)),
            f"Command-specific help:\n  {program} <COMMAND> --help",
            *commands,
            listed("Environment variables:", _ENVIRONMENT) + "\n",
        )
    )


def _options(title: str, options: Sequence[Option], width: int) -> str:
    rows = [f"  {_left(option):<{width}}{option.help}" for option in options if not option.hidden]
    return "\n".join([title, *rows])


def _width(options: Sequence[Option]) -> int:
    return max(len(_left(option)) for option in options if not option.hidden) + 5


def _left(option: Option) -> str:
    short = f"-{option.short}, " if option.short else ""
    value = f"={option.metavar}" if option.metavar else ""
    return f"{short}--{option.name}{value}"
